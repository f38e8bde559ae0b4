"""The page in a real Chromium: what is published appears, and what was made live is what a fresh load shows."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, Page, expect

from ..support.pages import (
    NEEDS_CHROMIUM,
    PAGE,
    assert_same_as_fresh,
    live_parts,
    open_live,
    put,
    show_all,
)
from ..support.ports import free_port
from ..support.server import Running

pytestmark = NEEDS_CHROMIUM


def test_an_entry_appears_in_an_open_page_without_a_reload(page: Page, server: Running, stream: str) -> None:
    server.put_page(stream, PAGE)
    open_live(page, server, stream)
    page.evaluate("document.title += ' (not reloaded)'")
    server.publish(stream, {"headline": "First & foremost", "body": "It *rises*."})
    expect(page.locator("article h3")).to_have_text("First & foremost")
    expect(page).to_have_title("Villages wait for the crest (not reloaded)")


def test_the_live_page_is_the_page_after_a_reload_byte_for_byte(page: Page, server: Running, stream: str) -> None:
    server.put_page(stream, PAGE)
    server.publish(stream, {"headline": "Before", "published_at": "2026-03-02T12:00:00Z"})
    open_live(page, server, stream)
    image = {
        "type": "image",
        "src": "/static/demo/harbour.svg",
        "width": 1200,
        "height": 800,
        "alt": 'A "quoted" quay & a boat',
        "caption": "The quay <now>.",
        "credit": "N. Brook/Agency",
    }
    post = {"type": "social_post", "platform": "Mastodon", "author_name": "Ada", "text": "Stay in & stay <dry>"}
    times = [
        "2026-03-03T12:00:00Z",  # a new day above
        "2026-03-01T12:00:00Z",  # a new day below
        "2026-03-02T11:00:00Z",  # filed late: below the first of its day
        "2026-03-02T13:00:00Z",  # above it
        "2026-03-02T12:00:00Z",  # the same instant
        "2026-03-03T04:59:59Z",  # still the day before, in New York
    ]
    for number, at in enumerate(times):
        blocks = [{"type": "paragraph", "html": "a &amp; b"}, image, post]
        entry = {
            "headline": f'<Entry> "{number}"',
            "blocks": blocks,
            "bylines": [{"name": "Éva Ó"}],
            "published_at": at,
        }
        assert server.publish(stream, entry).status_code == 201
    server.publish(stream, {"body": "No headline.", "flags": {"breaking": True}})
    server.publish(stream, {"headline": "Pinned", "flags": {"pinned": True}, "published_at": "2020-01-01T00:00:00Z"})
    show_all(page, "Pinned")
    expect(page.locator("article")).to_have_count(9)
    expect(page.locator("section")).to_have_count(5)
    assert_same_as_fresh(page, server, stream)


def test_a_page_change_shows_live_in_the_title_too(page: Page, server: Running, stream: str) -> None:
    server.put_page(stream, PAGE)
    open_live(page, server, stream)
    server.put_page(stream, {**PAGE, "headline": "The crest has passed", "topics": [], "intro": "What we know."})
    expect(page).to_have_title("The crest has passed")
    expect(page.locator("h1")).to_have_text("The crest has passed")
    assert_same_as_fresh(page, server, stream)


def test_another_language_and_zone_show_on_an_open_page_without_a_reload(
    page: Page, server: Running, stream: str
) -> None:
    server.put_page(stream, PAGE)
    put(server, stream, "one", published_at="2026-07-11T15:53:00Z")
    open_live(page, server, stream)
    expect(page.locator(".stamp")).to_contain_text("11:53 AM EDT")
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.evaluate("window.article = document.querySelector('article')")
    server.put_page(stream, {**PAGE, "timezone": "Europe/London"})
    expect(page.locator(".stamp")).to_contain_text("4:53 PM BST")
    server.put_page(stream, {**PAGE, "timezone": "Asia/Jerusalem", "lang": "he"})
    expect(page.locator("html")).to_have_attribute("dir", "rtl")
    expect(page.locator("#latest-title")).to_have_text("כותרות אחרונות")
    expect(page.locator(".share")).to_have_text("שיתוף")
    put(server, stream, "two", published_at="2026-07-12T15:53:00Z")
    show_all(page, "Entry two")
    assert page.evaluate("window.article.isConnected")
    assert requests == []
    assert_same_as_fresh(page, server, stream)


@pytest.mark.full
def test_a_long_page_keeps_as_many_entries_as_a_fresh_load(
    page: Page, start: Callable[..., Running], stream: str
) -> None:
    server = start("--page-entries", "5")
    server.put_page(stream, PAGE)
    open_live(page, server, stream)
    for number in range(8):
        server.publish(
            stream, {"headline": f"Entry {number}", "published_at": f"2026-03-0{1 + number // 3}T1{number}:00:00Z"}
        )
    show_all(page, "Entry 7")
    expect(page.locator("article")).to_have_count(5)
    assert_same_as_fresh(page, server, stream)
    page.get_by_role("link", name="Older updates").click()
    expect(page.locator("article h3")).to_have_text([f"Entry {number}" for number in reversed(range(8))])


@pytest.mark.full
def test_more_than_a_page_that_waited_is_shown_as_a_fresh_load_has_it(
    page: Page, start: Callable[..., Running], stream: str
) -> None:
    server = start("--page-entries", "3")
    server.put_page(stream, PAGE)
    for number in range(5):
        put(server, stream, f"e{number}", published_at=f"2026-03-01T1{number}:00:00Z")
    open_live(page, server, stream)
    page.locator("#auto").click()
    for number in range(5, 10):
        put(server, stream, f"e{number}", published_at=f"2026-03-01T1{number}:00:00Z")
    expect(page.locator("#notice")).to_have_text("5 new updates")
    show_all(page, "Entry e9")
    expect(page.locator("article h3")).to_have_text(["Entry e9", "Entry e8", "Entry e7"])
    assert_same_as_fresh(page, server, stream)
    page.locator("#older a").click()
    expect(page.locator("article h3")).to_have_text([f"Entry e{number}" for number in range(9, 3, -1)])


def test_a_stream_that_began_empty_shows_its_first_entry(page: Page, server: Running, stream: str) -> None:
    server.put_page(stream, {"headline": "Nothing yet"})
    open_live(page, server, stream)
    expect(page.locator("#latest")).to_be_hidden()
    server.publish_ok(stream, "Now")
    expect(page.locator("#latest a")).to_have_text("Now")
    assert_same_as_fresh(page, server, stream)


def test_a_page_finds_its_way_back_after_a_restart(page: Page, start: Callable[..., Running], stream: str) -> None:
    port = str(free_port())
    server = start("--port", port)
    server.put_page(stream, PAGE)
    open_live(page, server, stream)
    server.stop()
    expect(page.locator("#status")).to_have_attribute("data-state", "waiting")
    server = start("--port", port)
    server.publish_ok(stream, "Posted while nobody was connected, perhaps")
    expect(page.locator("article h3")).to_have_text("Posted while nobody was connected, perhaps")
    assert_same_as_fresh(page, server, stream)


def test_the_page_is_whole_without_javascript(chromium: Browser, server: Running, stream: str) -> None:
    server.put_page(stream, PAGE)
    server.publish_ok(stream, "One")
    server.publish_ok(stream, "Two")
    with chromium.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{server.url}/streams/{stream}")
        expect(page.locator("article h3")).to_have_text(["Two", "One"])
        expect(page.locator("#latest a")).to_have_text(["Two", "One"])
        expect(page.locator("#updated")).to_contain_text("Last Updated")


def test_a_page_makes_html_of_text_by_its_own_policy_alone(chromium: Browser, server: Running, stream: str) -> None:
    server.publish_ok(stream, "One")
    with chromium.new_context() as context:  # what is blocked is reported to the console
        page = context.new_page()
        open_live(page, server, stream)
        for script in (
            "document.body.innerHTML = '<p>'",
            "new DOMParser().parseFromString('<p>', 'text/html')",
            "trustedTypes.createPolicy('pushserver', {})",
            "trustedTypes.createPolicy('another', {})",
        ):
            tried = page.evaluate(f"() => {{ try {{ {script} }} catch (error) {{ return error.name }} }}")
            assert tried == "TypeError", script
        server.publish_ok(stream, "Two")
        expect(page.locator("article h3")).to_have_text(["Two", "One"])


@pytest.mark.full
def test_a_browser_without_trusted_types_shows_the_same(chromium: Browser, server: Running, stream: str) -> None:
    server.put_page(stream, PAGE)
    with chromium.new_context(bypass_csp=True) as context:
        context.add_init_script("Object.defineProperty(window, 'trustedTypes', { value: undefined })")
        page = context.new_page()
        open_live(page, server, stream)
        server.publish_ok(stream, "One & another")
        expect(page.locator("article h3")).to_have_text("One & another")
        assert_same_as_fresh(page, server, stream)


def test_the_back_button_brings_a_live_page_back(page: Page, server: Running, stream: str) -> None:
    server.put_page(stream, PAGE)
    open_live(page, server, stream)
    page.goto(f"{server.url}/")
    server.publish_ok(stream, "While away")
    page.go_back()
    expect(page.locator("article h3")).to_have_text("While away")
    expect(page.locator("#status")).to_have_attribute("data-state", "live")


def test_corrections_withdrawals_and_moves_reach_an_open_page(page: Page, server: Running, stream: str) -> None:
    server.put_page(stream, PAGE)
    for number in range(4):
        entry = {
            "headline": f"Entry {number}",
            "body": "As it was.",
            "published_at": f"2026-03-0{number + 1}T12:00:00Z",
        }
        server.send("PUT", f"/streams/{stream}/entries/e{number}", entry)
    open_live(page, server, stream)
    correction = {"body": "As it is.", "correction": {"class": "correction", "note": "It was otherwise."}}
    server.send("PATCH", f"/streams/{stream}/entries/e1", correction)
    expect(page.locator("#e-e1")).to_contain_text("It was otherwise.")
    server.send("PATCH", f"/streams/{stream}/entries/e0", {"sort_at": "2026-03-03T13:00:00Z"})
    expect(page.locator("article h3")).to_have_text(["Entry 3", "Entry 0", "Entry 2", "Entry 1"])
    server.send("DELETE", f"/streams/{stream}/entries/e3?reason=error", b"")
    expect(page.locator("article h3")).to_have_text(["Entry 0", "Entry 2", "Entry 1"])
    assert_same_as_fresh(page, server, stream)


@pytest.mark.full
def test_a_withdrawal_on_a_long_page_brings_up_what_is_below(
    page: Page, start: Callable[..., Running], stream: str
) -> None:
    server = start("--page-entries", "3")
    for number in range(6):
        server.send("PUT", f"/streams/{stream}/entries/e{number}", {"headline": f"Entry {number}"})
    open_live(page, server, stream)
    server.send("DELETE", f"/streams/{stream}/entries/e4", b"")
    expect(page.locator("article h3")).to_have_text(["Entry 5", "Entry 3", "Entry 2"])
    assert_same_as_fresh(page, server, stream)


def test_what_a_live_page_shows_is_not_contradicted_in_its_head(page: Page, server: Running, stream: str) -> None:
    server.put_page(stream, {**PAGE, "headline": "Title too soon", "dek": "Dek too soon"})
    server.send("PUT", f"/streams/{stream}/entries/x", {"headline": "Said too soon"})
    open_live(page, server, stream)
    assert "Said too soon" in page.content()
    server.send("DELETE", f"/streams/{stream}/entries/x?reason=legal", b"")
    expect(page.locator("article")).to_have_count(0)
    assert "Said too soon" not in page.content()
    server.put_page(stream, PAGE)
    expect(page).to_have_title("Villages wait for the crest")
    assert "too soon" not in page.content()


@pytest.mark.full
def test_what_was_corrected_on_a_live_page_does_not_stay_in_its_head(page: Page, server: Running, stream: str) -> None:
    server.send("PUT", f"/streams/{stream}/entries/x", {"headline": "Said too soon"})
    open_live(page, server, stream)
    server.send("PATCH", f"/streams/{stream}/entries/x", {"headline": "Said in time"})
    expect(page.locator("article h3")).to_have_text("Said in time")
    assert "Said too soon" not in page.content()


@pytest.mark.full
def test_a_page_that_was_put_away_heals_when_it_is_shown_again(page: Page, server: Running, stream: str) -> None:
    server.put_page(stream, PAGE)
    server.send("PUT", f"/streams/{stream}/entries/x", {"headline": "Withdrawn since"})
    server.send("PUT", f"/streams/{stream}/entries/y", {"headline": "Corrected since"})
    open_live(page, server, stream)
    page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    expect(page.locator("#status")).to_have_attribute("data-state", "waiting")
    server.send("DELETE", f"/streams/{stream}/entries/x", b"")
    server.send("PATCH", f"/streams/{stream}/entries/y", {"headline": "Correct"})
    server.publish_ok(stream, "Published since")
    expect(page.locator("article h3")).to_have_text(["Corrected since", "Withdrawn since"])
    page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    expect(page.locator("article h3")).to_have_text(["Published since", "Correct"])
    assert_same_as_fresh(page, server, stream)


@pytest.mark.full
def test_where_no_socket_gets_through_the_page_is_live_all_the_same(page: Page, server: Running, stream: str) -> None:
    server.put_page(stream, PAGE)
    page.route_web_socket(re.compile(".*"), lambda socket: None)  # opened, and nothing ever comes
    open_live(page, server, stream)
    server.publish(stream, {"headline": "By another road"})
    expect(page.locator("article h3")).to_have_text("By another road")
    assert float(page.evaluate("sessionStorage.getItem('pushserver-events-until')")) > time.time()
    server.send("POST", f"/streams/{stream}/end", {})
    expect(page.locator("#status")).to_have_attribute("data-state", "ended")


def readers_of_workers(server: Running, path: str) -> list[int]:
    """How many readers of an entry's stream each worker has."""
    receipt = server.send("GET", f"{path}/delivery", b"").json()
    return [worker["readers"] for worker in receipt["workers"]]


