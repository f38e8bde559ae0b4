"""Caches on the way: an open page takes nothing old from them, and what was withdrawn leaves them in time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Page, Route, expect
from websockets.sync.client import connect

from pushserver.web.static_files import StaticSet

from ..support.judge import CHROMIUM
from ..support.pages import PAGE, assert_same_as_fresh, open_live
from ..support.server import LIMIT, ROOT, Running, running
from ..support.shipped_nginx import NGINX, Nginx, shipped, unused_ports

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


def headlines(page: Page) -> list[str]:
    return page.locator("article h3").all_inner_texts()


@needs_chromium
def test_an_open_page_takes_no_text_back_from_a_cache_that_has_it_still(
    page: Page, start: Callable[..., Running], stream: str
) -> None:
    """The cache answers each fetch of older entries with its copy from before a withdrawal, whatever the address."""
    server = start("--page-entries", "3", "--heartbeat", "0.5")
    server.put_page(stream, PAGE)
    for number in range(1, 6):
        server.send("PUT", f"/streams/{stream}/entries/e{number}", {"headline": f"Entry {number}"})
    open_live(page, server, stream)
    assert headlines(page) == ["Entry 5", "Entry 4", "Entry 3"]
    older = page.locator("#older a").get_attribute("href")
    copy, asked = server.http.get(f"/streams/{stream}{older}").text, []

    def answer(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(body=copy, content_type="text/html; charset=utf-8")

    page.route(f"**/streams/{stream}?before=*", answer)
    server.send("DELETE", f"/streams/{stream}/entries/e2?reason=legal", b"")
    with page.expect_response(lambda _: len(asked) == 3):  # the last one that it tries
        n = server.send("DELETE", f"/streams/{stream}/entries/e5?reason=legal", b"").json()["n"]
    page.evaluate("new Promise(requestAnimationFrame)")
    assert asked == [f"{server.url}/streams/{stream}{older}&n={n}"] * 3
    assert "Entry 2" in copy
    assert headlines(page) == ["Entry 4", "Entry 3"]
    page.unroute(f"**/streams/{stream}?before=*")
    server.send("DELETE", f"/streams/{stream}/entries/e4?reason=legal", b"")
    expect(page.locator("article h3")).to_have_text(["Entry 3", "Entry 1"])
    assert_same_as_fresh(page, server, stream)


# --- the shipped nginx

full = pytest.mark.full
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
SURFACES = ["", "/entries", "/feed.atom", "/feed.json", "/entries/e1"]
CODINGS = ["gzip", "br"]
LONGEST = 1 + 2 + 30  # seconds that a shared cache may have a withdrawn text, as docs/guarantees.md says


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("workers")
    with running(folder / "data", "--workers", "2", "--heartbeat", "0.5") as server:
        yield server


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory, two_workers: Running) -> Iterator[Nginx]:
    with shipped(tmp_path_factory.mktemp("nginx"), two_workers.url) as nginx:
        yield nginx


@pytest.fixture
def paths(two_workers: Running, stream: str) -> list[str]:
    """The reading addresses of a stream that has entries."""
    for number in range(1, 6):
        entry = {"headline": f"Entry {number}", "body": "A long text. " * 200}
        two_workers.send("PUT", f"/streams/{stream}/entries/e{number}", entry)
    return [f"/streams/{stream}{surface}" for surface in SURFACES]


def ask(http: httpx2.Client, path: str, coding: str, times: int) -> None:
    for _ in range(times):
        answer = http.get(path, headers={"Accept-Encoding": coding})
        assert (answer.status_code, "Entry 1" in answer.text) == (200, True)


@full
@needs_nginx
def test_a_worker_is_asked_about_once_a_second_however_many_ask(nginx: Nginx, paths: list[str]) -> None:
    keys = [(path, coding) for path in paths for coding in CODINGS]
    begin = time.monotonic()
    with httpx2.Client(base_url=nginx.url, timeout=LIMIT) as http, ThreadPoolExecutor(len(keys)) as pool:
        list(pool.map(lambda key: ask(http, key[0], key[1], 200), keys))
    elapsed, reached = time.monotonic() - begin, nginx.reached()
    for path, coding in keys:
        # Asked for one after the other, an answer is asked for again when it is older than a second, and never sooner.
        asked = sum(count for line, count in reached.items() if line.split()[1].rstrip("?") == path and coding in line)
        assert 1 <= asked <= elapsed + 2, reached


@full
@needs_nginx
def test_files_come_from_the_cache_but_for_those_of_another_build(nginx: Nginx) -> None:
    build = StaticSet(ROOT / "static").site.build
    stay, own, other = (
        ["/static/page.js", "/static/stream.js"],
        f"/static/{build}/page.js",
        f"/static/{'0' * 16}/page.js",
    )
    before, begin = nginx.reached(), time.monotonic()
    with httpx2.Client(base_url=nginx.url, timeout=LIMIT) as http:
        for path in [*stay, own, other] * 100:
            assert http.get(path, headers={"Accept-Encoding": "br"}).status_code == 200
    elapsed, asked = time.monotonic() - begin, Counter[str]()
    for line, count in (nginx.reached() - before).items():
        asked[line.split()[1].rstrip("?")] += count
    assert all(1 <= asked[path] <= elapsed + 2 for path in stay), asked
    assert (asked[own], asked[other]) == (1, 100)


@full
@needs_nginx
def test_one_request_makes_what_many_ask_for_at_once(nginx: Nginx, paths: list[str]) -> None:
    begin = time.monotonic()
    with httpx2.Client(base_url=nginx.url, timeout=LIMIT) as http, ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda _: ask(http, paths[0], "gzip", 1), range(200)))
    asked = sum(count for line, count in nginx.reached().items() if line.split()[1].rstrip("?") == paths[0])
    assert asked <= time.monotonic() - begin + 2


@full
@needs_nginx
def test_a_withdrawn_text_leaves_the_cache_in_time(nginx: Nginx, two_workers: Running, paths: list[str]) -> None:
    lists = [path for path in paths if not path.endswith("/e1")]
    keys = [(path, coding) for path in paths for coding in CODINGS]
    with httpx2.Client(base_url=nginx.url, timeout=LIMIT) as http:
        for path, coding in keys:
            ask(http, path, coding, 2)
        entry = next(path for path in paths if path.endswith("/e1"))
        receipt = two_workers.send("DELETE", f"{entry}?reason=legal", b"").json()["receipt"]
        assert receipt["reached"] is True
        withdrawn_at = time.monotonic()
        for path, coding in keys:
            while True:
                asked_at = time.monotonic()
                answer = http.get(path, headers={"Accept-Encoding": coding})
                if "Entry 1" not in answer.text:
                    assert answer.status_code == (200 if path in lists else 410)
                    break
                assert asked_at - withdrawn_at < LONGEST
        for path, coding in keys:  # and stays away
            assert "Entry 1" not in http.get(path, headers={"Accept-Encoding": coding}).text


@full
@needs_nginx
def test_what_does_not_change_the_answer_makes_no_other_entry(nginx: Nginx, paths: list[str]) -> None:
    path = paths[0]
    queries = ["utm_source=alert", "fbclid=1&utm_medium=x", "x", "&&=", ""]
    accepted = ["gzip", "gzip, deflate", "deflate, gzip;q=0.9, br;q=0", "x-gzip", "gzip;q=1.0, identity;q=0.5"]
    begin = time.monotonic()
    with httpx2.Client(base_url=nginx.url, timeout=LIMIT) as http:
        answers = [
            http.get(f"{path}?{query}", headers={"Accept-Encoding": field}) for query in queries for field in accepted
        ]
        elapsed = time.monotonic() - begin
        assert {answer.headers["content-encoding"] for answer in answers} == {"gzip"}
        assert {answer.headers["etag"] for answer in answers} == {answers[0].headers["etag"]}
        asked = sum(count for line, count in nginx.reached().items() if line.split()[1].partition("?")[0] == path)
        assert asked <= elapsed + 2
        other = http.get(path, headers={"Accept-Encoding": "br;q=0.0, deflate"})
        assert "content-encoding" not in other.headers
        same = http.get(path, headers={"If-None-Match": answers[0].headers["etag"], "Accept-Encoding": "gzip"})
        assert (same.status_code, same.content) == (304, b"")
        head = http.head(path, headers={"Accept-Encoding": "gzip"})
        assert (head.headers["etag"], head.content) == (answers[0].headers["etag"], b"")


@full
@needs_nginx
def test_an_entry_is_a_page_for_browsers_and_json_for_programs_in_the_cache_too(nginx: Nginx, paths: list[str]) -> None:
    rows = [
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html; charset=utf-8"),
        ("text/html;q=0, */*", "application/json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
    ]
    with httpx2.Client(base_url=nginx.url, timeout=LIMIT) as http:
        for accept, kind in rows * 3:
            assert http.get(paths[-1], headers={"Accept": accept}).headers["content-type"] == kind


@full
@needs_nginx
def test_a_parameter_that_comes_twice_puts_nothing_under_another_address(
    nginx: Nginx, two_workers: Running, paths: list[str]
) -> None:
    with httpx2.Client(base_url=nginx.url, timeout=LIMIT) as http:
        mixed = http.get(f"{paths[1]}?limit=1&limit=3&li%6dit=4").json()
        clean = http.get(f"{paths[1]}?limit=1").json()
        assert len(mixed["entries"]) == len(clean["entries"]) == 1
        assert len(http.get(f"{paths[1]}?limit=3").json()["entries"]) == 3


@full
@needs_nginx
def test_readers_and_publishers_pass_through(nginx: Nginx, two_workers: Running, stream: str) -> None:
    two_workers.publish_ok(stream, "Before")
    path, headers = f"/streams/{stream}", {"Authorization": f"Bearer {two_workers.key}"}
    address = nginx.url.replace("http", "ws") + f"{path}/ws"
    with (
        httpx2.Client(base_url=nginx.url, timeout=LIMIT, headers=headers) as http,
        connect(address, proxy=None, open_timeout=LIMIT) as socket,
        http.stream("GET", f"{path}/sse") as events,
    ):
        dry = http.post(f"{path}/entries?dry_run=1", json={"headline": "Dry"})
        assert (dry.status_code, "html" in dry.json()) == (200, True)
        id = http.post(f"{path}/entries", json={"headline": "Through nginx"}).json()["id"]
        while "Through nginx" not in socket.recv(timeout=LIMIT):
            pass
        assert any("Through nginx" in line for line in events.iter_lines())
        gone = http.delete(f"{path}/entries/{id}?reason=legal&note=A+note.")
        assert gone.status_code == 200
        assert "A note." in http.get(f"{path}/entries/{id}").text
        part = http.get(f"{path}/events?limit=1").json()
        assert (len(part["events"]), part["more"]) == (1, True)


@full
@needs_nginx
def test_a_server_that_is_gone_is_passed_over(tmp_path: Path, two_workers: Running, paths: list[str]) -> None:
    (gone,) = unused_ports(1)
    dead = ("    keepalive 64;", f"    server 127.0.0.1:{gone} max_fails=1 fail_timeout=5s; keepalive 64;")
    with shipped(tmp_path, two_workers.url, dead) as nginx, httpx2.Client(base_url=nginx.url, timeout=LIMIT) as http:
        for number in range(20):
            assert http.get(f"{paths[1]}?before=1.x{number}").status_code == 200
