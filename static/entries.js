// @ts-check
/** The entries of a page, each at its place: pinned ones first, then by order, then by id, the greater first. */

import { make, morph, parseHtml } from "./morph.js";

const WITHDRAWN_MOST = 1_000; // withdrawals that are remembered
/** @type {[string, string, number][]} the list, its articles, headlines in it; render.py has the same */
const LISTS = [["latest", ":not([data-day=pinned]) > ol article", 5], ["key", "[data-key]", 10]];

/** @typedef {{id: string, rev: number, order: number, item: HTMLElement, day: HTMLElement}} Entry as the list item of a day */

/** The entry of an article. @param {any} article @returns {Entry} */
export function entryOf(article) {
  const { rev, order } = article.dataset;
  return { id: article.id.slice(2), rev: +rev, order: +order, item: article.parentElement, day: article.closest("section") };
}

/** Whether it is not pinned. @param {Entry} entry */
export const isOfDay = ({ day }) => day.dataset.day !== "pinned";

/** The time of a correction. @param {Element | null} article @returns {HTMLTimeElement | null | undefined} */
export const noteOf = (article) => article?.querySelector(".correction time");

/** @param {any} frame @returns {Entry} */
export const entryFrom = ({ html, day }) => entryOf(parseHtml(day.html.replace("</ol>", (/** @type {string} */ end) => html + end)).querySelector("article"));

/** The entries of a page's HTML. @param {Document} page */
export const entriesOf = (page) => [...page.querySelectorAll("#entries article")].map(entryOf);

/** Whether `a` stands above `b`. @param {Pick<Entry, "id" | "order">} a @param {Pick<Entry, "id" | "order">} b */
const isAbove = (a, b) => a.order > b.order || (a.order === b.order && a.id > b.id);

export class Entries {
  #root;
  /** @type {Map<string, number>} */ #withdrawn = new Map();

  constructor(/** @type {HTMLElement} */ root) {
    this.#root = root;
    this.list = /** @type {HTMLElement} */ (root.querySelector("#entries"));
    this.older = /** @type {HTMLElement} */ (root.querySelector("#older"));
    this.next = /** @type {HTMLAnchorElement} */ (this.older.querySelector("a")); // the link to older ones
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
    const { all } = this;
    const shown = all.find(({ id }) => id === entry.id);
    const last = all[all.length - 1];
    const isOlder = shown ? shown.rev >= entry.rev : last && !this.older.hidden && isAbove(last, entry); // that is on an older page
    if (!always && (isOlder || this.isWithdrawn(entry))) return false;
    const section = this.#section(entry.day);
    if (shown) morph(shown.item, entry.item);
    if (shown?.order === entry.order && shown.day === section) return false;
    const below = all.find(({ id, day, order }) => day === section && id !== entry.id && isAbove(entry, { id, order }));
    section.querySelector("ol")?.insertBefore(shown?.item ?? entry.item, below?.item ?? null);
    if (shown) this.#tidy(shown.day);
    return !shown;
  }

  /** The section of a day, made at its place where it is missing. @param {HTMLElement} day as the server made it */
  #section(day) {
    const key = String(day.dataset.day);
    const days = /** @type {HTMLElement[]} */ ([...this.list.children]);
    const below = days.find((other) => String(other.dataset.day) <= key);
    const [title] = day.children;
    if (below?.dataset.day !== key) {
      const section = /** @type {HTMLElement} */ (day.cloneNode());
      section.append(title.cloneNode(true), make("ol", {}));
      return this.list.insertBefore(section, below ?? null);
    }
    morph(below.children[0], title.cloneNode(true)); // in another language
    return below;
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

  /** Remove what is not among the entries of a snapshot. @param {Entry[]} entries */
  reset(entries) {
    this.#withdrawn.clear();
    const ids = entries.map(({ id }) => id);
    for (const shown of this.all) if (!ids.includes(shown.id)) this.remove(shown);
  }

  /** Leave as many as a fresh load has. @param {number} limit */
  trim(limit) {
    const beyond = this.all.slice(limit);
    beyond.forEach((entry) => this.remove(entry));
    if (beyond.length) this.older.hidden = false;
  }

  /** Make equal to what is shown what depends on it: the lists of headlines, and the link to the entries below the last one. */
  index() {
    for (const [name, articles, most] of LISTS) {
      const list = /** @type {HTMLElement} */ (this.#root.querySelector(`#${name}`));
      const fresh = /** @type {HTMLElement} */ (list.cloneNode(true));
      const titles = [...this.list.querySelectorAll(`${articles} > h3`)].slice(0, most);
      fresh.querySelector("ol")?.replaceChildren(...titles.map((title) => headline(title, name === "key")));
      fresh.hidden = !titles.length;
      morph(list, fresh);
    }
    const last = this.all.pop();
    this.next.setAttribute("href", last && !this.older.hidden ? `?before=${last.order}.${last.id}` : "");
  }
}

/** @param {Element} title of an entry @param {boolean} isTimed */
function headline(title, isTimed) {
  const stamp = /** @type {HTMLTimeElement} */ (title.parentElement?.querySelector(".stamp time"));
  const time = isTimed ? [make("time", { datetime: stamp.dateTime }, String(stamp.textContent)), " "] : [];
  return make("li", {}, make("a", { href: `#e-${title.id.slice(2)}` }, ...time, String(title.textContent)));
}
