// System events of a thread, as one line each: what happened besides messages. One sentence an event of protocol/events.py.

import { rawJson } from "./content.js";
import { h, icon } from "./dom.js";
import { clock, contactName, fullTime, phoneNumber } from "./format.js";

const PREFERENCES = { stop: "stopped", resume: "resumed", signup: "signed up for" };

function readable(externalId) {
  const [kind, id] = [externalId.slice(0, externalId.indexOf(":")), externalId.slice(externalId.indexOf(":") + 1)];
  return kind === "phone" ? phoneNumber(id) : id;
}

function identified({ contact, added = [], removed = [], note }) {
  const [gained, lost] = [added.map(readable).join(", "), removed.map(readable).join(", ")];
  const sentence = gained && lost ? `Contact changed from ${lost} to ${gained}`
    : gained ? `Contact identified: ${gained}`
    : lost ? `No longer reachable as ${lost}`
    : `Contact is now known as ${contactName(contact)}`;
  return note ? `${sentence} (${note})` : sentence;
}

function call(event, steps) {
  const inbound = steps.some((step) => step.event.by_customer);
  const seconds = event.payload?.duration;
  const length = Number.isFinite(seconds) ? `, ${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")} min` : "";
  const stage = { connect: "ringing", terminate: `ended${length}` }[event.event] ?? event.event;
  return `${inbound ? "Incoming" : "Outgoing"} call: ${stage}`;
}

function preference({ category, value, detail }) {
  const sentence = `Contact ${PREFERENCES[value] ?? value} ${category.replaceAll("_", " ")}`;
  return detail ? `${sentence} (${detail})` : sentence;
}

/** Return the line for a note of js/timeline.js. `openConversation(id)` follows a merge. */
export function renderNote({ steps }, openConversation) {
  const { event, recorded_at } = steps.at(-1);
  const [name, sentence, ...more] = {
    conversation_started: () => ["spark", "Conversation started"],
    contact_identified: () => ["person", identified(event)],
    call_recorded: () => ["phone", call(event, steps), rawJson(steps.map((step) => step.event.payload), "Show call data")],
    preference_set: () => ["bell", preference(event)],
    unknown_kept: () => ["braces", `Kept, not understood yet: ${event.what}`, rawJson(event.payload)],
    conversation_merged: () => [
      "merge", "This contact turned out to be known already. ",
      h("button", { type: "button", class: "link", onclick: () => openConversation(event.into) }, "Continue in the other conversation"),
    ],
    conversation_absorbed: () => ["merge", "Another conversation of this contact was joined into this one"],
  }[event.type]();
  const at = event.at || recorded_at;
  const time = h("time", { title: fullTime(at) }, clock(at));
  return h("div", { class: "note", dir: "auto" }, icon(name), h("span", {}, sentence), " ", time, more);
}
