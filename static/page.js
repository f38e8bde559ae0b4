// @ts-check
/** The page of a stream goes live, and what is outside of its root follows: the title, the language. */

import { followBuild } from "./build.js";
import { LiveView } from "./view.js";

const COUNT = /^\(\d+\)\s/;

const view = new LiveView(/** @type {HTMLElement} */ (document.querySelector("main")));

view.addEventListener("page", (event) => {
  const { headline, lang, dir } = /** @type {CustomEvent} */ (event).detail;
  document.title = (COUNT.exec(document.title)?.[0] ?? "") + headline;
  const { documentElement } = document;
  // To set what is the same would make the browser look at the style of every element again.
  if (documentElement.lang !== lang) documentElement.lang = lang;
  if (documentElement.dir !== dir) documentElement.dir = dir;
});
view.addEventListener("change", (event) => {
  const description = /** @type {HTMLMetaElement | null} */ (document.querySelector("[name=description]"));
  if (description) description.content = view.root.querySelector(".dek")?.textContent ?? "";
  const { detail: isOther } = /** @type {CustomEvent<boolean>} */ (event);
  // Cards and JSON-LD describe the page as it was loaded: they would still show what was corrected or withdrawn since.
  if (isOther) document.querySelectorAll("#json-ld, [property], [name^=twitter]").forEach((element) => element.remove());
});
view.addEventListener("count", (event) => {
  const { detail: count } = /** @type {CustomEvent<number>} */ (event);
  document.title = (count ? `(${count}) ` : "") + document.title.replace(COUNT, "");
});
followBuild(view.stream, view.root.dataset.build);
view.open();
