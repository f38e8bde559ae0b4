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
});
view.addEventListener("change", () => {
  // They tell crawlers of the page as it was loaded.
  document.querySelectorAll("#json-ld, [property], [name^=twitter], [name=description]").forEach((element) => element.remove());
});
view.addEventListener("count", (event) => {
  const { detail: count } = /** @type {CustomEvent<number>} */ (event);
  document.title = (count ? `(${count}) ` : "") + document.title.replace(COUNT, "");
});
followBuild(view.stream, view.root.dataset.build);
view.open();
