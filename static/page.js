// @ts-check
/** The page of a stream goes live, and what is outside of its root follows: the title, the language. */

import { followBuild } from "./build.js";
import { LiveView } from "./view.js";

const COUNT = /^\(\d+\)\s/;
const UPDATES = 50; // entries that JSON-LD tells of, as page/jsonld.py has it

const view = new LiveView(/** @type {HTMLElement} */ (document.querySelector("main")));

view.addEventListener("page", (event) => {
  const { headline, lang, dir } = /** @type {CustomEvent} */ (event).detail;
  document.title = (COUNT.exec(document.title)?.[0] ?? "") + headline;
  const { documentElement } = document;
  // To set what is the same would make the browser look at the style of every element again.
  if (documentElement.lang !== lang) documentElement.lang = lang;
  if (documentElement.dir !== dir) documentElement.dir = dir;
});

// What crawlers are told is of the page as it was loaded. It goes when something that it tells of has gone or changed.
const { root } = view;
const loaded = [...root.querySelectorAll("article")].slice(0, UPDATES);
const text = (/** @type {string} */ selector) => root.querySelector(selector)?.textContent ?? "";
const told = () => [text("h1"), text(".dek"), ...loaded.map(({ isConnected, dataset }) => isConnected && dataset.rev)].join();
let atLoad = told();
view.addEventListener("change", () => {
  const meta = /** @type {HTMLMetaElement | null} */ (document.querySelector("[name=description]"));
  if (meta) meta.content = text(".dek");
  if (told() === atLoad) return;
  document.querySelectorAll("#json-ld, [property], [name^=twitter]").forEach((element) => element.remove());
  loaded.length = 0;
  atLoad = told();
});
view.addEventListener("count", (event) => {
  const { detail: count } = /** @type {CustomEvent<number>} */ (event);
  document.title = (count ? `(${count}) ` : "") + document.title.replace(COUNT, "");
});
followBuild(view.stream, view.root.dataset.build);
view.open();
