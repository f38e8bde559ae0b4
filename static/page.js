// @ts-check
/**
 * The live page: takes the frames of its stream and makes of the page what a fresh load would show, byte for byte.
 * The HTML in a frame was made by the templates that made the page, and is put in as it is.
 */

import { followBuild } from "./build.js";
import { Stream } from "./stream.js";

const SHOWN = new Set(["snapshot", "reset", "entry.put", "entry.withdraw", "page.put", "stream.end"]);
const LATEST = 5; // headlines in the list of the latest; render.py keeps the same number
const REFILLS = 3; // fetches at a time, until one is not older than the page
const WORDS = {
  connecting: "Connecting…",
  live: "Live",
  behind: "Catching up…",
  waiting: "Reconnecting…",
  ended: "This page is no longer updating",
  stale: "Updates are delayed since",
  buffered: "Updates come late: something on the way here holds them back",
  expired: "Sign in again to go on",
};

const main = /** @type {HTMLElement} */ (document.getElementById("live"));
let shown = Number(main.dataset.n ?? 0); // the number of the newest event that the page shows
const byId = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));

// The page's CSP lets HTML be made of text by this policy alone, and by it here alone. Browsers without Trusted Types take text.
const trusted = /** @type {any} */ (window).trustedTypes?.createPolicy("pushserver", { createHTML: (/** @type {string} */ html) => html });

/** @param {string} html that this server made */
function parse(html) {
  return new DOMParser().parseFromString(trusted ? trusted.createHTML(html) : html, "text/html");
}

/** @param {string} html of one element */
function elementOf(html) {
  return /** @type {HTMLElement} */ (parse(html).body.firstElementChild);
}

/** @param {Record<string, string>} parts the new HTML of elements, by their ids */
function replaceParts(parts) {
  for (const [id, html] of Object.entries(parts)) byId(id).replaceWith(elementOf(html));
}

/** Whether `a` stands above `b`: the later first, and by id within an instant. @param {HTMLElement} a @param {HTMLElement} b */
function isAbove(a, b) {
  const difference = Number(a.dataset.order) - Number(b.dataset.order);
  return difference ? difference > 0 : a.id > b.id;
}

/** @param {any} frame an entry, new or in a new revision */
function putEntry(frame) {
  const item = elementOf(frame.html);
  const article = /** @type {HTMLElement} */ (item.firstElementChild);
  const old = byId(article.id);
  if (old && Number(old.dataset.rev) >= frame.entry.rev) return;
  if (old) removeItem(/** @type {HTMLElement} */ (old.parentElement));
  const articles = /** @type {HTMLElement[]} */ ([...dayOf(frame.day).querySelectorAll("article")]);
  const below = articles.find((other) => isAbove(article, other));
  if (below) /** @type {HTMLElement} */ (below.parentElement).before(item);
  else dayOf(frame.day).append(item);
  trim();
  listLatest();
}

/** @param {any} frame a withdrawal: what it said goes from the page */
function withdrawEntry(frame) {
  const article = byId(`e-${frame.id}`);
  if (!article) return;
  removeItem(/** @type {HTMLElement} */ (article.parentElement));
  listLatest();
  // A fresh load would show one more from below.
  if (!byId("older").hidden) refill();
}

/** @param {string[]} ids of the elements to replace by what a fresh load has @returns that, if it came */
async function refill(ids = ["entries", "older", "latest"]) {
  for (let attempt = 0; attempt < REFILLS; attempt++) {
    const response = await fetch(`${location.pathname}?n=${shown}`, { cache: "no-cache" }).catch(() => null);
    if (!response?.ok) return;
    const fresh = parse(await response.text());
    // A cache on the way may have the page from before a withdrawal; and events may have come while this one was fetched.
    if (!(Number(/** @type {HTMLElement} */ (fresh.getElementById("live")).dataset.n) >= shown)) continue;
    for (const id of ids) byId(id).replaceWith(/** @type {HTMLElement} */ (fresh.getElementById(id)));
    return fresh;
  }
}

/** The list of a day, made at its place where it is missing. @param {{id: string, html: string}} day */
function dayOf(day) {
  const days = /** @type {HTMLElement[]} */ ([...byId("entries").children]);
  let section = days.find((other) => other.dataset.day === day.id);
  if (!section) {
    section = elementOf(day.html);
    const below = days.find((other) => String(other.dataset.day) < day.id);
    if (below) below.before(section);
    else byId("entries").append(section);
  }
  return /** @type {HTMLElement} */ (section.querySelector("ol"));
}

/** @param {HTMLElement} item its day goes with its last entry */
function removeItem(item) {
  const section = /** @type {HTMLElement} */ (item.closest("section"));
  item.remove();
  if (!section.querySelector("article")) section.remove();
}

