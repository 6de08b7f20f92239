// <thread-view>: one conversation's messages, newest at the bottom, with what else happened between them.
//
// Owns scrolling: the bottom is kept only for a reader who is there; older pages come in above without moving what is read. Nodes are kept by
// item and rebuilt only where the item changed.

import { renderContent, rawJson } from "./content.js";
import { tick } from "./conversation-list.js";
import { avatar, h, icon, iconButton, setText } from "./dom.js";
import { clock, contactName, count, dayKey, dayLabel, fullTime, phoneNumber } from "./format.js";
import { previewOf } from "./inbox.js";
import { renderNote } from "./notes.js";
import { Timeline } from "./timeline.js";

const NEAR_BOTTOM = 48; // px
const NEAR_TOP = 400;
const TOGETHER = 5 * 60_000; // ms: messages of one side closer than this are one group
const TRIM_AT = 800; // items; a thread left open at its bottom starts anew from here, so that its DOM stays bounded
const JUMP_PAGES = 20;

export class ThreadView extends HTMLElement {
  #api = null;
  #row = null;
  #endpoint = null;
  #timeline = null;
  #nodes = new Map();
  #days = new Map();
  #unseen = 0;
  #atBottom = true;

  disconnectedCallback() {
    this.#timeline?.close();
  }

