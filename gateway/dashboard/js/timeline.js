// The model of one thread: its messages and what else happened in it, from pages of the past and from live events, in any overlap.
//
// 1. Order is by `seq`, the feed offset of the event that recorded a message; a system event stands at its own. So the threads of conversations
//    that were merged interleave as they happened.
// 2. A status only moves forward (`rankOf`), so replayed receipts change nothing.
// 3. Events up to the snapshot's feed offset are in the snapshot already; what comes while it is read is kept and folded in afterwards.
// 4. A reaction belongs to its target: it is an item of its own only as long as the target is not loaded.
// No DOM here.

import { rankOf } from "./inbox.js";

const PAGE = 50;
const EVENTS_PAGE = 200; // the most the gateway gives at once

const NOTES = new Set([
  "conversation_started", "contact_identified", "call_recorded", "preference_set", "unknown_kept", "conversation_merged", "conversation_absorbed",
]);

/** Return the `seq` down to which a page of messages tells the whole story. */
const floorOf = (page) => (page.next_cursor === null ? 0 : Math.min(...page.data.map(({ seq }) => seq)));

export class Timeline {
  /** loading, ready, older (reading an older page), failed */
  phase = "loading";
  problem = null;

  #api;
  #id;
  #messages = new Map();
  #notes = new Map();
  #cursor = null;
  #floor = Infinity; // `seq` of the oldest message loaded: what happened before it is not shown yet
  #eventsFrom; // events after this version have been read
  #eventsFloor = Infinity; // the offset of the oldest of them
  #foldedTo = -1;
  #kept = [];
  #control = new AbortController();

  /** `row`: the conversation, in any version. */
  constructor(api, { id, version }) {
    this.#api = api;
    this.#id = id;
    this.#eventsFrom = version;
  }

  get complete() {
    return this.#cursor === null;
  }

  get size() {
    return this.#messages.size + this.#notes.size;
  }

  get(messageId) {
    return this.#messages.get(messageId);
  }

  /** Stop reading; what comes back later is dropped. */
  close() {
    this.#control.abort();
  }

  /** Read the newest page. Rejects with a Problem, or AbortError after `close`. */
  async load() {
    const { signal } = this.#control;
    try {
      const page = await this.#api.messages(this.#id, { limit: PAGE }, signal);
      this.#take(page, [...(await this.#readEventsAfter(this.#eventsFrom)), ...(await this.#readEventsDownTo(page))]);
      this.#foldedTo = page.feed.offset;
      this.phase = "ready";
      this.#refold();
    } catch (error) {
      this.phase = "failed";
      this.problem = error;
      throw error;
    }
  }

  /** Read the page before the oldest one loaded; resolves to whether there was one. */
  async older() {
    if (this.phase !== "ready" || this.#cursor === null) return false;
    this.phase = "older";
    try {
      const page = await this.#api.messages(this.#id, { limit: PAGE, cursor: this.#cursor }, this.#control.signal);
      this.#take(page, await this.#readEventsDownTo(page));
      return true;
    } finally {
      this.phase = "ready";
      this.#refold();
    }
  }

  /** Fold this conversation's event frames; return the keys of items that changed. */
  fold(frames) {
    if (this.phase === "loading" || this.phase === "older") this.#kept.push(...frames);
    if (this.phase === "loading") return new Set();
    const changed = new Set();
    for (const frame of frames) if (frame.offset > this.#foldedTo) this.#fold(frame, changed);
    return changed;
  }

  #refold() {
    const kept = this.#kept;
    this.#kept = [];
    this.fold(kept);
  }

  #fold(frame, changed) {
    const { event, offset, recorded_at } = frame;
    const target = this.#messages.get(event.original_id ?? event.message_id);
    switch (event.type) {
      case "message_recorded":
        if (this.#messages.has(event.message_id)) return;
        this.#messages.set(event.message_id, {
          message_id: event.message_id, conversation: frame.conversation, seq: offset, at: event.at, recorded_at,
          outbound: event.outbound ?? false, origin: event.origin ?? "customer", content: event.content, context: event.context ?? null,
          author: event.author ?? null, status: event.status ?? null, status_at: null, problems: event.problems ?? [],
          edited: false, revoked: false,
        });
        changed.add(event.message_id);
        if (event.content.type === "reaction") changed.add(event.content.target);
        return;
      case "message_completed":
        if (target) target.content = event.content;
        break;
      case "message_edited":
        if (target) Object.assign(target, { content: event.content, edited: true });
        break;
      case "message_revoked":
        if (target) target.revoked = true;
        break;
      case "receipt_recorded":
        if (!target || rankOf(event.current) <= rankOf(target.status)) return;
        Object.assign(target, { status: event.current, status_at: event.at, problems: event.problems ?? target.problems });
        break;
      default:
        if (NOTES.has(event.type)) changed.add(this.#note(frame));
        return;
    }
    if (target) changed.add(target.message_id);
  }

