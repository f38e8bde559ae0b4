// @ts-check
/**
 * A live view takes the frames of a stream and makes of its root what a fresh load would show. Only what is the reader's own
 * differs: the element #local and attributes that begin with `data-local`. The HTML in a frame was made by the templates that made the page.
 *
 * An entry that comes while it would disturb waits in a queue; everything else is shown at once, without moving what is being read.
 */

import { Anchor, focusIn } from "./anchor.js";
import { Entries, entriesOf, entryOf, isOfDay, noteOf } from "./entries.js";
import { Local } from "./local.js";
import { morph, parseHtml } from "./morph.js";
import { Queue } from "./queue.js";
import { changesSince, lastShown, rememberShown } from "./seen.js";
import { request } from "./sources.js";
import { Stream } from "./stream.js";
import { Times } from "./times.js";

const TICK_MS = 20_000; // between two looks at how long ago
const ENTRIES_MOST = 200; // of an open page; from there on the link to older ones leads to another page
const FRAMES_MOST = 100; // that are shown in one pass
const LOADS_MOST = 3; // of a page, until one is not older than what is shown
const PARTS = ["header", "updated", "latest", "key", "intro", "empty", "older", "topics", "words"]; // of a page beside its entries

/** @typedef {import("./entries.js").Entry} Entry */
/** @typedef {{url?: string} & import("./sources.js").Access} Options */

export class LiveView extends EventTarget {
  /** @type {Queue<Entry>} */ #queue;
  /** @type {Set<string>} entries above what the reader has seen */ #unseen = new Set();
  /** @type {Set<string>} */ #corrected = new Set();
  /** @type {Set<string>} what came and was not announced yet */ #unsaid = new Set();
  /** @type {object[]} that came and are not shown yet */ #frames = [];
  #options;
  #limit;
  #count = 0;
  #jumped = false;
  /** @type {string[]} what this browser showed last, until it was said what is new since */ #last = [];
  #isOther = false; // whether something has gone or changed that was shown
  #pageRev = 0;
  #n; // the number of the newest event that is shown
  #life = new AbortController();
  /** @type {number | undefined} */ #pass;
  /** @type {number | undefined} */ #ticker;

