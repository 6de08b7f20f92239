// <conversation-list>: search, filters, and as many rows as fit the screen, whatever the number of conversations.
//
// Rows are placed by `transform`, so a new order is one style change a row and CSS animates it. The order is held still while the reader is
// somewhere else than at the top or has the pointer among the rows: nothing moves away under a click. What is new meanwhile is counted in a pill.

import { h, icon, paintAvatar, setText } from "./dom.js";
import { contactName, count, fullTime, shortTime } from "./format.js";

const ROW = 72; // px, as --row in list.css
const OVERSCAN = 6;
const HOLD = 2500; // ms after the last movement of the pointer among the rows
const SEARCH_AFTER = 250; // ms
const AHEAD = 20; // rows before the end at which the next page is asked for

const TICKS = { sent: "Sent", delivered: "Delivered", read: "Read", played: "Played", failed: "Failed" };

/** Return the sign of a delivery status, named for tooltips and assistive technology. `reason` is added where it failed. */
export function tick(status, reason = null) {
  const label = TICKS[status] ?? status;
  return h("span", { class: `tick tick-${status}` }, icon(status === "read" ? "delivered" : status, reason ? `${label}: ${reason}` : label));
}

class Row {
  constructor() {
    this.avatar = h("span", { class: "avatar", "aria-hidden": "true" });
    this.name = h("span", { class: "row-name", dir: "auto" });
    this.time = h("time", { class: "row-time" });
    this.tick = h("span", { class: "row-tick" });
    this.preview = h("span", { class: "row-preview", dir: "auto" });
    this.tag = h("span", { class: "tag" });
    this.badge = h("span", { class: "badge", role: "img" });
    this.node = h(
      "div", { class: "row", role: "option" },
      this.avatar, this.name, this.time,
      h("span", { class: "row-line" }, this.tick, this.preview), h("span", { class: "row-end" }, this.tag, this.badge),
    );
  }

  update(row, endpoint, now) {
    this.relate(row, now);
    if (this.row === row) return;
    const name = contactName(row.contact, row.name);
    this.row = row;
    this.node.id = `row-${row.id}`;
    this.node.dataset.conversation = row.id;
    this.node.dataset.version = row.version;
    this.node.classList.toggle("unanswered", row.unanswered > 0);
    paintAvatar(this.avatar, row.id, name);
    setText(this.name, name);
    setText(this.preview, row.preview);
    setText(this.tag, endpoint ?? "");
    setText(this.badge, row.unanswered > 99 ? "99+" : row.unanswered > 0 ? String(row.unanswered) : "");
    this.badge.setAttribute("aria-label", row.unanswered > 0 ? `${row.unanswered} unanswered` : "");
    const status = row.last_outbound ? row.last_status : null;
    if (this.tick.dataset.status !== (status ?? "")) {
      this.tick.dataset.status = status ?? "";
      this.tick.replaceChildren(...(status ? [tick(status)] : []));
    }
  }

  relate(row, now) {
    setText(this.time, shortTime(row.last_at, now));
    if (this.row?.last_at !== row.last_at) this.time.title = fullTime(row.last_at);
  }
}

export class ConversationList extends HTMLElement {
  #inbox = null;
  #endpoints = new Map();
  #rows = new Map();
  #order = [];
  #held = new Set();
  #holdUntil = 0;
  #holdTimer = null;
  #selected = null;
  #active = null;
  #picture = null;

