// How values read to a person: times, names, money, links. Pure but for the locale and the clock that the caller passes in.

const CLOCK = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const WEEKDAY = new Intl.DateTimeFormat(undefined, { weekday: "short" });
const SHORT_DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const LONG_DAY = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long", year: "numeric" });
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const RELATIVE_DAY = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });
const NUMBER = new Intl.NumberFormat();

const MINUTE = 60_000;
const DAY = 86_400_000;

export const clock = (at) => CLOCK.format(at);
export const fullTime = (at) => FULL.format(at);
export const count = (number) => NUMBER.format(number);

/** Return how many midnights lie between two times, in the reader's zone. */
function daysBetween(earlier, later) {
  return Math.round((new Date(later).setHours(0, 0, 0, 0) - new Date(earlier).setHours(0, 0, 0, 0)) / DAY);
}

/** Return a key that is equal for times of the same day in the reader's zone. */
export const dayKey = (at) => new Date(at).setHours(0, 0, 0, 0);

/** Return a day as a heading: today, yesterday, or the date. */
export function dayLabel(at, now = Date.now()) {
  const days = daysBetween(at, now);
  if (days !== 0 && days !== 1) return LONG_DAY.format(at);
  const label = RELATIVE_DAY.format(-days, "day");
  return label.charAt(0).toLocaleUpperCase() + label.slice(1);
}

/** Return a time as short as a list wants it: now, 5 min, 14:02, Tue, 3 May. */
export function shortTime(at, now = Date.now()) {
  const age = now - at;
  if (age < MINUTE) return "now";
  if (age < 60 * MINUTE) return `${Math.floor(age / MINUTE)} min`;
  const days = daysBetween(at, now);
  if (days < 1) return CLOCK.format(at);
  return days < 7 ? WEEKDAY.format(at) : SHORT_DAY.format(at);
}

/** Return what to call the contact of a conversation; `name` is what the gateway shows, the rest is what it knows. */
export function contactName(contact, name = contact.name) {
  return name || contact.username || (contact.phone ? phoneNumber(contact.phone) : contact.user_id || contact.group_id || "Unknown contact");
}

export const phoneNumber = (digits) => `+${digits}`;

/** Return an amount of money. `amount` is a decimal text and never becomes a binary float on the way. */
export function money(amount, currency) {
  try {
    return new Intl.NumberFormat(undefined, { style: "currency", currency }).format(amount);
  } catch {
    return `${amount} ${currency}`; // RangeError: the provider's currency is no ISO 4217 code
  }
}

/** Return the exact sum of `price × quantity` over order lines of one currency, as decimal text; null where a price is no plain decimal. */
export function orderTotal(items) {
  if (!items.every(({ price, quantity }) => /^\d{1,18}(\.\d{1,9})?$/.test(price) && Number.isSafeInteger(quantity))) return null;
  const scale = 9;
  const sum = items.reduce((total, { price, quantity }) => {
    const [whole, fraction = ""] = price.split(".");
    return total + BigInt(whole + fraction.padEnd(scale, "0")) * BigInt(quantity);
  }, 0n);
  const digits = sum.toString().padStart(scale + 1, "0");
  return `${digits.slice(0, -scale)}.${digits.slice(-scale)}`;
}

/** Return `text` if it is an absolute http(s) address, else null: a contact never gets to choose another scheme. */
export function safeUrl(text) {
  const url = URL.parse(text ?? "");
  return url && (url.protocol === "https:" || url.protocol === "http:") ? url.href : null;
}

const LINK = /\bhttps?:\/\/[^\s<>"'`\u200b]+[^\s<>"'`\u200b.,;:!?)\]}]/giu;

/** Return `text` cut into pieces `{text, href?}` at the addresses in it. */
export function linkPieces(text) {
  const pieces = [];
  let end = 0;
  for (const match of text.matchAll(LINK)) {
    const href = safeUrl(match[0]);
    if (href === null) continue;
    if (match.index > end) pieces.push({ text: text.slice(end, match.index) });
    pieces.push({ text: match[0], href });
    end = match.index + match[0].length;
  }
  if (end < text.length) pieces.push({ text: text.slice(end) });
  return pieces;
}

/** Tell whether `text` is one to three emoji and nothing else: shown large, as people expect. */
export function isJumbo(text) {
  if (text.length > 40 || !/^[\p{Extended_Pictographic}\p{Emoji_Component}\s]+$/u.test(text) || /^[\d\s#*]+$/.test(text)) return false;
  return [...new Intl.Segmenter().segment(text.replace(/\s/g, ""))].length <= 3;
}

/** Return text that the provider sends as JSON, indented; as it is where it is none. */
export function prettyJson(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text; // a flow's answer is the user's to write: anything may stand there
  }
}