  /**
   * Dispatches `page` (detail: the page's fields: headline, lang, dir), `count` (detail: the updates that were not seen) and
   * `change` (detail: whether something that was shown has gone or changed, ever).
   * @param {HTMLElement} root with the parts of the page @param {Options} [options] `url`: the address of the page
   */
  constructor(root, options = {}) {
    super();
    this.root = root;
    this.#options = options;
    this.url = new URL(options.url ?? location.pathname, location.href).href;
    this.entries = new Entries(root);
    this.anchor = new Anchor(root, this.entries, () => this.#flush());
    this.times = new Times(root);
    this.local = new Local(root, this.times);
    this.#limit = Number(root.dataset.limit);
    this.#n = Number(root.dataset.n ?? 0);
    this.#queue = new Queue(this.#limit);
    this.stream = new Stream(`${this.url}/ws?format=html`, root.dataset.cursor, options);
    this.#listen();
  }

  /** Go live, unless the coverage has ended or the page shows older entries only. */
  open() {
    this.#last = lastShown(this.url);
    this.anchor.note();
    this.local.label();
    this.#tick();
    if ("newer" in this.root.dataset) return;
    if (this.#part("header")?.dataset.state !== "ended") return this.stream.open();
    this.#greet();
    this.local.showState("ended");
  }

  /** Leave the page as it is, for good. */
  dispose() {
    this.#life.abort();
    this.stream.dispose();
    this.local.stop();
    this.anchor.stop();
    clearTimeout(this.#pass);
    clearTimeout(this.#ticker);
  }

  /** @param {string} id @returns {HTMLElement | null} */
  #part(id) {
    return this.root.querySelector(`#${id}`);
  }

  #listen() {
    const { local, stream } = this;
    const { signal } = this.#life;
    const on = (/** @type {EventTarget} */ target, /** @type {string} */ types, /** @type {(event: any) => void} */ listener) =>
      types.split(" ").forEach((type) => target.addEventListener(type, listener, { signal }));
    on(stream, "frame", ({ detail }) => this.#take(detail));
    on(stream, "head", ({ detail }) => local.hear(detail));
    on(stream, "state", ({ detail }) => {
      this.#flush();
      local.takeState(detail);
      if (detail.buffered || /live|ended/.test(detail.state)) this.#greet(); // a page from a cache is behind until then
    });
    on(stream, "buffered", () => this.#catchUp());
    on(window, "scroll", () => this.anchor.note());
    on(window, "scroll resize", () => this.#settle());
    on(window, "pagehide", () => this.#leave());
    on(document, "selectionchange focusout", () => setTimeout(() => this.#settle()));
    on(document, "visibilitychange", () => this.#tick());
    on(this.root, "click", (event) => this.#click(event));
  }

  // --- frames

  /** Show a frame in a moment, with those that come until then. @param {object} frame */
  #take(frame) {
    this.#frames.push(frame);
    // The timers of a hidden page are late.
    if (document.hidden || this.#frames.length >= FRAMES_MOST) this.#flush();
    else this.#pass ??= setTimeout(() => this.#flush(), this.anchor.restMs);
  }

  #flush() {
    clearTimeout(this.#pass);
    this.#pass = undefined;
    if (this.#frames.length && !this.#life.signal.aborted) this.apply(...this.#frames.splice(0));
  }

  /** @param {any[]} frames of the stream, in the html format */
  apply(...frames) {
    this.local.hear();
    this.#change((isHeld) => frames.forEach((frame) => this.#show(frame, isHeld)));
  }

  /** @param {any} frame @param {boolean} isHeld */
  #show(frame, isHeld) {
    const { type, n, page, parts, html, day } = frame;
    this.#n = n ?? this.#n;
    if (!parts) return; // of a later version
    this.#isOther ||= type !== "entry.put";
    const entry = day?.html.replace("</ol>", (/** @type {string} */ end) => html + end) ?? "";
    const fresh = this.#parse(Object.values(parts).join("") + entry);
    if (type === "snapshot") this.#merge(fresh, isHeld);
    if (type === "entry.put") this.#put(entryOf(fresh.querySelector("article")), isHeld);
    if (type === "entry.withdraw") this.#withdraw(frame);
    this.#showPage(fresh, page);
  }

  /** @param {string} html that the server made */
  #parse(html) {
    const fresh = parseHtml(html);
    this.times.refresh(fresh);
    return fresh;
  }

  /** Change the page without moving what is being read, and let follow what depends on it.
   * @param {(isHeld: boolean) => void} change is passed whether an entry that comes now would disturb */
  #change(change) {
    const isHeld = this.#isHeld();
    this.anchor.keep(() => {
      change(isHeld);
      this.entries.index();
    });
    this.#settle();
    this.#emit("change", this.#isOther);
  }

  /** @param {Entry} entry @param {boolean} isHeld */
  #put(entry, isHeld) {
    const { entries, local } = this;
    const { id, rev } = entry;
    this.#isOther ||= rev > 1; // it may have been on the page before
    if (entries.isOld(entry)) return;
    const item = entries.find(id)?.item;
    if (!item) this.#announce(id);
    if (!item && isHeld) return this.#queue.put(entry);
    const note = noteOf(item)?.dateTime;
    this.#insert(entry);
    if (!item) return entries.trim(this.#limit);
    if (this.#unseen.has(id) || note === noteOf(item)?.dateTime) return;
    this.#corrected.add(id);
    local.tell("corrected", local.word("corrected", { n: this.#corrected.size }), id);
  }

  /** @param {Entry} entry */
  #insert(entry) {
    if (!this.entries.put(entry)) return;
    entry.item.dataset.local = "new";
    this.#unseen.add(entry.id);
  }

  /** @param {{id: string, rev: number}} frame */
  #withdraw({ id, rev }) {
    for (const ids of [this.#queue, this.#unseen, this.#corrected, this.#unsaid]) ids.delete(id);
    // A fresh load would show one more from below.
    if (this.entries.withdraw(id, rev) && !this.entries.older.hidden) this.#fill(this.#limit);
  }

  /** Show the parts of a page that are not its entries. @param {Document} fresh @param {any} [page] its fields, if they may have changed */
  #showPage(fresh, page) {
    if (page?.rev < this.#pageRev) return;
    this.#pageRev = page?.rev ?? this.#pageRev;
    if (page) this.#emit("page", page);
    const before = updated(this.root)?.cloneNode(true);
    for (const id of PARTS) {
      const [part, next] = [this.#part(id), fresh.querySelector(`#${id}`)];
      if (part && next) morph(part, next);
    }
    const after = updated(this.root);
    if (before && after && before.dateTime > after.dateTime) morph(after, before); // of a frame that came late
    if (!page) return;
    this.local.label();
    this.times.refresh(); // in another language or zone
  }

  /** Show the entries that a fresh load has, and no others. @param {Document} fresh @param {boolean} isHeld */
  #merge(fresh, isHeld) {
    const all = entriesOf(fresh);
    const { entries } = this;
    this.#queue.release();
    entries.reset(all);
    const [first] = entries.all.filter(isOfDay); // where nothing is left, all are shown
    for (const entry of all) {
      const { id, order } = entry;
      const isNew = !entries.find(id);
      if (isNew) this.#announce(id);
      if (isNew && isHeld && order > first?.order) this.#queue.put(entry);
      else if (entries.put(entry, true)) this.#unseen.add(id);
    }
  }

  // --- loading

  /** A page as of the newest event that is shown or a later one. @param {string} address @returns {Promise<Document | void>} */
  async #load(address) {
    const url = new URL(address);
    url.searchParams.set("n", String(this.#n));
    for (let tries = 0; tries < LOADS_MOST; tries++) {
      const text = await fetch(url, await request(this.#options, { signal: this.#life.signal }))
        .then((response) => response.ok && response.text())
        .catch(() => {}); // also where it breaks off
      if (!text) return;
      const fresh = this.#parse(text);
      // A cache on the way may have the page from before a withdrawal; and events may have come while this one was fetched.
      if (!(Number(fresh.querySelector("main")?.dataset.n) < this.#n)) return fresh;
    }
  }

  /** Show older entries below the others. @param {number} most that are on the page then @returns {Promise<Entry[]>} those of the page of older ones */
  async #fill(most) {
    const { entries } = this;
    const fresh = await this.#load(entries.next.href);
    if (!fresh) return [];
    const all = entriesOf(fresh);
    this.#change(() => {
      entries.older.hidden = true; // what is below the last one is shown
      for (const entry of all) if (entries.all.length < most) entries.put(entry);
      entries.older.hidden = !fresh.querySelector("#older:not([hidden])") && all.every(({ id }) => entries.find(id));
    });
    return all;
  }

  /** The stream's frames do not come through; the page does. */
  async #catchUp() {
    const fresh = await this.#load(this.url);
    if (!fresh) return;
    const { n, cursor } = /** @type {HTMLElement} */ (fresh.querySelector("main")).dataset;
    const { lang, dir } = fresh.documentElement;
    this.#change((isHeld) => {
      this.#isOther = true;
      this.#merge(fresh, isHeld);
      this.#showPage(fresh, { headline: fresh.title, lang, dir });
    });
    this.#n = Number(n);
    this.stream.loaded(String(cursor));
  }

  // --- what was not seen

  /** Whether an entry that comes now would disturb: the reader is elsewhere, selects, uses or plays something, or wants none. */
  #isHeld() {
    const { all, list } = this.entries;
    const { activeElement } = document;
    const selection = getSelection();
    return (
      document.hidden ||
      !this.local.isAutomatic ||
      all[0]?.item.getBoundingClientRect().top < 0 ||
      (!!selection && !selection.isCollapsed && this.root.contains(selection.anchorNode)) ||
      (list.contains(activeElement) && !!activeElement?.matches(":focus-visible")) ||
      [.../** @type {NodeListOf<HTMLMediaElement>} */ (list.querySelectorAll("audio, video"))].some((media) => !media.paused)
    );
  }

  /** Show what waits, if it disturbs no more, and count what was not seen. */
  #settle() {
    if (this.#life.signal.aborted) return;
    if (!document.hidden) {
      if (this.#queue.size && !this.#isHeld()) return this.#release();
      for (const id of this.#unseen) {
        const box = this.entries.find(id)?.item.getBoundingClientRect();
        if (!box || (box.top > -1 && box.top < innerHeight)) this.#unseen.delete(id);
      }
    }
    const n = this.#queue.size + this.#unseen.size;
    if (!n) this.#jumped = false;
    this.local.count(n);
    if (n !== this.#count) this.#emit("count", (this.#count = n));
  }

  /** Announce an update that came, with all that come until it is said. @param {string} id */
  #announce(id) {
    const { local } = this;
    this.#unsaid.add(id);
    local.say("new", () => {
      const { size: n } = this.#unsaid;
      const what = this.root.querySelector("#latest a")?.textContent;
      this.#unsaid.clear();
      return n ? `${local.word("new", { n })}. ${what ? local.word("latest", { what }) : ""}` : "";
    });
  }

  #release() {
    const { entries } = this;
    // Between the lowest that was kept and what is shown some are missing: a fresh load ends above these.
    const { isWhole } = this.#queue;
    const waiting = this.#queue.release();
    this.#change(() => {
      if (!isWhole) entries.all.filter(isOfDay).forEach((entry) => entries.remove(entry));
      this.times.refresh();
      entries.older.hidden ||= !isWhole; // they are the lowest then
      for (const entry of waiting) this.#insert(entry);
      entries.trim(this.#limit);
      entries.older.hidden &&= isWhole;
    });
  }

  /** Go to the oldest update that was not seen; the next time to the top. */
  #advance() {
    if (this.#queue.size) this.#release();
    this.anchor.stand(); // the place of what glides is not yet its own
    const { all } = this.entries;
    const oldest = all.filter(({ id }) => this.#unseen.has(id)).pop();
    const target = (this.#jumped ? all[0] : oldest)?.item;
    if (this.#jumped) this.#unseen.clear();
    this.#jumped = !this.#jumped;
    target?.scrollIntoView({ behavior: "instant" });
    focusIn(target);
    this.#settle();
  }

  // --- the reader comes, acts and leaves

  /** Say what is new since this browser showed the page last. */
  #greet() {
    const { local } = this;
    const changed = changesSince(this.#last, this.entries.all);
    this.#last = [];
    if (!changed.length) return;
    const texts = changed.map(([name, { length: n }]) => local.word(name, { n }));
    const what = new Intl.ListFormat(this.times.lang, { type: "unit" }).format(texts);
    local.tell("since", local.word("since", { what }), String(changed[0][1].pop()?.id));
  }

  #leave() {
    if ("newer" in this.root.dataset) return;
    const shown = this.entries.all.map(({ id }) => id).filter((id) => !this.#unseen.has(id));
    rememberShown(this.url, String(updated(this.root)?.dateTime), shown);
  }

  /** @param {MouseEvent} event */
  #click(event) {
    const { local, times } = this;
    const target = /** @type {HTMLAnchorElement | null} */ (/** @type {Element} */ (event.target).closest("a, button"));
    if (target === local.notice) this.#advance();
    if (target === local.auto) local.switchAutomatic();
    if (target === local.zone) {
      times.showsOwn = !times.showsOwn;
      local.label();
      this.anchor.keep(() => times.refresh());
    }
    this.#settle();
    const isOther = event.ctrlKey || event.metaKey || event.shiftKey || event.altKey; // another tab or window
    if (!target || isOther) return;
    if (target.matches("#older a") && this.entries.all.length < ENTRIES_MOST) this.#showMore();
    else if (!target.matches(".share") || !local.share(target)) return;
    event.preventDefault();
  }

  /** Show the older entries in place. */
  async #showMore() {
    const { href } = this.entries.next;
    const [first] = await this.#fill(Infinity);
    if (first) focusIn(first.item);
    else if (!this.#life.signal.aborted) location.assign(href);
  }

  /** Look at the clock again while somebody looks at the page. */
  #tick() {
    clearTimeout(this.#ticker);
    this.times.refresh();
    this.#settle();
    if (document.hidden) this.#leave();
    else this.#ticker = setTimeout(() => this.#tick(), TICK_MS);
  }

  #emit(/** @type {string} */ type, /** @type {any} */ detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** The instant of the last update, as it is shown. @param {Element} root @returns {HTMLTimeElement | null} */
const updated = (root) => root.querySelector("#updated time");
