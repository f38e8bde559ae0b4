"""The part of a page that is the reader's own, in a real Chromium: what is new since the last visit, links, readers."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from ..support.pages import NEEDS_CHROMIUM, PAGE, faultless_page, filled, open_live, put
from ..support.server import Running

pytestmark = NEEDS_CHROMIUM
CORRECTION = {"body": "As it is.", "correction": {"class": "correction", "note": "It was otherwise."}}
CORRUPT = [
    "{",
    "null",
    "5",
    "{}",
    '"text"',
    "[null, 5, {}]",
    "[[]]",
    "[[null]]",
    '[["a", {}, {}]]',
    "NaN",
    "-1",
    "1e400",
]
KEEP = """text => {
    for (const name of ["pushserver-seen", "pushserver-automatic"]) localStorage[name] = text;
    for (const name of ["build", "events-until", "booted"]) sessionStorage[`pushserver-${name}`] = text;
}"""
BLOCKED = """for (const area of ["localStorage", "sessionStorage"]) {
    Object.defineProperty(window, area, { get() { throw new DOMException("blocked", "SecurityError"); } });
}"""
WAKE = """() => {
    for (const type of ["pageshow", "online"]) dispatchEvent(new Event(type));
    document.dispatchEvent(new Event("visibilitychange"));
}"""
STORED = "JSON.parse(localStorage.getItem('pushserver-seen'))"


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    permissions = ["clipboard-read", "clipboard-write"]
    with faultless_page(chromium, timezone_id="America/New_York", permissions=permissions) as page:
        yield page


def test_who_comes_back_learns_what_is_new_since_this_browser_showed_the_page(
    page: Page, server: Running, stream: str
) -> None:
    filled(page, server, stream, 3)
    expect(page.locator("#since")).to_be_hidden()
    page.goto("about:blank")
    put(server, stream, "a")
    put(server, stream, "b", flags={"key": True})
    server.send("PATCH", f"/streams/{stream}/entries/e02", CORRECTION)
    open_live(page, server, stream)
    expect(page.locator("#since a")).to_have_text("Since you left: 2 updates, 1 key event, 1 correction")
    expect(page.locator("#since a")).to_have_attribute("href", "#e-a")  # the oldest of them
    page.reload()
    expect(page.locator("#status")).to_have_attribute("data-state", "live")
    expect(page.locator("#since")).to_be_hidden()


def test_what_is_new_is_counted_when_a_page_from_before_it_has_caught_up(
    page: Page, start: Callable[..., Running], stream: str
) -> None:
    server = start()
    filled(page, server, stream, 3)
    page.goto("about:blank")
    put(server, stream, "a")
    put(server, stream, "b", flags={"key": True})
    server.send("PATCH", f"/streams/{stream}/entries/e02", CORRECTION)
    os.kill(server.store_pid(), signal.SIGSTOP)  # the page is served as it was
    try:
        page.goto(f"{server.url}/streams/{stream}")
        assert page.locator("main").get_attribute("data-n") == "4"  # of the page and its entries, before the others
    finally:
        os.kill(server.store_pid(), signal.SIGCONT)
    expect(page.locator("#since a")).to_have_text("Since you left: 2 updates, 1 key event, 1 correction")


def test_what_a_browser_remembers_of_streams_is_bounded(page: Page, server: Running, stream: str) -> None:
    filled(page, server, stream, 1)
    many = [[f"https://news.example/{number}", "2026-03-01T00:00:00Z"] for number in range(30)]
    page.evaluate("text => localStorage.setItem('pushserver-seen', text)", json.dumps(many))
    page.goto(f"{server.url}/")
    stored = page.evaluate(STORED)
    assert stored[0][0] == f"{server.url}/streams/{stream}"
    assert stored[0][2:] == ["e01"]
    assert len(stored) == 20


def test_a_page_lives_on_whatever_is_stored_under_its_names(page: Page, server: Running, stream: str) -> None:
    filled(page, server, stream, 1)
    url = f"{server.url}/streams/{stream}"
    for text in [*CORRUPT, f'[["{url}"]]', f'[["{url}", 5, null]]']:
        page.evaluate(KEEP, text)
        page.evaluate("dispatchEvent(new Event('pagehide'))")  # what it stores now is well-formed again
        assert page.evaluate(STORED)[0][0] == url
        page.evaluate(KEEP, text)
        page.goto("about:blank")
        open_live(page, server, stream)
        expect(page.locator("#auto")).to_have_attribute("aria-pressed", "true")
    put(server, stream, "new")
    expect(page.locator("article h3").first).to_have_text("Entry new")


def test_a_page_that_may_store_nothing_is_live(page: Page, server: Running, stream: str) -> None:
    page.add_init_script(BLOCKED)
    filled(page, server, stream, 1)
    put(server, stream, "new")
    expect(page.locator("article h3").first).to_have_text("Entry new")
    page.locator("#auto").click()
    expect(page.locator("#auto")).to_have_attribute("aria-pressed", "false")
    page.reload()
    expect(page.locator("#status")).to_have_attribute("data-state", "live")


@pytest.mark.parametrize("by", ["sockets", "events"])
def test_a_page_whose_stream_is_deleted_says_that_it_was_taken_down_and_stays_quiet(
    page: Page, server: Running, stream: str, by: str
) -> None:
    if by == "events":
        page.route_web_socket("**", lambda socket: None)
    filled(page, server, stream, 1)
    server.send("PATCH", f"/streams/{stream}", {"lang": "de"})
    expect(page.locator("html")).to_have_attribute("lang", "de")
    asked: list[str] = []
    page.on("websocket", lambda socket: asked.append(socket.url))
    page.on("request", lambda request: asked.append(request.url))
    assert server.send("DELETE", f"/streams/{stream}", b"").status_code == 200
    expect(page.locator("#status")).to_have_text("Diese Seite wurde entfernt")
    expect(page.locator("#status")).to_have_attribute("data-state", "deleted")
    page.evaluate(WAKE)
    expect(page.locator("#announcer")).to_have_text("Diese Seite wurde entfernt")
    for hidden in ("h1", "article", "#latest"):
        expect(page.locator(hidden)).not_to_be_visible()
    assert asked == []


def test_the_link_of_an_entry_is_copied_or_shared(page: Page, server: Running, stream: str) -> None:
    filled(page, server, stream, 1)
    share = page.locator("#e-e01 .share")
    share.click()
    expect(share).to_have_attribute("data-local-said", "Link copied")
    expect(page.locator("#announcer")).to_have_text("Link copied")
    assert page.evaluate("navigator.clipboard.readText()") == f"{server.url}/streams/{stream}/entries/e01"
    page.evaluate("() => { navigator.share = async (what) => { window.shared = what; throw new Error('let be'); }; }")
    share.click()
    assert page.evaluate("window.shared") == {"url": f"{server.url}/streams/{stream}/entries/e01"}
    page.evaluate("""() => {
        navigator.share = undefined;
        Object.defineProperty(navigator, "clipboard", { value: undefined });
    }""")
    share.click()  # on a page without HTTPS a browser has neither
    expect(page.locator("h1")).to_have_text("Entry e01")


def test_the_latest_headlines_are_the_newest_whatever_is_pinned(page: Page, server: Running, stream: str) -> None:
    server.put_page(stream, PAGE)
    put(server, stream, "old", flags={"pinned": True}, published_at="2026-03-01T10:00:00Z")
    put(server, stream, "new", published_at="2026-03-02T10:00:00Z")
    open_live(page, server, stream)
    expect(page.locator("#latest a")).to_have_text(["Entry new"])
    put(server, stream, "newer", published_at="2026-03-02T11:00:00Z")
    expect(page.locator("#latest a")).to_have_text(["Entry newer", "Entry new"])
    expect(page.locator("article h3").first).to_have_text("Entry old")


def test_the_readers_of_the_moment_are_shown_where_the_server_counts_them(
    page: Page, start: Callable[..., Running], server: Running, stream: str
) -> None:
    filled(page, server, stream, 1)
    expect(page.locator("#readers")).to_be_hidden()
    own = start("--show-readers", "true", "--heartbeat", "0.2")
    filled(page, own, stream, 1)
    expect(page.locator("#readers")).to_have_text("1 reader now")
    other = page.context.new_page()
    open_live(other, own, stream)
    expect(page.locator("#readers")).to_have_text("2 readers now")
    other.close()
    expect(page.locator("#readers")).to_have_text("1 reader now")
    own.send("POST", f"/streams/{stream}/end", {})
    expect(page.locator("#readers")).to_be_hidden()  # nobody counts any more
