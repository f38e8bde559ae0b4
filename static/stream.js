// @ts-check
/**
 * The reader's side of a stream: one connection at a time, and the rule by which a client knows that it has everything.
 *
 * An event is applied if it is the next one and names the last one as the one before. Anything else means that something was
 * lost on the way; the cure is always to connect again with the cursor, which the server answers with all that is missing,
 * or with a snapshot. `pushserver/follow.py` is the same rule.
 *
 *   connecting --hello--> live | stale --lost, silent, closed--> waiting --its time, online, shown--> connecting
 *       '-------------- closed for good ---------------> ended
 *       '------- no token, or one that is over --------> expired --open()--> connecting
 *
 * Where WebSockets are not let through, which only shows by what does not come, Server-Sent Events carry the same frames.
 */

const FIRST_DELAY_MS = 500;
const MOST_DELAY_MS = 20_000;
const SILENT_BEATS = 2.5; // heartbeats without a frame, after which the connection is taken for dead
const BEHIND_LIMIT_MS = 5_000; // that a head may be ahead of what arrived
const HELLO_LIMIT_MS = 5_000; // for the first frame to come
const SOCKETS_TRIED = 2; // times without a frame, after which the other transport is tried
const NO_SOCKETS = "pushserver-no-sockets"; // remembered for the tab
const STEADY_MS = 30_000; // live for so long, the next failure counts as the first

/** @param {number} code close codes that mean: do not come back */
const isFinal = (code) => (code >= 4400 && code <= 4407) || code === 4410;
const TOKEN_EXPIRED = 4401;

/**
 * @typedef {{close(): void}} Connection
 * @param {URL} url @param {(frame: any) => void} take @param {(code: number) => void} closed
 * @returns {Connection}
 */
function openSocket(url, take, closed) {
  const socket = new WebSocket(url);
  socket.onmessage = ({ data }) => take(JSON.parse(data));
  socket.onclose = ({ code }) => closed(code);
  return socket;
}

/** @param {URL} url of the WebSocket */
function eventsUrl(url) {
  url.protocol = url.protocol.replace("ws", "http");
  url.pathname = url.pathname.replace(/ws$/, "sse");
  return url;
}

/** The same by Server-Sent Events. @type {typeof openSocket} */
function openEvents(url, take, closed) {
  const source = new EventSource(eventsUrl(url));
  source.onmessage = ({ data }) => take(JSON.parse(data));
  source.onerror = () => {
    source.close(); // when to come back is decided in one place
    closed(1006);
  };
  return source;
}

export class Stream extends EventTarget {
  /** @type {Connection | null} */ #connection = null;
  #socketsWork = false;
  #socketsTried = 0;
  #failures = 0;
  #heartbeatMs = 15_000;
  #liveSince = 0;
  #behindSince = 0;
  /** @type {number | undefined} */ #timer;

  /**
   * Dispatches `frame` (detail: the frame to apply) and `state` (detail: connecting, live, stale, waiting, expired or ended).
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
    if (this.#connection || this.state === "ended") return;
    const url = new URL(this.url);
    url.searchParams.set("cursor", this.cursor);
    const bySocket = this.#triesSocket();
    const connection = (bySocket ? openSocket : openEvents)(
      url,
      (frame) => this.#connection === connection && this.#take(frame, bySocket),
      (code) => this.#connection === connection && this.#closed(code),
    );
    this.#connection = connection;
    this.#become("connecting");
    this.#expect(HELLO_LIMIT_MS);
  }

  /** Two tries in three, unless this tab knows: a server that is away delivers nothing either way. */
  #triesSocket() {
    if (this.#socketsWork) return true;
    if (sessionStorage.getItem(NO_SOCKETS)) return false;
    return this.#socketsTried++ % (SOCKETS_TRIED + 1) < SOCKETS_TRIED;
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

  /** A browser does not tell a page why a handshake failed; a question over HTTP is answered. */
  async #askWhy() {
    const response = await fetch(eventsUrl(new URL(this.url)), { method: "HEAD" }).catch(() => null);
    if (response && (response.status === 401 || response.status === 403) && this.state === "waiting") this.#expire();
  }

  #expire() {
    clearTimeout(this.#timer);
    this.#become("expired");
  }

  /** @param {any} frame @param {boolean} bySocket */
  #take(frame, bySocket) {
    if (bySocket) this.#socketsWork = true;
    else sessionStorage.setItem(NO_SOCKETS, "1");
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
        this.#become(frame.stale ? "stale" : "live");
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
    if (this.#liveSince && Date.now() - this.#liveSince > STEADY_MS) this.#failures = 0;
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
    const connection = this.#connection;
    this.#connection = null;
    this.#behindSince = this.#liveSince = 0;
    clearTimeout(this.#timer);
    connection?.close();
  }

  #expect(/** @type {number} */ ms) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#leave(0, false), ms);
  }

  #become(/** @type {string} */ state) {
    if (this.state === state) return;
    this.state = state;
    this.#emit("state", state);
  }

  #emit(/** @type {string} */ type, /** @type {any} */ detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
