// @ts-check
/**
 * A subscription is the state of one reader of one stream: it decides what to apply and when to connect again.
 *
 * A reader applies an event only if the event is the next one and names the last applied one as its predecessor. Anything
 * else means that something was lost on the way, and the reader connects again with its cursor: the server answers with all
 * the missing events or with a snapshot.
 *
 *   waiting --due, wake--> connecting --hello--> behind <--caught up, head ahead--> live
 *      ^                       |                   |                                 |
 *      '--- no first frame, silence, a gap, closed, bye: wait at random, longer each time
 *                              |                   |                                 |
 *                              '-- a final code, a refusal, the end, a deletion ----'--> ended
 *
 * The module does no I/O and reads no clock. Each method takes the time in seconds (`at`) and a random number from 0 up to 1
 * (`chance`), and returns what to do: "nothing", "apply" the frame, "leave" the connection, or "connect" by `transport`.
 * `stream.js` is the caller. `pushserver/client/subscription.py` is the same state machine in Python, with more comments;
 * tests/client/test_subscription.py compares the two.
 */

const DELAY_FIRST = 0.5;
const DELAY_MOST = 20;
const FIRST_FRAME = 4;
const SILENT_BEATS = 2.5;
const BEHIND_LIMIT = 5;
const STEADY = 30;
const HIDDEN_LEAST = 60;
const PROVEN_MISSES = 3;
const EVENTS_FOR = 600;
// Close codes are a copy of the server's in wire/codes.py.
const FINAL_CODES = [1008, 1009, 4400, 4401, 4402, 4403, 4404, 4405, 4406, 4407, 4410];

/** @type {Record<number, Reason>} why a close code or an HTTP status is final; any other one is "refused" */
const REASONS = { 204: "over", 401: "token", 404: "unknown", 410: "deleted", 4401: "token", 4404: "unknown", 4410: "over" };

/** @typedef {"over" | "token" | "refused" | "unknown" | "deleted"} Reason why a subscription ended */
/** @typedef {"nothing" | "apply" | "leave" | "connect"} Action */

export class Subscription {
  #failures = 0;
  #misses = 0; // WebSockets in a row on which nothing came, though the server answers
  #socketsWork = false;
  #triedAt = -Infinity;
  #notBefore = -Infinity;
  /** @type {number | null} */ #liveSince = null;
  #head = 0;
  /** @type {number | null} */ #aheadSince = null;
  #owed = false; // a snapshot was announced and has not come yet

  /** @param {string} cursor of the last applied event, or "" @param {number} eventsUntil as an earlier subscription had it */
  constructor(cursor = "", eventsUntil = 0) {
    /** @type {"connecting" | "live" | "behind" | "waiting" | "ended"} */ this.state = "waiting";
    this.cursor = cursor;
    this.n = 0;
    /** @type {number | null} */ this.due = null; // when `tick` must be called; null: not at any time
    /** @type {string | null} */ this.stale = null; // since when the server has had no contact with the store
    this.buffered = false; // the server answers, but a proxy on the way buffers its events
    this.expired = false; // ended because the token is not valid or has expired
    /** @type {"" | Reason} */ this.reason = ""; // why it ended
    this.hidden = false; // nobody looks at the page; set by the caller
    this.asks = false; // an HTTP request may tell why the last attempt failed
    /** @type {"socket" | "events"} */ this.transport = "socket";
    this.eventsUntil = eventsUntil; // WebSockets count as blocked until then
    this.heartbeat = 15;
  }

  // --- events

  /** @param {number} at @param {number} chance @returns {Action} */
  wake(at, chance) {
    if (this.state === "waiting" || this.expired) {
      this.state = "waiting";
      this.expired = false;
      this.reason = "";
      this.due = Math.max(at, this.#notBefore);
    } else if (this.due !== null && at >= this.due) {
      this.#leave(at, chance); // the machine slept through the deadline
      this.due = at;
    }
    return this.tick(at, chance);
  }

  /** @param {number} at @param {number} chance @returns {Action} */
  tick(at, chance) {
    if (this.due === null || at < this.due) return "nothing";
    if (this.state !== "waiting") {
      return this.#leave(at, chance, 0, this.state === "connecting" || this.transport === "events");
    }
    if (this.hidden && at < this.#triedAt + HIDDEN_LEAST) {
      this.due = this.#triedAt + HIDDEN_LEAST;
      return "nothing";
    }
    return this.#connect(at);
  }

  /** Close the connection, and connect again only at `wake`. @returns {Action} */
  close() {
    if (this.state !== "ended") this.state = "waiting";
    this.due = null;
    this.asks = false;
    return "leave";
  }

  /** @param {number} code of the close frame, 1006 where there is none @param {number} at @param {number} chance @returns {Action} */
  closed(code, at, chance) {
    if (this.state === "waiting" || this.state === "ended") return "nothing";
    if (FINAL_CODES.includes(code)) return this.#end(REASONS[code] ?? "refused");
    return this.#leave(at, chance, 0, this.state === "connecting");
  }

  /** @param {number} status @param {number} retryAfter @param {number} at @param {number} chance @returns {Action} */
  answered(status, retryAfter, at, chance) {
    if (this.state !== "waiting" || this.due === null) return "nothing";
    if (status === 204 || (status >= 400 && status < 500 && status !== 429)) {
      return this.#end(REASONS[status] ?? "refused");
    }
    if (status >= 400) {
      this.#notBefore = at + retryAfter;
      this.due += retryAfter;
    } else if (this.transport === "events") {
      this.buffered = true;
      this.eventsUntil = 0;
    } else {
      this.#misses++;
      if (this.#takesEvents(at)) {
        this.#failures--; // the server did not fail
        this.due = at;
      }
    }
    return this.tick(at, chance);
  }

  /** @param {any} frame @param {number} at @param {number} chance @returns {Action} */
  take(frame, at, chance) {
    if (this.state === "waiting" || this.state === "ended") return "nothing";
    if (frame.type === "bye") {
      return frame.reason === "deleted" ? this.#end("deleted") : this.#leave(at, chance, frame.retry_ms / 1000);
    }
    const action = this.#judge(frame, at);
    if (action === "leave") return this.#leave(at, chance);
    this.#settle(at);
    return action;
  }

  // --- frames; "leave" where the frame does not follow

  /** @param {any} frame @param {number} at @returns {Action} */
  #judge(frame, at) {
    switch (frame.type) {
      case "hello":
        return this.#takeHello(frame, at);
      case "head":
        return this.#takeHead(frame, at);
      case "snapshot":
        return this.#takeSnapshot(frame);
      case "reset":
        if (this.state === "connecting") return "leave";
        this.#owed = true;
        return "apply";
    }
    return "n" in frame ? this.#takeEvent(frame, at) : "nothing"; // or a frame of a later protocol version
  }

