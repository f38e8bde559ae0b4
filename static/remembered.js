// @ts-check
/** What a browser keeps for this page, or null; and where it keeps nothing, each page finds out anew. */

/** @param {"localStorage" | "sessionStorage"} area @param {string} name @param {string} [value] to keep */
export function remembered(area, name, value) {
  try {
    if (value) window[area].setItem(name, value);
    return window[area].getItem(name);
  } catch {
    return null;
  }
}