  /** Open the conversation of `row`; called once. Dispatches `back`, `details` and `go` (detail: another conversation's id). */
  async open(api, row, endpoint) {
    this.#api = api;
    this.#endpoint = endpoint;
    this.dataset.conversation = row.id;
    this.heading = h("h2", { dir: "auto", tabindex: "-1" });
    this.subtitle = h("small", { class: "faint", dir: "auto" });
    this.face = h("span", {});
    this.log = h("div", { class: "log", role: "log", "aria-live": "off", "aria-label": "Messages" });
    this.scroller = h("div", { class: "scroller", tabindex: "0", "aria-label": "Thread", onscroll: () => this.#scrolled() }, this.log);
    this.pill = h("button", { type: "button", class: "pill pill-bottom", hidden: true, onclick: () => this.#toBottom("smooth") });
    this.spoken = h("div", { class: "visually-hidden", "aria-live": "polite" });
    this.replaceChildren(
      h("header", { class: "pane-head" },
        iconButton("back", "Back to the list", () => this.dispatchEvent(new Event("back")), { class: "icon-button only-phone" }),
        this.face, h("div", { class: "titles" }, this.heading, this.subtitle),
        iconButton("aside", "Contact details", () => this.dispatchEvent(new Event("details")))),
      h("div", { class: "thread-body" }, this.scroller, this.pill), this.spoken);
    this.update(row);
    new ResizeObserver(() => this.#atBottom && this.#toBottom()).observe(this.scroller);
    if (matchMedia("(width < 720px)").matches) this.heading.focus(); // the list, which had the focus, is not there on a phone
    await this.reload();
  }

  /** Read the thread anew, as after a snapshot was required. */
  async reload() {
    this.#timeline?.close();
    const timeline = new Timeline(this.#api, this.#row);
    this.#timeline = timeline;
    this.dataset.state = "loading";
    if (this.#nodes.size === 0) {
      this.log.replaceChildren(...["in", "out", "in", "in", "out"].map((side) => h("div", { class: `skeleton-bubble ${side}` })));
    }
    try {
      await timeline.load();
    } catch (error) {
      if (this.#timeline === timeline) this.#showProblem(error);
      return;
    }
    if (this.#timeline !== timeline) return; // another reading took its place
    this.#clear();
    this.dataset.state = "ready";
    this.#paint();
    this.#toBottom();
    this.#fill();
  }

  /** Take over what is now known of the conversation itself. */
  update(row) {
    const name = contactName(row.contact, row.name);
    this.#row = row;
    this.face.replaceChildren(avatar(row.id, name));
    this.heading.textContent = name;
    const { phone, username } = row.contact;
    const handle = username && `@${username.replace(/^@/, "")}`;
    this.subtitle.textContent = [phone && phoneNumber(phone), handle, this.#endpoint].filter((text) => text && text !== name).join(" · ");
  }

  /** Fold this conversation's event frames. */
  fold(frames) {
    if (this.#timeline === null) return;
    const changed = this.#timeline.fold(frames);
    if (this.dataset.state !== "ready" || changed.size === 0) return;
    if (this.#atBottom && this.#timeline.size > TRIM_AT) return void this.reload();
    const arrived = [...changed].filter((key) => !this.#nodes.has(key) && this.#timeline.get(key)?.content.type !== "reaction");
    this.#paint(changed);
    const inbound = arrived.map((key) => this.#timeline.get(key)).filter((message) => message && !message.outbound);
    if (inbound.length > 0) this.spoken.textContent = inbound.map(({ content }) => `${this.heading.textContent}: ${previewOf(content)}`).join(". ");
    if (this.#atBottom) {
      this.#toBottom();
    } else {
      this.#unseen += arrived.filter((key) => this.#timeline.get(key)).length;
      this.#paintPill();
    }
  }

  #clear() {
    this.#nodes.clear();
    this.#days.clear();
    this.#unseen = 0;
    this.log.replaceChildren();
    this.#paintPill();
  }

  #showProblem(error) {
    if (error.name === "AbortError") return;
    this.dataset.state = "failed";
    this.log.replaceChildren(h("div", { class: "placeholder" },
      icon("alert"), h("h2", {}, "The thread could not be read"), h("p", {}, error.message),
      h("button", { type: "button", class: "button", onclick: () => this.reload() }, "Try again")));
  }

  #paint(changed = new Set()) {
    const wanted = [];
    let day = null;
    let before = null;
    for (const item of this.#timeline.items()) {
      const key = dayKey(item.at);
      const newDay = key !== day;
      if (newDay && !wanted.includes(this.#days.get(key))) wanted.push(this.#day(key)); // a late message does not repeat its day
      day = key;
      const node = this.#node(item, changed);
      const follows = !newDay && before?.message && item.message && before.message.outbound === item.message.outbound
        && before.message.author === item.message.author && item.at - before.at < TOGETHER;
      node.classList.toggle("follows", Boolean(follows));
      before = item;
      wanted.push(node);
    }
    if (this.#timeline.complete && wanted.length === 0) wanted.push(h("p", { class: "faint centred" }, "No messages yet"));
    const keep = new Set(wanted);
    for (const child of [...this.log.children]) if (!keep.has(child)) child.remove();
    wanted.forEach((node, index) => {
      if (this.log.children[index] !== node) this.log.insertBefore(node, this.log.children[index] ?? null);
    });
  }

  #day(key) {
    if (!this.#days.has(key)) this.#days.set(key, h("div", { class: "day", role: "separator" }, h("time")));
    const separator = this.#days.get(key);
    setText(separator.firstChild, dayLabel(key)); // today becomes yesterday while a thread is open
    return separator;
  }

  #node(item, changed) {
    const known = this.#nodes.get(item.key);
    if (known && !changed.has(item.key)) return known;
    const node = item.message ? this.#bubble(item) : renderNote(item.note, (id) => this.dispatchEvent(new CustomEvent("go", { detail: id })));
    node.dataset.key = item.key;
    if (changed.size > 0 && !known) node.classList.add("arrived");
    this.#nodes.set(item.key, node);
    return node;
  }

  #bubble({ message, reactions }) {
    const { outbound, content, revoked, edited, status, problems, context, author, origin, at } = message;
    const reason = problems.map(({ title, detail, code }) => `${detail ?? title ?? "error"} (${code})`).join("; ");
    const body = revoked
      ? [h("p", { class: "text withheld" }, icon("revoked"), outbound ? "This message was taken back" : "The contact took this message back")]
      : renderContent(content);
    const meta = h("footer", { class: "meta" },
      origin === "echo" ? h("span", {}, "from the app") : null,
      origin === "history" ? h("span", {}, "imported") : null,
      edited && !revoked ? h("span", {}, "edited") : null,
      h("time", { title: fullTime(at) }, clock(at)),
      outbound && status ? tick(status, reason) : null);
    const bubble = h("div", { class: "bubble", "data-kind": content.type },
      author && !outbound ? h("span", { class: "author", dir: "auto" }, /^\d+$/.test(author) ? phoneNumber(author) : author) : null,
      revoked ? null : this.#context(context),
      body, meta,
      reason && (status === "failed" || !outbound) ? h("p", { class: "problem" }, icon("alert"), reason) : null,
      reactions.length > 0 && !revoked ? this.#reactions(reactions) : null);
    const from = outbound ? "You" : (author ?? this.heading.textContent);
    return h("article", {
      class: `message ${outbound ? "out" : "in"}`, "aria-label": `${from}, ${clock(at)}`, "data-message": message.message_id,
      "data-status": status ?? "",
    }, bubble);
  }

  #context(context) {
    if (context === null) return null;
    const { message_id, forwarded, frequently_forwarded, product } = context;
    const quoted = message_id ? this.#timeline.get(message_id) : null;
    const missing = !quoted && this.#timeline.complete;
    const line = quoted?.revoked ? "Taken back" : quoted ? previewOf(quoted.content)
      : missing ? "A message that is not in this thread" : "An earlier message";
    return [
      forwarded || frequently_forwarded
        ? h("span", { class: "kicker" }, icon("forward"), frequently_forwarded ? "Forwarded many times" : "Forwarded") : null,
      message_id
        ? h("button", { type: "button", class: "quote", disabled: missing, onclick: () => this.#jump(message_id) },
          quoted ? h("strong", {}, quoted.outbound ? "You" : this.heading.textContent) : null, h("span", { dir: "auto" }, line)) : null,
      product ? rawJson(product, "About a product") : null,
    ];
  }

  #reactions(reactions) {
    const byEmoji = Map.groupBy(reactions, ({ emoji }) => emoji);
    const who = ({ outbound, author }) => (outbound ? "you" : author ? author : this.heading.textContent);
    return h("div", { class: "reactions" }, [...byEmoji].map(([emoji, from]) => {
      const label = `${emoji} from ${from.map(who).join(", ")}`;
      return h("span", { role: "img", "aria-label": label, title: label }, emoji, from.length > 1 ? ` ${from.length}` : null);
    }));
  }

  /** Scroll to a message, reading older pages until it is there, and light it up. */
  async #jump(messageId) {
    const timeline = this.#timeline;
    for (let pages = 0; !this.#nodes.has(messageId) && pages < JUMP_PAGES; pages++) if (!(await this.#older())) break;
    const node = this.#nodes.get(messageId);
    if (timeline !== this.#timeline || node === undefined) return; // a thread read to its start says so in the quote itself
    node.scrollIntoView({ block: "center", behavior: "smooth" });
    node.classList.remove("lit");
    requestAnimationFrame(() => node.classList.add("lit"));
  }

  async #older() {
    const timeline = this.#timeline;
    try {
      if (!(await timeline.older())) return false;
    } catch (error) {
      if (error.name !== "AbortError") this.spoken.textContent = error.message;
      return false;
    }
    if (timeline !== this.#timeline) return false;
    const fromEnd = this.scroller.scrollHeight - this.scroller.scrollTop;
    this.#nodes.clear(); // quotes and reactions may lead to what has just come in
    this.#paint();
    this.scroller.scrollTop = this.scroller.scrollHeight - fromEnd;
    return true;
  }

  async #fill() {
    while (this.scroller.scrollTop < NEAR_TOP && this.#timeline?.phase === "ready" && !this.#timeline.complete) if (!(await this.#older())) return;
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    this.#atBottom = scrollHeight - scrollTop - clientHeight < NEAR_BOTTOM;
    if (this.#atBottom && this.#unseen > 0) {
      this.#unseen = 0;
      this.#paintPill();
    }
    if (scrollTop < NEAR_TOP && this.dataset.state === "ready") this.#fill();
  }

  #toBottom(behavior = "instant") {
    this.#atBottom = true;
    this.scroller.scrollTo({ top: this.scroller.scrollHeight, behavior });
  }

  #paintPill() {
    this.pill.hidden = this.#unseen === 0;
    this.pill.replaceChildren(icon("down"), this.#unseen === 1 ? "1 new message" : `${count(this.#unseen)} new messages`);
  }
}

customElements.define("thread-view", ThreadView);