  /** Show `inbox`. Choosing a row dispatches `choose` with the id as detail. */
  open(inbox, me) {
    this.#inbox = inbox;
    this.#endpoints = new Map(me.endpoints.map(({ external_id, display }) => [external_id, display ?? external_id]));
    this.search = h("input", {
      type: "search", placeholder: "Search name, phone or text", "aria-label": "Search conversations", autocomplete: "off", spellcheck: "false",
      oninput: () => this.#filterSoon(), onkeydown: (event) => this.#searchKey(event),
    });
    this.unanswered = h("button", {
      type: "button", class: "chip", "aria-pressed": "false", onclick: () => this.#toggleUnanswered(),
    }, "Unanswered");
    this.endpoint = this.#endpoints.size > 1
      ? h("select", { class: "chip", "aria-label": "Endpoint", onchange: () => this.#filter() },
        h("option", { value: "" }, "All endpoints"), [...this.#endpoints].map(([value, label]) => h("option", { value }, label)))
      : null;
    this.pill = h("button", { type: "button", class: "pill pill-top", hidden: true, onclick: () => this.#release() });
    this.space = h("div", { class: "rows", role: "presentation" });
    this.scroller = h("div", {
      class: "scroller", role: "listbox", tabindex: "0", "aria-label": "Conversations",
      onscroll: () => this.#paintSoon(), onkeydown: (event) => this.#key(event), onclick: (event) => this.#click(event),
      onpointermove: (event) => event.pointerType === "mouse" && this.#hold(), onpointerleave: () => this.#unhold(),
    }, this.space);
    this.state = h("div", { class: "list-state" });
    this.replaceChildren(
      h("header", { class: "pane-head" }, h("h1", {}, "Conversations"), h("small", { class: "faint", dir: "auto" }, me.tenant.name)),
      h("div", { class: "list-tools", role: "search" },
        h("label", { class: "field" }, icon("search"), this.search), h("div", { class: "chips" }, this.unanswered, this.endpoint)),
      h("div", { class: "list-body" }, this.pill, this.scroller, this.state),
    );
    new ResizeObserver(() => this.#paintSoon()).observe(this.scroller);
    this.clock = setInterval(() => this.#relate(), 20_000);
    this.refresh(new Set());
  }

  disconnectedCallback() {
    clearInterval(this.clock);
    clearTimeout(this.#holdTimer);
    clearTimeout(this.searchTimer);
  }

  /** Mark the conversation that is open; null for none. */
  select(id) {
    this.#selected = id;
    this.#active = id ?? this.#active;
    this.#paintSoon();
  }

  /** Take over what changed in the inbox; `active` are conversations with something new to say. */
  refresh(active) {
    const fresh = this.#inbox.order();
    if (this.#still()) {
      for (const id of active) this.#held.add(id);
      const now = new Set(fresh);
      const kept = this.#order.filter((id) => now.has(id));
      const shown = new Set(kept);
      this.#order = [...kept, ...fresh.filter((id) => !shown.has(id) && !this.#held.has(id))];
    } else {
      this.#held.clear();
      this.#order = fresh;
    }
    this.#paintSoon();
  }

  focusSearch() {
    this.search.focus();
    this.search.select();
  }

  focusRows() {
    this.scroller.focus();
  }

  #still() {
    return this.#order.length > 0 && this.#inbox.phase !== "loading" && (this.scroller.scrollTop > ROW / 2 || Date.now() < this.#holdUntil);
  }

  #hold() {
    this.#holdUntil = Date.now() + HOLD;
    this.#holdTimer ??= setTimeout(() => this.#holdEnds(), HOLD);
  }

  #holdEnds() {
    this.#holdTimer = null;
    const left = this.#holdUntil - Date.now();
    if (left > 0) this.#holdTimer = setTimeout(() => this.#holdEnds(), left);
    else this.refresh(new Set());
  }

  #unhold() {
    this.#holdUntil = 0;
    this.refresh(new Set());
  }

  #release() {
    this.#holdUntil = 0;
    this.scroller.scrollTo({ top: 0 });
    this.refresh(new Set());
  }

  #filterSoon() {
    clearTimeout(this.searchTimer);
    this.searchTimer = setTimeout(() => this.#filter(), SEARCH_AFTER);
  }

  #toggleUnanswered() {
    this.unanswered.setAttribute("aria-pressed", String(this.unanswered.getAttribute("aria-pressed") !== "true"));
    this.#filter();
  }

  #filter() {
    clearTimeout(this.searchTimer);
    this.scroller.scrollTop = 0;
    this.#holdUntil = 0;
    this.#inbox.load({
      q: this.search.value.trim(), unanswered: this.unanswered.getAttribute("aria-pressed") === "true", endpoint: this.endpoint?.value ?? "",
    });
  }

  #clearFilter() {
    this.search.value = "";
    this.unanswered.setAttribute("aria-pressed", "false");
    if (this.endpoint) this.endpoint.value = "";
    this.#filter();
  }

  #searchKey(event) {
    if (event.key === "Escape" && this.search.value) {
      this.search.value = "";
      this.#filter();
      event.stopPropagation();
    } else if (event.key === "ArrowDown" || event.key === "Enter") {
      this.#active = this.#order[0] ?? null;
      this.focusRows();
      this.#paintSoon();
      event.preventDefault();
    }
  }

  #click(event) {
    const id = event.target.closest("[data-conversation]")?.dataset.conversation;
    if (id) this.#choose(id);
  }

  #choose(id) {
    this.#active = id;
    this.dispatchEvent(new CustomEvent("choose", { detail: id }));
  }

  #key(event) {
    const at = this.#order.indexOf(this.#active);
    const page = Math.max(1, Math.floor(this.scroller.clientHeight / ROW) - 1);
    const target = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: this.#order.length - 1, PageDown: at + page, PageUp: at - page }[event.key];
    if (event.key === "Enter" || event.key === " ") {
      if (at >= 0) this.#choose(this.#active);
    } else if (target === undefined || this.#order.length === 0) {
      return;
    } else {
      const index = Math.min(this.#order.length - 1, Math.max(0, target));
      this.#active = this.#order[index];
      const [top, { scrollTop, clientHeight }] = [index * ROW, this.scroller];
      if (top < scrollTop) this.scroller.scrollTop = top;
      else if (top + ROW > scrollTop + clientHeight) this.scroller.scrollTop = top + ROW - clientHeight;
      this.#paintSoon();
    }
    event.preventDefault();
  }

  #relate() {
    const now = Date.now();
    for (const row of this.#rows.values()) row.relate(row.row, now);
  }

  #paintSoon() {
    this.#picture ??= requestAnimationFrame(() => {
      this.#picture = null;
      this.#paint();
    });
  }

  #paint() {
    const { scrollTop, clientHeight } = this.scroller;
    if (this.#held.size > 0 && !this.#still()) return this.refresh(new Set());
    const first = Math.max(0, Math.floor(scrollTop / ROW) - OVERSCAN);
    const last = Math.min(this.#order.length, Math.ceil((scrollTop + clientHeight) / ROW) + OVERSCAN);
    const shown = new Set(this.#order.slice(first, last));
    for (const [id, row] of this.#rows) {
      if (shown.has(id)) continue;
      row.node.remove();
      this.#rows.delete(id);
    }
    const now = Date.now();
    let index = first;
    for (const id of shown) this.#paintRow(id, index++, now);
    this.space.style.height = `${this.#order.length * ROW}px`;
    this.space.dataset.count = this.#order.length;
    this.scroller.setAttribute("aria-activedescendant", this.#rows.has(this.#active) ? `row-${this.#active}` : "");
    this.pill.hidden = this.#held.size === 0;
    if (this.#held.size > 0) this.pill.replaceChildren(icon("up"), `${count(this.#held.size)} new`);
    this.#paintState();
    if (last >= this.#order.length - AHEAD) this.#inbox.more();
  }

  #paintRow(id, index, now) {
    const known = this.#rows.get(id);
    const row = known ?? new Row();
    const data = this.#inbox.get(id);
    row.update(data, this.#endpoints.size > 1 ? (this.#endpoints.get(data.endpoint) ?? data.endpoint) : null, now);
    row.node.style.transform = `translateY(${index * ROW}px)`;
    row.node.setAttribute("aria-posinset", index + 1);
    row.node.setAttribute("aria-setsize", this.#inbox.complete ? this.#order.length : -1);
    row.node.setAttribute("aria-selected", String(id === this.#selected));
    row.node.classList.toggle("active", id === this.#active);
    if (known) return;
    this.#rows.set(id, row);
    this.space.append(row.node);
  }

  #paintState() {
    const { phase, filter, problem } = this.#inbox;
    const failed = phase === "failed";
    const state = this.#order.length > 0 ? (failed ? "partial" : "rows") : failed ? "failed" : phase === "loading" ? "loading"
      : filter.q || filter.unanswered || filter.endpoint ? "nothing" : "empty";
    this.toggleAttribute("aria-busy", phase === "loading");
    if (this.dataset.state === state) return;
    this.dataset.state = state;
    this.state.replaceChildren(...{
      rows: () => [],
      partial: () => [h("p", {}, problem.message), h("button", { type: "button", class: "button", onclick: () => this.#inbox.load() }, "Try again")],
      loading: () => Array.from({ length: 8 }, () => h("div", { class: "skeleton-row" }, h("i"), h("b"), h("span"))),
      failed: () => [
        h("h2", {}, "The list could not be read"), h("p", {}, problem.message),
        h("button", { type: "button", class: "button", onclick: () => this.#inbox.load() }, "Try again"),
      ],
      nothing: () => [
        h("h2", {}, "Nothing matches"), h("p", {}, "No conversation fits the search and filters."),
        h("button", { type: "button", class: "button", onclick: () => this.#clearFilter() }, "Clear filters"),
      ],
      empty: () => [
        h("h2", {}, "No conversations yet"), h("p", {}, "The first message to one of your endpoints appears here the moment it arrives."),
      ],
    }[state]());
  }
}

customElements.define("conversation-list", ConversationList);
