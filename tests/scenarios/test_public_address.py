"""A live page below a path of another site: whole, in a real Chromium behind nginx."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from ..support.judge import CHROMIUM, FLAGS
from ..support.nginx import MAP, UPGRADES, nginx
from ..support.server import Running

pytestmark = [pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"), pytest.mark.full]


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS) as browser:
        yield browser.new_page()


def test_a_page_works_below_a_path_of_another_site(
    page: Page, start: Callable[..., Running], tmp_path: Path, stream: str
) -> None:
    server = start("--public-url", "https://news.example/live", "--page-entries", "2")
    for number in range(3):
        server.publish_ok(stream, f"Headline {number}")
    missing: list[str] = []
    page.on("response", lambda response: missing.append(response.url) if response.status >= 400 else None)
    page.on("pageerror", lambda error: missing.append(str(error)))
    location = ["location /live/ {", f"proxy_pass {server.url}/;", *UPGRADES, "}"]
    with nginx(tmp_path, *location, http=MAP) as url:
        page.goto(f"{url}/live/")
        page.locator(".streams a").click()
        expect(page.locator("#status")).to_have_attribute("data-state", "live")
        assert page.url == f"{url}/live/streams/{stream}"
        assert (
            page.locator("link[rel=canonical]").get_attribute("href") == f"https://news.example/live/streams/{stream}"
        )
        server.publish_ok(stream, "Below a path")
        expect(page.locator("article h3").first).to_have_text("Below a path")
        for feed in page.locator("link[rel=alternate]").evaluate_all("links => links.map(({ href }) => href)"):
            assert page.request.get(feed).ok
            assert feed.startswith(f"{url}/live/streams/{stream}/feed.")
        page.locator("#older a").click()
        expect(page.locator("article h3").last).to_have_text("Headline 0")
        page.goto(f"{url}/live/streams/{stream}/none/of/these/")
        expect(page.locator("h1")).to_have_text("This page cannot be shown")
        page.get_by_role("link", name="All live pages").click()
        assert page.url == f"{url}/live/"
    assert [address for address in missing if "/none/" not in address] == []
