// What a message says, as nodes: one renderer a content type of protocol/content.py. Everything in it was written by a stranger.

import { h, icon } from "./dom.js";
import { isJumbo, linkPieces, money, orderTotal, phoneNumber, prettyJson, safeUrl } from "./format.js";

const MEDIA = {
  image: ["image", "Photo"],
  video: ["video", "Video"],
  audio: ["audio", "Audio"],
  document: ["document", "Document"],
  sticker: ["sticker", "Sticker"],
};
const REPLIES = {
  button: "Tapped a button", list: "Chose from a list", flow: "Completed a form", template_button: "Tapped a template's button",
  call_permission: "Answered a call request",
};

const outside = (href, ...children) => h("a", { href, target: "_blank", rel: "noopener noreferrer nofollow ugc" }, ...children);

/** Return a paragraph of text with its web addresses as links. */
export function paragraph(text, properties = {}) {
  const pieces = linkPieces(text).map((piece) => (piece.href ? outside(piece.href, piece.text) : piece.text));
  return h("p", { class: "text", dir: "auto", ...properties }, pieces);
}

const card = (name, ...children) =>
  h("div", { class: "card" }, h("span", { class: "card-icon" }, icon(name)), h("div", { class: "card-body" }, ...children));
const strong = (text) => h("strong", { dir: "auto" }, text);
const faint = (text) => h("small", { dir: "auto" }, text);

/** Return raw data, folded away until somebody wants to see it. */
export function rawJson(payload, label = "Show data") {
  const text = typeof payload === "string" ? prettyJson(payload) : JSON.stringify(payload, null, 2);
  return h("details", { class: "raw" }, h("summary", {}, label), h("pre", { tabindex: "0" }, text));
}

function text({ body }) {
  return [paragraph(body, isJumbo(body) ? { class: "text jumbo" } : {})];
}

function media({ kind, mime_type, caption, filename, voice, animated }) {
  const [name, label] = MEDIA[kind] ?? ["document", kind];
  const title = filename ?? (voice ? "Voice message" : animated ? `Animated ${label.toLowerCase()}` : label);
  const details = [filename ? label : null, mime_type?.split(";")[0]].filter(Boolean).join(" · ");
  return [card(name, strong(title), faint(details)), caption ? paragraph(caption) : null];
}

function location({ latitude, longitude, name, address, url }) {
  const place = `${latitude.toFixed(5)}, ${longitude.toFixed(5)}`;
  const map = `https://www.openstreetmap.org/?mlat=${latitude}&mlon=${longitude}#map=16/${latitude}/${longitude}`;
  const website = safeUrl(url);
  return [
    card(
      "location", strong(name ?? address ?? "Location"), name && address ? faint(address) : null, faint(place),
      h("span", { class: "links" }, outside(map, "Open map"), website ? outside(website, "Website") : null),
    ),
  ];
}

function contacts({ cards, requested }) {
  const shown = cards.map((person) => {
    const name = person.name?.formatted_name ?? [person.name?.first_name, person.name?.last_name].filter(Boolean).join(" ");
    const reach = [
      person.org?.company,
      ...(person.phones ?? []).map(({ phone, wa_id }) => phone ?? (wa_id ? phoneNumber(wa_id) : null)),
      ...(person.emails ?? []).map(({ email }) => email),
    ];
    return card("person", strong(name || "Contact"), ...reach.filter(Boolean).map(faint));
  });
  return [requested ? h("span", { class: "kicker" }, "Shared their number on request") : null, ...shown];
}

function reply({ source, title, description, data }) {
  return [
    h("span", { class: "kicker" }, icon("reply"), REPLIES[source] ?? source),
    title ? paragraph(title) : null,
    description ? faint(description) : null,
    data ? rawJson(data, "Show answers") : null,
  ];
}

function order({ items, text: note }) {
  const lines = items.map(({ product, quantity, price, currency }) =>
    h("tr", {}, h("td", { dir: "auto" }, product), h("td", {}, `${quantity} ×`), h("td", {}, money(price, currency))));
  const totals = [...Map.groupBy(items, ({ currency }) => currency)].map(([currency, own]) => {
    const total = orderTotal(own);
    return total === null ? null : h("tr", {}, h("th", { scope: "row", colspan: "2" }, "Total"), h("td", {}, money(total, currency)));
  });
  return [
    h("span", { class: "kicker" }, icon("cart"), "Order"),
    h("table", { class: "order" }, h("tbody", {}, lines), h("tfoot", {}, totals)),
    note ? paragraph(note) : null,
  ];
}

function reaction({ emoji }) {
  if (!emoji) return [h("span", { class: "kicker" }, "Took back a reaction")];
  return [h("span", { class: "kicker" }, "Reacted to an earlier message"), paragraph(emoji, { class: "text jumbo" })];
}

function unsupported({ provider_type, reason, payload }) {
  return [card("braces", strong(`Unsupported message: ${provider_type}`), reason ? faint(reason) : null), rawJson(payload)];
}

const RENDERERS = {
  text, media, location, contacts, reply, order, reaction, unsupported, welcome: () => [h("span", { class: "kicker" }, "Opened the chat")],
};

/** Return the nodes of a message's content; of a type this page has never heard of, its data. */
export function renderContent(content) {
  const render = RENDERERS[content.type];
  return render ? render(content) : unsupported({ provider_type: content.type, payload: content });
}
