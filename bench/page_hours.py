"""The script measures a page that is open for a simulated eight hours, in Chromium: its memory, and each insert.

    .venv/bin/python -m bench.page_hours [ENTRIES [HOURS]]

Prints a line for each hour: the bytes of the JavaScript heap after a collection, the nodes and the listeners of the
document, the entries on the page, how long an entry took, from the frame to the layout, at the median and at most, how
many took longer than a frame of the screen, and the processor time that an entry took of the page's main thread, with
all that is drawn. The reader is at the top, then scrolls down and comes back, and hides the page now and then. At the
end 400 entries come in one request.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from playwright.sync_api import CDPSession, Page, sync_playwright

from tests.support.judge import FLAGS
from tests.support.server import Running, running

STREAM = "measured"
PER_TURN = 5  # entries that come while the reader is at one place
BURST = 400  # entries that come together
FRAME_MS = 16  # of a screen that shows 60 a second
TICKS = 180  # looks at the clock in an hour: one every 20 s
START = datetime(2026, 3, 1, 6, tzinfo=UTC)
TEXT = "The river has risen again since the morning, and the lower road is closed. " * 8
# The page's script, with a watch on each pass: from when frames are applied until the page is laid out anew.
HARNESS = """
import { LiveView } from "/static/view.js";
const view = new LiveView(document.querySelector("main"));
const { apply } = view;
const waiting = new Set();
window.taken = [];
view.apply = function (...frames) {
    const began = performance.now();
    apply.call(view, ...frames);
    document.body.getBoundingClientRect();
    const puts = frames.filter(({ type }) => type === "entry.put");
    for (const _ of puts) window.taken.push((performance.now() - began) / puts.length);
    window.last = frames.at(-1).n ?? window.last;
    for (const look of waiting) look();
};
window.shown = (n) => new Promise((resolve) => {
    const look = () => window.last >= n && (waiting.delete(look), resolve());
    waiting.add(look);
    look();
});
view.open();
"""
AWAY = """away => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => away });
    document.dispatchEvent(new Event("visibilitychange"));
}"""
LOOK = "times => { while (times--) document.dispatchEvent(new Event('visibilitychange')); }"
# Where an entry has the focus, what comes waits.
AT_TOP = """() => {
    const notice = document.querySelector("#notice");
    if (!notice.hidden) notice.click();
    document.activeElement.blur();
    return notice.hidden;
}"""
TAKEN = "() => window.taken.splice(0)"


class Hour(NamedTuple):
    """An Hour is what was measured at its end: bytes, counts, and milliseconds."""

    heap: int
    nodes: int
    listeners: int
    entries: int
    inserts: list[float]
    processor: float

    def __str__(self) -> str:
        median, most = statistics.median(self.inserts), max(self.inserts)
        late = sum(each > FRAME_MS for each in self.inserts)
        counts = f"{self.heap / 1e6:10.2f}{self.nodes:10}{self.listeners:11}{self.entries:10}"
        return f"{counts}{median:12.1f}{most:8.1f}{late:12}{self.processor:15.1f}"


class Measured(NamedTuple):
    """Measured is every hour of a page, and the milliseconds of processor time of an entry that comes with many."""

    hours: list[Hour]
    burst: float


def measure(entries: int, hours: int, *, page_entries: int = 200, burst: int = BURST) -> Measured:
    """The hours of a page on which so many entries come, evenly, and then a burst."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        with running(Path(folder) / "data", "--page-entries", str(page_entries)) as server:
            server.put_page(STREAM, {"headline": "Measured", "timezone": "Europe/Paris"})
            each = entries // hours
            publish(server, range(-page_entries, 0), each)
            page = browser.new_page()
            page.route("**/boot.js", lambda route: route.fulfill(body=HARNESS, content_type="text/javascript"))
            page.goto(f"{server.url}/streams/{STREAM}")
            page.wait_for_selector("#status[data-state=live]")
            session = page.context.new_cdp_session(page)
            session.send("Performance.enable", {"timeDomain": "threadTicks"})
            measured = [hour(server, page, session, range(n * each, (n + 1) * each), each) for n in range(hours)]
            cost = burst_cost(server, page, session, range(hours * each, hours * each + burst), each)
        browser.close()
    return Measured(measured, cost)


def entry_of(number: int, per_hour: int) -> dict[str, Any]:
    at = START + timedelta(hours=number / per_hour)
    flags = {"key": True} if number % 20 == 0 else {}
    return {"headline": f"Entry {number}", "body": TEXT, "flags": flags, "published_at": at.isoformat()}


def publish(server: Running, numbers: range, per_hour: int) -> int:
    """Publish entries with these numbers; the number of the last event."""
    last = 0
    for number in numbers:
        response = server.publish(STREAM, entry_of(number, per_hour))
        assert response.status_code == 201, response.text
        last = response.json()["n"]
    return last


def processor(session: CDPSession) -> float:
    """Milliseconds of processor time that the page's main thread has taken."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return next(float(each["value"]) for each in metrics if each["name"] == "TaskDuration") * 1e3


def burst_cost(server: Running, page: Page, session: CDPSession, numbers: range, per_hour: int) -> float:
    """Milliseconds of processor time of each of the entries that come together."""
    lines = [json.dumps(entry_of(number, per_hour)).encode() for number in numbers]
    before = processor(session)
    response = server.publish(STREAM, b"\n".join(lines), Content_Type="application/x-ndjson")
    last = json.loads(response.text.splitlines()[-1])["n"]
    page.evaluate("n => window.shown(n)", last)
    return (processor(session) - before) / len(numbers)


def hour(server: Running, page: Page, session: CDPSession, numbers: range, per_hour: int) -> Hour:
    """An hour of the page: entries come while its reader is at the top, below, or away."""
    spent = 0.0
    for turn, first in enumerate(range(numbers.start, numbers.stop, PER_TURN)):
        place = turn % 4  # 0 and 1: at the top
        page.evaluate("place => scrollTo(0, place === 2 ? 4000 : 0)", place)
        page.evaluate(AWAY, place == 3)
        before = processor(session)
        last = publish(server, range(first, min(first + PER_TURN, numbers.stop)), per_hour)
        page.evaluate("n => window.shown(n)", last)
        spent += processor(session) - before
        page.evaluate(AWAY, False)
        page.evaluate(LOOK, TICKS * PER_TURN // per_hour)
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_function(AT_TOP)
    session.send("HeapProfiler.collectGarbage")
    heap = session.send("Runtime.getHeapUsage")["usedSize"]
    counters = session.send("Memory.getDOMCounters")
    shown = page.locator("article").count()
    inserts = page.evaluate(TAKEN)
    return Hour(heap, counters["nodes"], counters["jsEventListeners"], shown, inserts, spent / len(numbers))


def main(entries: int, hours: int) -> None:
    print(f"heap, MB     nodes  listeners   entries  insert, ms    most  over {FRAME_MS} ms  processor, ms")
    measured, burst = measure(entries, hours)
    for each in measured:
        print(each)
    print(f"heap of the last hour / of the first: {measured[-1].heap / measured[0].heap:.2f}")
    print(f"{BURST} entries in one request: {burst:.1f} ms of processor time each")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5_000, int(sys.argv[2]) if len(sys.argv) > 2 else 8)
