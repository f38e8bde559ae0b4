// @ts-check
/**
 * A live view takes the frames of a stream and makes of its root what a fresh load would show. Only what is the reader's own
 * differs: the element #local and attributes that begin with `data-local`. The HTML in a frame was made by the templates that made the page.
 *
 * An entry that comes while it would disturb waits in a queue; everything else is shown at once, without moving what is being read.
 */

import { keepPlace } from "./anchor.js";
import { Announcer } from "./announcer.js";
import { Entries, entriesOf, entryFrom, isOfDay, noteOf } from "./entries.js";
import { remembered } from "./memory.js";
import { elementOf, morph, parse } from "./morph.js";
import { Queue } from "./queue.js";
import { request } from "./sources.js";
import { Stream } from "./stream.js";
import { Times } from "./times.js";
import { wordOf } from "./words.js";

const GRACE_MS = 2_500; // a break that is shorter is not shown
const TICK_MS = 20_000; // between two looks at how long ago
const ENTRIES_MOST = 200; // of an open page; from there on the link to older ones leads to another page
const AUTOMATIC = "pushserver-automatic"; // remembered for the site: whether new updates come in by themselves
const LOADS_MOST = 3; // of a page, until one is not older than what is shown
const EVENTS = ["entry.put", "entry.withdraw", "page.put", "stream.end"];
const LOCAL = ["p#status", "p#since", "button#notice", "button#auto", "button#zone"];
const PARTS = ["header", "intro", "topics", "words"]; // of a page beside its entries and what is made of them
/** @type {Record<string, string>} what a reason to end is called; any other is the end of the coverage */
const ENDS = { token: "expired", refused: "refused", unknown: "unknown" };

/** @typedef {import("./entries.js").Entry} Entry */
/** @typedef {{url?: string} & import("./sources.js").Access} Options */

export class LiveView extends EventTarget {
  /** @type {Queue<Entry>} */ #queue;
  /** @type {Set<string>} entries above what the reader has seen */ #unseen = new Set();
  /** @type {Set<string>} */ #corrected = new Set();
  #count = 0;
  #jumped = false;
  #state = "";
  #pageRev = 0;
  #n; // the number of the newest event that is shown
  #heardAt = Date.now();
  #life = new AbortController();
  /** @type {number | undefined} */ #grace;
  /** @type {number | undefined} */ #ticker;
  /** @type {HTMLElement} */ status;
  /** @type {HTMLElement} */ news;
  /** @type {HTMLElement} */ notice;
  /** @type {HTMLElement} */ auto;
  /** @type {HTMLElement} */ zone;

