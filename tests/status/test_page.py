"""The page of a cluster in a real browser: its figures are those of the server, and renew themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from pushserver.status.page import FILES, POLICY

from ..support.judge import CHROMIUM, FLAGS
from ..support.scrapes import ask, metrics_url, status
from ..support.server import LIMIT, Running


def test_the_files_have_a_policy_and_answer_get_alone(server: Running) -> None:
    for path, (_, kind) in FILES.items():
        answer = ask(server, path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
        assert answer.headers["content-security-policy"] == POLICY
        assert ask(server, path, method="POST").status_code == 405
    assert server.http.get("/status.js").status_code == 404


@pytest.fixture
def chromium() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def test_the_page_shows_the_cluster_and_renews_itself(chromium: Browser, server: Running, stream: str) -> None:
    errors: list[str] = []
    server.publish_ok(stream, "One")
    page = chromium.new_page()
    page.set_default_timeout(LIMIT * 1_000)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{metrics_url(server)}/")
    expect(page.locator("#state")).to_contain_text("As of ", timeout=LIMIT * 1_000)
    assert page.locator("#workers tr").count() == 2
    assert "serving" in page.locator("#workers").inner_text()
    first = page.locator("#state").inner_text()
    expect(page.locator("#state")).not_to_have_text(first, timeout=LIMIT * 1_000)
    page.route("**/status.json", lambda route: route.abort())
    expect(page.locator("#state")).to_contain_text("Not reached", timeout=LIMIT * 1_000)
    page.unroute("**/status.json")
    starting = {**status(server)["workers"][0], "state": "starting", "heard_s": None, "store_up": False}
    hostile: dict[str, Any] = {"version": "<img src=x onerror=throw(1)>", "at": "2026-01-01T00:00:00Z", "slowest": []}
    hostile["workers"] = [starting]
    totals = {"readers": 7, "streams": 1, "publishes_per_s": 0, "entries_written_per_s": 0, "lag_ms": None}
    hostile["totals"] = {**totals, "rss_bytes": 0, "cpu_percent": 0}
    page.route("**/status.json", lambda route: route.fulfill(json=hostile))
    expect(page.locator("#version")).to_have_text("<img src=x onerror=throw(1)>", timeout=LIMIT * 1_000)
    assert page.locator("#version img").count() == 0
    shown = page.locator("#workers").inner_text()
    assert ("starting" in shown, "away" in shown) == (True, False), "it has not looked at the store yet"
    assert errors == []
