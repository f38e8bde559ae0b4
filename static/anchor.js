// @ts-check
/** An anchor keeps still what is being read, and keeps the focus, while the page around it changes. */

/** What can be seen of elements that stand below one another. Those that are far off are not looked at: to ask for the place of what the
 * browser has not laid out makes it do that. @param {Element[]} elements */
function visible(elements) {
  const boxOf = (/** @type {Element} */ element) => element.getBoundingClientRect();
  let [first, end] = [0, elements.length];
  while (first < end) {
    const middle = (first + end) >> 1;
    if (boxOf(elements[middle]).bottom > 0) end = middle;
    else first = middle + 1;
  }
  while (end < elements.length && boxOf(elements[end]).top < innerHeight) end++;
  return elements.slice(first, end);
}

/** Give the focus to the first link in an element, where the page is. @param {Element | null | undefined} element */
export function focusIn(element) {
  element?.querySelector("a")?.focus({ preventScroll: true });
}

export class Anchor {
  /** @type {{element: Element, top: number}[]} */ #seen = [];
  #root;
  #entries;
  #isAtTop = true; // there, what is read is the head of the page
  // An image may be of another size than the page says; and what has changed is noted when the browser has laid it out.
  #sizes = new ResizeObserver(() => {
    this.#restore();
    this.note();
  });

  /** @param {HTMLElement} root @param {import("./entries.js").Entries} entries */
  constructor(root, entries) {
    this.#root = root;
    this.#entries = entries;
    root.dataset.localStill = ""; // by the style sheet, the browser does not correct a second time
    this.#sizes.observe(root);
  }

  /** Note what is being read, and where it is. */
  note() {
    this.#isAtTop = scrollY <= 0;
    const articles = visible(this.#entries.all.map(({ item }) => item)).flatMap(({ children }) => [...children]);
    const blocks = articles.flatMap(({ children }) => visible([...children]));
    this.#seen = [...blocks, ...articles].map((element) => ({ element, top: element.getBoundingClientRect().top }));
  }

  #restore() {
    if (this.#isAtTop) return;
    const anchor = this.#seen.find(({ element }) => element.isConnected);
    if (anchor) scrollBy({ top: anchor.element.getBoundingClientRect().top - anchor.top, behavior: "instant" });
  }

  /** Change the page around it. @param {() => void} mutate */
  keep(mutate) {
    const root = this.#root;
    const focused = /** @type {HTMLElement} */ (document.activeElement);
    const had = root.contains(focused);
    const item = focused?.closest("section > ol > li, nav li");
    const next = [item?.nextElementSibling, item?.previousElementSibling]; // they have the focus where its element goes
    this.note();
    mutate();
    this.#restore();
    if (!had || focused === document.activeElement) return;
    if (focused.isConnected) focused.focus({ preventScroll: true });
    else focusIn(next.find((other) => other?.isConnected) ?? this.#entries.all[0]?.item);
  }

  stop() {
    this.#sizes.disconnect();
  }
}
