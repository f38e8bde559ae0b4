"""Caches on the way: an open page takes nothing old from them, and what was withdrawn leaves them in time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect

from ..support.judge import CHROMIUM
from ..support.server import Running
from .test_browser import PAGE, assert_same_as_fresh, chromium, open_live, page

__all__ = ["chromium", "page"]  # fixtures
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


def headlines(page: Page) -> list[str]:
    return page.locator("article h3").all_inner_texts()


@needs_chromium
def test_an_open_page_takes_no_text_back_from_a_cache_that_has_it_still(
    page: Page, start: Callable[..., Running], stream: str
) -> None:
    """The cache answers each fetch of the page with its copy from before the withdrawal, whatever the address says."""
    server = start("--page-entries", "3", "--heartbeat", "0.5")
    server.put_page(stream, PAGE)
    for number in range(1, 6):
        server.send("PUT", f"/streams/{stream}/entries/e{number}", {"headline": f"Entry {number}"})
    open_live(page, server, stream)
    assert headlines(page) == ["Entry 5", "Entry 4", "Entry 3"]
    copy, asked = server.http.get(f"/streams/{stream}").text, []

    def answer(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(body=copy, content_type="text/html; charset=utf-8")

    page.route(f"**/streams/{stream}?n=*", answer)
    with page.expect_response(lambda _: len(asked) == 3):  # the last one that it tries
        n = server.send("DELETE", f"/streams/{stream}/entries/e5?reason=legal", b"").json()["n"]
    page.evaluate("new Promise(requestAnimationFrame)")
    assert asked == [f"{server.url}/streams/{stream}?n={n}"] * 3
    assert "Entry 5" in copy
    assert headlines(page) == ["Entry 4", "Entry 3"]
    page.unroute(f"**/streams/{stream}?n=*")
    server.send("DELETE", f"/streams/{stream}/entries/e4?reason=legal", b"")
    expect(page.locator("article h3")).to_have_text(["Entry 3", "Entry 2", "Entry 1"])
    assert_same_as_fresh(page, server, stream)