  /**
   * Dispatches `page` (detail: the page's fields: headline, lang, dir), `count` (detail: the updates that were not seen) and `change`.
   * @param {HTMLElement} root with the parts of the page @param {Options} [options] `url`: the address of the page
   */
  constructor(root, options = {}) {
    super();
    this.root = root;
    this.options = options;
    this.url = new URL(options.url ?? location.pathname.replace(/\/$/, ""), location.href).href;
    this.entries = new Entries(root);
    this.times = new Times(root);
    this.limit = Number(root.dataset.limit);
    this.#n = Number(root.dataset.n ?? 0);
    this.#queue = new Queue(this.limit);
    [this.status, this.news, this.notice, this.auto, this.zone] = LOCAL.map((name) => this.#make(name));
    const region = this.#make("p#announcer");
    region.setAttribute("role", "status");
    region.hidden = false;
    this.announcer = new Announcer(region);
    this.stream = new Stream(`${this.url}/ws?format=html`, root.dataset.cursor, options);
    this.#listen();
  }

  /** Go live, unless the coverage has ended or the page shows older entries only. */
  open() {
    this.#label();
    this.#tick();
    if (this.#part("header")?.dataset.state === "ended") this.#showState("ended");
    else if (!("newer" in this.root.dataset)) this.stream.open();
  }

  /** Leave the page as it is, for good. */
  dispose() {
    this.#life.abort();
    this.stream.dispose();
    this.announcer.stop();
    clearTimeout(this.#grace);
    clearTimeout(this.#ticker);
  }

  /** @param {string} id @returns {HTMLElement | null} */
  #part(id) {
    return this.root.querySelector(`#${id}`);
  }

  /** An element of the reader's own. @param {string} name its tag and id */
  #make(name) {
    const [tag, id] = name.split("#");
    const made = this.#part(id) ?? Object.assign(document.createElement(tag), { id, hidden: true });
    if (!made.parentElement) this.#part("local")?.append(made);
    return made;
  }

  #listen() {
    const { signal } = this.#life;
    const on = (/** @type {EventTarget} */ target, /** @type {string} */ types, /** @type {(event: any) => void} */ listener) =>
      types.split(" ").forEach((type) => target.addEventListener(type, listener, { signal }));
    on(this.stream, "frame", ({ detail }) => this.apply(detail));
    on(this.stream, "head", ({ detail }) => this.#takeHead(detail));
    on(this.stream, "state", ({ detail }) => this.#takeState(detail));
    on(this.stream, "buffered", () => this.#catchUp());
    on(window, "scroll resize", () => this.#settle());
    on(document, "selectionchange focusout", () => setTimeout(() => this.#settle()));
    on(document, "visibilitychange", () => this.#tick());
    on(this.root, "click", (event) => this.#click(event));
  }

  // --- frames

  /** @param {any} frame of the stream, in the html format */
  apply(frame) {
    this.#heardAt = Date.now();
    const { type, n, page, parts } = frame;
    this.#n = n ?? this.#n;
    if (type === "snapshot") this.#merge(parse(Object.values(parts).join("")), page);
    if (!EVENTS.includes(type)) return; // of a later version
    this.#change(() => {
      if (type === "entry.put") this.#put(entryFrom(frame));
      if (type === "entry.withdraw") this.#withdraw(frame);
      if (page) this.#takePage(page, parts);
      else this.#morph(parts);
    });
  }

  /** Change the page without moving what is being read, and let follow what depends on it. @param {() => void} change */
  #change(change) {
    keepPlace(this.root, () => {
      change();
      this.entries.index();
      this.times.refresh();
    });
    this.#settle();
    this.#emit("change", 0);
  }

  /** @param {Entry} entry */
  #put(entry) {
    const { id } = entry;
    const before = this.entries.find(id);
    const note = noteOf(before);
    if (!before && !this.entries.isWithdrawn(entry) && this.#isHeld()) return this.#queue.put(entry);
    this.#insert(entry);
    if (this.#unseen.has(id) || !noteOf(before) || noteOf(before) === note) return;
    this.#corrected.add(id);
    this.#say("corrected", this.#word("corrected", { n: this.#corrected.size }), id);
  }

  /** @param {Entry} entry */
  #insert(entry) {
    if (!this.entries.put(entry)) return;
    entry.item.dataset.local = "new";
    this.#unseen.add(entry.id);
    if (!this.#isHeld()) this.entries.trim(this.limit);
  }

  /** @param {{id: string, rev: number}} frame */
  #withdraw({ id, rev }) {
    for (const ids of [this.#queue, this.#unseen, this.#corrected]) ids.delete(id);
    // A fresh load would show one more from below.
    if (this.entries.withdraw(id, rev) && !this.entries.older.hidden) this.#fill();
  }

  /** @param {any} page @param {Record<string, string>} parts */
  #takePage(page, parts) {
    if (page.rev < this.#pageRev) return;
    const isMoved = this.#isMoved(page);
    this.#showPage(page, parts);
    // Every time and word on the page is another: the entries come anew.
    if (isMoved) this.#load().then((fresh) => fresh && this.#merge(fresh, page, true));
  }

  /** @param {any} page @param {Record<string, string | Element | null>} parts */
  #showPage(page, parts) {
    this.#pageRev = page.rev ?? this.#pageRev;
    this.#emit("page", page);
    this.#morph(parts);
    this.#label();
  }

  /** Whether a page has another language or zone than is shown. @param {any} page */
  #isMoved({ timezone, lang }) {
    return timezone !== this.times.zone || lang !== this.times.lang;
  }


  /** @param {Record<string, string | Element | null>} parts what becomes of elements, by their ids */
  #morph(parts) {
    const updated = () => this.root.querySelector("#updated time");
    const before = updated()?.cloneNode(true);
    for (const [id, fresh] of Object.entries(parts)) {
      const part = this.#part(id);
      if (part && fresh) morph(part, typeof fresh === "string" ? elementOf(fresh) : fresh);
    }
    const after = updated();
    if (before && after && timeOf(before) > timeOf(after)) morph(after, before); // of a frame that came late
  }

  /** Show what a fresh load has, whatever is shown. @param {Document} fresh @param {any} page @param {boolean} alone */
  #merge(fresh, page, alone = this.#isMoved(page)) {
    const all = entriesOf(fresh);
    const { entries } = this;
    this.#change(() => {
      const [first] = entries.all.filter(isOfDay);
      const isHeld = first && this.#isHeld();
      this.#queue.release();
      entries.reset(all, alone);
      entries.older.hidden = true; // what is below the last one is shown
      for (const entry of all) {
        if (isHeld && !entries.find(entry.id) && entry.order > first.order) this.#queue.put(entry);
        else if (entries.put(entry, true)) this.#unseen.add(entry.id);
      }
      this.#showOlder(fresh, all);
      this.#showPage(page, Object.fromEntries(PARTS.map((id) => [id, fresh.querySelector(`#${id}`)])));
    });
  }

  /** The link to older ones is that of `fresh`, unless more is shown. @param {Document} fresh @param {Entry[]} all of its entries */
  #showOlder(fresh, all) {
    const shown = this.entries.all;
    if (shown.pop()?.id === all.pop()?.id) this.#morph({ older: fresh.querySelector("#older") });
    else this.entries.trim(shown.length + 1);
  }

  // --- loading

  /** What a fresh load has, as of the newest event that is shown or a later one. @param {string} [address] of a page of older entries
   * @returns {Promise<Document | void>} */
  async #load(address) {
    for (let tries = 0; tries < LOADS_MOST; tries++) {
      const response = await fetch(address ?? `${this.url}?n=${this.#n}`, await request(this.options)).catch(() => null);
      if (!response?.ok || this.#life.signal.aborted) return;
      const fresh = parse(await response.text());
      // A cache on the way may have the page from before a withdrawal; and events may have come while this one was fetched.
      if (address || !(Number(fresh.querySelector("main")?.dataset.n) < this.#n)) return fresh;
    }
  }

  /** Put in what a fresh load, or an address, has below what is shown. @param {string} [address] @returns {Promise<Entry[] | void>} */
  async #fill(address) {
    const fresh = await this.#load(address);
    if (!fresh) return;
    const all = entriesOf(fresh);
    this.#change(() => {
      const last = this.entries.all.pop();
      this.entries.older.hidden = true; // what is below the last one is shown
      for (const entry of all) if (!last || entry.order <= last.order) this.entries.put(entry);
      this.#showOlder(fresh, [...all]);
    });
    return all;
  }

