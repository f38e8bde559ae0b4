// @ts-check
/**
 * The reader's side of a stream: one WebSocket at a time, and the rule by which a client knows that it has everything.
 *
 * An event is applied if it is the next one and names the last one as the one before. Anything else means that something was
 * lost on the way; the cure is always to connect again with the cursor, which the server answers with all that is missing,
 * or with a snapshot. `pushserver/follow.py` is the same rule.
 *
 *   connecting --hello--> live --lost, silent, closed--> waiting --its time, online, shown--> connecting
 *       '-------------- closed for good ---------------> ended
 *       '------- no token, or one that is over --------> expired --open()--> connecting
 */

const FIRST_DELAY_MS = 500;
const MOST_DELAY_MS = 20_000;
const SILENT_BEATS = 2.5; // heartbeats without a frame, after which the connection is taken for dead
const BEHIND_LIMIT_MS = 5_000; // that a head may be ahead of what arrived
const HELLO_LIMIT_MS = 10_000; // for the first frame to come
const STEADY_MS = 30_000; // live for so long, the next failure counts as the first

/** @param {number} code close codes that mean: do not come back */
const isFinal = (code) => (code >= 4400 && code <= 4407) || code === 4410;
const TOKEN_EXPIRED = 4401;

export class Stream extends EventTarget {
  /** @type {WebSocket | null} */ #socket = null;
  #failures = 0;
  #heartbeatMs = 15_000;
  #liveSince = 0;
  #behindSince = 0;
  /** @type {number | undefined} */ #timer;

  /**
   * Dispatches `frame` (detail: the frame to apply) and `state` (detail: connecting, live, waiting, expired or ended).
   * @param {string} url of the WebSocket, without its cursor
   * @param {string} cursor of what the page shows already, or ""
   */
  constructor(url, cursor) {
    super();
    this.url = url;
    this.cursor = cursor;
    this.n = 0;
    this.state = "waiting";
  }

  /** Connect now, unless connected. */
  open() {
    if (this.#socket || this.state === "ended") return;
    const url = new URL(this.url);
    url.searchParams.set("cursor", this.cursor);
    const socket = new WebSocket(url);
    this.#socket = socket;
    this.#become("connecting");
    this.#expect(HELLO_LIMIT_MS);
    socket.onmessage = ({ data }) => this.#socket === socket && this.#take(JSON.parse(data));
    socket.onclose = ({ code }) => this.#socket === socket && this.#closed(code);
  }

  /** Let go of the connection without coming back by itself, as a page that is put away must. */
  close() {
    if (this.state === "ended") return;
    this.#drop();
    clearTimeout(this.#timer);
    this.#become("waiting");
  }

  #closed(/** @type {number} */ code) {
    const wasRefused = this.state === "connecting";
    this.#leave(0, isFinal(code) && code !== TOKEN_EXPIRED);
    if (code === TOKEN_EXPIRED) this.#expire();
    else if (wasRefused) this.#askWhy();
  }

  /** A browser does not tell a page why a handshake failed; the same address over HTTP does. */
  async #askWhy() {
    const response = await fetch(this.url.replace(/^ws/, "http")).catch(() => null);
    if (response && (response.status === 401 || response.status === 403) && this.state === "waiting") this.#expire();
  }

  #expire() {
    clearTimeout(this.#timer);
    this.#become("expired");
  }

  /** @param {any} frame */
  #take(frame) {
    this.#expect(this.#heartbeatMs * SILENT_BEATS);
    switch (frame.type) {
      case "hello":
        this.#heartbeatMs = frame.heartbeat * 1000;
        if (frame.complete) this.n = frame.from;
        this.#liveSince = Date.now();
        this.#become("live");
        return;
      case "snapshot":
        this.n = frame.n;
        this.cursor = frame.cursor;
        this.#emit("frame", frame);
        return;
      case "head":
        this.#checkHead(frame.head.n);
        return;
      case "bye":
        this.#leave(frame.retry_ms, false);
        return;
    }
    if (!(frame.n > this.n)) return; // it came already, or is of a kind that is newer than this page
    if (frame.n !== this.n + 1 || frame.prev !== this.cursor) {
      this.#leave(0, false);
      return;
    }
    this.n = frame.n;
    this.cursor = frame.cursor;
    this.#behindSince = 0;
    this.#emit("frame", frame);
    if (frame.type === "stream.end") {
      this.#drop();
      this.#become("ended");
    }
  }

  /** @param {number} n of the newest event, as the server says */
  #checkHead(n) {
    if (n <= this.n) this.#behindSince = 0;
    else if (!this.#behindSince) this.#behindSince = Date.now();
    else if (Date.now() - this.#behindSince > BEHIND_LIMIT_MS) this.#leave(0, false);
  }

  /** Give the connection up, and come back after a while: at random, so that many do not come at once. */
  #leave(/** @type {number} */ retryMs, /** @type {boolean} */ isFinalClose) {
    if (this.state === "live" && Date.now() - this.#liveSince > STEADY_MS) this.#failures = 0;
    this.#drop();
    if (isFinalClose) {
      this.#become("ended");
      return;
    }
    const most = retryMs || Math.min(MOST_DELAY_MS, FIRST_DELAY_MS * 2 ** this.#failures++);
    this.#timer = setTimeout(() => this.open(), Math.random() * most);
    this.#become("waiting");
  }

  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    this.#behindSince = 0;
    clearTimeout(this.#timer);
    socket?.close();
  }

  #expect(/** @type {number} */ ms) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#leave(0, false), ms);
  }

  #become(/** @type {string} */ state) {
    this.state = state;
    this.#emit("state", state);
  }

  #emit(/** @type {string} */ type, /** @type {any} */ detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
