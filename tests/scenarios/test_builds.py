"""Pages of one build and servers of another: a page is loaded anew once, and none is dead."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from playwright.sync_api import Browser, Page, expect

from pushserver.access.keyfile import KEY_FILE
from pushserver.store.folder import SOCKET

from ..support.nginx import MAP, UPGRADES, nginx
from ..support.pages import NEEDS_CHROMIUM
from ..support.proxy import Proxy, Streams, to_server
from ..support.server import ROOT, Running, running

pytestmark = [NEEDS_CHROMIUM, pytest.mark.full]


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    with chromium.new_context() as context:
        yield context.new_page()


def build(folder: Path, name: str) -> Path:
    """A copy of the program that is another build: its script differs, and it has pages loaded anew without a wait."""
    for part in ("pushserver", "static"):
        shutil.copytree(ROOT / part, folder / name / part, ignore=shutil.ignore_patterns("__pycache__"))
    script = folder / name / "static/view.js"
    script.write_text(f'{script.read_text()}\nconsole.debug("{name}");\n')  # a comment would not be sent
    arrivals = folder / name / "pushserver/live/arrivals.py"
    arrivals.write_text(arrivals.read_text().replace("RELOAD_MS = 60_000", "RELOAD_MS = 1"))
    return folder / name


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Running]]:
    """Two servers of two builds on one store."""
    folder = tmp_path_factory.mktemp("builds")
    envs = [{"PYTHONPATH": str(build(folder, name)), "PYTHONSAFEPATH": "1"} for name in ("one", "two")]
    with running(folder / "data", env=envs[0]) as one:
        store = f"unix://{one.data / SOCKET}"
        (folder / "other").mkdir()
        shutil.copy(folder / "data" / KEY_FILE, folder / "other")
        with running(folder / "other", "--redis", store, "--key", one.key, env=envs[1]) as two:
            yield one, two


def build_of(page: Page) -> str | None:
    return page.locator("#live").get_attribute("data-build")


def loads(page: Page) -> list[str]:
    """The documents that the page loads from now on."""
    loaded: list[str] = []
    page.on("request", lambda request: loaded.append(request.url) if request.is_navigation_request() else None)
    return loaded


@pytest.fixture
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as portal:
        yield portal


def test_a_page_that_is_open_over_an_upgrade_stays_live_and_is_loaded_anew_once(
    page: Page, portal: BlockingPortal, builds: tuple[Running, Running], stream: str
) -> None:
    one, two = builds
    one.publish_ok(stream, "Before")
    targets = [to_server(one.url)]

    async def connect() -> Streams:
        return await targets[0]()

    with portal.wrap_async_context_manager(Proxy(connect).running()) as network:
        page.goto(f"{network.url}/streams/{stream}")
        expect(page.locator("#status")).to_have_attribute("data-state", "live")
        before, loaded = build_of(page), loads(page)
        page.evaluate("getSelection().selectAllChildren(document.querySelector('article'))")
        targets[0] = to_server(two.url)
        portal.call(network.cut)
        two.publish_ok(stream, "After the upgrade")
        expect(page.locator("#notice")).to_be_visible()  # it came, and waits while the reader selects
        assert (build_of(page), loaded) == (before, [])
        page.evaluate("getSelection().removeAllRanges()")
        expect(page.locator(f"#live[data-build='{before}']")).to_have_count(0)
        expect(page.locator("#status")).to_have_attribute("data-state", "live")
        two.publish_ok(stream, "Once")
        expect(page.locator("article h3").first).to_have_text("Once")
        assert len(loaded) == 1


def test_a_page_of_the_version_before_stays_right(page: Page, builds: tuple[Running, Running], stream: str) -> None:
    _, two = builds
    two.publish_ok(stream, "Before")
    html = re.sub(' data-build="[^"]*"', "", two.http.get(f"/streams/{stream}").text)
    html = re.sub(r"<link rel=.modulepreload.*>|\.\./static/\w{16}/boot\.js", "/static/page.js", html)
    html = html.replace("/static/page.js\n", "")  # it named no module but its first
    page.route(f"**/streams/{stream}", lambda route: route.fulfill(body=html, content_type="text/html"))
    loaded = loads(page)
    page.goto(f"{two.url}/streams/{stream}")
    expect(page.locator("#status")).to_have_attribute("data-state", "live")
    two.publish_ok(stream, "After")
    expect(page.locator("article h3").first).to_have_text("After")
    assert len(loaded) == 1


def test_of_two_builds_behind_one_address_nobody_gets_a_dead_page(
    chromium: Browser, tmp_path: Path, builds: tuple[Running, Running], stream: str
) -> None:
    one, two = builds
    one.publish_ok(stream, "First")
    servers = " ".join(f"server {server.url.removeprefix('http://')};" for server in builds)
    upstream = f"{MAP} upstream both {{ {servers} }}"
    with nginx(tmp_path, "location / {", "proxy_pass http://both;", *UPGRADES, "}", http=upstream) as url:
        for number in range(6):
            with chromium.new_context() as context:
                page = context.new_page()
                loaded = loads(page)
                page.goto(f"{url}/streams/{stream}")
                expect(page.locator("#status")).to_have_attribute("data-state", "live")
                two.publish_ok(stream, f"Headline {number}")
                expect(page.locator("article h3").first).to_have_text(f"Headline {number}")
                assert len(loaded) <= 2


def test_a_page_whose_script_does_not_load_is_loaded_anew(
    page: Page, start: Callable[..., Running], stream: str
) -> None:
    server = start()
    server.publish_ok(stream, "One")
    failures = ["once"]

    def break_once(route: object) -> None:
        if failures:
            failures.pop()
            route.fulfill(body="import { none } from './stream.js';", content_type="text/javascript")  # type: ignore[attr-defined]
        else:
            route.continue_()  # type: ignore[attr-defined]

    page.route("**/page.js", break_once)
    page.goto(f"{server.url}/streams/{stream}")
    expect(page.locator("#status")).to_have_attribute("data-state", "live", timeout=30_000)
    assert failures == []


BLOCKED = """Object.defineProperty(window, "sessionStorage", {
    get() { throw new DOMException("blocked", "SecurityError"); },
});"""
STORED = "sessionStorage['pushserver-booted'] = '{}';"


@pytest.mark.parametrize("before", [BLOCKED, STORED.format("x"), STORED.format("1e300")])
def test_a_page_whose_script_does_not_load_is_loaded_anew_whatever_is_stored(
    page: Page, server: Running, stream: str, before: str
) -> None:
    server.publish_ok(stream, "One")
    page.clock.install()
    page.add_init_script(before)
    broken = "import { none } from './stream.js';"
    page.route("**/page.js", lambda route: route.fulfill(body=broken, content_type="text/javascript"), times=1)
    with page.expect_console_message(lambda message: message.text.startswith("pushserver:")):
        page.goto(f"{server.url}/streams/{stream}")
    page.clock.fast_forward(71_000)  # a minute, and the spread
    expect(page.locator("#status")).to_have_attribute("data-state", "live")