  /** @param {any} frame @param {number} at @returns {Action} */
  #takeHello(frame, at) {
    if (this.state !== "connecting") return "leave";
    if (this.transport === "socket") {
      this.#socketsWork = true;
      this.buffered = false;
    } else if (this.#misses) this.eventsUntil = at + EVENTS_FOR;
    this.#misses = 0;
    this.heartbeat = frame.heartbeat;
    this.#head = frame.head.n;
    this.#owed = !frame.complete;
    if (frame.complete) this.n = frame.from;
    this.#liveSince = at;
    this.state = "behind";
    return "nothing";
  }

  /** @param {any} frame @returns {Action} */
  #takeSnapshot(frame) {
    if (!this.#owed) return "leave";
    this.n = frame.n;
    this.cursor = frame.cursor;
    this.#head = 0;
    this.#aheadSince = null;
    this.#owed = false;
    return "apply";
  }

  /** @param {any} frame @param {number} at @returns {Action} */
  #takeHead(frame, at) {
    const { n, cursor } = frame.head;
    if (this.#owed || this.state === "connecting" || (n === this.n && cursor !== this.cursor)) return "leave";
    this.stale = frame.stale ?? null;
    this.buffered = false;
    this.#head = n;
    if (n <= this.n) this.#aheadSince = null;
    else this.#aheadSince ??= at;
    return "nothing";
  }

  /** @param {any} frame @param {number} at @returns {Action} */
  #takeEvent(frame, at) {
    if (this.#owed || this.state === "connecting") return "leave";
    const { n, cursor } = frame;
    if (n <= this.n) return n === this.n && cursor !== this.cursor ? "leave" : "nothing";
    if (n !== this.n + 1 || frame.prev !== this.cursor) return "leave";
    this.n = n;
    this.cursor = cursor;
    if (this.#aheadSince !== null) this.#aheadSince = n < this.#head ? at : null;
    if (frame.type === "stream.end") this.#end("over");
    return "apply";
  }

  // --- transitions

  /** Set the state after a frame, and the time by which the next frame must have come. @param {number} at */
  #settle(at) {
    if (this.state === "connecting" || this.state === "ended") return;
    this.state = this.#owed || this.n < this.#head ? "behind" : "live";
    this.due = at + this.heartbeat * SILENT_BEATS;
    if (this.#aheadSince !== null) this.due = Math.min(this.due, this.#aheadSince + BEHIND_LIMIT);
  }

  /** @param {number} at @returns {Action} */
  #connect(at) {
    this.state = "connecting";
    this.transport = this.#takesEvents(at) ? "events" : "socket";
    this.#triedAt = at;
    this.#owed = false;
    this.#aheadSince = this.#liveSince = null;
    this.due = at + Math.min(DELAY_MOST, FIRST_FRAME * this.#growth());
    return "connect";
  }

  #takesEvents(/** @type {number} */ at) {
    return at < this.eventsUntil || this.#misses >= (this.#socketsWork ? PROVEN_MISSES : 1);
  }

  /** Close the connection and wait at random: else all readers of a restarted server come at once. @param {number} at @param {number} chance @returns {Action} */
  #leave(at, chance, most = 0, asks = false) {
    if (this.#liveSince !== null && at - this.#liveSince > STEADY) this.#failures = 0;
    most = Math.max(most, Math.min(DELAY_MOST, DELAY_FIRST * this.#growth()));
    this.#failures++;
    if (this.transport === "events") this.#misses = 0;
    this.asks = asks;
    this.state = "waiting";
    this.due = at + chance * most;
    return "leave";
  }

  #growth() {
    return 1 << Math.min(this.#failures, 10);
  }

  /** @param {Reason} reason @returns {Action} */
  #end(reason) {
    this.state = "ended";
    this.due = null;
    this.asks = false;
    this.reason = reason;
    this.expired = reason === "token";
    return "leave";
  }
}
