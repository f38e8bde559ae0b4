// @ts-check
/**
 * A queue has the updates that came while they would have disturbed: each entry once, in its newest revision. Pure.
 *
 * What is corrected while it waits comes out corrected, and what is withdrawn does not come out. `size` is thus always the number
 * of updates that a reader has not seen. Of more than `limit` the lowest keep only their ids, and `isWhole` is false.
 * `#isHeld` of `view.js` decides when updates wait.
 */

/** @typedef {{id: string, rev: number, order: number}} Item an entry */

const SPILLED_MOST = 10_000; // ids of what is not kept

/** @template {Item} T */
export class Queue {
  /** @type {Map<string, T>} */ #items = new Map();
  #limit;
  /** @type {Set<string>} */ #spilled = new Set();

  constructor(/** @type {number} */ limit) {
    this.#limit = limit;
  }

  get size() {
    return this.#items.size + this.#spilled.size;
  }

  get isWhole() {
    return !this.#spilled.size;
  }

  put(/** @type {T} */ item) {
    const { id, rev } = item;
    if (this.#spilled.has(id) || Number(this.#items.get(id)?.rev) >= rev) return;
    this.#items.set(id, item);
    if (this.#items.size <= this.#limit) return;
    const lowest = [...this.#items.values()].reduce((a, b) => (b.order < a.order ? b : a));
    this.#items.delete(lowest.id);
    if (this.#spilled.size < SPILLED_MOST) this.#spilled.add(lowest.id);
  }

  delete(/** @type {string} */ id) {
    this.#items.delete(id);
    this.#spilled.delete(id);
  }

  /** All of them, the highest first; none waits any more. */
  release() {
    const items = [...this.#items.values()].sort((a, b) => b.order - a.order);
    this.#items.clear();
    this.#spilled.clear();
    return items;
  }
}
