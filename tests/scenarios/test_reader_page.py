"""The reader's page in Chromium, as it is laid out: narrow, empty, without JavaScript, the permalinks of entries."""

from __future__ import annotations

from typing import Literal

import pytest
from playwright.sync_api import Browser, expect

from ..support.pages import NEEDS_CHROMIUM, PAGE, TOP, filled, open_live, put, read, withdraw
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


WATCH_SHIFTS = """() => {
    const shifted = [];
    const moved = ({ node, previousRect, currentRect }) => [node?.id || node?.nodeName, previousRect.y, currentRect.y];
    const take = (entries) => shifted.push(...entries.map(({ sources }) => sources.map(moved)));
    const watch = new PerformanceObserver((list) => take(list.getEntries()));
    watch.observe({ type: "layout-shift", buffered: true });
    const drawn = () => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
    window.shifts = () => drawn().then(() => take(watch.takeRecords())).then(() => shifted.splice(0));
}"""


@pytest.mark.parametrize(("width", "zone"), [(412, PAGE["timezone"]), (412, "Asia/Tokyo"), (1280, "Asia/Tokyo")])
def test_nothing_is_shifted_as_the_page_goes_live_nor_under_who_reads(
    chromium: Browser, server: Running, stream: str, width: int, zone: str
) -> None:
    with chromium.new_context(viewport={"width": width, "height": 823}, timezone_id=zone) as context:
        page = context.new_page()
        page.add_init_script(f"({WATCH_SHIFTS})()")
        put(server, stream, "now", flags={"key": True})
        filled(page, server, stream)
        expect(page.locator("#auto")).to_be_visible()
        expect(page.locator("article time[data-local-ago]")).to_be_visible()
        assert page.evaluate("shifts()") == []
        assert page.locator("#zone").is_visible() == (zone != PAGE["timezone"])
        read(page, "e-e05")
        page.evaluate("shifts()")  # a jump to what was not laid out yet
        for number in range(1, 4):
            put(server, stream, f"new{number}", flags={"key": True})
            expect(page.locator("#notice")).to_contain_text(str(number))
        assert page.evaluate("shifts()") == []
        page.evaluate("() => { document.body.style.paddingTop = '99px'; }")  # the watch sees what is shifted
        assert page.evaluate("shifts()") != []


@pytest.mark.parametrize("width", [412, 1280])
def test_at_the_very_top_entries_glide_and_the_browser_counts_no_shift(
    chromium: Browser, server: Running, stream: str, width: int
) -> None:
    with chromium.new_context(viewport={"width": width, "height": 823}) as context:
        page = context.new_page()
        page.add_init_script(f"({WATCH_SHIFTS})()")
        filled(page, server, stream)
        for number in range(6):  # also in the middle of a glide
            put(server, stream, f"new{number}", headline="New " * (1 + number * 5), flags={"key": True})
            expect(page.locator(f"#e-new{number}")).to_be_visible()
        put(server, stream, "new5", body="Longer. " * 99, flags={"key": True})
        expect(page.locator("#e-new5")).to_contain_text("Longer.")
        withdraw(server, stream, "new4")
        expect(page.locator("#e-new4")).to_have_count(0)
        assert page.evaluate("scrollY") == 0
        assert page.evaluate("shifts()") == []


MOVES = """() => document.getAnimations().filter(
    ({ effect }) => effect.getKeyframes().some(({ transform }) => transform))"""
AWAY = """() => Object.defineProperty(document, "hidden", { get: () => true })"""


def test_nothing_glides_where_nobody_looks_or_motion_is_unwelcome(
    chromium: Browser, server: Running, stream: str
) -> None:
    with chromium.new_context(reduced_motion="reduce") as context:
        page = context.new_page()
        filled(page, server, stream)
        put(server, stream, "e12", body="Longer. " * 99)
        expect(page.locator("#e-e12")).to_contain_text("Longer.")
        assert page.evaluate(MOVES) == []
        page.emulate_media(reduced_motion="no-preference")
        put(server, stream, "e12", body="Longer still. " * 199)
        expect(page.locator("#e-e12")).to_contain_text("still")
        assert page.evaluate(MOVES) != []
        page.evaluate(AWAY)
        put(server, stream, "e12", body="Short.")
        expect(page.locator("#e-e12")).to_contain_text("Short.")
        assert page.evaluate(MOVES) == []


