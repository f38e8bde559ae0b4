// @ts-check
/**
 * A stream, followed: does what the rule in `rule.js` says, with a connection, the clock, and what the browser tells a page.
 *
 * Where WebSockets are not let through, Server-Sent Events carry the same frames. Where those do not come through either
 * although the server answers, `buffered` is dispatched after each attempt: a page can load the
 * stream over HTTP meanwhile.
 */

import { Subscription } from "./rule.js";

const ANSWER_LIMIT_MS = 4_000;
const RETRY_AFTER_MOST = 60; // seconds that a server is obeyed
const EVENTS_UNTIL = "pushserver-events-until"; // remembered for the tab

/** @type {Record<string, string>} where a browser keeps nothing for this page, each page finds out anew */
const memory = (() => {
  try {
    return sessionStorage;
  } catch {
    return {};
  }
})();

/** By the wall: a machine that slept finds that it did. */
const now = () => Date.now() / 1000;

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

/** The other road to a stream. @param {URL} address of the WebSocket */
function eventsUrl(address) {
  const url = new URL(address);
  url.protocol = url.protocol.replace("ws", "http");
  url.pathname = url.pathname.replace(/ws$/, "sse");
  return url;
}

/**
 * The same by Server-Sent Events.
 * @param {URL} url @param {(frame: any) => void} take @param {(code: number) => void} closed @param {boolean} withCredentials
 * @returns {Connection}
 */
function openEvents(url, take, closed, withCredentials) {
  const source = new EventSource(eventsUrl(url), { withCredentials });
  source.onmessage = ({ data }) => take(JSON.parse(data));
  source.onerror = () => {
    source.close(); // when to come back is decided in one place
    closed(1006);
  };
  return source;
}

/** The seconds of a `Retry-After`: a number, or a date. @param {string | null} given */
function retryAfter(given) {
  const seconds = Number(given ?? 0);
  const asked = Number.isNaN(seconds) ? Date.parse(String(given)) / 1000 - now() : seconds;
  return Math.min(Math.max(asked || 0, 0), RETRY_AFTER_MOST);
}

export class Stream extends EventTarget {
  #subscription;
  #withCredentials;
  /** @type {Connection | null} */ #connection = null;
  /** @type {number | undefined} */ #timer;
  #told = "";

  /**
   * Dispatches `frame` (detail: the frame to apply), `state` (detail: {state, stale, buffered, expired}, as in rule.js),
   * `bye` (detail: the frame after which the server closes), and `buffered`.
   * @param {string} url of the WebSocket, without its cursor
   * @param {string} cursor of what the page shows already, or ""
   * @param {{withCredentials?: boolean}} [options] a page of another origin sends its cookies too
   */
  constructor(url, cursor = "", { withCredentials = false } = {}) {
    super();
    this.url = url;
    this.#withCredentials = withCredentials;
    this.#subscription = new Subscription(cursor, Number(memory[EVENTS_UNTIL] ?? 0));
    // A page that keeps a socket open cannot be kept for the back button.
    addEventListener("pagehide", () => this.close());
    addEventListener("pageshow", () => this.open());
    addEventListener("online", () => this.open());
    document.addEventListener("visibilitychange", () => document.hidden || this.open());
  }

  /** Connect now, unless connected, ended, or asked to wait. */
  open() {
    this.#do(this.#subscription.wake(now(), this.#chance()));
  }

  /** Let go of the connection without coming back by itself, as a page that is put away must. */
  close() {
    this.#do(this.#subscription.close());
  }

  /** The page shows what a fresh load does, as of this cursor; to be told while there is no connection. */
  loaded(/** @type {string} */ cursor) {
    if (!this.#connection) this.#subscription.cursor = cursor;
  }

  /** What the rule needs beside the time. */
  #chance() {
    this.#subscription.hidden = document.hidden;
    return Math.random();
  }

  /** @param {import("./rule.js").Action} action @param {any} [frame] */
  #do(action, frame) {
    const subscription = this.#subscription;
    if (action === "leave" || action === "connect" || subscription.state === "ended") this.#drop();
    if (action === "connect") this.#connect();
    if (action === "leave" && subscription.asks) this.#ask();
    clearTimeout(this.#timer);
    if (subscription.due !== null) this.#timer = setTimeout(() => this.#tick(), (subscription.due - now()) * 1000);
    if (action === "apply") this.#emit("frame", frame);
    if (frame?.type === "bye") this.#emit("bye", frame);
    this.#tell();
  }

  /** A timer that is over says how late it is at least, whatever became of the clock. */
  #tick() {
    this.#do(this.#subscription.tick(Math.max(now(), this.#subscription.due ?? 0), this.#chance()));
  }

  /** Of the WebSocket. */
  #address() {
    const url = new URL(this.url);
    url.searchParams.set("cursor", this.#subscription.cursor);
    return url;
  }

  #connect() {
    const open = this.#subscription.transport === "socket" ? openSocket : openEvents;
    const connection = open(
      this.#address(),
      (frame) => this.#connection === connection && this.#do(this.#subscription.take(frame, now(), this.#chance()), frame),
      (code) => this.#connection === connection && this.#do(this.#subscription.closed(code, now(), this.#chance())),
      this.#withCredentials,
    );
    this.#connection = connection;
  }

  #drop() {
    const connection = this.#connection;
    this.#connection = null;
    connection?.close();
  }

  /** A browser does not tell a page why a connection failed, nor show it the answer; a question over HTTP is answered. */
  async #ask() {
    const response = await fetch(eventsUrl(this.#address()), {
      method: "HEAD",
      credentials: this.#withCredentials ? "include" : "same-origin",
      signal: AbortSignal.timeout(ANSWER_LIMIT_MS),
    }).catch(() => null);
    if (!response || this.#connection) return;
    const asked = retryAfter(response.headers.get("Retry-After"));
    this.#do(this.#subscription.answered(response.status, asked, now(), this.#chance()));
    if (this.#subscription.buffered && !this.#connection) this.#emit("buffered", null);
  }

  /** Say what has changed, and remember it. */
  #tell() {
    const { state, stale, buffered, expired, eventsUntil } = this.#subscription;
    if (eventsUntil || memory[EVENTS_UNTIL]) memory[EVENTS_UNTIL] = String(eventsUntil);
    const told = JSON.stringify([state, stale, buffered, expired]);
    if (told === this.#told) return;
    this.#told = told;
    this.#emit("state", { state, stale, buffered, expired });
  }

  #emit(/** @type {string} */ type, /** @type {any} */ detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
