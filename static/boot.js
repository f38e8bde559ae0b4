// @ts-check
/**
 * The first module of a live page: it loads the page's script, and loads the whole page anew where that fails. It does where the
 * page and its files are of two builds, as while servers behind one address are replaced: what one module imports the other may lack.
 */

const ONCE = "pushserver-booted"; // in sessionStorage: when this tab is loaded anew, in milliseconds since 1970
const AGAIN_AFTER = 60_000; // milliseconds before it may be again
const SPREAD = 10_000; // milliseconds over which pages are loaded anew

import("./page.js").catch((error) => {
  console.warn("pushserver:", error);
  const now = Date.now();
  let wait = AGAIN_AFTER; // where the browser remembers nothing, each page waits
  try {
    if (!(now - sessionStorage[ONCE] < wait)) wait = 0; // nor is anything but a number from this script
    sessionStorage[ONCE] = now + wait;
  } catch {}
  setTimeout(() => location.reload(), wait + Math.random() * SPREAD);
});
