// The model of the conversation list: which conversations are known, what the filter lets through, and how events change them.
//
// 1. A row is only ever replaced by one of a higher `version`, so snapshots and replayed events may come in any order and twice.
// 2. An event that does not follow its row's version, or says less than the row shows, makes the row be read again.
// 3. While anything is being read, events are kept and folded into what comes back: nothing falls between the two.
// 4. Activity in a conversation that is not loaded makes the head of the list be read again, at most every HEAD_EVERY ms: the cost of a
//    busy tenant is bounded, however many conversations it has.
// No DOM here.

import { Problem } from "./api.js";
import { contactName } from "./format.js";

const PAGE = 60;
const HEAD_EVERY = 500; // ms
const HEAD_PAGES = 5;
const REREADS_AT_ONCE = 4;

const MEDIA_LIKE = { location: "[location]", contacts: "[contacts]", welcome: "[opened the chat]" };

const RANKS = { sent: 1, failed: 2, delivered: 3, read: 4, played: 5 };

/** Return how far a status is: failed is final unless a later delivered proves it wrong, hence its place. 0: none. */
export const rankOf = (status) => RANKS[status] ?? 0;

/** Return one line for a list, as protocol/content.py's `preview` does. */
export function previewOf(content) {
  const line = {
    text: () => content.body,
    media: () => content.caption || content.filename || `[${content.kind}]`,
    location: () => content.name || content.address,
    reply: () => content.title || `[${content.source}]`,
    reaction: () => content.emoji || "[reaction removed]",
    order: () => `[order: ${content.items.length}]`,
    unsupported: () => `[${content.provider_type}]`,
  }[content.type]?.();
  return [...(line || MEDIA_LIKE[content.type] || `[${content.type}]`).split(/\s+/).join(" ").trim()].slice(0, 160).join("");
}

/**
 * Return the row after an event frame that follows it, as protocol/machines/summary.py does; `null` if the event is in it already,
 * `undefined` if only the gateway can tell.
 * `last_id`, known once a message was seen live, says which message `last_status` is about.
 */
export function foldRow(row, { version, event }) {
  if (version <= row.version) return null;
  if (version !== row.version + 1) return undefined;
  const next = { ...row, version };
  switch (event.type) {
    case "message_recorded": {
      const outbound = event.outbound ?? false;
      const history = event.origin === "history";
      next.messages++;
      if (history && event.at < row.last_at) return next;
      if (!history && event.content.type !== "reaction") next.unanswered = outbound ? 0 : row.unanswered + 1;
      return Object.assign(next, {
        preview: previewOf(event.content), last_at: Math.max(row.last_at, event.at), last_outbound: outbound,
        last_status: outbound ? (event.status ?? null) : null, last_id: event.message_id,
      });
    }
    case "message_completed":
    case "message_edited":
    case "message_revoked":
      if (row.last_id === undefined) return undefined;
      if (row.last_id !== (event.original_id ?? event.message_id)) return next;
      return Object.assign(next, { preview: event.type === "message_revoked" ? "[deleted]" : previewOf(event.content) });
    case "receipt_recorded":
      if (!row.last_outbound || rankOf(event.current) <= rankOf(row.last_status)) return next;
      if (row.last_id === undefined) return undefined;
      return row.last_id === event.message_id ? Object.assign(next, { last_status: event.current }) : next;
    case "call_recorded":
      return Object.assign(next, { last_at: Math.max(row.last_at, event.at) });
    case "contact_identified":
      return Object.assign(next, { contact: event.contact, name: contactName(event.contact) });
    case "conversation_merged":
      return Object.assign(next, { merged_into: event.into });
    case "preference_set":
    case "unknown_kept":
      return next;
    default:
      return undefined;
  }
}

const newestFirst = (a, b) => b.last_at - a.last_at || (a.id < b.id ? 1 : -1);

export class Inbox {
  filter = { q: "", unanswered: false, endpoint: "" };
  /** idle, loading, more, failed: what the list shows besides its rows. */
  phase = "loading";
  problem = null;

  #api;
  #onchange;
  #rows = new Map();
  #cursor = null;
  #reading = new AbortController();
  #latest = null;
  #afresh = false;
  #readsOpen = 0;
  #keptFrames = [];
  #headTimer = null;
  #headReadAt = 0;
  #stale = new Set();
  #rereads = 0;

  /** `onchange(active)`: rows or phase changed; `active` are the ids that had something new to say. */
  constructor(api, onchange) {
    this.#api = api;
    this.#onchange = onchange;
  }