CUT_OFF = """async () => {
    const [{ Anchor }, { Entries }] = await Promise.all([import("/static/anchor.js"), import("/static/entries.js")]);
    const root = document.querySelector("main");
    const anchor = new Anchor(root, new Entries(root), () => { window.isStill = true; });
    anchor.keep(() => { root.style.paddingTop = "99px"; });
    const during = anchor.restMs;
    scrollTo(0, 20);
    anchor.keep(() => {});
    return [during, anchor.restMs];
}"""


def test_nothing_waits_for_a_glide_that_was_cut_off(chromium: Browser, server: Running, stream: str) -> None:
    with chromium.new_context(bypass_csp=True) as context:
        page = context.new_page()
        filled(page, server, stream)
        during, after = page.evaluate(CUT_OFF)
        assert during > 0
        assert after <= 0
        page.wait_for_function("window.isStill === true")


NOTICED = """() => {
    document.querySelector("#notice").click();
    return document.querySelector("#e-new0").getBoundingClientRect().top;
}"""


def test_the_notice_leads_to_where_an_update_stays_although_the_lists_above_it_grow(
    chromium: Browser, server: Running, stream: str
) -> None:
    with chromium.new_context(viewport={"width": 390, "height": 800}) as context:
        page = context.new_page()
        filled(page, server, stream, 2)
        page.locator("#auto").click()
        for number in range(3):
            put(server, stream, f"new{number}", headline="News " * 12)
        expect(page.locator("#notice")).to_have_text("3 new updates")
        top = page.evaluate(NOTICED)
        page.evaluate("Promise.all(document.getAnimations().map(({ finished }) => finished))")
        assert page.evaluate(TOP, "e-new0") == pytest.approx(top, abs=1)


def test_what_crawlers_are_told_stays_until_it_is_wrong(chromium: Browser, server: Running, stream: str) -> None:
    with chromium.new_context() as context:
        page = context.new_page()
        filled(page, server, stream, 2)
        cards, description = page.locator("#json-ld, [property='og:title']"), page.locator("[name=description]")
        put(server, stream, "new")
        expect(page.locator("article")).to_have_count(3)
        expect(cards).to_have_count(2)
        put(server, stream, "e01", body="Otherwise.")
        expect(cards).to_have_count(0)
        expect(description).to_have_attribute("content", str(PAGE["dek"]))
        server.put_page(stream, {**PAGE, "dek": "The crest has come."})
        expect(description).to_have_attribute("content", "The crest has come.")


def test_where_nothing_will_come_there_is_no_switch_for_it(chromium: Browser, server: Running, stream: str) -> None:
    with chromium.new_context() as context:
        page = context.new_page()
        filled(page, server, stream, 1)
        expect(page.locator("#auto")).to_be_visible()
        server.send("POST", f"/streams/{stream}/end", b"")
        expect(page.locator("#status")).to_have_attribute("data-state", "ended")
        expect(page.locator("#auto")).to_be_hidden()
    with chromium.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{server.url}/streams/{stream}")
        expect(page.locator("#auto")).to_be_hidden()


PLAY = """async () => {
    window.sound = Object.assign(document.createElement("audio"), { muted: true });
    sound.srcObject = new AudioContext().createMediaStreamDestination().stream;
    document.querySelector("article").append(sound);
    await sound.play();
}"""


def test_updates_wait_while_something_plays(chromium: Browser, server: Running, stream: str) -> None:
    with chromium.new_context() as context:
        page = context.new_page()
        filled(page, server, stream, 2)
        page.evaluate(PLAY)
        put(server, stream, "new")
        expect(page.locator("#notice")).to_have_text("1 new update")
        assert page.evaluate("sound.isConnected && !sound.paused")
        page.evaluate("sound.pause()")
        put(server, stream, "newer")
        expect(page.locator("article")).to_have_count(4)
        assert page.evaluate("sound.isConnected")


@pytest.mark.parametrize(("motion", "animation"), [("no-preference", "arrive"), ("reduce", "none")])
def test_what_is_new_fades_only_where_motion_is_welcome(
    chromium: Browser, server: Running, stream: str, motion: Literal["no-preference", "reduce"], animation: str
) -> None:
    with chromium.new_context(reduced_motion=motion) as context:
        page = context.new_page()
        filled(page, server, stream, 1)
        put(server, stream, "new")
        page.locator("#e-new").wait_for(state="attached")
        new = "getComputedStyle(document.querySelector('[data-local=new]'), '::before').animationName"
        assert page.evaluate(new) == animation
