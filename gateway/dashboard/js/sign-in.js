// <sign-in>: asks for an API key and tells plainly why one is not good.

import { Api } from "./api.js";
import { h, icon } from "./dom.js";

export class SignIn extends HTMLElement {
  /** Ask for a key; `reason` says why the last session ended. Dispatches `signedin` with {key, me} as detail. */
  ask(reason = "") {
    this.field = h("input", {
      id: "key", type: "password", name: "key", autocomplete: "current-password", spellcheck: "false", autocapitalize: "off", required: true,
      "aria-describedby": "key-help key-problem",
    });
    this.button = h("button", { type: "submit", class: "button primary" }, "Sign in");
    this.problem = h("p", { id: "key-problem", class: "problem", role: "alert", hidden: !reason }, icon("alert"), h("span", {}, reason));
    this.replaceChildren(h("main", { class: "sign-in" },
      h("img", { src: "/static/mark.svg", alt: "", width: "48", height: "48" }),
      h("h1", {}, "Parley"),
      h("p", { class: "faint" }, "Every conversation, live."),
      h("form", { onsubmit: (event) => this.#submit(event) },
        h("label", { for: "key" }, "API key"), this.field,
        h("small", { id: "key-help", class: "faint" }, "It stays in this tab and is forgotten when you close it."),
        this.problem, this.button)));
    this.field.focus();
  }

  async #submit(event) {
    event.preventDefault();
    const key = this.field.value.trim();
    if (!key) return this.#refuse("Enter your API key.");
    this.button.disabled = true;
    try {
      const me = await new Api(key).me();
      this.dispatchEvent(new CustomEvent("signedin", { detail: { key, me } }));
    } catch (error) {
      this.#refuse(error.status === 401 ? "This key is not valid, or it was revoked." : `${error.message}. Try again in a moment.`);
    }
    this.button.disabled = false;
  }

  #refuse(reason) {
    this.problem.lastChild.textContent = reason;
    this.problem.hidden = false;
    this.field.setAttribute("aria-invalid", "true");
    this.field.focus();
  }
}

customElements.define("sign-in", SignIn);
