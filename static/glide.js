// @ts-check
/** What moves on the screen glides to its place from where it was: who reads it would lose the line in a jump. */

const GLIDE_MS = 300;

/** Change the page and let parts of it glide. The browser counts no layout shift: the first frame shows every part where it was.
 * @param {() => Element[]} parts that are on the screen, outer ones first @param {() => void} change @returns {Animation[]} */
export function glide(parts, change) {
  const tops = new Map(parts().map((element) => [element, topOf(element)]));
  change();
  return [...new Set([...tops.keys(), ...parts()])].flatMap((element) => {
    const from = tops.get(element);
    const to = topOf(element); // what it is in stands where it was by now
    if (to === undefined) return [];
    if (from === undefined) return element.animate({ opacity: [0, 0, 1] }, GLIDE_MS); // what was in its place leaves first
    if (Math.abs(from - to) < 1) return []; // the place of a part of what glides is rounded
    return element.animate({ transform: [`translateY(${from - to}px)`, "none"] }, { duration: GLIDE_MS, easing: "ease-out" });
  });
}

/** Where it begins, unless it is hidden. @param {Element} element @returns {number | undefined} */
export const topOf = (element) => element.getClientRects()[0]?.top;
