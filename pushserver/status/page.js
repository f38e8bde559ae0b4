// The page of a cluster. Each second it asks for /status.json and shows it; every value is set as text.

const EVERY = 1000; // milliseconds between two looks
const DEADLINE = 5000; // milliseconds for one answer

const count = (value) => Math.round(value).toLocaleString("en");
const rate = (value) => value.toLocaleString("en", { maximumFractionDigits: 1 });
const lag = (value) => (value ? `${Math.round(value.p50)} / ${Math.round(value.p99)} ms` : "-");
const size = (value) => `${count(value / 1048576)} MiB`;
const percent = (value) => `${Math.round(value)} %`;

const TOTALS = {
  Readers: (totals) => count(totals.readers),
  Streams: (totals) => count(totals.streams),
  "Publishes/s": (totals) => rate(totals.publishes_per_s),
  "Entries written/s": (totals) => count(totals.entries_written_per_s),
  "Lag p50 / p99": (totals) => lag(totals.lag_ms),
  Memory: (totals) => size(totals.rss_bytes),
  CPU: (totals) => percent(totals.cpu_percent),
};
const WORKERS = {
  place: (row) => row.place,
  pid: (row) => row.pid,
  state: (row) => (row.failing.length ? `${row.state}, not ready: ${row.failing.join(", ")}` : row.state),
  readers: (row) => count(row.readers),
  slow: (row) => count(row.readers_slow),
  streams: (row) => count(row.streams),
  "publish/s": (row) => rate(row.publishes_per_s),
  "written/s": (row) => count(row.entries_written_per_s),
  lag: (row) => lag(row.lag_ms),
  store: (row) => (row.heard_s === null ? "-" : row.store_up ? "up" : "away"),
  memory: (row) => size(row.rss_bytes),
  cpu: (row) => percent(row.cpu_percent),
  files: (row) => count(row.files),
};
const SLOWEST = {
  address: (row) => row.address,
  transport: (row) => row.transport,
  stream: (row) => row.stream,
  worker: (row) => `${row.place} (${row.pid})`,
  "frames behind": (row) => count(row.frames_behind),
  "waiting bytes": (row) => count(row.waiting_bytes),
  stalled: (row) => `${Math.round(row.stalled_s)} s`,
};

const part = (id) => document.getElementById(id);

function element(name, text, isBad = false) {
  const made = document.createElement(name);
  made.textContent = text;
  if (isBad) made.className = "bad";
  return made;
}

function line(cells, name, isBad = false) {
  const row = element("tr", "", isBad);
  row.append(...cells.map((cell) => element(name, cell)));
  return row;
}

function fill(table, columns, rows, isBad = () => false) {
  const made = rows.map((row) => line(Object.values(columns).map((cell) => cell(row)), "td", isBad(row)));
  if (!made.length) made.push(line(["none"], "td"));
  table.replaceChildren(line(Object.keys(columns), "th"), ...made);
}

function show(status) {
  const { totals, workers, slowest } = status;
  part("version").textContent = status.version;
  part("totals").replaceChildren(
    ...Object.entries(TOTALS).map(([name, value]) => {
      const pair = document.createElement("div");
      pair.append(element("dt", name), element("dd", value(totals)));
      return pair;
    }),
  );
  fill(part("workers"), WORKERS, workers, (row) => row.failing.length > 0 || (row.heard_s !== null && !row.store_up));
  fill(part("slowest"), SLOWEST, slowest);
  say(`As of ${status.at.slice(0, 19)}Z`);
}

function say(text, isBad = false) {
  part("state").textContent = text;
  part("state").className = isBad ? "bad" : "";
}

async function look() {
  try {
    const answer = await fetch("status.json", { cache: "no-store", signal: AbortSignal.timeout(DEADLINE) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    show(await answer.json());
  } catch (error) {
    say(`Not reached: ${error.message}. The figures are old.`, true);
  }
  setTimeout(look, EVERY);
}

look();
