"""The page in a real Chromium behind a network that is cut, holds, swallows sockets, or buffers events."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from playwright.sync_api import Browser, Page, expect, sync_playwright

from ..support.judge import CHROMIUM, FLAGS
from ..support.nginx import nginx
from ..support.pages import PAGE, assert_same_as_fresh, open_live
from ..support.proxy import Proxy, to_server
from ..support.server import LIMIT, Running

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

CUT = float(os.environ.get("CUT_SECONDS", "4"))  # for how long a network is away
BACK = LIMIT * 1000  # milliseconds; the longest wait and the longest first frame together are 40 s of it
TRANSPORTS = """() => performance.getEntriesByType("resource").map(({ name }) => new URL(name).pathname)"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """As people have it: with pages that are kept for the back button."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=FLAGS, ignore_default_args=["--disable-back-forward-cache"]
        )
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    errors: list[str] = []
    with chromium.new_context() as context:
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
    assert errors == []


@pytest.fixture
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture
def network(portal: BlockingPortal, server: Running) -> Iterator[Proxy]:
    """What stands between the browser and the server; `portal.call` tells it what to do."""
    with portal.wrap_async_context_manager(Proxy(to_server(server.url)).running()) as network:
        yield network


def sockets_of(page: Page) -> list[str]:
    """The addresses of the WebSockets that the page opens from now on."""
    opened: list[str] = []
    page.on("websocket", lambda socket: opened.append(socket.url))
    return opened


def remembered(page: Page) -> float:
    """Until when this tab takes sockets for blocked."""
    return float(page.evaluate("sessionStorage.getItem('pushserver-events-until')") or 0)


def ids_of(page: Page) -> list[str]:
    ids: list[str] = page.locator("article").evaluate_all("articles => articles.map(({ id }) => id)")
    return ids


# --- cut


def forty_events(server: Running, stream: str) -> Iterator[None]:
    """Publish 35 entries, correct three and withdraw two; a step each."""
    path = f"/streams/{stream}/entries"
    for number in range(35):
        server.send("PUT", f"{path}/e{number}", {"headline": f"Entry {number}", "body": "As it was."})
        yield
        if number in (10, 20, 30):
            correction = {"body": "As it is.", "correction": {"class": "correction", "note": "It was otherwise."}}
            server.send("PATCH", f"{path}/e{number - 5}", correction)
            yield
        if number in (15, 25):
            server.send("DELETE", f"{path}/e{number - 5}?reason=error", b"")
            yield


HAS = """count => !document.querySelector("#notice").hidden || document.querySelectorAll("article").length >= count"""


def let_in(page: Page, count: int) -> None:
    """Let in what waits, until the page has so many entries."""
    while page.locator("article").count() < count:
        page.wait_for_function(HAS, arg=count)
        if page.locator("#notice").is_visible():
            page.locator("#notice").dispatch_event("click")
    while page.locator("#notice").is_visible():  # to the oldest unread update, then to the top
        page.locator("#notice").dispatch_event("click")


@pytest.mark.full
def test_a_page_whose_network_was_cut_becomes_what_a_fresh_load_is(
    page: Page, portal: BlockingPortal, network: Proxy, server: Running, stream: str
) -> None:
    server.put_page(stream, PAGE)
    server.publish_ok(stream, "Before")
    open_live(page, network, stream)
    portal.call(network.hold)
    for number, _ in enumerate(forty_events(server, stream)):
        page.wait_for_timeout(CUT / 40 * 1000)
        if number == 10:
            portal.call(network.refuse)
            portal.call(network.cut)
    assert number == 39
    expect(page.locator("#status")).to_have_text("Reconnecting…")
    assert len(ids_of(page)) == 1
    portal.call(network.release)
    expect(page.locator("#status")).to_have_attribute("data-state", "live", timeout=BACK)
    let_in(page, 34)
    expect(page.locator("article")).to_have_count(34)
    assert_same_as_fresh(page, server, stream)
    assert remembered(page) == 0, "a network that was away says nothing against sockets"


# --- sockets that do not come through


@pytest.mark.full
def test_where_sockets_are_swallowed_events_flow_by_another_road_and_the_tab_remembers(
    page: Page, portal: BlockingPortal, network: Proxy, server: Running, stream: str
) -> None:
    server.put_page(stream, PAGE)
    portal.call(network.swallow, b"Upgrade: websocket")
    sockets = sockets_of(page)
    open_live(page, network, stream)
    tried = len(sockets)  # on a busy machine the other road may be too slow at first, too: it has four seconds
    assert tried
    server.publish_ok(stream, "By another road")
    expect(page.locator("article h3")).to_have_text("By another road")
    assert remembered(page) > time.time()
    open_live(page, network, stream)
    assert len(sockets) == tried
    assert_same_as_fresh(page, server, stream)


# --- events that are held back


