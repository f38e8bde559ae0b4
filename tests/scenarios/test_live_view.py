"""The live view in a real Chromium: nothing that is read moves, the count is true, and the focus stays."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from ..support.pages import (
    NEEDS_CHROMIUM,
    PAGE,
    SHARED,
    TEXT,
    TOP,
    assert_same_as_fresh,
    faultless_page,
    filled,
    live_parts,
    open_live,
    put,
    read,
    show_all,
    withdraw,
)
from ..support.server import Running

pytestmark = NEEDS_CHROMIUM


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    with faultless_page(chromium, timezone_id="Europe/Madrid", locale="en-US") as page:
        yield page


def test_what_is_read_moves_by_no_pixel_and_the_notice_leads_to_the_oldest_unread(
    page: Page, server: Running, stream: str
) -> None:
    filled(page, server, stream)
    read(page, "e-e05")
    before = page.evaluate(TOP, "e-e05")
    for number in (1, 2, 3):
        put(server, stream, f"new{number}")
    expect(page.locator("#notice")).to_have_text("3 new updates")
    expect(page).to_have_title(f"(3) {PAGE['headline']}")
    server.send("PATCH", f"/streams/{stream}/entries/e09", {"body": TEXT * 3})  # it stands above
    expect(page.locator("#e-e09 .updated")).to_be_visible()
    server.send("PATCH", f"/streams/{stream}", {"dek": TEXT})
    expect(page.locator(".dek")).to_contain_text("The river")
    withdraw(server, stream, "e11")
    expect(page.locator("#e-e11")).to_have_count(0)
    assert abs(page.evaluate(TOP, "e-e05") - before) <= 1
    page.locator("#notice").click()
    assert page.evaluate(TOP, "e-new1") == pytest.approx(0, abs=100)
    assert page.evaluate("document.activeElement.closest('article').id") == "e-new1"
    page.locator("#notice").click()
    assert page.evaluate(TOP, "e-new3") == pytest.approx(0, abs=100)
    expect(page.locator("#notice")).to_be_hidden()
    expect(page).to_have_title(str(PAGE["headline"]))


def test_at_the_top_of_the_entries_the_first_one_stays_where_it_is(page: Page, server: Running, stream: str) -> None:
    filled(page, server, stream)
    read(page, "e-e12")
    before = page.evaluate(TOP, "e-e12")
    put(server, stream, "new")
    expect(page.locator("#e-new")).to_be_attached()
    assert abs(page.evaluate(TOP, "e-e12") - before) <= 1


def test_at_the_very_top_updates_come_in_one_after_the_other_and_the_page_stays_there(
    page: Page, server: Running, stream: str
) -> None:
    filled(page, server, stream)
    before = page.evaluate(TOP, "header")
    for number in range(4):
        put(server, stream, f"new{number}")
        expect(page.locator("article").first).to_have_id(f"e-new{number}")
    assert (page.evaluate("scrollY"), page.evaluate(TOP, "header")) == (0, before)


def test_what_is_read_stays_where_a_picture_above_is_of_another_size_than_was_said(
    page: Page, server: Running, stream: str
) -> None:
    filled(page, server, stream)
    read(page, "e-e05")
    before = page.evaluate(TOP, "e-e05")
    page.evaluate("document.querySelector('#e-e07 p:nth-of-type(2)').style.paddingBottom = '400px'")  # as if it had one
    page.evaluate("() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
    assert abs(page.evaluate(TOP, "e-e05") - before) <= 1


def test_the_count_falls_with_each_withdrawal_and_what_waits_is_corrected(
    page: Page, server: Running, stream: str
) -> None:
    filled(page, server, stream)
    read(page, "e-e05")
    put(server, stream, "one")
    put(server, stream, "two")
    expect(page.locator("#notice")).to_have_text("2 new updates")
    withdraw(server, stream, "two")
    expect(page.locator("#notice")).to_have_text("1 new update")
    server.send("PATCH", f"/streams/{stream}/entries/one", {"headline": "One, corrected"})
    put(server, stream, "three")
    expect(page.locator("#notice")).to_have_text("2 new updates")
    withdraw(server, stream, "three")
    expect(page.locator("#notice")).to_have_text("1 new update")
    page.locator("#notice").click()
    expect(page.locator("#e-one h3")).to_have_text("One, corrected")
    put(server, stream, "four")
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    put(server, stream, "five")
    withdraw(server, stream, "one")
    expect(page.locator("#e-one")).to_have_count(0)


def test_a_correction_replaces_only_the_blocks_that_changed(page: Page, server: Running, stream: str) -> None:
    blocks: list[dict[str, Any]] = [
        {"type": "paragraph", "html": "First."},
        {
            "type": "image",
            "src": "/static/demo/harbour.svg",
            "width": 12,
            "height": 8,
            "alt": "a",
            "caption": "b",
            "credit": "c",
        },
        {"type": "paragraph", "html": 'See <a href="https://news.example/">the report</a>.'},
    ]
    server.put_page(stream, PAGE)
    put(server, stream, "x", blocks=blocks)
    open_live(page, server, stream)
    page.evaluate("""() => {
        window.nodes = [...document.querySelectorAll("#e-x, #e-x figure, #e-x img, #e-x p a")];
        document.querySelector("#e-x a[href='https://news.example/']").focus();
    }""")
    changed = [{"type": "heading", "text": "New"}, {**blocks[0], "html": "First, corrected."}, *blocks[1:]]
    server.send("PATCH", f"/streams/{stream}/entries/x", {"blocks": changed})
    expect(page.locator("#e-x h4")).to_have_text("New")
    assert page.evaluate("window.nodes.every((node) => node.isConnected)")
    assert page.evaluate("document.activeElement.textContent") == "the report"


def test_the_focus_stays_or_goes_to_the_neighbour(page: Page, server: Running, stream: str) -> None:
    filled(page, server, stream, 6)
    page.evaluate("document.querySelector('#latest li:nth-child(2) a').focus()")
    put(server, stream, "new")
    expect(page.locator("#latest li").first).to_have_text("Entry new")
    assert page.evaluate("document.activeElement.textContent") == "Entry e05"
    page.evaluate("document.querySelector('#e-e03 .stamp a').focus()")
    withdraw(server, stream, "e03")
    expect(page.locator("#e-e03")).to_have_count(0)
    assert page.evaluate("document.activeElement.closest('article').id") == "e-e02"


def test_who_selects_is_not_disturbed_and_what_waits_comes_after(page: Page, server: Running, stream: str) -> None:
    filled(page, server, stream, 3)
    page.evaluate("getSelection().selectAllChildren(document.querySelector('#e-e03 p:nth-of-type(2)'))")
    selected = page.evaluate("String(getSelection())")
    put(server, stream, "new")
    expect(page.locator("#notice")).to_have_text("1 new update")
    assert page.evaluate("String(getSelection())") == selected != ""
    page.evaluate("getSelection().removeAllRanges()")
    expect(page.locator("#e-new")).to_be_attached()


def test_a_reader_who_wants_no_updates_by_themselves_is_remembered(page: Page, server: Running, stream: str) -> None:
    filled(page, server, stream, 2)
    page.locator("#auto").click()
    page.reload()
    expect(page.locator("#status")).to_have_attribute("data-state", "live")
    expect(page.locator("#auto")).to_have_attribute("aria-pressed", "false")
    put(server, stream, "new")
    expect(page.locator("#notice")).to_have_text("1 new update")
    page.locator("#auto").click()
    expect(page.locator("#e-new")).to_be_attached()


def test_a_hidden_page_grows_by_nothing_and_shows_all_at_once(page: Page, server: Running, stream: str) -> None:
    filled(page, server, stream, 2)
    page.evaluate("""() => {
        window.away = true;
        Object.defineProperty(document, "hidden", { get: () => window.away });
        document.dispatchEvent(new Event("visibilitychange"));
    }""")
    for number in range(3):
        put(server, stream, f"n{number}")
    expect(page).to_have_title(f"(3) {PAGE['headline']}")
    assert page.locator("article").count() == 2
    page.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
    assert page.locator("article").count() == 5


def test_a_correction_of_an_entry_on_an_older_page_is_not_counted(
    page: Page, server: Running, stream: str, start: Any
) -> None:
    own = start("--page-entries", "3")
    filled(page, own, stream, 5)
    page.locator("#auto").click()
    own.send("PATCH", f"/streams/{stream}/entries/e01", {"headline": "Corrected"})
    put(own, stream, "new")
    expect(page.locator("#notice")).to_have_text("1 new update")
    expect(page).to_have_title(f"(1) {PAGE['headline']}")


def test_older_entries_are_loaded_in_place(page: Page, server: Running, stream: str, start: Any) -> None:
    own = start("--page-entries", "3")
    filled(page, own, stream, 8)
    page.locator("#older a").click()
    expect(page.locator("article")).to_have_count(6)
    page.locator("#older a").click()
    expect(page.locator("article")).to_have_count(8)
    expect(page.locator("#older")).to_be_hidden()
    assert page.evaluate("location.search") == ""
    withdraw(own, stream, "e02")
    expect(page.locator("#e-e02")).to_have_count(0)


DISPOSED = """async ([path, isWhole]) => {
    const { LiveView } = await import("/static/view.js");
    const root = document.querySelector("main");
    const view = new LiveView(root, { url: path });
    const { fetch } = window;
    const [before, left] = [root.innerHTML, []];
    navigation.addEventListener("navigate", ({ destination }) => left.push(destination.url));
    const read = new Promise((resolve) => {
        window.fetch = async (...request) => {
            const response = await fetch(...request);
            return { ok: true, text: () => {
                view.dispose();
                const text = isWhole ? response.text() : Promise.reject(new TypeError("broken off"));
                text.then(resolve, resolve);
                return text;
            } };
        };
    });
    root.querySelector("#older a").click();
    await read;
    await new Promise((resolve) => setTimeout(resolve)); // the promises that follow are settled
    return [left, root.innerHTML === before];
}"""


@pytest.mark.parametrize("whole", [True, False])
def test_who_disposes_of_a_view_that_loads_older_entries_keeps_the_page_as_it_is(
    chromium: Browser, stream: str, start: Any, whole: bool
) -> None:
    own = start("--page-entries", "3")
    with faultless_page(chromium, bypass_csp=True) as page:
        page.route("**/boot.js", lambda route: route.fulfill(content_type="text/javascript", body=""))
        own.put_page(stream, PAGE)
        for number in range(8):
            put(own, stream, f"e{number}")
        page.goto(f"{own.url}/streams/{stream}")
        assert page.evaluate(DISPOSED, [f"/streams/{stream}", whole]) == [[], True]


def test_a_correction_that_sets_a_flag_makes_the_bytes_of_a_fresh_load(
    page: Page, server: Running, stream: str
) -> None:
    filled(page, server, stream, 2)
    server.send("PATCH", f"/streams/{stream}/entries/e01", {"flags": {"key": True}})
    expect(page.locator("#e-e01 .flag")).to_be_visible()
    assert_same_as_fresh(page, server, stream)


ORDERS = """async ([path, html, orders]) => {
    const { LiveView } = await import("/static/view.js");
    const { parseHtml: parse } = await import("/static/morph.js");
    const frames = await new Promise((resolve) => {
        const [frames, cursor] = [[], parse(html).querySelector("main").dataset.cursor];
        const socket = new WebSocket(location.origin.replace("http", "ws") + `${path}/ws?format=html&cursor=${cursor}`);
        socket.onmessage = ({ data }) => {
            const frame = JSON.parse(data);
            if (frame.type === "bye" || frame.type === "stream.end") resolve(frames);
            else if ("n" in frame) frames.push(frame);
        };
    });
    return orders.map((order) => {
        const root = parse(html).querySelector("main");
        document.documentElement.lang = root.lang = "en-US";
        const view = new LiveView(root, { url: path });
        for (const at of order) view.apply(frames[at % frames.length]);
        const whole = root.cloneNode(true);
        for (const element of whole.querySelectorAll("*")) {
            for (const name of element.getAttributeNames()) {
                if (name.startsWith("data-local")) element.removeAttribute(name);
            }
        }
        view.dispose();
        return [frames.length, whole.querySelector("#entries").outerHTML, whole.querySelector("#header").outerHTML,
            whole.querySelector("#latest").outerHTML, whole.querySelector("#key").outerHTML];
    });
}"""


def test_frames_in_any_order_and_twice_make_the_same_page(chromium: Browser, server: Running, stream: str) -> None:
    server.put_page(stream, PAGE)
    put(server, stream, "a", published_at="2026-03-01T10:00:00Z")
    put(server, stream, "b", published_at="2026-03-02T10:00:00Z")
    html = server.http.get(f"/streams/{stream}").text
    put(server, stream, "c", published_at="2026-03-01T12:00:00Z", flags={"key": True})
    put(server, stream, "d", published_at="2026-03-02T10:00:00Z")
    server.send("PATCH", f"/streams/{stream}/entries/a", {"sort_at": "2026-03-03T10:00:00Z"})
    server.send("PATCH", f"/streams/{stream}/entries/c", {"flags": {"pinned": True}})
    server.send("PATCH", f"/streams/{stream}/entries/c", {"body": "Corrected.", "flags": {}})
    withdraw(server, stream, "d")
    server.send("PATCH", f"/streams/{stream}", {"headline": "Another", "dek": "And more."})
    server.send("PATCH", f"/streams/{stream}/entries/b", {"headline": "Last"})
    server.send("POST", f"/streams/{stream}/end", {})
    shuffled, orders = random.Random(7), [list(range(8))]
    for _ in range(30):
        order = [*range(8), *range(8)]
        shuffled.shuffle(order)
        orders.append(order)
    with chromium.new_context(bypass_csp=True) as context:
        page = context.new_page()
        page.goto(f"{server.url}/")
        made = page.evaluate(ORDERS, [f"/streams/{stream}", html, orders])
    assert made[0][0] == 8
    assert all(each == made[0] for each in made)


LOOKS = r"""async ([path, html, bursts]) => {
    const { LiveView } = await import("/static/view.js");
    const [doc, looks] = [new DOMParser().parseFromString(html, "text/html"), []];
    const root = document.body.appendChild(doc.querySelector("main"));
    const view = new LiveView(root, { url: path });
    const { getBoundingClientRect } = Element.prototype;
    let isShowing = false; // the view looks after a scroll as well, which comes in this burst or in the next
    Element.prototype.getBoundingClientRect = function () {
        looks[0] += isShowing;
        return getBoundingClientRect.call(this);
    };
    const apply = view.apply.bind(view);
    view.apply = (...frames) => {
        isShowing = true;
        apply(...frames);
        isShowing = false;
    };
    for (const ids of bursts) {
        looks.unshift(0);
        const article = root.querySelector("article");
        const shown = new Promise((resolve) => view.addEventListener("change", resolve, { once: true }));
        for (const id of ids) {
            const html = article.parentElement.outerHTML
                .replaceAll(article.id.slice(2), id).replace(/data-order="\d+"/, `data-order="${9e15 + looks.length}"`);
            const section = article.closest("section").cloneNode().outerHTML;
            const [day, parts] = [{ html: section.replace("><", "><h2></h2><ol></ol><") }, {}];
            view.stream.dispatchEvent(new CustomEvent("frame", { detail: { type: "entry.put", html, day, parts } }));
        }
        const before = root.querySelectorAll("article").length;
        await shown;
        looks[0] = [looks[0], root.querySelectorAll("article").length - before];
    }
    view.dispose();
    root.remove();
    return looks.reverse();
}"""


def test_an_update_looks_at_what_is_on_the_screen_and_a_burst_looks_once(
    chromium: Browser, server: Running, stream: str, start: Any
) -> None:
    server.put_page(stream, PAGE)
    bursts = [["x1"], ["x2"], ["x3", "x4", "x5", "x6"]]
    with chromium.new_context(bypass_csp=True) as context:
        page = context.new_page()
        page.goto(f"{server.url}/")
        looks = []
        for entries in (10, 80):
            lines = [f'{{"headline": "{number}"}}' for number in range(entries)]
            server.publish(stream, "\n".join(lines).encode(), Content_Type="application/x-ndjson")
            html = server.http.get(f"/streams/{stream}").text
            looks.append(page.evaluate(LOOKS, [f"/streams/{stream}", html, bursts]))
    (_, short, _), (_, long, burst) = looks
    assert (short[1], long[1], burst[1]) == (1, 1, 4)
    assert 0 < long[0] < short[0] + 10  # steps of a search by halves, twice
    assert burst[0] < long[0] + 10


SPOKEN = """() => {
    window.spoken = [];
    new MutationObserver(() => window.spoken.push(document.querySelector("#announcer").textContent))
        .observe(document.querySelector("#announcer"), { childList: true, characterData: true, subtree: true });
}"""


def test_thirty_entries_in_ten_seconds_are_announced_once(page: Page, server: Running, stream: str) -> None:
    server.put_page(stream, PAGE)
    page.clock.install()
    open_live(page, server, stream)
    page.evaluate(SPOKEN)
    for number in range(30):
        put(server, stream, f"n{number:02}", body="Short.")
    expect(page.locator("article")).to_have_count(30)
    page.clock.run_for(10_000)
    assert len(page.evaluate("window.spoken")) <= 1
    page.clock.run_for(20_000)
    assert page.evaluate("window.spoken") == ["30 new updates. Latest: Entry n29"]
    assert page.locator("[role=status]").count() == 1


def test_a_short_break_is_not_shown_and_a_longer_one_is(page: Page, server: Running, stream: str) -> None:
    server.put_page(stream, PAGE)
    page.clock.install()
    open_live(page, server, stream)
    page.clock.pause_at(page.evaluate("Date.now() + 10_000"))  # else it goes on by itself
    page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    page.clock.run_for(2_000)
    expect(page.locator("#status")).to_have_text("Live")
    page.clock.run_for(1_000)
    expect(page.locator("#status")).to_have_text("Reconnecting…")


def test_the_readers_own_zone_is_shown_on_demand(page: Page, server: Running, stream: str) -> None:
    filled(page, server, stream, 1)
    fresh = live_parts(page)
    page.locator("#zone").click()
    expect(page.locator("#e-e01 .stamp time")).to_have_attribute("data-local-time", "Mar 1, 2:00 AM GMT+1")
    assert live_parts(page) == fresh
    page.locator("#zone").click()
    expect(page.locator("#e-e01 .stamp time")).not_to_have_attribute("data-local-time", "Mar 1, 2:00 AM GMT+1")


def test_a_correction_of_what_was_read_is_said(page: Page, server: Running, stream: str) -> None:
    filled(page, server, stream, 2)
    correction = {"body": "As it is.", "correction": {"class": "correction", "note": "It was otherwise."}}
    server.send("PATCH", f"/streams/{stream}/entries/e01", correction)
    expect(page.locator("#since a")).to_have_text("1 update you read was corrected")
    expect(page.locator("#since a")).to_have_attribute("href", "#e-e01")


def test_what_came_late_is_counted_and_shown_in_its_place(page: Page, server: Running, stream: str) -> None:
    filled(page, server, stream, 12)
    read(page, "e-e05")
    before = page.evaluate(TOP, "e-e05")
    put(server, stream, "late", published_at="2026-03-01T08:30:00Z")
    expect(page.locator("#notice")).to_have_text("1 new update")
    show_all(page, "Entry e12")
    assert (
        page.evaluate("document.querySelector('#e-late').parentElement.nextElementSibling.firstElementChild.id")
        == "e-e08"
    )
    assert before != page.evaluate(TOP, "e-e05")
    fresh = page.context.new_page()
    open_live(fresh, server, stream)
    assert fresh.evaluate(SHARED) == page.evaluate(SHARED)
