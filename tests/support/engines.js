/**
 * A harness that runs in the live page of any browser: it publishes, looks at what the page makes of it, and publishes a report.
 * So no driver of a browser is needed. The address of the page ends in #KEY, with which it may publish.
 */

const KEY = location.hash.slice(1);
const STREAM = location.pathname.split("/").pop();
const TEXT = "The river has risen again since the morning, and the lower road is closed. ".repeat(6);
const AT_MOST = 60_000; // milliseconds for one thing to happen
const [$, all] = [(css) => document.querySelector(css), (css) => [...document.querySelectorAll(css)]];
const topOf = (id) => $(`#e-${id}`).getBoundingClientRect().top;

async function send(method, path, value) {
  const headers = { Authorization: `Bearer ${KEY}`, "Content-Type": "application/json" };
  const response = await fetch(`/streams/${path}`, { method, headers, body: value && JSON.stringify(value) });
  if (!response.ok) throw Error(`${method} ${path}: ${response.status} ${await response.text()}`);
}

const entry = (id) => `${STREAM}/entries/${id}`;
const put = (id, more) => send("PUT", entry(id), { headline: `Entry ${id}`, body: TEXT, ...more });
const patch = (id, more) => send("PATCH", entry(id), more);
const withdraw = (id) => send("DELETE", entry(id));

/** Wait until it is so. */
async function until(what, isSo) {
  const end = Date.now() + AT_MOST;
  while (!isSo()) {
    if (Date.now() > end) throw Error(`not within ${AT_MOST} ms: ${what}; the notice: ${$("#notice").textContent}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Two frames: the browser has laid out the page and told so. A browser without a screen draws none. */
const drawn = () => new Promise((resolve) => {
  requestAnimationFrame(() => requestAnimationFrame(resolve));
  setTimeout(resolve, 1_000);
});

function same(what, is, expected) {
  if (is !== expected) throw Error(`${what}: ${is}, not ${expected}`);
}

/** Scroll to an entry, and wait until the browser has laid out all that came into view with it. */
async function read(id) {
  scrollBy(0, topOf(id) - 90);
  for (let before = NaN; topOf(id) !== before; await drawn()) before = topOf(id);
}

/** The page without what is the reader's own: what a fresh load has. */
function shared(page) {
  const copy = page.querySelector("#live").cloneNode(true);
  copy.querySelector("#local").remove();
  for (const element of [copy, ...copy.querySelectorAll("*")]) {
    for (const name of element.getAttributeNames()) if (name.startsWith("data-local")) element.removeAttribute(name);
  }
  for (const name of ["data-cursor", "data-n"]) copy.removeAttribute(name);
  return copy.outerHTML;
}

/** A page as it is served now. Only the page's own script may make a document of text: its Trusted Types have one policy. */
const load = () => new Promise((resolve, reject) => {
  const request = Object.assign(new XMLHttpRequest(), { onload: () => resolve(request.response), onerror: reject });
  request.open("GET", location.pathname);
  request.responseType = "document";
  request.setRequestHeader("Accept", "text/html");
  request.setRequestHeader("Cache-Control", "no-cache");
  request.send();
});

async function sameAsFresh() {
  const [mine, its] = [shared(document), shared(await load())];
  const at = [...mine].findIndex((letter, place) => letter !== its[place]);
  if (mine !== its) throw Error(`not as a fresh load: ${mine.slice(at - 60, at + 60)} | ${its.slice(at - 60, at + 60)}`);
}

const checks = {
  async anchoring() {
    await read("e05");
    const before = topOf("e05");
    for (const id of ["n1", "n2", "n3"]) await put(id);
    await patch("e09", { body: TEXT.repeat(3) });
    await send("PATCH", STREAM, { dek: TEXT });
    await withdraw("e11");
    await until("the withdrawal", () => !$("#e-e11") && $("#e-e09 .updated") && $(".dek")?.textContent.startsWith("The river"));
    await drawn();
    const moved = Math.abs(topOf("e05") - before);
    if (moved > 1) throw Error(`moved by ${moved} px`);
  },
  async queue() {
    await until("three wait", () => $("#notice").textContent === "3 new updates");
    await withdraw("n2");
    await until("two wait", () => $("#notice").textContent === "2 new updates");
    same("title", document.title.slice(0, 4), "(2) ");
    $("#notice").click();
    same("focus", document.activeElement.closest("article")?.id, "e-n1");
    $("#notice").click();
    same("focus", document.activeElement.closest("article")?.id, "e-n3");
    await until("the notice goes", () => $("#notice").hidden);
  },
  async merging() {
    const blocks = ["One.", "Two.", "Three."].map((html) => ({ type: "paragraph", html }));
    document.activeElement.blur();
    scrollTo(0, 0);
    await put("n4", { body: undefined, blocks });
    await until("an entry at the top", () => $("#e-n4"));
    const [, one, two, three] = all("#e-n4 p");
    await patch("n4", { blocks: [blocks[0], { type: "paragraph", html: "Two, corrected." }, { type: "heading", text: "New" }, blocks[2]] });
    await until("the correction", () => $("#e-n4 h4"));
    same("text", two.textContent, "Two, corrected.");
    same("nodes", [one, two, three].every((node) => node.isConnected), true);
    await patch("e02", { sort_at: "2026-03-01T06:30:00Z" });
    await until("another place", () => $("#e-e02").parentElement.nextElementSibling?.firstChild === $("#e-e06"));
    await sameAsFresh();
  },
  async focus() {
    $("#e-e03 .stamp a").focus({ preventScroll: true });
    await withdraw("e03");
    await until("the withdrawal", () => !$("#e-e03"));
    same("focus", document.activeElement.closest("article")?.id, "e-e01");
    document.activeElement.blur();
    scrollTo(0, 0);
  },
  async healing() {
    dispatchEvent(new PageTransitionEvent("pagehide", { persisted: true }));
    await withdraw("e08");
    await patch("e07", { headline: "Corrected meanwhile" });
    await put("n5");
    dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true }));
    await until("the page heals", () => !$("#e-e08") && $("#e-e07 h3").textContent === "Corrected meanwhile" && $("#e-n5"));
    await sameAsFresh();
  },
};

await until("live", () => $("#status").dataset.state === "live");
for (const [name, check] of Object.entries(checks)) {
  const said = await check().then(() => "right", String);
  await send("PUT", `${STREAM}-report/entries/${name}`, { headline: said.slice(0, 280) });
}
await send("PUT", `${STREAM}-report/entries/end`, { headline: navigator.userAgent.slice(0, 200) });