@contextmanager
def plain_nginx(folder: Path, server: Running, *directives: str) -> Iterator[str]:
    """nginx before the server, as it comes but for these directives: it passes no upgrade on. Its address."""
    location = [f"proxy_pass {server.url};", "proxy_set_header Host $http_host;", *directives]
    with nginx(folder, "location / {", *location, "}") as url:
        yield url


BUFFERING = ("proxy_buffering on;", "proxy_ignore_headers X-Accel-Buffering;")
HOLDING = (*BUFFERING, "gzip on;", "gzip_proxied any;", "gzip_types text/event-stream;")


@pytest.mark.full
@pytest.mark.parametrize("directives", [(), BUFFERING], ids=["as it comes", "told to buffer"])
def test_events_flow_through_nginx(
    page: Page, tmp_path: Path, server: Running, stream: str, directives: tuple[str, ...]
) -> None:
    server.put_page(stream, PAGE)
    with plain_nginx(tmp_path, server, *directives) as url:
        page.goto(f"{url}/streams/{stream}")
        expect(page.locator("#status")).to_have_attribute("data-state", "live")
        server.publish_ok(stream, "Through nginx")
        expect(page.locator("article h3")).to_have_text("Through nginx")
        assert f"/streams/{stream}/sse" in page.evaluate(TRANSPORTS)


@pytest.mark.full
def test_a_proxy_that_holds_events_back_is_named_and_the_page_goes_on(
    page: Page, tmp_path: Path, server: Running, stream: str
) -> None:
    server.put_page(stream, PAGE)
    with plain_nginx(tmp_path, server, *HOLDING) as url:
        page.goto(f"{url}/streams/{stream}")
        server.publish_ok(stream, "Held back")
        expect(page.locator("#status")).to_have_attribute("data-state", "buffered", timeout=BACK)
        expect(page.locator("#status")).to_have_text("Updates come late: something on the way here holds them back")
        expect(page.locator("article h3")).to_have_text("Held back")
        server.send("POST", f"/streams/{stream}/end", {})
        expect(page.locator("#status")).to_have_attribute("data-state", "ended", timeout=BACK)


# --- what a page is told


@pytest.mark.full
def test_a_page_says_since_when_it_may_not_be_up_to_date(
    page: Page, start: Callable[..., Running], stream: str
) -> None:
    server = start("--heartbeat", "0.5")
    server.put_page(stream, PAGE)
    open_live(page, server, stream)
    store = server.store_pid()
    os.kill(store, signal.SIGSTOP)
    try:
        expect(page.locator("#status")).to_have_attribute("data-state", "stale", timeout=BACK)
        assert page.locator("#status").inner_text().startswith("Updates are delayed since ")
        assert page.locator("#status").inner_text().endswith("M"), "in the page's language, and its zone"
    finally:
        os.kill(store, signal.SIGCONT)
    expect(page.locator("#status")).to_have_attribute("data-state", "live", timeout=BACK)


# --- sleep


@pytest.mark.full
def test_a_page_that_slept_goes_on_when_it_is_looked_at(
    page: Page, portal: BlockingPortal, network: Proxy, server: Running, stream: str
) -> None:
    server.put_page(stream, PAGE)
    open_live(page, network, stream)
    server.publish_ok(stream, "Before")
    expect(page.locator("article h3")).to_have_text("Before")
    devtools = page.context.new_cdp_session(page)
    devtools.send("Page.setWebLifecycleState", {"state": "frozen"})
    portal.call(network.hold)
    for number in range(5):
        server.publish_ok(stream, f"Meanwhile {number}")
    portal.call(network.cut)
    portal.call(network.release)
    devtools.send("Page.setWebLifecycleState", {"state": "active"})
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_function(HAS, arg=6, timeout=BACK)
    let_in(page, 6)
    assert len(set(ids_of(page))) == 6
    assert_same_as_fresh(page, server, stream)


@pytest.mark.full
def test_the_back_button_brings_back_the_page_that_was_left_and_it_goes_on(
    page: Page, server: Running, stream: str
) -> None:
    server.put_page(stream, PAGE)
    server.publish_ok(stream, "Before")
    open_live(page, server, stream)
    page.evaluate("window.sameDocument = true")
    page.goto(f"{server.url}/")
    server.publish_ok(stream, "Meanwhile")
    page.go_back(wait_until="commit")
    expect(page.locator("article h3")).to_have_text(["Meanwhile", "Before"])
    assert page.evaluate("window.sameDocument"), "it was loaded anew"
    page.go_forward(wait_until="commit")
    page.go_back(wait_until="commit")
    server.publish_ok(stream, "Live")
    expect(page.locator("article h3")).to_have_text(["Live", "Meanwhile", "Before"])
    assert len(set(ids_of(page))) == 3
    assert_same_as_fresh(page, server, stream)
