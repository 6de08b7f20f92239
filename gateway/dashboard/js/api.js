// The REST side of the gateway. Owns the key's use, problem details and paging parameters; knows nothing of the page.

/** A refusal or failure, after RFC 9457. `code` is stable; `status` 0: the gateway could not be reached. */
export class Problem extends Error {
  constructor(status, code, title, detail, retryable) {
    super(detail ? `${title}: ${detail}` : title);
    Object.assign(this, { status, code, title, detail, retryable });
  }
}

export class Api {
  #key;
  #onunauthenticated;

  /** `onunauthenticated` is called once a request is refused for its key, besides the Problem that the caller gets. */
  constructor(key, onunauthenticated = () => {}) {
    this.#key = key;
    this.#onunauthenticated = onunauthenticated;
  }

  me = (signal) => this.#get("me", {}, signal);
  conversations = (query, signal) => this.#get("conversations", query, signal);
  conversation = (id, signal) => this.#get(`conversations/${encodeURIComponent(id)}`, {}, signal);
  messages = (id, query, signal) => this.#get(`conversations/${encodeURIComponent(id)}/messages`, query, signal);
  events = (id, query, signal) => this.#get(`conversations/${encodeURIComponent(id)}/events`, query, signal);
  quarantine = (query, signal) => this.#get("quarantine", query, signal);

  async #get(path, query, signal) {
    const parameters = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
    const address = `/api/v1/${path}${parameters.length ? `?${new URLSearchParams(parameters)}` : ""}`;
    let response, body;
    try {
      response = await fetch(address, { signal, headers: { authorization: `Bearer ${this.#key}` }, cache: "no-store" });
      body = await response.json();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      const status = response?.status ?? 0;
      if (status === 0) throw new Problem(0, "unreachable", "The gateway cannot be reached", null, true);
      throw new Problem(status, "bad_answer", `The gateway answered ${status} without details`, null, status >= 500);
    }
    if (response.ok) return body;
    if (response.status === 401) this.#onunauthenticated();
    throw new Problem(response.status, body.code, body.title ?? "The request was refused", body.detail, body.retryable ?? false);
  }
}