@pytest.mark.full
def test_pages_on_two_workers_show_every_change(page: Page, start: Callable[..., Running], stream: str) -> None:
    server = start("--workers", "2", "--heartbeat", "0.5")
    server.put_page(stream, PAGE)
    entry = server.publish_ok(stream, "First")
    other = page.context.new_page()
    open_live(page, server, stream)
    open_live(other, server, stream)
    path = f"/streams/{stream}/entries"
    while readers_of_workers(server, f"{path}/{entry['id']}") != [1, 1]:
        open_live(other, server, stream)
    server.send("PUT", f"{path}/wrong", {"headline": "Wrong"})
    server.send("PUT", f"{path}/late", {"headline": "Filed late", "published_at": "2026-03-02T11:00:00Z"})
    server.send("PATCH", f"{path}/{entry['id']}", {"correction": {"class": "correction", "note": "One."}, "body": "1"})
    server.send("DELETE", f"{path}/wrong?reason=error", b"")
    server.send("PATCH", f"/streams/{stream}", {"headline": "Over soon", "dek": "What was."})
    for live in (page, other):
        expect(live).to_have_title("Over soon")
        assert_same_as_fresh(live, server, stream)
    server.send("POST", f"/streams/{stream}/end", {"next": {"label": "Next", "url": "https://news.example/next"}})
    for live in (page, other):
        expect(live.locator("#status")).to_have_attribute("data-state", "ended")
        ended = live_parts(live)
        live.reload()
        expect(live.locator("#status")).to_have_attribute("data-state", "ended")
        assert live_parts(live) == ended


def test_an_ended_page_says_so_and_stays_quiet(page: Page, server: Running, stream: str) -> None:
    server.put_page(stream, PAGE)
    open_live(page, server, stream)
    following = {"label": "It goes on here", "url": "https://news.example/next"}
    server.send("POST", f"/streams/{stream}/end", {"next": following})
    expect(page.locator("#status")).to_have_attribute("data-state", "ended")
    expect(page.get_by_role("link", name="It goes on here")).to_be_visible()
    sockets: list[str] = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    page.reload()
    expect(page.locator("#status")).to_have_text("This page is no longer updating")
    assert sockets == []