  /** The stream's frames do not come through; the page does. */
  async #catchUp() {
    console.warn("pushserver: something on the way holds its events back");
    const fresh = await this.#load();
    if (!fresh) return;
    const { dataset } = /** @type {HTMLElement} */ (fresh.querySelector("main"));
    const { lang, dir } = fresh.documentElement;
    this.#merge(fresh, { headline: fresh.title, lang, dir, timezone: this.times.zone });
    this.#n = Number(dataset.n);
    this.stream.loaded(String(dataset.cursor));
  }

  // --- what was not seen

  /** Whether an entry that comes now would disturb: the reader is elsewhere, selects, uses or plays something, or wants none. */
  #isHeld() {
    const { list } = this.entries;
    const selection = getSelection();
    return (
      document.hidden ||
      this.auto.ariaPressed === "false" ||
      Number(list.querySelector("article")?.getBoundingClientRect().top) < 0 ||
      (selection && !selection.isCollapsed && this.root.contains(selection.anchorNode)) ||
      list.querySelector(":focus-visible") ||
      [.../** @type {NodeListOf<HTMLMediaElement>} */ (list.querySelectorAll("audio, video"))].some(({ paused }) => !paused)
    );
  }

  /** Show what waits, if it disturbs no more, and count what was not seen. */
  #settle() {
    if (this.#life.signal.aborted) return;
    if (!document.hidden) {
      if (this.#queue.size && !this.#isHeld()) return this.#release();
      for (const id of this.#unseen) {
        const box = this.entries.find(id)?.getBoundingClientRect();
        if (!box || (box.top > -1 && box.top < innerHeight)) this.#unseen.delete(id);
      }
    }
    const n = this.#queue.size + this.#unseen.size;
    if (!n) this.#jumped = false;
    show(this.notice, n ? this.#word("new", { n }) : "");
    if (n > this.#count) {
      const latest = this.root.querySelector("#latest a")?.textContent;
      this.#say("new", `${this.notice.textContent}. ${latest ? this.#word("latest", { what: latest }) : ""}`);
    }
    if (n !== this.#count) this.#emit("count", (this.#count = n));
  }

  #release() {
    // Between the lowest that was kept and what is shown some are missing: a fresh load ends above these.
    const { isWhole } = this.#queue;
    const waiting = this.#queue.release();
    this.#change(() => {
      if (!isWhole) this.entries.all.filter(isOfDay).forEach((entry) => this.entries.remove(entry));
      for (const entry of waiting) this.#insert(entry);
      this.entries.trim(this.limit);
    });
  }

  /** Go to the oldest update that was not seen; the next time to the top. */
  #advance() {
    if (this.#queue.size) this.#release();
    const { all } = this.entries;
    const oldest = all.filter(({ id }) => this.#unseen.has(id)).pop();
    const target = (this.#jumped ? all[0] : oldest)?.item;
    if (this.#jumped) this.#unseen.clear();
    this.#jumped = !this.#jumped;
    target?.scrollIntoView({ behavior: "instant" });
    target?.querySelector("a")?.focus({ preventScroll: true });
    this.#settle();
  }

  // --- what is said

  /** A text of the script's, which stands in the page; "" where it is missing. @param {string} name @param {Record<string, string | number>} [values] */
  #word(name, values = {}) {
    return wordOf(this.#part("words")?.dataset.words, this.times.lang, name, values);
  }

  #label() {
    show(this.auto, this.#word("auto"));
    this.auto.ariaPressed ??= remembered("localStorage", AUTOMATIC) ?? "true";
    const here = new Date();
    const isAway = here.toLocaleString("en") !== here.toLocaleString("en", { timeZone: this.times.zone });
    show(this.zone, isAway ? this.#word("zone") : "");
    this.zone.ariaPressed = String(this.times.showsOwn);
  }

  /** @param {string} name @param {string} text @param {string} [id] of the entry that it is about */
  #say(name, text, id) {
    this.announcer.say(name, text);
    if (!id) return;
    const link = Object.assign(document.createElement("a"), { href: `#e-${id}`, textContent: text });
    this.news.replaceChildren(link);
    this.news.hidden = false;
  }

  /** @param {{at: string}} head */
  #takeHead({ at }) {
    this.#heardAt = Date.now();
    this.times.setClock(at);
  }

  /** @param {{state: string, reason: string, stale: string | null, buffered: boolean}} detail */
  #takeState({ state, reason, stale, buffered }) {
    clearTimeout(this.#grace);
    if (state === "ended") return this.#showState(ENDS[reason] ?? "ended");
    if (buffered) return this.#showState("buffered");
    if (state === "live") return this.#showState(stale ? "stale" : state, stale ?? 0);
    this.#grace = setTimeout(() => {
      // Who tries again and again says so once.
      if (state === "connecting" && this.#state) return;
      this.#showState(state === "waiting" && !navigator.onLine ? "offline" : state, this.#heardAt);
    }, GRACE_MS);
  }

  /** @param {string} name @param {string | number} [time] */
  #showState(name, time = 0) {
    const text = this.#word(name, { time: this.times.text(time) });
    show(this.status, text);
    if (this.#state ? name !== this.#state : name !== "live") this.announcer.say("state", text, 0);
    this.#state = this.status.dataset.state = name;
  }

  // --- what the reader does

  /** @param {MouseEvent} event */
  #click(event) {
    const { auto, zone, times } = this;
    const target = /** @type {Element} */ (event.target).closest("a, button");
    if (target === this.notice) this.#advance();
    if (target === auto) remembered("localStorage", AUTOMATIC, (auto.ariaPressed = String(auto.ariaPressed === "false")));
    if (target === zone) {
      times.showsOwn = !times.showsOwn;
      this.#label();
      keepPlace(this.root, () => times.refresh());
    }
    this.#settle();
    const isOther = event.ctrlKey || event.metaKey || event.shiftKey || event.altKey; // another tab or window
    if (target?.matches("#older a") && !isOther && this.entries.all.length < ENTRIES_MOST) {
      event.preventDefault();
      this.#showMore(/** @type {HTMLAnchorElement} */ (target).href);
    }
  }

  /** Show the older entries of an address in place. @param {string} address */
  async #showMore(address) {
    const [first] = (await this.#fill(address)) ?? [];
    if (!first) return location.assign(address);
    first.item.querySelector("a")?.focus({ preventScroll: true });
  }

  /** Look at the clock again while somebody looks at the page. */
  #tick() {
    clearTimeout(this.#ticker);
    this.times.refresh();
    this.#settle();
    if (!document.hidden) this.#ticker = setTimeout(() => this.#tick(), TICK_MS);
  }

  #emit(/** @type {string} */ type, /** @type {any} */ detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** Show a text, or nothing. @param {HTMLElement} element @param {string} text */
function show(element, text) {
  if (element.textContent !== text) element.textContent = text;
  element.hidden = !text;
}

/** @param {any} time */
const timeOf = (time) => time.dateTime;
