// @ts-check
/** The words that the script says stand in the page, in its language: an object in JSON, with a form for each plural category. */

/** A text, "" where it is missing. @param {string | undefined} json @param {string} lang @param {string} name
 * @param {Record<string, string | number>} values for the names in braces; `n` chooses the form */
export function wordOf(json, lang, name, values) {
  const word = JSON.parse(json ?? "{}")[name] ?? "";
  const text = "n" in values ? (word[new Intl.PluralRules(lang).select(Number(values.n))] ?? word.other ?? "") : word;
  return text.replace(/\{(\w+)\}/g, (/** @type {string} */ _, /** @type {string} */ key) => values[key]?.toLocaleString(lang));
}
