// @ts-check
/** The page of a stream goes live, and what is outside of its root follows: the title, the language. */

import { followBuild } from "./build.js";
import { LiveView } from "./view.js";

const COUNT = /^\(\d+\)\s/;

const view = new LiveView(/** @type {HTMLElement} */ (document.querySelector("main")));

view.addEventListener("page", (event) => {
  const { headline, lang, dir } = /** @type {CustomEvent} */ (event).detail;
  document.title = (COUNT.exec(document.title)?.[0] ?? "") + headline;
  document.documentElement.lang = lang;
  document.documentElement.dir = dir;
  document.querySelector("meta[name=description]")?.remove(); // the dek as it was loaded
});
view.addEventListener("change", () => document.querySelector("#json-ld")?.remove()); // it is of the page as it was loaded
view.addEventListener("count", (event) => {
  const { detail: count } = /** @type {CustomEvent<number>} */ (event);
  document.title = (count ? `(${count}) ` : "") + document.title.replace(COUNT, "");
});
followBuild(view.stream, view.root.dataset.build);
view.open();
