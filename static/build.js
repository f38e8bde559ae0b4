// @ts-check
/**
 * A page tells the server which build made it, and is loaded anew, once, where the server is of another one: not at the same time as
 * all other pages, and not while its reader types or selects. Until then it is live as before.
 */

const LOADED_ANEW = "pushserver-build"; // in sessionStorage: the build of the page that this tab loaded anew
const AGAIN_MS = 5_000; // between two looks whether the reader still types or selects

/** Whether the reader would lose something. */
function isBusy() {
  const { activeElement, fullscreenElement } = document;
  const types = activeElement?.matches("input, textarea, select, [contenteditable]");
  return Boolean(types || fullscreenElement || getSelection()?.isCollapsed === false);
}

/** @param {string} build that made this page */
function reload(build) {
  if (isBusy()) {
    setTimeout(reload, AGAIN_MS, build);
    return;
  }
  sessionStorage.setItem(LOADED_ANEW, build);
  location.reload();
}

/**
 * Name the page's build to the server, before the stream is opened. A page that comes back as it was does not: of two builds behind one
 * address, one made the page and the other one has its stream.
 * @param {import("./stream.js").Stream} stream @param {string | undefined} build that made this page
 */
export function followBuild(stream, build) {
  if (!build || sessionStorage.getItem(LOADED_ANEW) === build) return;
  const url = new URL(stream.url, location.href);
  const plain = url.href;
  url.searchParams.set("build", build);
  stream.url = url.href;
  stream.addEventListener("bye", (event) => {
    const { reason, reload_ms } = /** @type {CustomEvent} */ (event).detail;
    if (reason !== "build" || stream.url === plain) return;
    stream.url = plain; // the stream goes on meanwhile
    setTimeout(reload, reload_ms, build);
  });
}
