// @ts-check
/**
 * A stream, followed: does what the rule in `subscription.js` says, with a connection, the clock, and what the browser tells a page.
 *
 * Where WebSockets are not let through, Server-Sent Events carry the same frames. Where those do not come through either
 * although the server answers, `buffered` is dispatched after each attempt: a page can load the
 * stream over HTTP meanwhile.
 */

import { remembered } from "./remembered.js";
import { Subscription } from "./subscription.js";
import { eventsUrl, openEvents, openSocket, request, tokenOf } from "./sources.js";

const ANSWER_LIMIT_MS = 4_000;
const RETRY_AFTER_MOST = 60; // seconds that a server is obeyed
const EVENTS_UNTIL = "pushserver-events-until"; // remembered for the tab

/** By the wall: a machine that slept finds that it did. */
const now = () => Date.now() / 1000;

/** The seconds of a `Retry-After`: a number, or a date. @param {string | null} value */
function retryAfter(value) {
  const seconds = Number(value);
  return Math.min(Math.max(seconds || Date.parse(String(value)) / 1000 - now() || 0, 0), RETRY_AFTER_MOST);
}

/** The answer to a HEAD, null where none comes in time. @param {URL} url @param {import("./sources.js").Access} access */
async function head(url, access) {
  const signal = AbortSignal.timeout?.(ANSWER_LIMIT_MS); // in an older browser, the next attempt ends the wait
  return fetch(url, await request(access, { method: "HEAD", cache: "no-store", signal })).catch(() => null);
}

/** The status and the wait that an address names. The server lets no page of an origin that it refuses see the status. Such
 * a page may load the server's modules all the same: where they come and the answer does not, it is a refusal.
 * @param {URL} url @param {import("./sources.js").Access} access @returns {Promise<[number, number] | undefined>} */
async function ask(url, access) {
  let response = await head(url, access);
  if (!response && url.origin !== location.origin && (await head(new URL("../../static/stream.js", url), {}))?.ok) {
    response = await head(url, access);
    if (!response) return [403, 0];
  }
  if (response) return [response.status, retryAfter(response.headers.get("Retry-After"))];
}

export class Stream extends EventTarget {
  #subscription;
  #access;
  /** @type {import("./sources.js").Source | null} */ #source = null;
  /** @type {number | undefined} */ #timer;
  #seen = "";
  #attempt = 0;
  #isOpen = false; // `open` was called, and `close` was not since
  #life = new AbortController();

  /**
   * Dispatches `frame` (detail: the frame to apply), `state` (detail: {state, reason, stale, buffered, expired}, as in subscription.js),
   * `buffered`, and any other frame under its type: `hello`, `head` (the heartbeat), `bye` (the server closes after it).
   * @param {string | URL} url of the WebSocket, without its cursor
   * @param {string} cursor of what the page shows already, or ""
   * @param {import("./sources.js").Access} [access] `withCredentials`: a page of another origin sends its cookies too. `token`:
   * of a private stream; a function is called for each connection
   */
  constructor(url, cursor = "", access = {}) {
    super();
    this.url = String(url);
    this.#access = access;
    this.#subscription = new Subscription(cursor, Number(remembered("sessionStorage", EVENTS_UNTIL)));
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

  /** @param {import("./subscription.js").Action} action @param {any} [frame] */
  #do(action, frame) {
    const subscription = this.#subscription;
    if (action === "leave" || action === "connect" || subscription.state === "ended") this.#drop();
    if (action === "connect") this.#connect();
    if (action === "leave" && subscription.asks) this.#ask();
    clearTimeout(this.#timer);
    if (subscription.due !== null) this.#timer = setTimeout(() => this.#tick(), (subscription.due - now()) * 1000);
    if (frame) this.#emit(action === "apply" ? "frame" : frame.type, frame);
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

  async #connect() {
    const attempt = this.#attempt;
    const isCurrent = () => this.#attempt === attempt;
    const open = this.#subscription.transport === "socket" ? openSocket : openEvents;
    const token = this.#access.token && (await tokenOf(this.#access).catch(() => ""));
    if (!isCurrent()) return;
    this.#source = open(this.#address(), {
      token,
      access: this.#access,
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
    const answer = await ask(eventsUrl(this.#address()), this.#access);
    if (!answer || this.#attempt !== attempt) return;
    this.#do(this.#subscription.answered(...answer, now(), this.#chance()));
    if (this.#subscription.buffered && !this.#source) this.#emit("buffered", null);
  }

  /** Say what has changed, and remember it. */
  #report() {
    const { state, reason, stale, buffered, expired, eventsUntil } = this.#subscription;
    const detail = { state, reason, stale, buffered, expired, eventsUntil };
    const text = JSON.stringify(detail);
    if (text === this.#seen) return;
    this.#seen = text;
    remembered("sessionStorage", EVENTS_UNTIL, String(eventsUntil));
    this.#emit("state", detail);
  }

  #emit(/** @type {string} */ type, /** @type {any} */ detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
