"""The reader's page in Chromium, as it is laid out: narrow, empty, without JavaScript, the permalinks of entries."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from ..support.pages import NEEDS_CHROMIUM, PAGE, open_live, put
from ..support.server import Running

pytestmark = NEEDS_CHROMIUM

LONG = {
    "headline": "W" * 88,
    "kicker": "k" * 88,
    "dek": "d" * 120,
    "topics": [{"label": "t" * 88}],
    "previous": [{"label": "p" * 88, "url": "https://example.org/x"}],
}


@pytest.mark.parametrize("dir", ["ltr", "rtl"])
def test_nothing_scrolls_sideways_at_320_pixels(chromium: Browser, server: Running, stream: str, dir: str) -> None:
    server.put_page(stream, {**LONG, "dir": dir})
    table = {"type": "table", "head": ["h" * 40] * 4, "rows": [["c" * 40] * 4]}
    blocks = [{"type": "paragraph", "html": "w" * 200}, table]
    entry = {"headline": "h" * 120, "blocks": blocks, "bylines": [{"name": "n" * 88}], "flags": {"key": True}}
    id = server.publish_ok(stream, "first")["id"]
    assert server.publish(stream, entry).status_code == 201
    with chromium.new_context(viewport={"width": 320, "height": 640}, java_script_enabled=False) as context:
        page = context.new_page()
        for path in ("", f"/entries/{id}"):
            page.goto(f"{server.url}/streams/{stream}{path}")
            assert page.evaluate("document.documentElement.scrollWidth") == 320


def test_the_time_of_an_entry_leads_to_it_when_it_has_left_the_page(
    chromium: Browser, server: Running, stream: str
) -> None:
    server.publish_ok(stream, "the first of all")
    with chromium.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{server.url}/streams/{stream}")
        page.locator(".stamp a").click()
        address = page.url
        for number in range(101):
            server.publish_ok(stream, f"newer {number}")
        page.goto(address)
        expect(page.locator("h1")).to_have_text("the first of all")
        page.get_by_role("link", name="All updates on the live page").click()
        expect(page.locator("article")).to_have_count(100)


def test_an_empty_page_says_so_until_its_first_entry(chromium: Browser, server: Running, stream: str) -> None:
    server.put_page(stream, {"headline": "Nothing yet", "lang": "fr"})
    with chromium.new_context() as context:
        page = context.new_page()
        page.goto(f"{server.url}/streams/{stream}")
        expect(page.locator("#status")).to_have_attribute("data-state", "live")
        expect(page.locator("#empty")).to_be_visible()
        expect(page.locator("#empty")).to_have_text("Il n’y a pas encore de mise à jour.")
        server.publish_ok(stream, "one")
        expect(page.locator("article")).to_have_count(1)
        expect(page.locator("#empty")).to_be_hidden()


BOX = "css => { const { top, bottom } = document.querySelector(css).getBoundingClientRect(); return [top, bottom]; }"


@pytest.mark.parametrize("width", [390, 1280])
def test_the_notice_covers_no_headline_and_the_lists_stand_together(
    chromium: Browser, server: Running, stream: str, width: int
) -> None:
    server.put_page(stream, {**PAGE, "dek": "d " * 200})
    put(server, stream, "first", flags={"key": True})
    with chromium.new_context(viewport={"width": width, "height": 800}) as context:
        page = context.new_page()
        open_live(page, server, stream)
        page.locator("#auto").click()  # what comes waits, although the page is at its top
        put(server, stream, "next")
        expect(page.locator("#notice")).to_be_visible()
        notice, title, latest, key = (page.evaluate(BOX, css) for css in ("#notice", "h1", "#latest", "#key"))
    assert title[1] < notice[0] < notice[1] < 800
    assert 0 < key[0] - latest[1] < 40
