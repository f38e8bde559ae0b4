// @ts-check
/** An announcer says what happens to those who do not see the page: all that waits at once, at most once in 20 s. */

const PAUSE_MS = 20_000;

export class Announcer {
  /** @type {Map<string, () => string>} */ #waiting = new Map();
  #region;
  #due = 0;
  #last = -PAUSE_MS;
  /** @type {number | undefined} */ #timer;

  constructor(/** @type {Element} */ region) {
    this.#region = region;
  }

  /** Say a text within `delay` ms, or as soon as the pause is over. A later text takes the place of one under the same name.
   * @param {string} name @param {() => string} text as it is when it is said @param {number} [delay] */
  say(name, text, delay = PAUSE_MS) {
    const now = performance.now();
    const soon = now + delay;
    this.#due = Math.max(this.#last + PAUSE_MS, this.#waiting.size ? Math.min(this.#due, soon) : soon);
    this.#waiting.set(name, text);
    this.stop();
    this.#timer = setTimeout(() => this.#speak(), this.#due - now);
  }

  #speak() {
    this.#region.textContent = [...this.#waiting.values()].map((text) => text()).join(" ");
    this.#waiting.clear();
    this.#last = performance.now();
  }

  stop() {
    clearTimeout(this.#timer);
  }
}
