// <status-bar>: how fresh what the page shows is: the connection, the rate of events, the newest offset; and what needs a look.

import { h, icon } from "./dom.js";
import { count } from "./format.js";

const WINDOW = 5; // s over which the rate is averaged

const LABELS = {
  connecting: "Connecting", live: "Live", snapshot: "Catching up", reconnecting: "Reconnecting", offline: "Offline", refused: "Signed out",
};

export class StatusBar extends HTMLElement {
  #live = null;
  #samples = [];

  connectedCallback() {
    this.label = h("span", { role: "status" });
    this.retry = h("button", { type: "button", class: "link", hidden: true, onclick: () => this.#live?.retry() }, "Retry now");
    this.rate = h("span", { class: "figure", title: `Events a second, over ${WINDOW} s` });
    this.offset = h("span", { class: "figure", title: "Newest offset of the feed" });
    this.quarantine = h("button", { type: "button", class: "link warn", hidden: true, onclick: () => this.dispatchEvent(new Event("quarantine")) });
    this.countdown = h("span", { "aria-hidden": "true" });
    this.replaceChildren(
      h("span", { class: "dot" }), this.label, this.countdown, this.retry, h("span", { class: "gap" }), this.quarantine, this.rate, this.offset);
    this.timer = setInterval(() => this.#second(), 1000);
  }

  disconnectedCallback() {
    clearInterval(this.timer);
  }

  /** Follow a js/live.js connection. */
  follow(live) {
    this.#live = live;
    this.#samples = [];
    this.#second();
  }

  /** Show another state of the connection. */
  update() {
    const { name, retryAt } = this.#live.state;
    this.dataset.connection = name;
    this.label.textContent = LABELS[name];
    this.retry.hidden = !retryAt;
    this.#countDown();
    this.#paintOffset();
  }

  /** Show that entries are in quarantine, `number` of them or `more`; none hides it. */
  showQuarantine(number, more) {
    this.quarantine.hidden = number === 0;
    this.quarantine.replaceChildren(icon("alert"), `${number}${more ? "+" : ""} in quarantine`);
  }

  #second() {
    if (this.#live === null) return;
    this.#samples = [...this.#samples, this.#live.received].slice(-WINDOW - 1);
    const rate = (this.#samples.at(-1) - this.#samples[0]) / Math.max(1, this.#samples.length - 1);
    this.rate.textContent = `${rate < 10 ? rate.toFixed(1) : count(Math.round(rate))} events/s`;
    this.#countDown();
    this.#paintOffset();
  }

  #countDown() {
    const { retryAt } = this.#live.state;
    this.countdown.textContent = retryAt ? `in ${Math.max(0, Math.ceil((retryAt - Date.now()) / 1000))} s` : "";
  }

  #paintOffset() {
    const { position } = this.#live;
    this.offset.textContent = position ? `#${count(position.offset)}` : "";
  }
}

customElements.define("status-bar", StatusBar);
