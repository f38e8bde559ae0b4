// @ts-check
/** The entries of a page, each at its place: pinned ones first, then by order, then by id, the greater first. */

import { elementOf, morph } from "./morph.js";

const WITHDRAWN_MOST = 1_000; // withdrawals that are remembered
/** @type {[string, string, number][]} headlines in each; render.py keeps the same numbers */
const LISTS = [["latest", "article", 5], ["key", "[data-key]", 10]];

/** @typedef {{id: string, rev: number, order: number, item: HTMLElement, day: HTMLElement}} Entry as the list item of a day */

/** The entry of an article. @param {any} article @returns {Entry} */
export function entryOf(article) {
  const { rev, order } = article.dataset;
  return { id: article.id.slice(2), rev: +rev, order: +order, item: article.parentElement, day: article.closest("section") };
}

/** Whether it is not pinned. @param {Entry} entry */
export const isOfDay = ({ day }) => day.dataset.day !== "pinned";

/** The note of a correction. @param {Element | null} article */
export const noteOf = (article) => article?.querySelector(".correction")?.textContent;

/** @param {any} frame @returns {Entry} */
export function entryFrom({ html, day }) {
  const section = elementOf(day.html);
  section.querySelector("ol")?.append(elementOf(html));
  return entryOf(section.querySelector("article"));
}

/** The entries of a page's HTML. @param {Document} page */
export const entriesOf = (page) => [...page.querySelectorAll("#entries article")].map(entryOf);

/** Whether `a` stands above `b`. @param {Entry} a @param {Entry} b */
const isAbove = (a, b) => a.order > b.order || (a.order === b.order && a.id > b.id);

export class Entries {
  /** @type {Map<string, number>} */ #withdrawn = new Map();

  constructor(/** @type {HTMLElement} */ root) {
    this.root = root;
  }

  get list() {
    return /** @type {HTMLElement} */ (this.root.querySelector("#entries"));
  }

  get older() {
    return /** @type {HTMLElement} */ (this.root.querySelector("#older"));
  }

  /** All of them, from above. */
  get all() {
    return [...this.list.querySelectorAll("article")].map(entryOf);
  }

  /** @param {string} id @returns {HTMLElement | null} the article */
  find(id) {
    return this.list.querySelector(`#e-${id}`);
  }

  /** Whether a revision was withdrawn. @param {Entry} entry */
  isWithdrawn({ id, rev }) {
    return Number(this.#withdrawn.get(id)) >= rev;
  }

  /** Show an entry; of one that is shown only what is new. @param {Entry} entry @param {boolean} [always] whatever its revision
   * @returns whether it is shown now and was not */
  put(entry, always) {
    const article = this.find(entry.id);
    if (!always && (this.isWithdrawn(entry) || Number(article?.dataset.rev) >= entry.rev)) return false;
    const { all } = this;
    const last = all[all.length - 1];
    if (!article && last && !this.older.hidden && isAbove(last, entry)) return false; // it is on an older page
    const shown = article && entryOf(article);
    if (shown) morph(shown.item, entry.item);
    else this.#place(entry, all);
    if (!shown || (shown.order === entry.order && shown.day.dataset.day === entry.day.dataset.day)) return !shown;
    this.#place({ ...entry, item: shown.item }, all);
    this.#tidy(shown.day);
    return false;
  }

  /** @param {Entry} entry @param {Entry[]} all */
  #place(entry, all) {
    const section = this.#section(entry.day);
    const below = all.find((other) => other.day === section && other.id !== entry.id && isAbove(entry, other));
    section.querySelector("ol")?.insertBefore(entry.item, below?.item ?? null);
  }

  /** The section of a day, made at its place where it is missing. @param {HTMLElement} day as the server made it */
  #section(day) {
    const key = String(day.dataset.day);
    const days = /** @type {HTMLElement[]} */ ([...this.list.children]);
    const below = days.find((other) => String(other.dataset.day) <= key);
    if (below?.dataset.day === key) return below;
    const section = /** @type {HTMLElement} */ (day.cloneNode(true));
    section.querySelector("ol")?.replaceChildren();
    return this.list.insertBefore(section, below ?? null);
  }

  /** A day goes with its last entry. @param {HTMLElement} day */
  #tidy(day) {
    if (!day.querySelector("article")) day.remove();
  }

  /** @param {Entry} entry */
  remove({ item, day }) {
    item.remove();
    this.#tidy(day);
  }

  /** @param {string} id @param {number} rev @returns whether it was shown */
  withdraw(id, rev) {
    this.#withdrawn.set(id, rev);
    const [first] = this.#withdrawn.keys();
    if (this.#withdrawn.size > WITHDRAWN_MOST) this.#withdrawn.delete(first);
    const article = this.find(id);
    const isShown = article && Number(article.dataset.rev) <= rev;
    if (isShown) this.remove(entryOf(article));
    return isShown;
  }

  /** Remove what a snapshot does not have, but for older entries that a reader has loaded, unless `alone`.
   * @param {Entry[]} entries of the snapshot @param {boolean} alone */
  reset(entries, alone) {
    this.#withdrawn.clear();
    const last = entries[entries.length - 1];
    for (const shown of this.all) {
      const isIn = entries.some(({ id }) => id === shown.id);
      if (!isIn && (alone || !last || isAbove(shown, last))) this.remove(shown);
    }
  }

  /** Leave as many as a fresh load has. @param {number} limit */
  trim(limit) {
    const { all, older } = this;
    if (all.length <= limit) return;
    all.slice(limit).forEach((entry) => this.remove(entry));
    older.hidden = false;
    older.querySelector("a")?.setAttribute("href", `?before=${all[limit - 1].order}.${all[limit - 1].id}`);
  }

  /** Keep the lists of headlines equal to what is shown. */
  index() {
    for (const [name, articles, most] of LISTS) {
      const nav = this.root.querySelector(`#${name}`);
      if (!nav) continue;
      const fresh = /** @type {HTMLElement} */ (nav.cloneNode(true));
      const titles = [...this.list.querySelectorAll(`${articles} > h3`)].slice(0, most);
      fresh.querySelector("ol")?.replaceChildren(...titles.map((title) => headline(title, name === "key")));
      fresh.toggleAttribute("hidden", !titles.length);
      morph(nav, fresh);
    }
  }
}

/** @param {Element} title of an entry @param {boolean} isTimed */
function headline(title, isTimed) {
  const [item, link] = [document.createElement("li"), document.createElement("a")];
  link.setAttribute("href", `#e-${title.id.slice(2)}`);
  const stamp = title.parentElement?.querySelector(".stamp time");
  if (isTimed && stamp) {
    const time = document.createElement("time");
    time.setAttribute("datetime", String(stamp.getAttribute("datetime")));
    time.append(stamp.textContent ?? "");
    link.append(time, " ");
  }
  link.append(title.textContent ?? "");
  item.append(link);
  return item;
}
