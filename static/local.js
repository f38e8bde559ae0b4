// @ts-check
/**
 * The element #local is the reader's own: how the connection is, what is new, and the switches. No fresh load has what stands in it.
 */

import { Announcer } from "./announcer.js";
import { remembered } from "./remembered.js";
import { make } from "./morph.js";

const GRACE_MS = 2_500; // a break that is shorter is not shown
const AUTOMATIC = "pushserver-automatic"; // remembered for the site: whether new updates come in by themselves
const LOCAL = ["p#status", "p#readers", "p#since", "button#notice", "button#zone", "button#auto", "p#announcer"];

export class Local {
  /** @type {HTMLElement} */ status;
  /** @type {HTMLElement} */ readers;
  /** @type {HTMLElement} */ since;
  /** @type {HTMLElement} */ notice;
  /** @type {HTMLElement} */ auto;
  /** @type {HTMLElement} */ zone;
  /** @type {HTMLElement} */ announcer;
  #root;
  #times;
  #speaker;
  #state = "";
  #heardAt = Date.now();
  /** @type {number | undefined} */ #grace;

  /** @param {HTMLElement} root @param {import("./times.js").Times} times */
  constructor(root, times) {
    this.#root = root;
    this.#times = times;
    const own = /** @type {HTMLElement} */ (root.querySelector("#local"));
    for (const name of LOCAL) {
      const [tag, id] = name.split("#");
      const made = /** @type {HTMLElement | null} */ (own.querySelector(`#${id}`)) ?? make(tag, { id, hidden: "" });
      own.append((/** @type {any} */ (this)[id] = made));
    }
    this.announcer.setAttribute("role", "status");
    this.announcer.hidden = false;
    this.#speaker = new Announcer(this.announcer);
  }

  stop() {
    this.#speaker.stop();
    clearTimeout(this.#grace);
  }

  /** A text of the script's, which stands in the page in its language; "" where it is missing. `n` chooses the form of a plural. @param {string} name @param {Record<string, string | number>} [values] */
  word(name, values = {}) {
    const { lang } = this.#times;
    const words = /** @type {HTMLElement} */ (this.#root.querySelector("#words")).dataset.words;
    const word = JSON.parse(words ?? "{}")[name] ?? "";
    const text = word[new Intl.PluralRules(lang).select(Number(values.n))] ?? word.other ?? word;
    return text.replace(/\{(\w+)\}/g, (/** @type {string} */ _, /** @type {string} */ key) => values[key]?.toLocaleString(lang));
  }

  // --- the switches

  get isAutomatic() {
    return this.auto.ariaPressed !== "false";
  }

  /** The labels of the switches, in the page's language. */
  label() {
    show(this.auto, this.word("auto"));
    this.auto.ariaPressed ??= String(remembered("localStorage", AUTOMATIC) !== "false");
    const here = new Date();
    const isAway = here.toLocaleString("en") !== here.toLocaleString("en", { timeZone: this.#times.zone });
    show(this.zone, isAway ? this.word("zone") : "");
    this.zone.ariaPressed = String(this.#times.showsOwn);
  }

  switchAutomatic() {
    remembered("localStorage", AUTOMATIC, (this.auto.ariaPressed = String(!this.isAutomatic)));
  }

  // --- what is said

  /** Announce a text. @param {string} name @param {() => string} text @param {number} [delay] as of Announcer.say */
  say(name, text, delay) {
    this.#speaker.say(name, text, delay);
  }

  /** Show that something is new, with a link to the entry that it is about. @param {string} name @param {string} text @param {string} id of it */
  tell(name, text, id) {
    this.say(name, () => text);
    this.since.replaceChildren(make("a", { href: `#e-${id}` }, text));
    this.since.hidden = !text;
  }

  /** @param {number} n of updates that were not seen, which the notice says */
  count(n) {
    show(this.notice, n ? this.word("new", { n }) : "");
  }

  /** Share an entry, or copy its link where the browser shares nothing. @param {HTMLAnchorElement} link
   * @returns {Promise<void> | false} false where it can do neither */
  share(link) {
    const { href: url } = link;
    if (navigator.share) return navigator.share({ url }).catch(() => {}); // the reader let it be
    return navigator.clipboard?.writeText(url).then(() => this.#sayCopied(link)) ?? false;
  }

  /** @param {HTMLElement} link */
  #sayCopied(link) {
    const text = (link.dataset.localSaid = this.word("copied"));
    this.say("copied", () => text, 0);
  }

  // --- the connection

  /** @param {any} [head] a heartbeat */
  hear(head) {
    this.#heardAt = Date.now();
    if (!head) return;
    this.#times.setClock(head.at);
    show(this.readers, head.readers_now ? this.word("readers", { n: head.readers_now }) : "");
  }

  /** @param {{state: string, reason: string, stale: string | null, buffered: boolean}} detail */
  takeState({ state, reason, stale, buffered }) {
    clearTimeout(this.#grace);
    if (state === "ended") return this.showState(reason === "over" ? "ended" : reason);
    if (buffered) return this.showState("buffered");
    if (state === "live") return this.showState(stale ? "stale" : state, stale ?? 0);
    this.#grace = setTimeout(() => {
      // Who tries again and again says so once.
      if (state === "connecting" && this.#state) return;
      this.showState(state === "waiting" && !navigator.onLine ? "offline" : state, this.#heardAt);
    }, GRACE_MS);
  }

  /** @param {string} name @param {string | number} [time] */
  showState(name, time = 0) {
    const text = this.word(name, { time: this.#times.text(time) });
    show(this.status, text);
    if (this.#state ? name !== this.#state : name !== "live") this.say("state", () => text, 0);
    this.#state = this.status.dataset.state = name;
  }
}

/** Show a text, or nothing. @param {HTMLElement} element @param {string} text */
function show(element, text) {
  if (element.textContent !== text) element.textContent = text;
  element.hidden = !text;
}
