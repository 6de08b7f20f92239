// <contact-panel>: who the open conversation is with, as far as the provider said.

import { avatar, h, iconButton } from "./dom.js";
import { contactName, count, fullTime, phoneNumber } from "./format.js";

export class ContactPanel extends HTMLElement {
  /** Show the contact of `row`; `endpoint` is what the tenant calls its own side. Dispatches `close`. */
  show(row, endpoint) {
    const { contact } = row;
    const name = contactName(contact, row.name);
    const facts = [
      ["Phone", contact.phone && phoneNumber(contact.phone)],
      ["Username", contact.username],
      ["User id", contact.user_id],
      ["Parent user id", contact.parent_user_id],
      ["Group", contact.group_id],
      ["Endpoint", endpoint],
      ["Messages", count(row.messages)],
      ["Unanswered", row.unanswered ? count(row.unanswered) : null],
      ["Last activity", fullTime(row.last_at)],
      ["Conversation", row.id],
    ].filter(([, value]) => value);
    this.replaceChildren(
      h("header", { class: "pane-head" },
        h("h2", {}, "Contact"), iconButton("close", "Close contact details", () => this.dispatchEvent(new Event("close")))),
      h("div", { class: "scroller" },
        h("div", { class: "who" }, avatar(row.id, name), h("strong", { dir: "auto" }, name)),
        h("dl", { class: "facts" }, facts.map(([label, value]) => h("div", {}, h("dt", {}, label), h("dd", { dir: "auto" }, value))))));
  }
}

customElements.define("contact-panel", ContactPanel);
