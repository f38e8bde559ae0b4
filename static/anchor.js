// @ts-check
/** An anchor keeps still what is being read, and keeps the focus, while the page around it changes. */

import { glide, topOf } from "./glide.js";

const GLIDE_MOST_MS = 3_000; // a busy browser draws the first frame late, and none where the page cannot be seen

/** What can be seen of elements that stand below one another. Those that are far off are not looked at: to ask for the place of what the
 * browser has not laid out makes it do that. @param {Element[]} elements */
function visible(elements) {
  let [first, end] = [0, elements.length];
  while (first < end) {
    const middle = (first + end) >> 1;
    if (elements[middle].getBoundingClientRect().bottom > 0) end = middle;
    else first = middle + 1;
  }
  while (end < elements.length && elements[end].getBoundingClientRect().top < innerHeight) end++;
  return elements.slice(first, end);
}

/** Give the focus to the first link in an element, where the page is. @param {Element | null | undefined} element */
export function focusIn(element) {
  element?.querySelector("a")?.focus({ preventScroll: true });
}

export class Anchor {
  /** @type {[Element, number][]} what is seen, and where */ #seen = [];
  #root;
  #entries;
  #onStill;
  #isAtTop = true; // there, what is read is the head of the page
  /** @type {Animation[]} */ #glides = [];
  #stillAt = 0; // when they have ended at the latest
  // An image may be of another size than the page says; and what has changed is noted when the browser has laid it out.
  #sizes = new ResizeObserver(() => {
    this.#restore();
    this.note();
  });

  /** @param {HTMLElement} root @param {import("./entries.js").Entries} entries @param {() => void} onStill when nothing glides any more */
  constructor(root, entries, onStill) {
    this.#root = root;
    this.#entries = entries;
    this.#onStill = onStill;
    root.dataset.localStill = ""; // by the style sheet, the browser does not correct a second time
    this.#sizes.observe(root);
  }

  /** Note what is being read, and where it is. */
  note() {
    this.#isAtTop = scrollY <= 0;
    const articles = visible(this.#entries.all.map(({ item }) => item)).flatMap(({ children }) => [...children]);
    const blocks = articles.flatMap(({ children }) => visible([...children]));
    this.#seen = [...blocks, ...articles].map((element) => [element, /** @type {number} */ (topOf(element))]);
  }

  #restore() {
    if (this.#isAtTop) return;
    const [anchor, top] = this.#seen.find(([element]) => element.isConnected) ?? [];
    if (anchor) scrollBy({ top: /** @type {any} */ (topOf(anchor)) - /** @type {any} */ (top), behavior: "instant" });
  }

  /** What moves as a whole, outer parts first. A part with elements that are fixed to the screen would take them along. */
  #parts() {
    const around = this.#root.querySelectorAll(":scope > :not(#local), nav, nav li, section");
    const items = visible(this.#entries.all.map(({ item }) => item));
    return [...around, ...items, ...items.flatMap((item) => [...item.querySelectorAll("article > *")])];
  }

  /** @param {() => void} mutate */
  #change(mutate) {
    this.stand(); // in a frame that is not drawn they would never end
    if (!this.#isAtTop || document.hidden || matchMedia("(prefers-reduced-motion: reduce)").matches) return mutate();
    this.#glides = glide(() => this.#parts(), mutate);
    const [first] = this.#glides;
    if (!first) return;
    first.onfinish = () => this.stand();
    this.#stillAt = performance.now() + GLIDE_MOST_MS;
  }

  /** Let nothing glide any more, and show soon what waited for that. */
  stand() {
    for (const animation of this.#glides.splice(0)) animation.cancel();
    this.#stillAt = 0;
    setTimeout(() => this.#stillAt || this.#onStill()); // after the frame in which all stand at their places
  }

  /** Milliseconds for which a change has to wait at most, until nothing glides: in a glide it would be a jump. Below 0, nothing does. */
  get restMs() {
    return this.#stillAt - performance.now();
  }

  /** Change the page around it. @param {() => void} mutate */
  keep(mutate) {
    const root = this.#root;
    const focused = /** @type {HTMLElement} */ (document.activeElement);
    const had = root.contains(focused);
    const item = focused?.closest("section > ol > li, nav li");
    const next = [item?.nextElementSibling, item?.previousElementSibling]; // they have the focus where its element goes
    this.note();
    this.#change(mutate);
    this.#restore();
    if (!had || focused === document.activeElement) return;
    if (focused.isConnected) focused.focus({ preventScroll: true });
    else focusIn(next.find((other) => other?.isConnected) ?? this.#entries.all[0]?.item);
  }

  stop() {
    this.#sizes.disconnect();
  }
}
