// @ts-check
/**
 * A stream, followed: does what the rule in `rule.js` says, with a connection, the clock, and what the browser tells a page.
 *
 * Where WebSockets are not let through, Server-Sent Events carry the same frames. Where those do not come through either
 * although the server answers, `buffered` is dispatched after each attempt: a page can load the
 * stream over HTTP meanwhile.
 */

import { Subscription } from "./rule.js";
import { eventsUrl, openEvents, openSocket, request } from "./sources.js";

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

/** The seconds of a `Retry-After`: a number, or a date. @param {string | null} given */
function retryAfter(given) {
  const seconds = Number(given ?? 0);
  const asked = Number.isNaN(seconds) ? Date.parse(String(given)) / 1000 - now() : seconds;
  return Math.min(Math.max(asked || 0, 0), RETRY_AFTER_MOST);
}

/** The answer to a HEAD, null where none comes in time. @param {URL} url @param {RequestInit} [options] */
async function head(url, options) {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), ANSWER_LIMIT_MS);
  const response = await fetch(url, { ...options, method: "HEAD", signal: abort.signal }).catch(() => null);
  clearTimeout(timer);
  return response;
}

/** The status and the wait that an address names. The server lets no page of an origin that it refuses see the status. Such
 * a page may load the server's modules all the same: where they come and the answer does not, it is a refusal.
 * @param {URL} url @param {RequestInit} options @returns {Promise<[number, number] | null>} */
async function ask(url, options) {
  let response = await head(url, options);
  if (!response && url.origin !== location.origin) {
    const modules = await head(new URL("../../static/stream.js", url), { cache: "no-store" });
    if (!modules?.ok) return null;
    response = await head(url, options);
    if (!response) return [403, 0];
  }
  return response && [response.status, retryAfter(response.headers.get("Retry-After"))];
}

export class Stream extends EventTarget {
  #subscription;
  #options;
  /** @type {import("./sources.js").Source | null} */ #source = null;
  /** @type {number | undefined} */ #timer;
  #seen = "";
  #attempt = 0;
  #isOpen = false; // `open` was called, and `close` was not since
  #life = new AbortController();

  /**
   * Dispatches `frame` (detail: the frame to apply), `head` (detail: the heartbeat), `state` (detail: {state, reason, stale,
   * buffered, expired}, as in rule.js), and `buffered`.
   * @param {string | URL} url of the WebSocket, without its cursor
   * @param {string} cursor of what the page shows already, or ""
   * @param {{withCredentials?: boolean, token?: string | (() => string | Promise<string>)}} [options] `withCredentials`: a
   * page of another origin sends its cookies too. `token`: of a private stream; a function is called for each connection
   */
  constructor(url, cursor = "", options = {}) {
    super();
    this.url = String(url);
    this.#options = options;
    this.#subscription = new Subscription(cursor, Number(memory[EVENTS_UNTIL] ?? 0));
    const { signal } = this.#life;
    const wake = () => this.#wake();
    // A page that keeps a socket open cannot be kept for the back button.
    addEventListener("pagehide", () => this.#do(this.#subscription.close()), { signal });
    addEventListener("pageshow", wake, { signal });
    addEventListener("online", wake, { signal });
    document.addEventListener("visibilitychange", () => document.hidden || wake(), { signal });
  }

  /** Connect now, unless connected, ended, or asked to wait; and again whenever the page is shown or the network is back. */
  open() {
    this.#isOpen = !this.#life.signal.aborted;
    this.#wake();
  }

  /** Let go of the connection until `open` is called. */
  close() {
    this.#isOpen = false;
    this.#do(this.#subscription.close());
  }

  /** Let go of the connection and of the page's events for good. */
  dispose() {
    this.#life.abort();
    this.close();
  }

  /** The page shows what a fresh load does, as of this cursor; to be told while there is no connection. */
  loaded(/** @type {string} */ cursor) {
    if (!this.#source) this.#subscription.cursor = cursor;
  }

  #wake() {
    if (this.#isOpen) this.#do(this.#subscription.wake(now(), this.#chance()));
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
    if (frame?.type === "head") this.#emit("head", frame);
    this.#report();
  }

  /** A timer that is over says how late it is at least, whatever became of the clock. */
  #tick() {
    this.#do(this.#subscription.tick(Math.max(now(), this.#subscription.due ?? 0), this.#chance()));
  }

  /** Of the WebSocket. */
  #address() {
    const url = new URL(this.url, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    url.searchParams.set("cursor", this.#subscription.cursor);
    return url;
  }

  /** @returns {string | undefined | Promise<string>} */
  #token() {
    const { token } = this.#options;
    return typeof token === "function" ? token() : token;
  }

  async #connect() {
    const attempt = this.#attempt;
    const isCurrent = () => this.#attempt === attempt;
    const open = this.#subscription.transport === "socket" ? openSocket : openEvents;
    let token = this.#token();
    if (token instanceof Promise) token = await token.catch(() => undefined);
    if (!isCurrent()) return;
    this.#source = open(this.#address(), {
      token,
      withCredentials: Boolean(this.#options.withCredentials),
      take: (frame) => isCurrent() && this.#do(this.#subscription.take(frame, now(), this.#chance()), frame),
      closed: (code) => isCurrent() && this.#do(this.#subscription.closed(code, now(), this.#chance())),
    });
  }

  #drop() {
    this.#attempt++;
    this.#source?.close();
    this.#source = null;
  }

  /** A browser does not tell a page why a connection failed, nor show it the answer; a question over HTTP is answered. */
  async #ask() {
    const attempt = this.#attempt;
    const token = await this.#token();
    const answer = await ask(eventsUrl(this.#address()), request(token, Boolean(this.#options.withCredentials)));
    if (!answer || this.#attempt !== attempt) return;
    this.#do(this.#subscription.answered(...answer, now(), this.#chance()));
    if (this.#subscription.buffered && !this.#source) this.#emit("buffered", null);
  }

  /** Say what has changed, and remember it. */
  #report() {
    const { state, reason, stale, buffered, expired, eventsUntil } = this.#subscription;
    if (eventsUntil || memory[EVENTS_UNTIL]) memory[EVENTS_UNTIL] = String(eventsUntil);
    const detail = { state, reason, stale, buffered, expired };
    if (JSON.stringify(detail) === this.#seen) return;
    this.#seen = JSON.stringify(detail);
    this.#emit("state", detail);
  }

  #emit(/** @type {string} */ type, /** @type {any} */ detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
