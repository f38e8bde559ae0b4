// @ts-check
/** What this browser showed of a stream when its reader left, and what has changed since then. */

import { noteOf } from "./entries.js";
import { remembered } from "./remembered.js";

const SEEN = "pushserver-seen"; // remembered for the site: of each stream when it changed last, and the ids that were shown
const STREAMS_MOST = 20;
const SHOWN_MOST = 200; // ids of a stream

/** @returns {[url: string, at: string, ...ids: string[]][]} of the stream that was left last first */
const seen = () => {
  try {
    return JSON.parse(String(remembered("localStorage", SEEN))).filter(Array.isArray);
  } catch {
    return []; // nothing, or what this script did not write
  }
};

/** @param {string} url of a stream @param {string} at of its last change @param {string[]} ids of what was shown */
export function rememberShown(url, at, ids) {
  const streams = [[url, at, ...ids.slice(0, SHOWN_MOST)], ...seen().filter(([other]) => other !== url)];
  remembered("localStorage", SEEN, JSON.stringify(streams.slice(0, STREAMS_MOST)));
}

/** What was remembered of a stream, if anything. @param {string} url @returns {string[]} */
export const lastShown = (url) => seen().find(([other]) => other === url) ?? [];

/** The entries of a page that are new since it was left, the key events among them, and those that were corrected.
 * @param {string[]} last what was remembered then @param {import("./entries.js").Entry[]} entries from above */
export function changesSince([, at, ...ids], entries) {
  if (!at) return [];
  const lowest = entries.map(({ id }) => ids.includes(id)).lastIndexOf(true); // below it are others that were on no page
  const updates = entries.slice(0, lowest + 1 || undefined).filter(({ id }) => !ids.includes(id));
  const keys = updates.filter(({ item }) => item.querySelector("[data-key]"));
  const corrections = entries.filter(({ id, item }) => ids.includes(id) && (noteOf(item)?.dateTime ?? "") > at);
  return Object.entries({ updates, keys, corrections }).filter(([, { length }]) => length);
}
