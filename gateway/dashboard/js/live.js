// The event stream: one `/ws` connection that is opened again whenever it is lost, and resumes where it stopped.
//
// Owns the connection's life and the feed position {epoch, offset}. Frames are handed over in batches, once a picture, each offset once and
// in order. Knows nothing of conversations. The frames and close codes are the gateway's, protocol/frames.py.
//
// States: connecting → live ⇄ reconnecting (with `retryAt`) | offline; snapshot while the page re-reads; refused is final.

const FIRST_DELAY = 500; // ms; doubles with every failure, and half of it is drawn, so that a restarted gateway is not met by all at once
const MAX_DELAY = 20_000;
const PING_EVERY = 15_000;
const SILENCE = 35_000; // two pings unanswered: the peer or the way to it is gone, whatever TCP still believes
const HIDDEN_FLUSH = 250; // a hidden tab paints no pictures

const BAD_FRAME = 4000;
const UNAUTHENTICATED = 4001;

export class Live {
  state = { name: "connecting" };
  position = null;
  /** Events since the page was opened, for the rate. */
  received = 0;

  #key;
  #on;
  #socket = null;
  #failures = 0;
  #retry = null;
  #ping = null;
  #heardAt = 0;
  #batch = [];
  #flushing = false;

  /**
   * `on.state(state)`; `on.frames(frames)`: event frames in order; `on.snapshot()`: re-read everything, resolve to the new position (or null: try
   * again later).
   */
  constructor(key, on) {
    this.#key = key;
    this.#on = on;
  }

  /** Follow the tenant's feed after `position`, until `stop`. */
  start(position) {
    this.position = position;
    addEventListener("online", this.#wake);
    addEventListener("offline", this.#sleep);
    document.addEventListener("visibilitychange", this.#wake);
    this.#connect();
  }

  stop() {
    removeEventListener("online", this.#wake);
    removeEventListener("offline", this.#sleep);
    document.removeEventListener("visibilitychange", this.#wake);
    this.#drop();
    clearTimeout(this.#retry);
  }

  /** Try now instead of at `retryAt`. */
  retry() {
    if (this.state.name === "reconnecting" && this.#socket === null) this.#connect();
  }

  #wake = () => {
    this.#flush(); // a picture asked for before the tab was hidden is not painted until it is shown
    if (document.hidden || !navigator.onLine) return;
    if (this.state.name === "offline" || this.state.name === "reconnecting") {
      this.#failures = 0;
      if (this.#socket === null) this.#connect();
    }
  };

  #sleep = () => {
    if (this.state.name === "refused") return;
    this.#drop();
    clearTimeout(this.#retry);
    this.#enter({ name: "offline" });
  };

  #enter(state) {
    this.state = state;
    this.#on.state(state);
  }

  #connect() {
    clearTimeout(this.#retry);
    this.#enter({ name: this.#failures === 0 && this.state.name === "connecting" ? "connecting" : "reconnecting", retryAt: null });
    const socket = new WebSocket(new URL("/ws", location.href.replace(/^http/, "ws")));
    this.#socket = socket;
    this.#heardAt = Date.now();
    socket.onopen = () => this.#send({ type: "authenticate", token: this.#key });
    socket.onmessage = ({ data }) => {
      this.#heardAt = Date.now();
      this.#receive(JSON.parse(data));
    };
    socket.onclose = ({ code, reason }) => this.#closed(code, reason);
    this.#ping = setInterval(() => {
      if (Date.now() - this.#heardAt > SILENCE) this.#closed(1006, "silence");
      else if (socket.readyState === WebSocket.OPEN) this.#send({ type: "ping" });
    }, PING_EVERY);
  }

  #send(frame) {
    this.#socket.send(JSON.stringify(frame));
  }

  #drop() {
    clearInterval(this.#ping);
    if (this.#socket === null) return;
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
    this.#socket = null;
  }

  #closed(code, reason) {
    this.#drop();
    if (code === UNAUTHENTICATED || code === BAD_FRAME) {
      this.#enter({ name: "refused", code, reason });
      return;
    }
    const delay = Math.min(MAX_DELAY, FIRST_DELAY * 2 ** this.#failures++) * (0.5 + Math.random() / 2);
    this.#retry = setTimeout(() => this.#connect(), delay);
    this.#enter(navigator.onLine ? { name: "reconnecting", retryAt: Date.now() + delay, code } : { name: "offline" });
  }

  #subscribe() {
    this.#send({ type: "subscribe", topics: ["tenant"], ...this.position });
  }

  #receive(frame) {
    switch (frame.type) {
      case "event":
        if (frame.offset <= this.position.offset) return; // already had: a replay may overlap what came live
        this.position.offset = frame.offset;
        this.received++;
        this.#batch.push(frame);
        this.#flushSoon();
        return;
      case "welcome":
        this.#subscribe();
        return;
      case "subscribed":
        this.position = { epoch: frame.epoch, offset: Math.max(this.position.offset, frame.offset) };
        this.#failures = 0;
        this.#flush();
        this.#enter({ name: "live" });
        return;
      case "snapshot_required":
        this.#takeSnapshot(this.#socket);
        return;
      case "error":
        this.#closed(frame.code === "not_authenticated" ? UNAUTHENTICATED : 1013, frame.detail);
        return;
      // pong, unsubscribed, and what later protocols add: having been heard is all they are for
    }
  }

  async #takeSnapshot(socket) {
    this.#flush();
    this.#enter({ name: "snapshot" });
    const position = await this.#on.snapshot();
    if (this.#socket !== socket) return; // lost meanwhile: the next connection subscribes from wherever we are
    if (position === null) {
      this.#closed(1013, "no snapshot");
    } else {
      this.position = position;
      this.#subscribe();
    }
  }

  #flushSoon() {
    if (this.#flushing) return;
    this.#flushing = true;
    if (document.hidden) setTimeout(this.#flush, HIDDEN_FLUSH);
    else requestAnimationFrame(this.#flush);
  }

  #flush = () => {
    this.#flushing = false;
    const frames = this.#batch;
    this.#batch = [];
    if (frames.length) this.#on.frames(frames);
  };
}
