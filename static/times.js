// @ts-check
/** The times of a page as the reader has them: how long ago, by the server's clock, and in the reader's own zone. */

const RECENT_MIN = 720; // minutes for which an age is shown

export class Times {
  #root;
  #ahead = NaN; // ms by which the server's clock is before this one's; no age is shown until it is known
  showsOwn = false;

  constructor(/** @type {HTMLElement} */ root) {
    this.#root = root;
  }

  get lang() {
    return /** @type {HTMLElement} */ (this.#root.closest("[lang]"))?.lang;
  }

  get zone() {
    return /** @type {HTMLElement} */ (this.#root.querySelector("#header")).dataset.timezone;
  }

  /** @param {string} instant of the server, now */
  setClock(instant) {
    this.#ahead = Date.parse(instant) - Date.now();
    this.refresh();
  }

  /** The time of day in the page's zone, or with `own` the day too, in the reader's. @param {string | number} instant @param {boolean} [own] */
  text(instant, own) {
    /** @type {Intl.DateTimeFormatOptions} */
    const more = own ? { month: "short", day: "numeric", timeZoneName: "short" } : { timeZone: this.zone };
    return new Date(instant).toLocaleString(this.lang, { hour: "numeric", minute: "2-digit", ...more });
  }

  /** @param {string} instant; one that is to come is now, by a clock that is wrong @param {Intl.RelativeTimeFormat} format */
  #age(instant, format) {
    const minutes = Math.floor((Date.now() + this.#ahead - Date.parse(instant)) / 60_000);
    if (!(minutes < RECENT_MIN)) return "";
    if (minutes < 1) return format.format(0, "second");
    return minutes < 60 ? format.format(-minutes, "minute") : format.format(-Math.floor(minutes / 60), "hour");
  }

  /** @param {ParentNode} [page] or what is to be shown on it */
  refresh(page = this.#root) {
    const format = new Intl.RelativeTimeFormat(this.lang, { numeric: "auto", style: "short" });
    for (const time of /** @type {NodeListOf<HTMLTimeElement>} */ (page.querySelectorAll("#updated time, .stamp time"))) {
      set(time, "localAgo", this.#age(time.dateTime, format));
      set(time, "localTime", this.showsOwn ? this.text(time.dateTime, true) : "");
    }
  }
}

/** @param {HTMLElement} element @param {string} name of its data @param {string} value "" for none */
function set({ dataset }, name, value) {
  if (!value) delete dataset[name];
  else if (dataset[name] !== value) dataset[name] = value;
}
