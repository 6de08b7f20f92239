// <parley-app>: the session, the address, and the wiring of models, elements and the event stream.
//
// The address's fragment is all routing there is: `#/c/<id>` an open conversation, `#key=…` a sign-in link (taken out at once).
// What the first picture does not need (a thread, the panels, the sign-in form) is imported when it is first asked for.
// `data-connection`, `data-offset` and `data-epoch` on this element say how fresh the page is, for operators and tests.

import { Api, Problem } from "./api.js";
import "./conversation-list.js";
import { h, icon, iconButton } from "./dom.js";
import { contactName } from "./format.js";
import { Inbox } from "./inbox.js";
import { Live } from "./live.js";
import "./status-bar.js";

const KEY = "parley.key"; // sessionStorage: the key lives as long as the tab
const THEME = "parley.theme";
const DETAILS = "parley.details";
const QUARANTINE_EVERY = 60_000; // ms
const QUARANTINE_COUNTED = 20; // entries carry their payload: a few tell that there is something to look at
const SNAPSHOT_RETRY = 3_000; // ms

class ParleyApp extends HTMLElement {
  #api = null;
  #me = null;
  #inbox = null;
  #live = null;
  #open = null;
  #quarantineTimer = null;

  connectedCallback() {
    this.#applyTheme();
    addEventListener("hashchange", () => (this.#takeKey() ? this.#resume() : this.#route()));
    addEventListener("keydown", (event) => this.#shortcut(event));
    this.#takeKey();
    this.#resume();
  }

  /** Move a sign-in link's key from the address to the tab's storage; tell whether there was one. */
  #takeKey() {
    if (!location.hash.startsWith("#key=")) return false;
    sessionStorage.setItem(KEY, decodeURIComponent(location.hash.slice("#key=".length)));
    history.replaceState(null, "", location.pathname);
    return true;
  }

  /** Go on with the key of this tab, or ask for one. */
  async #resume() {
    const key = sessionStorage.getItem(KEY);
    if (key === null) return this.#askForKey();
    const mark = h("img", { src: "/static/mark.svg", alt: "Parley", width: "56", height: "56" });
    this.replaceChildren(h("div", { class: "splash", "aria-busy": "true" }, mark));
    try {
      this.#enter(key, await new Api(key).me());
    } catch (error) {
      if (error.status === 401) this.#signOut("This key is not valid, or it was revoked.");
      else this.#showOutage(error);
    }
  }

  #showOutage(error) {
    this.replaceChildren(h("main", { class: "placeholder" },
      icon("alert"), h("h1", {}, "The gateway cannot be reached"), h("p", {}, error.message),
      h("button", { type: "button", class: "button", onclick: () => this.#resume() }, "Try again")));
  }

  async #askForKey(reason = "") {
    await import("./sign-in.js");
    const signIn = h("sign-in", { onsignedin: ({ detail: { key, me } }) => this.#enter(key, me) });
    this.replaceChildren(signIn);
    signIn.ask(reason);
  }

  #signOut(reason = "") {
    this.#leave();
    sessionStorage.removeItem(KEY);
    this.dataset.connection = "refused";
    this.#askForKey(reason);
  }

  #leave() {
    this.#live?.stop();
    this.#inbox?.close();
    clearInterval(this.#quarantineTimer);
    this.#api = this.#live = this.#inbox = this.#open = this.thread = null;
    document.title = "Parley";
  }

  #enter(key, me) {
    this.#leave();
    sessionStorage.setItem(KEY, key);
    this.#me = me;
    const api = new Api(key, () => this.#api === api && this.#signOut("Your key is no longer valid. Sign in again."));
    this.#api = api;
    this.#inbox = new Inbox(this.#api, (active) => this.#inboxChanged(active));
    this.#live = new Live(key, {
      state: () => this.#connectionChanged(),
      frames: (frames) => this.#fold(frames),
      snapshot: () => this.#snapshot(),
    });
    this.#build();
    this.list.open(this.#inbox, me);
    this.bar.follow(this.#live);
    this.#connectionChanged();
    this.#begin(this.#live);
    this.#route();
    this.#countQuarantine();
    this.#quarantineTimer = setInterval(() => this.#countQuarantine(), QUARANTINE_EVERY);
  }

  #build() {
    this.list = h("conversation-list", { onchoose: ({ detail }) => this.#go(detail) });
    this.thread = null;
    this.main = h("main", { class: "pane pane-thread" });
    this.contact = h("contact-panel", { onclose: () => this.#toggleDetails(false) });
    this.bar = h("status-bar", { onquarantine: () => this.#openQuarantine() });
    this.quarantine = h("quarantine-panel");
    this.workspace = h("div", { class: "workspace" },
      h("nav", { class: "rail", "aria-label": "Parley" },
        h("img", { class: "mark", src: "/static/mark.svg", alt: "Parley", width: "32", height: "32" }),
        h("span", { class: "gap" }),
        iconButton("moon", "Switch between light and dark", () => this.#toggleTheme()),
        iconButton("leave", "Sign out", () => this.#signOut())),
      h("section", { class: "pane pane-list", "aria-label": "Conversation list" }, this.list),
      this.main,
      h("aside", { class: "pane pane-contact", "aria-label": "Contact details" }, this.contact),
      h("footer", { class: "pane-status" }, this.bar));
    this.workspace.dataset.details = localStorage.getItem(DETAILS) ?? "closed";
    this.replaceChildren(this.workspace, this.quarantine);
    this.#showNothing();
  }

  /** Read the first snapshot, for as long as it takes, and follow the feed from its position. */
  async #begin(live) {
    for (;;) {
      const position = await this.#inbox?.load();
      if (live !== this.#live) return;
      if (position) return live.start(position);
      await new Promise((resolve) => setTimeout(resolve, SNAPSHOT_RETRY));
      if (live !== this.#live) return;
    }
  }

  async #snapshot() {
    const inbox = this.#inbox;
    const [position] = await Promise.all([inbox.load(inbox.filter, true), this.thread?.reload()]);
    return position;
  }

  #connectionChanged() {
    const { state, position } = this.#live;
    if (state.name === "refused") {
      return this.#signOut(state.code === 4000
        ? "The gateway speaks another version than this page. Reload it, then sign in again."
        : "Your key is no longer valid. Sign in again.");
    }
    this.dataset.connection = state.name;
    if (position) Object.assign(this.dataset, { offset: position.offset, epoch: position.epoch });
    this.bar.update();
    if (state.name === "live" && this.#inbox.phase === "failed") this.#inbox.load();
  }

  #fold(frames) {
    this.#inbox.fold(frames);
    const own = frames.filter(({ conversation }) => conversation === this.#open);
    if (own.length > 0) this.thread?.fold(own);
    this.dataset.offset = frames.at(-1).offset;
  }

  #inboxChanged(active) {
    this.list.refresh(active);
    const row = this.thread && this.#inbox.get(this.#open);
    if (!row || this.thread.dataset.version === String(row.version)) return;
    this.thread.dataset.version = row.version;
    this.thread.update(row);
    this.contact.show(row, this.#endpointName(row));
  }

  #endpointName(row) {
    const endpoint = this.#me.endpoints.find(({ external_id }) => external_id === row.endpoint);
    return endpoint?.display ?? row.endpoint;
  }

  #go(id) {
    if (id === null) location.hash = "#/";
    else location.hash = `#/c/${encodeURIComponent(id)}`;
  }

  #route() {
    if (this.#api === null) return;
    const { hash } = location;
    this.#show(hash.startsWith("#/c/") ? decodeURIComponent(hash.slice("#/c/".length)) : null);
  }

  async #show(id) {
    if (id === this.#open) return;
    this.#open = id;
    this.thread = null;
    this.list.select(id);
    this.#showNothing();
    if (id === null) return this.list.focusRows();
    this.workspace.dataset.view = "thread";
    try {
      const [row] = await Promise.all([this.#inbox.find(id), import("./thread-view.js"), import("./contact-panel.js")]);
      if (this.#open !== id) return;
      this.#showThread(row);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (this.#open === id) this.#showMissing(error);
    }
  }

  #showThread(row) {
    const endpoint = this.#endpointName(row);
    document.title = `${contactName(row.contact, row.name)} · Parley`;
    this.thread = h("thread-view", { onback: () => this.#go(null), ondetails: () => this.#toggleDetails(), ongo: ({ detail }) => this.#go(detail) });
    this.main.replaceChildren(this.thread);
    this.contact.show(row, endpoint);
    this.workspace.dataset.contact = "known";
    this.thread.open(this.#api, row, endpoint);
  }

  #showNothing() {
    document.title = "Parley";
    this.workspace.dataset.view = "list";
    delete this.workspace.dataset.contact;
    this.main.replaceChildren(h("div", { class: "placeholder" }, icon("inbox"), h("h2", {}, "Pick a conversation"),
      h("p", {}, h("kbd", {}, "↑"), " ", h("kbd", {}, "↓"), " and ", h("kbd", {}, "Enter"), " in the list, ", h("kbd", {}, "/"), " to search")));
  }

  #showMissing(error) {
    this.main.replaceChildren(h("div", { class: "placeholder" },
      icon("alert"), h("h2", {}, "This conversation cannot be shown"), h("p", {}, error.message),
      h("button", { type: "button", class: "button", onclick: () => this.#go(null) }, "Back to the list")));
  }

  async #openQuarantine() {
    await import("./quarantine-panel.js");
    this.quarantine.open(this.#api);
  }

  async #countQuarantine() {
    try {
      const { data, next_cursor } = await this.#api.quarantine({ limit: QUARANTINE_COUNTED });
      this.bar.showQuarantine(data.length, next_cursor !== null);
    } catch (error) {
      if (!(error instanceof Problem)) throw error; // what is wrong with the gateway, the list and the connection say; the next look is soon
    }
  }

  #toggleDetails(open = this.workspace.dataset.details !== "open") {
    this.workspace.dataset.details = open ? "open" : "closed";
    localStorage.setItem(DETAILS, this.workspace.dataset.details);
  }

  #toggleTheme() {
    const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    const theme = (document.documentElement.dataset.theme ?? system) === "dark" ? "light" : "dark";
    if (theme === system) localStorage.removeItem(THEME); // back to following the system
    else localStorage.setItem(THEME, theme);
    this.#applyTheme();
  }

  #applyTheme() {
    const theme = localStorage.getItem(THEME);
    if (theme === null) delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  }

  #shortcut(event) {
    if (this.#api === null || event.defaultPrevented || event.target.closest?.("dialog")) return;
    if (event.key === "Escape" && this.#open !== null) this.#go(null);
    else if (event.key === "/" && !event.target.matches("input, select")) {
      event.preventDefault();
      this.list.focusSearch();
    }
  }
}

customElements.define("parley-app", ParleyApp);
