// @ts-check
/**
 * A live view takes the frames of a stream and makes of its root what a fresh load would show. Only what is the reader's own
 * differs: the element #local and attributes that begin with `data-local`. The HTML in a frame was made by the templates that made the page.
 *
 * An entry that comes while it would disturb waits in a queue; everything else is shown at once, without moving what is being read.
 */

import { keepPlace } from "./anchor.js";
import { Announcer } from "./announcer.js";
import { Entries, entryOf } from "./entries.js";
import { elementOf, morph, parse } from "./morph.js";
import { Queue } from "./queue.js";
import { Stream } from "./stream.js";
import { Times } from "./times.js";

const GRACE_MS = 2_500; // a break that is shorter is not shown
const TICK_MS = 20_000; // between two looks at how long ago
const ENTRIES_MOST = 200; // of an open page; from there on the link to older ones leads to another page
const AUTOMATIC = "pushserver-automatic"; // remembered for the site, "no" where the reader has turned it off
const EVENTS = ["entry.put", "entry.withdraw", "page.put", "stream.end"];
const ENDS = { "": "ended", over: "ended", token: "expired", refused: "refused", unknown: "unknown" };

/** @typedef {import("./entries.js").Entry} Entry */
/** @typedef {{url?: string, token?: string | (() => string | Promise<string>), withCredentials?: boolean}} Options */

