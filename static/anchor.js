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

/** @param {HTMLElement} root of the page @param {() => void} mutate */
export function keepPlace(root, mutate) {
  const seen = visible(root).map((element) => ({ element, top: element.getBoundingClientRect().top }));
  const focused = /** @type {HTMLElement} */ (document.activeElement);
  const had = root.contains(focused);
  const item = focused?.closest("section > ol > li, nav li");
  // Where its element goes, the neighbours have the focus next.
  const next = [item?.nextElementSibling, item?.previousElementSibling, ...root.querySelectorAll("#entries li")];
  root.dataset.localStill = ""; // by the style sheet, the browser does not correct a second time
  mutate();
  const anchor = seen.find(({ element }) => element.isConnected);
  if (anchor) scrollBy({ top: anchor.element.getBoundingClientRect().top - anchor.top, behavior: "instant" });
  requestAnimationFrame(() => delete root.dataset.localStill);
  if (!had || focused === document.activeElement) return;
  const heir = focused.isConnected ? focused : next.find((other) => other?.isConnected)?.querySelector("a");
  heir?.focus({ preventScroll: true });
}
