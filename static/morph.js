// @ts-check
/** Morphing makes one element like another, and leaves every node as it is that is the same in both. */

// The page's CSP lets HTML be made of text by this policy alone, and by it here alone. Browsers without Trusted Types take text.
const trusted = /** @type {any} */ (window).trustedTypes?.createPolicy("pushserver", { createHTML: (/** @type {string} */ html) => html });

/** @param {string} html that the server made */
export function parseHtml(html) {
  return new DOMParser().parseFromString(trusted ? trusted.createHTML(html) : html, "text/html");
}

/** @param {string} tag @param {Record<string, string>} attributes @param {...string | Node} children @returns {HTMLElement} */
export function make(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** The attributes of an element that are not the reader's own. @param {Element} element */
const shared = (element) => element.getAttributeNames().filter((name) => !name.startsWith("data-local"));

/** What a child goes by: its id or that of its entry, its day, else all that it says. @param {any} node @returns {string} */
const keyOf = (node) => node.id || node.dataset?.day || node.querySelector?.("article")?.id || node.nodeName + node.textContent;

/** @param {any} from @param {any} to which is used up */
export function morph(from, to) {
  if (!from.localName) {
    if (from.nodeValue !== to.nodeValue) from.nodeValue = to.nodeValue;
    return;
  }
  for (const { name, value } of to.attributes) if (from.getAttribute(name) !== value) from.setAttribute(name, value);
  for (const name of shared(from)) if (!to.hasAttribute(name)) from.removeAttribute(name);
  const [old, fresh] = [[...from.childNodes], [...to.childNodes]];
  const [before, after] = [old.map(keyOf), fresh.map(keyOf)];
  let at = 0;
  for (const [place, node] of fresh.entries()) {
    const key = after[place];
    const found = before.indexOf(key, at);
    // What went between the two goes, unless it comes again below: then this one has moved up.
    if (found >= 0 && !before.slice(at, found).some((other) => after.includes(other, place))) {
      while (at < found) old[at++].remove();
      morph(old[at++], node);
    } else if (old[at]?.nodeName === node.nodeName && !after.includes(before[at], place)) morph(old[at++], node);
    else from.insertBefore(node, old[at] ?? null);
  }
  while (at < old.length) old[at++].remove();
}