export class LiveView extends EventTarget {
  #queue;
  /** @type {Set<string>} entries above what the reader has seen */ #unseen = new Set();
  /** @type {Set<string>} */ #corrected = new Set();
  #count = 0;
  #jumped = false;
  #state = "";
  #pageRev = 0;
  #heardAt = Date.now();
  #life = new AbortController();
  /** @type {number | undefined} */ #grace;
  /** @type {number | undefined} */ #ticker;

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
    this.#queue = new Queue(this.limit);
    this.status = this.#make("p", "status");
    this.readers = this.#make("p", "readers");
    this.news = this.#make("p", "since");
    this.notice = this.#make("button", "notice");
    this.auto = this.#make("button", "auto");
    this.zone = this.#make("button", "zone");
    const region = this.#make("p", "announcer");
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
    return this.root.querySelector(`#${CSS.escape(id)}`);
  }

  /** An element of the reader's own. @param {string} tag @param {string} id */
  #make(tag, id) {
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
    on(window, "scroll resize", () => requestAnimationFrame(() => this.#settle()));
    on(document, "selectionchange focusout visibilitychange", () => setTimeout(() => this.#settle()));
    on(this.root, "click", (event) => this.#click(event));
  }

  // --- frames

  /** @param {any} frame of the stream, in the html format */
  apply(frame) {
    this.#heardAt = Date.now();
    const { type, page, parts } = frame;
    if (type === "snapshot") {
      const { entries, older, latest, key, ...rest } = parts;
      this.#merge(parse(entries + older), page, rest);
    }
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
    this.#emit("change");
  }

  /** @param {Entry} entry */
  #put(entry) {
    const { entries } = this;
    const { id } = entry;
    const before = entries.find(id);
    const note = noteOf(before);
    if (!before && !entries.isWithdrawn(entry) && this.#isHeld()) return this.#queue.put(entry);
    this.#insert(entry);
    if (!before || this.#unseen.has(id) || !noteOf(before) || noteOf(before) === note) return;
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
    if (this.entries.withdraw(id, rev) && !this.entries.older.hidden) this.#fill(this.url);
  }

  /** @param {any} page @param {Record<string, string>} parts */
  #takePage(page, parts) {
    if (page.rev < this.#pageRev) return;
    const isMoved = this.#isMoved(page);
    this.#showPage(page, parts);
    // Every time and word on the page is another: the entries come anew.
    if (isMoved) this.#load(this.url).then((fresh) => fresh && this.#merge(fresh, page, partsOf(fresh), true));
  }

  /** Whether a page has another language or zone than is shown. @param {any} page */
  #isMoved({ timezone, lang }) {
    return timezone !== this.times.zone || lang !== this.times.lang;
  }

  /** @param {any} page @param {Record<string, string>} parts */
  #showPage(page, parts) {
    this.#pageRev = page.rev ?? this.#pageRev;
    this.#emit("page", page);
    this.#morph(parts);
    this.#label();
  }

  /** @param {Record<string, string>} parts the new HTML of elements, by their ids */
  #morph(parts) {
    const updated = () => this.root.querySelector("#updated time");
    const before = updated()?.cloneNode(true);
    for (const [id, html] of Object.entries(parts)) {
      const part = this.#part(id);
      if (part) morph(part, elementOf(html));
    }
    const after = updated();
    if (before && after && timeOf(before) > timeOf(after)) morph(after, before); // of a frame that came late
  }

  /** Show what a fresh load has, whatever is shown. @param {Document} fresh @param {any} page @param {Record<string, string>} parts @param {boolean} alone */
  #merge(fresh, page, parts, alone = this.#isMoved(page)) {
    const all = entriesOf(fresh);
    const { entries } = this;
    this.#change(() => {
      const [first] = entries.all.filter(({ day }) => day.dataset.day !== "pinned");
      const isHeld = first && this.#isHeld();
      this.#queue.release();
      entries.reset(all, alone);
      entries.older.hidden = true; // what is below the last one is shown
      for (const entry of all) {
        if (isHeld && !entries.find(entry.id) && entry.order > first.order) this.#queue.put(entry);
        else if (entries.put(entry, true)) this.#unseen.add(entry.id);
      }
      this.#showOlder(fresh, all);
      this.#showPage(page, parts);
    });
  }

  /** The link to older ones is that of `fresh`, unless more is shown. @param {Document} fresh @param {Entry[]} all of its entries */
  #showOlder(fresh, all) {
    const { entries } = this;
    const older = fresh.querySelector("#older");
    const { length } = entries.all;
    if (older && (!length || entries.all[length - 1].id === all[all.length - 1]?.id)) morph(entries.older, older);
    else entries.trim(length);
  }

  // --- loading

  /** @param {string} address @returns {Promise<Document | void>} */
  async #load(address) {
    const { token, withCredentials } = this.options;
    const current = typeof token === "function" ? await token() : token;
    /** @type {RequestInit} */
    const init = { headers: { Accept: "text/html" }, cache: "no-cache", credentials: withCredentials ? "include" : "same-origin" };
    if (current) Object.assign(/** @type {object} */ (init.headers), { Authorization: `Bearer ${current}` });
    const response = await fetch(address, init).catch(() => null);
    if (response?.ok && !this.#life.signal.aborted) return parse(await response.text());
  }

  /** Put in what an address has below what is shown. @param {string} address @returns {Promise<Entry[] | void>} */
  async #fill(address) {
    const fresh = await this.#load(address);
    if (!fresh) return;
    const all = entriesOf(fresh);
    this.#change(() => {
      const { entries } = this;
      const last = entries.all.pop();
      entries.older.hidden = true; // what is below the last one is shown
      for (const entry of all) if (!last || entry.order <= last.order) entries.put(entry);
      this.#showOlder(fresh, all);
    });
    return all;
  }

  /** The stream's frames do not come through; the page does. */
  async #catchUp() {
    console.warn("pushserver: the server answers, but something on the way holds its events back, as a proxy that buffers does");
    const fresh = await this.#load(this.url);
    const main = /** @type {HTMLElement | null | undefined} */ (fresh?.querySelector("[data-cursor]"));
    if (!fresh || !main) return;
    const { lang, dir } = fresh.documentElement;
    const timezone = /** @type {HTMLElement} */ (main.querySelector("#header")).dataset.timezone;
    this.#merge(fresh, { headline: fresh.title, lang, dir, timezone }, partsOf(fresh));
    this.stream.loaded(String(main.dataset.cursor));
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
      list.contains(document.activeElement) ||
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
      this.#tick();
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
    if (!this.#queue.isWhole) {
      this.#queue.release();
      this.#load(this.url).then((fresh) => fresh && this.#change(() => entriesOf(fresh).forEach((entry) => this.#insert(entry))));
    }
    const waiting = this.#queue.release();
    this.#change(() => {
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
    const { lang } = this.times;
    const word = JSON.parse(this.#part("words")?.dataset.words ?? "{}")[name] ?? "";
    const text = word.big ? word : (word[new Intl.PluralRules(lang).select(Number(values.n))] ?? word.other);
    return text.replace(/\{(\w+)\}/g, (/** @type {string} */ _, /** @type {string} */ key) => values[key].toLocaleString(lang));
  }

  #label() {
    show(this.auto, this.#word("auto"));
    this.auto.ariaPressed ??= String(stored() !== "no");
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

  /** @param {{at: string, shown_readers?: number}} head */
  #takeHead({ at, shown_readers: n }) {
    this.#heardAt = Date.now();
    this.times.setClock(at);
    show(this.readers, n ? this.#word("readers", { n }) : "");
  }

  /** @param {{state: string, reason: keyof typeof ENDS, stale: string | null, buffered: boolean}} detail */
  #takeState({ state, reason, stale, buffered }) {
    clearTimeout(this.#grace);
    if (state === "ended") return this.#showState(ENDS[reason]);
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
    if (target === auto) {
      auto.ariaPressed = String(auto.ariaPressed === "false");
      stored(auto.ariaPressed === "false" ? "no" : "yes");
      this.#settle();
    }
    if (target === zone) {
      times.showsOwn = !times.showsOwn;
      this.#label();
      keepPlace(this.root, () => times.refresh());
    }
    const isPlain = !(event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey);
    if (target instanceof HTMLAnchorElement && isPlain) this.#follow(target, event);
  }

  /** @param {HTMLAnchorElement} link @param {Event} event */
  async #follow(link, event) {
    if (link.matches("#older a") && this.entries.all.length < ENTRIES_MOST) {
      event.preventDefault();
      const all = await this.#fill(link.href);
      if (!all) return location.assign(link.href);
      this.entries.find(all[0]?.id)?.querySelector("a")?.focus({ preventScroll: true });
    }
    if (!link.matches(".share") || !(navigator.share || navigator.clipboard)) return;
    event.preventDefault();
    const title = link.closest("article")?.querySelector("h3")?.textContent ?? "";
    if (navigator.share) return void navigator.share({ title, url: link.href }).catch(() => {}); // the reader thought better of it
    await navigator.clipboard.writeText(link.href);
    link.dataset.localSaid = this.#word("copied");
    this.announcer.say("copied", link.dataset.localSaid, 0);
  }

  /** Look at the clock again while somebody looks at the page. */
  #tick() {
    clearTimeout(this.#ticker);
    this.times.refresh();
    if (!document.hidden) this.#ticker = setTimeout(() => this.#tick(), TICK_MS);
  }

  #emit(/** @type {string} */ type, /** @type {any} */ detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** What the reader chose of new updates. @param {string} [value] to remember; a browser that keeps nothing for this page forgets it */
function stored(value) {
  try {
    if (value) localStorage.setItem(AUTOMATIC, value);
    return localStorage.getItem(AUTOMATIC);
  } catch {
    return null;
  }
}

/** Show a text, or nothing. @param {HTMLElement} element @param {string} text */
function show(element, text) {
  if (element.textContent !== text) element.textContent = text;
  element.hidden = !text;
}

/** The note of a correction. @param {Element | null} article */
const noteOf = (article) => article?.querySelector(".correction")?.textContent;

/** @param {any} time */
const timeOf = (time) => time.dateTime;

/** @param {any} frame @returns {Entry} */
function entryFrom({ html, day }) {
  const section = elementOf(day.html);
  section.querySelector("ol")?.append(elementOf(html));
  return entryOf(section.querySelector("article"));
}

/** The entries of a page's HTML. @param {Document} page */
const entriesOf = (page) => [...page.querySelectorAll("#entries article")].map(entryOf);

/** The parts of a page's HTML beside its entries. @param {Document} page @returns {Record<string, string>} */
function partsOf(page) {
  const parts = ["header", "intro", "topics", "words"].map((id) => [id, page.querySelector(`#${id}`)?.outerHTML]);
  return Object.fromEntries(parts.filter(([, html]) => html));
}
