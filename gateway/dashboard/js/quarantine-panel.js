// <quarantine-panel>: what the gateway keeps aside because it could not be routed or understood. A modal list, newest first.

import { rawJson } from "./content.js";
import { h, icon, iconButton } from "./dom.js";
import { count, fullTime } from "./format.js";

const PAGE = 50;

const REASONS = {
  undecodable: "Could not be decoded", unrouted: "Belongs to no endpoint", bad_item: "Broken item", crashed: "Crashed its conversation",
  unstorable: "Could not be stored",
};

export class QuarantinePanel extends HTMLElement {
  #api = null;
  #cursor = null;

  /** Open the panel and read its first page. */
  async open(api) {
    this.#api = api;
    this.#cursor = null;
    this.list = h("div", { class: "entries" });
    this.more = h("button", { type: "button", class: "button", hidden: true, onclick: () => this.#read() }, "Show older");
    this.dialog = h("dialog", { "aria-labelledby": "quarantine-title", onclose: () => this.replaceChildren() },
      h("header", { class: "pane-head" }, h("h2", { id: "quarantine-title" }, "Quarantine"),
        iconButton("close", "Close quarantine", () => this.dialog.close())),
      h("p", { class: "faint lead" }, "Kept whole and set aside, so that one bad item never stops the rest."),
      this.list, this.more);
    this.replaceChildren(this.dialog);
    this.dialog.showModal();
    await this.#read();
  }

  async #read() {
    this.more.disabled = true;
    try {
      const { data, next_cursor } = await this.#api.quarantine({ limit: PAGE, cursor: this.#cursor });
      this.#cursor = next_cursor;
      this.list.append(...data.map((entry) => this.#entry(entry)));
      this.more.textContent = "Show older";
      this.more.hidden = next_cursor === null;
      if (this.list.childElementCount === 0) this.list.append(h("p", { class: "faint" }, "Nothing is in quarantine."));
    } catch (error) {
      this.list.append(h("p", { class: "problem", role: "alert" }, icon("alert"), error.message));
      this.more.textContent = "Try again";
      this.more.hidden = false;
    }
    this.more.disabled = false;
  }

  #entry({ id, at, reason, detail, payload, encoding, size, truncated, webhook, conversation }) {
    const shown = [`${count(size)} bytes`, encoding === "base64" && "base64", truncated && "its beginning"].filter(Boolean).join(", ");
    const source = [webhook && `webhook ${webhook}`, conversation && `conversation ${conversation}`].filter(Boolean).join(" · ");
    return h("article", { class: "entry", "data-entry": id },
      h("header", {}, h("strong", {}, REASONS[reason] ?? reason), h("time", { class: "faint" }, fullTime(at))),
      h("p", { dir: "auto" }, detail),
      source ? h("small", { class: "faint" }, source) : null,
      rawJson(payload, `Show payload (${shown})`));
  }
}

customElements.define("quarantine-panel", QuarantinePanel);
