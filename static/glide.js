// @ts-check
/** What moves on the screen glides to its place from where it was: who reads it would lose the line in a jump. */

const GLIDE_MS = 300;

/** Change the page and let parts of it glide. The browser counts no layout shift: the first frame shows every part where it was.
 * @param {() => Element[]} parts that are on the screen, outer ones first @param {() => void} change @returns {Animation[]} */
export function glide(parts, change) {
  const tops = new Map(parts().map((element) => [element, topOf(element)]));
  change();
  return [...new Set([...tops.keys(), ...parts()])].flatMap((element) => {
    const [before, now] = [tops.get(element), topOf(element)]; // what it is in stands where it was by now
    if (now === undefined) return [];
    if (before === undefined) return element.animate({ opacity: [0, 0, 1] }, GLIDE_MS); // what was in its place leaves first
    if (Math.abs(before - now) < 1) return []; // of a transform around it something is rounded
    return element.animate({ transform: [`translateY(${before - now}px)`, "none"] }, { duration: GLIDE_MS, easing: "ease-out" });
  });
}

/** Where it begins, unless it is hidden. @param {Element} element @returns {number | undefined} */
const topOf = (element) => element.getClientRects()[0]?.top;
