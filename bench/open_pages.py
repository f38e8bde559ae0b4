"""The script measures how long a change takes to show in two open pages on two workers, from request to DOM change.

    .venv/bin/python -m bench.open_pages [ROUNDS]

Prints a line for each kind of change: median and worst over the rounds, of the later of the two pages; and beside
it of the answer to the request, by which the change is stored.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext, Page, sync_playwright

from tests.support.server import Running, running

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]
STREAM = "measured"
NOTE = """() => { globalThis.changedAt = 0; new MutationObserver(() => { globalThis.changedAt = Date.now(); })
    .observe(document.getElementById("live"), { subtree: true, childList: true, attributes: true }); }"""
SETTLED = "(since) => globalThis.changedAt >= since && Date.now() - globalThis.changedAt > 50 && globalThis.changedAt"


def pages_on_both_workers(context: BrowserContext, server: Running) -> list[Page]:
    """One live page on each of the two workers."""
    entry = server.publish_ok(STREAM, "Before")
    path = f"/streams/{STREAM}/entries/{entry['id']}/delivery"
    while True:
        pages = [context.new_page(), context.new_page()]
        for page in pages:
            page.goto(f"{server.url}/streams/{STREAM}")
            page.wait_for_selector("#status[data-state=live]")
        workers = server.send("GET", path, b"").json()["workers"]
        if [worker["readers"] for worker in workers] == [1, 1]:
            return pages
        for page in pages:
            page.close()


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        with running(Path(folder) / "data", "--workers", "2", "--heartbeat", "300") as server:
            server.put_page(STREAM, {"headline": "Measured", "timezone": "Europe/Paris"})
            pages = pages_on_both_workers(browser.new_context(), server)
            for page in pages:
                page.evaluate(NOTE)
            kinds = changes(server)
            times: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
            for number in range(rounds):
                for name, change in kinds.items():
                    times[name].append(measured(pages, change, number))
        browser.close()
    print(f"{'':12}{'page, ms':>20}{'answer, ms':>20}")
    print(f"{'':12}{'median':>10}{'worst':>10}{'median':>10}{'worst':>10}")
    for name, pairs in times.items():
        columns = [value for part in zip(*pairs, strict=True) for value in (statistics.median(part), max(part))]
        print(f"{name:12}" + "".join(f"{value:10.0f}" for value in columns))


def changes(server: Running) -> dict[str, Callable[[int], Any]]:
    entries = f"/streams/{STREAM}/entries"
    late = {"headline": "Filed late", "published_at": "2020-01-01T00:00:00Z"}
    return {
        "entry": lambda n: server.send("PUT", f"{entries}/e{n}", {"headline": f"Entry {n}", "body": "Some *words*."}),
        "correction": lambda n: server.send("PATCH", f"{entries}/e{n}", {"headline": f"Entry {n}, corrected"}),
        "late entry": lambda n: server.send("PUT", f"{entries}/l{n}", late),
        "withdrawal": lambda n: server.send("DELETE", f"{entries}/e{n}", b""),
        "page": lambda n: server.send("PATCH", f"/streams/{STREAM}", {"headline": f"Measured {n}"}),
    }


def measured(pages: list[Page], change: Callable[[int], Any], number: int) -> tuple[float, float]:
    """Milliseconds until the later page changed, and until the answer."""
    began = time.time() * 1000
    response = change(number)
    answered = time.time() * 1000
    assert response.is_success, response.text
    shown = [page.wait_for_function(SETTLED, arg=began).json_value() for page in pages]
    return max(shown) - began, answered - began


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