  /** Keep a system event and return its key. A call's steps are one note, which says what the newest of them says. */
  #note({ event, offset, recorded_at }) {
    const key = event.type === "call_recorded" ? `call:${event.call_id}` : `event:${offset}`;
    const steps = (this.#notes.get(key)?.steps ?? []).filter((step) => step.offset !== offset);
    steps.push({ offset, event, recorded_at });
    steps.sort((a, b) => a.offset - b.offset);
    this.#notes.set(key, { seq: steps[0].offset, steps });
    return key;
  }

  #take(page, events) {
    for (const message of page.data) {
      const known = this.#messages.get(message.message_id);
      if (known === undefined || rankOf(message.status) >= rankOf(known.status)) this.#messages.set(message.message_id, message);
    }
    for (const frame of events) if (NOTES.has(frame.event.type)) this.#note(frame);
    this.#cursor = page.next_cursor;
    this.#floor = floorOf(page);
  }

  async #readEventsAfter(version) {
    const { data } = await this.#api.events(this.#id, { after: version, limit: EVENTS_PAGE }, this.#control.signal);
    return data.length < EVENTS_PAGE ? data : [...data, ...(await this.#readEventsAfter(data.at(-1).version))];
  }

  /** Read events backwards as far as a page of messages reaches. */
  async #readEventsDownTo(page) {
    const read = [];
    while (this.#eventsFrom > 0 && this.#eventsFloor > floorOf(page)) {
      const after = Math.max(0, this.#eventsFrom - EVENTS_PAGE);
      const { data } = await this.#api.events(this.#id, { after, limit: this.#eventsFrom - after }, this.#control.signal);
      read.push(...data);
      this.#eventsFrom = after;
      this.#eventsFloor = data[0]?.offset ?? this.#eventsFloor;
    }
    return read;
  }

  /**
   * Return what stands in the thread, in order: `{key, seq, at, message, reactions}` or `{key, seq, at, note}`.
   * `reactions`: the newest of each party, `[{emoji, outbound, author}]`.
   */
  items() {
    const reactions = new Map();
    const items = [];
    const messages = [...this.#messages.values()].sort((a, b) => a.seq - b.seq);
    for (const message of messages) {
      const { content, outbound, author } = message;
      if (content.type === "reaction" && this.#messages.has(content.target)) {
        const ofTarget = reactions.get(content.target) ?? new Map();
        reactions.set(content.target, ofTarget.set(outbound ? "us" : `them:${author ?? ""}`, { emoji: content.emoji, outbound, author }));
      } else {
        items.push({ key: message.message_id, seq: message.seq, at: message.at, message });
      }
    }
    for (const item of items) {
      item.reactions = [...(reactions.get(item.key)?.values() ?? [])].filter(({ emoji }) => emoji);
    }
    for (const [key, note] of this.#notes) {
      const { event, recorded_at } = note.steps[0];
      if (note.seq >= this.#floor) items.push({ key, seq: note.seq, at: event.at || recorded_at, note });
    }
    return items.sort((a, b) => a.seq - b.seq);
  }
}
