// @ts-check
/** An anchor keeps still what is being read, and keeps the focus, while the page around it changes. */

/** What can be seen of the entries, from above: blocks, then whole entries. @param {Element} root */
function visible(root) {
  const seen = (/** @type {Iterable<Element>} */ elements) =>
    [...elements].filter((element) => {
      const { top, bottom } = element.getBoundingClientRect();
      return bottom > 0 && top < innerHeight && bottom > top;
    });
  const articles = seen(root.querySelectorAll("#entries article"));
  return [...articles.flatMap(({ children }) => seen(children)), ...articles];
}

/** Give the focus to the first link in an element, where the page is. @param {Element | null | undefined} element */
export function focusIn(element) {
  element?.querySelector("a")?.focus({ preventScroll: true });
}

export class Anchor {
  /** @type {{element: Element, top: number}[]} */ #seen = [];
  #root;
  #isAtTop = true; // there, what is read is the head of the page
  #sizes = new ResizeObserver(() => this.#restore()); // an image may be of another size than the page says

  constructor(/** @type {HTMLElement} */ root) {
    this.#root = root;
    root.dataset.localStill = ""; // by the style sheet, the browser does not correct a second time
    this.#sizes.observe(root);
  }

  /** Note what is being read, and where it is. */
  note() {
    this.#isAtTop = scrollY <= 0;
    this.#seen = visible(this.#root).map((element) => ({ element, top: element.getBoundingClientRect().top }));
  }

  #restore() {
    const anchor = this.#seen.find(({ element }) => element.isConnected);
    if (anchor && !this.#isAtTop) scrollBy({ top: anchor.element.getBoundingClientRect().top - anchor.top, behavior: "instant" });
    this.note();
  }

  /** Change the page around it. @param {() => void} mutate */
  keep(mutate) {
    const root = this.#root;
    const focused = /** @type {HTMLElement} */ (document.activeElement);
    const had = root.contains(focused);
    const item = focused?.closest("section > ol > li, nav li");
    // Where its element goes, the neighbours have the focus next.
    const next = [item?.nextElementSibling, item?.previousElementSibling, ...root.querySelectorAll("#entries li")];
    this.note();
    mutate();
    this.#restore();
    if (!had || focused === document.activeElement) return;
    if (focused.isConnected) focused.focus({ preventScroll: true });
    else focusIn(next.find((other) => other?.isConnected));
  }

  stop() {
    this.#sizes.disconnect();
  }
}