/** As many entries as a fresh load has: those below are behind the link to the older ones. */
function trim() {
  const items = [...byId("entries").querySelectorAll("section > ol > li")];
  const limit = Number(main.dataset.limit);
  if (items.length <= limit) return;
  for (const item of items.slice(limit)) removeItem(/** @type {HTMLElement} */ (item));
  const last = /** @type {HTMLElement} */ (items[limit - 1].firstElementChild);
  const older = byId("older");
  older.hidden = false;
  /** @type {HTMLElement} */ (older.firstElementChild).setAttribute("href", `?before=${last.dataset.order}.${last.id.slice(2)}`);
}

function listLatest() {
  const titles = [...byId("entries").querySelectorAll("article > h3")].slice(0, LATEST);
  const items = titles.map((title) => {
    const link = document.createElement("a");
    link.setAttribute("href", `#e-${title.id.slice(2)}`);
    link.textContent = title.textContent;
    const item = document.createElement("li");
    item.append(link);
    return item;
  });
  const latest = byId("latest");
  /** @type {HTMLElement} */ (latest.querySelector("ol")).replaceChildren(...items);
  latest.toggleAttribute("hidden", !items.length);
}

/** @param {any} page its fields outside of the parts */
function putPage(page) {
  document.title = page.headline;
  document.querySelector("meta[name=description]")?.remove(); // the dek as it was loaded
  document.documentElement.lang = page.lang;
  document.documentElement.dir = page.dir;
}

/** @param {CustomEvent} event */
function apply({ detail: frame }) {
  if (!SHOWN.has(frame.type)) return; // of a later version: its parts and page may be made for another page.js
  if ("n" in frame) shown = frame.n;
  const zone = byId("header").dataset.timezone;
  // They tell crawlers of the page as it was loaded.
  for (const element of document.querySelectorAll("#json-ld, meta[property], meta[name^=twitter]")) element.remove();
  if (frame.parts) replaceParts(frame.parts);
  if (frame.page) putPage(frame.page);
  if (frame.type === "entry.put") putEntry(frame);
  if (frame.type === "entry.withdraw") withdrawEntry(frame);
  // Every time on the page changed its zone: the entries come anew with the page.
  if (frame.type === "page.put" && frame.page.timezone !== zone) location.reload();
}

/** @param {keyof typeof WORDS} name @param {string} [since] */
function showState(name, since = "") {
  const status = byId("status");
  // Whoever tries again and again says so once.
  if (name === "connecting" && status.dataset.state === "waiting") return;
  status.textContent = `${WORDS[name]} ${since}`.trim();
  status.dataset.state = name;
}

/** @param {CustomEvent} event */
function tell({ detail: { state, stale, buffered, expired } }) {
  if (state === "ended") showState(expired ? "expired" : "ended");
  else if (buffered) showState("buffered");
  else if (stale && state === "live") showState("stale", timeOf(stale));
  else showState(state);
}

/** @param {string} instant as the page's readers write it, in the page's zone */
function timeOf(instant) {
  const timeZone = byId("header").dataset.timezone;
  const format = new Intl.DateTimeFormat(document.documentElement.lang, { timeZone, hour: "numeric", minute: "2-digit" });
  return format.format(new Date(instant));
}

/** The stream's frames do not come through; the page does. @param {Stream} stream */
async function catchUp(stream) {
  console.warn("pushserver: the server answers, but something on the way holds its events back, as a proxy that buffers does");
  const fresh = await refill(["header", "latest", "intro", "entries", "older", "topics"]);
  if (!fresh) return;
  shown = Number(/** @type {HTMLElement} */ (fresh.getElementById("live")).dataset.n);
  for (const element of document.querySelectorAll("#json-ld, meta[property], meta[name^=twitter]")) element.remove();
  putPage({ headline: fresh.title, lang: fresh.documentElement.lang, dir: fresh.documentElement.dir });
  stream.loaded(String(/** @type {HTMLElement} */ (fresh.getElementById("live")).dataset.cursor));
}

function follow() {
  const url = new URL(`${location.pathname.replace(/\/$/, "")}/ws?format=html`, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  const stream = new Stream(url.href, String(main.dataset.cursor));
  stream.addEventListener("frame", /** @type {EventListener} */ (apply));
  stream.addEventListener("state", /** @type {EventListener} */ (tell));
  stream.addEventListener("buffered", () => catchUp(stream));
  followBuild(stream, main.dataset.build);
  stream.open();
}

if (byId("header").dataset.state === "ended") showState("ended");
else if (!("newer" in main.dataset)) follow();
