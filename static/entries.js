// @ts-check
/** The entries of a page, each at its place: pinned ones first, then by order, then by id, the greater first. */

import { make, morph } from "./morph.js";

const WITHDRAWN_MOST = 1_000; // withdrawals that are remembered

/** @typedef {{id: string, rev: number, order: number, isKey: boolean, title: HTMLElement | null, item: HTMLElement, day: HTMLElement}} Entry
 * as the list item of a day */

/** The entry of an article. @param {any} article @returns {Entry} */
export function entryOf(article) {
  const { rev, order, key } = article.dataset;
  const [title, item, day] = [article.querySelector("h3"), article.parentElement, article.closest("section")];
  return { id: article.id.slice(2), rev: +rev, order: +order, isKey: key === "", title, item, day };
}

/** Whether it is not pinned. @param {Entry} entry */
export const isOfDay = ({ day }) => day.dataset.day !== "pinned";

/** The time of a correction. @param {Element | null} article @returns {HTMLTimeElement | null | undefined} */
export const noteOf = (article) => article?.querySelector(".correction time");

/** The lists of headlines: which entries are in one, and how many at most; render.py has the same.
 * @type {[string, (entry: Entry) => boolean, number][]} */
const LISTS = [["latest", isOfDay, 5], ["key", ({ isKey }) => isKey, 10]];

/** The entries of a page's HTML. @param {ParentNode} page */
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
    this.all = entriesOf(root); // from above; to read them of a long page anew for each event would take long
  }

  /** @param {string} id */
  find(id) {
    return this.all.find((entry) => entry.id === id);
  }

  /** Whether it is not to be shown: it was withdrawn, is shown in a later revision, or is on an older page. @param {Entry} entry */
  isOld(entry) {
    const { id, rev } = entry;
    const shown = this.find(id);
    const last = this.all.at(-1);
    return Number(this.#withdrawn.get(id)) >= rev || (shown ? shown.rev >= rev : last && !this.older.hidden && isAbove(last, entry));
  }

  /** Show an entry; of one that is shown only what is new. @param {Entry} entry @param {boolean} [always] whatever its revision
   * @returns whether it is shown now and was not */
  put(entry, always) {
    if (!always && this.isOld(entry)) return false;
    const { all } = this;
    const shown = this.find(entry.id);
    const day = this.#section(entry.day);
    if (shown) {
      morph(shown.item, entry.item);
      all.splice(all.indexOf(shown), 1);
    }
    const now = { ...entryOf((shown ?? entry).item.firstChild), day };
    const isBelow = (/** @type {Entry} */ other) => isAbove(now, other);
    const place = all.findIndex(isBelow);
    const below = all.find((other) => other.day === day && isBelow(other));
    all.splice(place < 0 ? all.length : place, 0, now);
    if (shown?.order === now.order && shown.day === day) return false;
    day.querySelector("ol")?.insertBefore(now.item, below?.item ?? null);
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
  remove(entry) {
    this.all.splice(this.all.indexOf(entry), 1);
    entry.item.remove();
    this.#tidy(entry.day);
  }

  /** @param {string} id @param {number} rev @returns whether it was shown */
  withdraw(id, rev) {
    this.#withdrawn.set(id, rev);
    const [first] = this.#withdrawn.keys();
    if (this.#withdrawn.size > WITHDRAWN_MOST) this.#withdrawn.delete(first);
    const shown = this.find(id);
    if (!shown || shown.rev > rev) return false;
    this.remove(shown);
    return true;
  }

  /** Remove what is not among the entries of a snapshot. @param {Entry[]} entries */
  reset(entries) {
    this.#withdrawn.clear();
    const ids = entries.map(({ id }) => id);
    this.all.filter(({ id }) => !ids.includes(id)).forEach((shown) => this.remove(shown));
  }

  /** Leave as many as a fresh load has. @param {number} limit */
  trim(limit) {
    const beyond = this.all.slice(limit);
    beyond.forEach((entry) => this.remove(entry));
    if (beyond.length) this.older.hidden = false;
  }

  /** Make equal to what is shown what depends on it: the lists of headlines, and the link to the entries below the last one. */
  index() {
    for (const [name, isListed, most] of LISTS) {
      const list = /** @type {HTMLElement} */ (this.#root.querySelector(`#${name}`));
      const fresh = /** @type {HTMLElement} */ (list.cloneNode(true));
      const listed = this.all.filter((entry) => entry.title && isListed(entry)).slice(0, most);
      fresh.querySelector("ol")?.replaceChildren(...listed.map((entry) => headline(entry, name === "key")));
      fresh.hidden = !listed.length;
      morph(list, fresh);
    }
    const last = this.all.at(-1);
    this.next.setAttribute("href", last && !this.older.hidden ? `?before=${last.order}.${last.id}` : "");
  }
}

/** @param {Entry} entry @param {boolean} isTimed */
function headline({ id, title, item }, isTimed) {
  const stamp = /** @type {HTMLTimeElement} */ (item.querySelector(".stamp time"));
  const time = isTimed ? [make("time", { datetime: stamp.dateTime }, /** @type {string} */ (stamp.textContent)), " "] : [];
  return make("li", {}, make("a", { href: `#e-${id}` }, ...time, /** @type {string} */ (title?.textContent)));
}
