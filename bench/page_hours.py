"""The script measures a page that is open for a simulated eight hours, in Chromium: its memory, and each insert.

    .venv/bin/python -m bench.page_hours [ENTRIES [HOURS]]

Prints a line for each hour: the bytes of the JavaScript heap after a collection, the nodes and the listeners of the
document, the entries on the page, and how long an entry took, from the frame to the layout, at the median and at most.
The reader is at the top, scrolls down and comes back, and hides the page now and then.
"""

from __future__ import annotations

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
PER_REQUEST = 5  # entries that are published at a time
TICKS = 180  # looks at the clock in an hour: one every 20 s
START = datetime(2026, 3, 1, 6, tzinfo=UTC)
TEXT = "The river has risen again since the morning, and the lower road is closed. " * 8
# The page's script, with a watch on each frame: from when it is applied until the page is laid out anew.
HARNESS = """
import { LiveView } from "/static/view.js";
const view = new LiveView(document.querySelector("main"));
const { apply } = view;
window.taken = [];
view.apply = function (frame) {
    const began = performance.now();
    apply.call(view, frame);
    document.body.getBoundingClientRect();
    if (frame.type === "entry.put") window.taken.push(performance.now() - began);
    window.last = frame.n;
};
view.open();
"""
AWAY = """away => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => away });
    document.dispatchEvent(new Event("visibilitychange"));
}"""
LOOK = "times => { while (times--) document.dispatchEvent(new Event('visibilitychange')); }"
AT_TOP = "() => document.querySelector('#notice').hidden || document.querySelector('#notice').click()"
TAKEN = "() => window.taken.splice(0)"


class Hour(NamedTuple):
    """An Hour is what was measured at its end: bytes, counts, and milliseconds."""

    heap: int
    nodes: int
    listeners: int
    entries: int
    inserts: list[float]

    def __str__(self) -> str:
        median, most = statistics.median(self.inserts), max(self.inserts)
        counts = f"{self.heap / 1e6:10.2f}{self.nodes:10}{self.listeners:11}{self.entries:10}"
        return f"{counts}{median:12.1f}{most:8.1f}"


def measure(entries: int, hours: int, *, page_entries: int = 200) -> list[Hour]:
    """The hours of a page on which so many entries come, evenly."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        with running(Path(folder) / "data", "--page-entries", str(page_entries)) as server:
            server.put_page(STREAM, {"headline": "Measured", "timezone": "Europe/Paris"})
            publish(server, range(-page_entries, 0), entries // hours)
            page = browser.new_page()
            page.route("**/boot.js", lambda route: route.fulfill(body=HARNESS, content_type="text/javascript"))
            page.goto(f"{server.url}/streams/{STREAM}")
            page.wait_for_selector("#status[data-state=live]")
            session = page.context.new_cdp_session(page)
            each = entries // hours
            measured = [hour(server, page, session, range(n * each, (n + 1) * each), each) for n in range(hours)]
        browser.close()
    return measured


def publish(server: Running, numbers: range, per_hour: int) -> int:
    """Publish entries with these numbers; the number of the last event."""
    last = 0
    for number in numbers:
        at = START + timedelta(hours=number / per_hour)
        flags: dict[str, Any] = {"key": True} if number % 20 == 0 else {}
        entry = {"headline": f"Entry {number}", "body": TEXT, "flags": flags, "published_at": at.isoformat()}
        response = server.publish(STREAM, entry)
        assert response.status_code == 201, response.text
        last = response.json()["n"]
    return last


def hour(server: Running, page: Page, session: CDPSession, numbers: range, per_hour: int) -> Hour:
    """An hour of the page: entries come while its reader is at the top, below, or away."""
    for turn, first in enumerate(range(numbers.start, numbers.stop, PER_REQUEST)):
        place = turn % 4  # 0 and 1: at the top
        page.evaluate("place => scrollTo(0, place === 2 ? 4000 : 0)", place)
        page.evaluate(AWAY, place == 3)
        last = publish(server, range(first, min(first + PER_REQUEST, numbers.stop)), per_hour)
        page.wait_for_function("n => window.last >= n", arg=last)
        page.evaluate(AWAY, False)
        page.evaluate(LOOK, TICKS * PER_REQUEST // per_hour)
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_function(AT_TOP)
    session.send("HeapProfiler.collectGarbage")
    heap = session.send("Runtime.getHeapUsage")["usedSize"]
    counters = session.send("Memory.getDOMCounters")
    shown = page.locator("article").count()
    return Hour(heap, counters["nodes"], counters["jsEventListeners"], shown, page.evaluate(TAKEN))


def main(entries: int, hours: int) -> None:
    print("heap, MB     nodes  listeners   entries  insert, ms    most")
    measured = measure(entries, hours)
    for each in measured:
        print(each)
    print(f"heap of the last hour / of the first: {measured[-1].heap / measured[0].heap:.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5_000, int(sys.argv[2]) if len(sys.argv) > 2 else 8)
