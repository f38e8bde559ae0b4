// @ts-check
/**
 * A page tells the server which build made it, and is loaded anew, once, where the server is of another one: not at the same time as
 * all other pages, and not while its reader selects text. Until then it is live as before.
 */

import { remembered } from "./remembered.js";

const LOADED_ANEW = "pushserver-build"; // remembered for the tab: the build of the page that it loaded anew
const AGAIN_MS = 5_000; // between two looks whether the reader still selects

/** Load the page anew when its reader would lose nothing. @param {string} build that made this page */
function reload(build) {
  // The page has no field to type in: a selection is all that would be lost.
  if (String(getSelection())) return setTimeout(reload, AGAIN_MS, build);
  // Where nothing is remembered the page would be loaded anew again and again while servers of two builds answer.
  if (remembered("sessionStorage", LOADED_ANEW, build)) location.reload();
}

/**
 * Name the page's build to the server, before the stream is opened. A page that comes back as it was does not: of two builds behind one
 * address, one made the page and the other one has its stream.
 * @param {import("./stream.js").Stream} stream @param {string | undefined} build that made this page
 */
export function followBuild(stream, build) {
  const plain = stream.url;
  if (!build || remembered("sessionStorage", LOADED_ANEW) === build) return;
  stream.url += `&build=${build}`; // behind `format`
  stream.addEventListener("bye", (event) => {
    const { reason, reload_ms } = /** @type {CustomEvent} */ (event).detail;
    if (reason !== "build" || stream.url === plain) return;
    stream.url = plain; // the stream goes on meanwhile
    setTimeout(reload, reload_ms, build);
  });
}