  /** Read nothing more. */
  close() {
    this.#reading.abort();
    clearTimeout(this.#headTimer);
    this.#stale.clear();
  }

  get(id) {
    return this.#rows.get(id);
  }

  get complete() {
    return this.#cursor === null;
  }

  /** Return the ids that the filter lets through, newest activity first. */
  order() {
    const { unanswered, endpoint } = this.filter;
    return [...this.#rows.values()]
      .filter((row) => row.listed && row.merged_into === null && (!unanswered || row.unanswered > 0) && (!endpoint || row.endpoint === endpoint))
      .sort(newestFirst)
      .map((row) => row.id);
  }

  /**
   * Read the list anew, under another filter where one is given; `afresh` forgets all that was known (another feed epoch counts versions anew).
   * Resolves to the feed position it stands for, null if it failed; a load that another overtakes resolves to the other's.
   */
  load(filter = this.filter, afresh = false) {
    this.filter = filter;
    this.#afresh ||= afresh;
    this.#latest = this.#load();
    return this.#latest;
  }

  async #load() {
    this.#reading.abort();
    this.#reading = new AbortController();
    this.phase = "loading";
    this.#onchange(new Set());
    try {
      const page = await this.#read(() => this.#api.conversations(this.#query(), this.#reading.signal), (answer) => {
        if (this.#afresh) this.#rows.clear();
        this.#afresh = false;
        for (const row of this.#rows.values()) row.listed = false;
        this.#merge(answer.data);
        this.#cursor = answer.next_cursor;
      });
      this.phase = "idle";
      this.#onchange(new Set());
      return page.feed;
    } catch (error) {
      if (error.name === "AbortError") return this.#latest;
      this.#failed(error);
      return null;
    }
  }

  /** Read the next page, unless there is none or one is on its way. */
  async more() {
    if (this.phase !== "idle" || this.#cursor === null) return;
    this.phase = "more";
    try {
      await this.#read(() => this.#api.conversations({ ...this.#query(), cursor: this.#cursor }, this.#reading.signal), (answer) => {
        this.#merge(answer.data);
        this.#cursor = answer.next_cursor;
      });
      this.phase = "idle";
      this.#onchange(new Set());
    } catch (error) {
      this.#failed(error);
    }
  }

  /** Return one conversation, read if it is not known. It does not enter the list by that. */
  async find(id) {
    if (!this.#rows.has(id)) {
      await this.#read(() => this.#api.conversation(id), ({ data }) => this.#keep(data, false));
    }
    return this.#rows.get(id);
  }

  /** Fold event frames, in the feed's order. */
  fold(frames) {
    if (this.#readsOpen) this.#keptFrames.push(...frames);
    this.#onchange(this.#apply(frames));
  }

  #apply(frames) {
    const active = new Set();
    for (const frame of frames) {
      const row = this.#rows.get(frame.conversation);
      const speaks = frame.event.type === "message_recorded";
      if (row === undefined) {
        if (speaks) this.#readHeadSoon();
        continue;
      }
      const next = foldRow(row, frame);
      if (next === undefined) this.#rereadSoon(row.id);
      else if (next !== null) this.#rows.set(row.id, next);
      if (speaks && next !== null) active.add(row.id);
      if (speaks && !row.listed) this.#readHeadSoon();
    }
    return active;
  }

  #query() {
    const { q, unanswered, endpoint } = this.filter;
    return { q, endpoint, unanswered: unanswered || null, limit: PAGE };
  }

  #keep(row, listed) {
    const known = this.#rows.get(row.id);
    if (known === undefined || row.version > known.version) {
      const last_id = known?.messages === row.messages ? known.last_id : undefined;
      this.#rows.set(row.id, { ...row, last_id, listed: listed || (known?.listed ?? false) });
    } else {
      known.listed ||= listed;
    }
    return known === undefined || !known.listed;
  }

  #merge(rows) {
    return rows.filter((row) => this.#keep(row, true)).map((row) => row.id);
  }

  async #read(ask, merge) {
    this.#readsOpen++;
    try {
      const answer = await ask();
      merge(answer);
      this.#apply(this.#keptFrames);
      return answer;
    } finally {
      if (--this.#readsOpen === 0) this.#keptFrames = [];
    }
  }

  #failed(error) {
    if (error.name === "AbortError") return; // another load took its place and speaks for itself
    this.phase = "failed";
    this.problem = error;
    this.#onchange(new Set());
  }

  #readHeadSoon() {
    if (this.#headTimer !== null) return;
    const wait = Math.max(50, this.#headReadAt + HEAD_EVERY - Date.now());
    this.#headTimer = setTimeout(() => this.#readHead(), wait);
  }

  /** Read from the top until a page meets what is known; a head that never does means a gap, so the list starts anew. */
  async #readHead() {
    const { signal } = this.#reading;
    const arrived = new Set();
    let cursor = null;
    try {
      for (let pages = 0; pages < HEAD_PAGES; pages++) {
        let known = 0;
        const answer = await this.#read(() => this.#api.conversations({ ...this.#query(), cursor }, signal), ({ data }) => {
          const fresh = this.#merge(data);
          known = data.length - fresh.length;
          for (const id of fresh) arrived.add(id);
        });
        cursor = answer.next_cursor;
        if (known > 0 || cursor === null) break;
      }
      this.#onchange(arrived);
    } catch (error) {
      this.#failed(error);
    } finally {
      this.#headReadAt = Date.now();
      this.#headTimer = null;
    }
  }

  #rereadSoon(id) {
    this.#stale.add(id);
    if (this.#rereads < REREADS_AT_ONCE) this.#reread();
  }

  async #reread() {
    this.#rereads++;
    try {
      for (const id of this.#stale) {
        this.#stale.delete(id); // before it is read: what happens meanwhile may ask for it again
        await this.#read(() => this.#api.conversation(id), ({ data }) => this.#keep(data, false));
        this.#onchange(new Set());
      }
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.#stale.clear(); // the next event of each row will ask again; a lost connection is the status bar's to tell
    } finally {
      this.#rereads--;
    }
  }
}
