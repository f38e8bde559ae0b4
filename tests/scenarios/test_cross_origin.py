"""Pages of other origins in a real Chromium: an allowed one reads all, another one nothing; the README's lines work."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, WebSocket, expect, sync_playwright

from ..support.judge import CHROMIUM, FLAGS
from ..support.server import ROOT, Served
from ..support.worker import Serve

pytestmark = [pytest.mark.full, pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")]

# Two sites on this machine; a browser takes them for two origins.
ALLOWED, OTHER = "a.example", "b.example"
RULES = f"--host-resolver-rules=MAP {ALLOWED} 127.0.0.1,MAP {OTHER} 127.0.0.1"
READS = """
async ([base, path, init]) => {
  try {
    const answer = await fetch(base + path, init);
    const [etag, after] = ["ETag", "Retry-After"].map((name) => answer.headers.get(name));
    return { status: answer.status, etag, after, text: await answer.text() };
  } catch (error) {
    return { error: error.name };
  }
}
"""
FOLLOWS = """
([url, withCredentials]) => new Promise((resolve) => {
  const source = new EventSource(url, { withCredentials });
  source.onmessage = ({ data }) => { source.close(); resolve(JSON.parse(data).type); };
  source.onerror = () => { if (source.readyState === 2) resolve("closed"); };
})
"""
IMPORTS = "async (url) => { try { return Object.keys(await import(url)); } catch (error) { return error.name; } }"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, RULES])
        yield browser
        browser.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextmanager
def site(folder: Path, page: str) -> Iterator[int]:
    """A web site of one page; its port."""
    folder.mkdir(exist_ok=True)
    (folder / "index.html").write_text(page)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_a_page_of_an_allowed_origin_reads_all_and_one_of_another_nothing(
    chromium: Browser, serve: Serve, tmp_path: Path
) -> None:
    with site(tmp_path / "site", "<!doctype html><title>A page of another site</title>") as port:
        server = serve("--origins", f"http://{ALLOWED}:{port}/", "--readers", "1")
        server.send("PUT", "/streams/s/entries/one", {"headline": "One"})
        with chromium.new_context() as context:
            page = context.new_page()
            page.goto(f"http://{ALLOWED}:{port}/")
            reads_all(page, server)
            page.goto(f"http://{OTHER}:{port}/")
            reads_nothing(page, server)


PATHS = [
    "/streams/s",
    "/streams/s/",
    "/streams/s/entries",
    "/streams/s/entries/one",
    "/streams/s/events",
    "/streams/s/feed.atom",
    "/streams/s/feed.json",
]


def reads_all(page: Page, server: Served) -> None:
    def read(path: str, **init: Any) -> dict[str, Any]:
        answer: dict[str, Any] = page.evaluate(READS, [server.url, path, init])
        return answer

    for path in PATHS:
        for init in ({}, {"credentials": "include"}, {"headers": {"Authorization": "Bearer x", "Last-Event-ID": "x"}}):
            answer = read(path, **init)
            assert (answer.get("status"), "One" in answer.get("text", "")) == (200, True), (path, init, answer)
    etag = read("/streams/s/entries")["etag"]
    assert etag
    assert read("/streams/s/entries", cache="no-store", headers={"If-None-Match": etag})["status"] == 304
    missing = read("/streams/no/entries")
    assert (missing["status"], "urn:pushserver:problem:not-found" in missing["text"]) == (404, True)
    for with_credentials in (False, True):
        assert page.evaluate(FOLLOWS, [f"{server.url}/streams/s/sse", with_credentials]) == "hello"
    with the_one_reader(server):
        full = read("/streams/s/sse", method="HEAD")
        assert (full["status"], int(full["after"]) > 0) == (503, True)
        assert page.evaluate(FOLLOWS, [f"{server.url}/streams/s/sse", False]) == "bye"
    assert set(page.evaluate(IMPORTS, f"{server.url}/static/stream.js")) == {"Stream"}
    assert read("/livez") == {"error": "TypeError"}
    publish = {"method": "POST", "headers": {"Authorization": f"Bearer {server.key}"}, "body": "{}"}
    assert read("/streams/s/entries", **publish) == {"error": "TypeError"}


@contextmanager
def the_one_reader(server: Served) -> Iterator[None]:
    """While the one reader that the server takes is there, once the server has noticed that the page's has gone."""
    while True:
        with server.http.stream("GET", "/streams/s/sse") as response:
            lines = response.iter_lines()  # as long as it is referred to, the connection stays open
            if any('"hello"' in line for line in lines):
                yield
                return


def reads_nothing(page: Page, server: Served) -> None:
    for path in [*PATHS, "/streams/no/entries", "/"]:
        for init in ({}, {"credentials": "include"}):
            assert page.evaluate(READS, [server.url, path, init]) == {"error": "TypeError"}
    for with_credentials in (False, True):
        assert page.evaluate(FOLLOWS, [f"{server.url}/streams/s/sse", with_credentials]) == "closed"
    assert set(page.evaluate(IMPORTS, f"{server.url}/static/stream.js")) == {"Stream"}


ENDS = """async ([base, stream]) => {
  const { Stream } = await import(`${base}/static/stream.js`);
  const followed = new Stream(`${base}/streams/${stream}/ws`);
  return new Promise((resolve) => {
    followed.addEventListener("state", ({ detail: { state, reason } }) => {
      if (state === "ended" || state === "live") resolve([state, reason]);
    });
    followed.open();
  });
}"""


def test_a_refused_origin_and_an_unknown_stream_are_named_and_final(
    chromium: Browser, serve: Serve, tmp_path: Path
) -> None:
    with site(tmp_path / "site", "<!doctype html><title>A page of another site</title>") as port:
        server = serve("--origins", f"http://{ALLOWED}:{port}/")
        server.publish_ok("s", "One")
        with chromium.new_context() as context:
            page = context.new_page()
            page.goto(f"http://{ALLOWED}:{port}/")
            assert page.evaluate(ENDS, [server.url, "s"]) == ["live", ""]
            assert page.evaluate(ENDS, [server.url, "none"]) == ["ended", "unknown"]
            page.goto(f"http://{OTHER}:{port}/")
            assert page.evaluate(ENDS, [server.url, "s"]) == ["ended", "refused"]


# --- the page of one's own in the README

HOST_PAGE = '<!doctype html><link rel="icon" href="data:,"><h1 id="masthead">The Kelm Gazette</h1>'


@pytest.fixture
def embedded(
    chromium: Browser, serve: Serve, stream: str, tmp_path: Path
) -> Iterator[tuple[Page, Served, list[WebSocket]]]:
    """The README's lines in a page of another site, but for port and stream. No error of the page passes."""
    (snippet,) = re.findall(r"```html\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert snippet.count("127.0.0.1:8000") == 2
    folder = tmp_path / "site"
    with site(folder, "") as port, chromium.new_context() as context:
        server = serve("--origins", f"http://{ALLOWED}:{port}")
        server.send("PUT", f"/streams/{stream}/entries/before", {"headline": "There before"})
        assert snippet.count("/streams/demo/") == 1
        here = snippet.replace("127.0.0.1:8000", server.url.removeprefix("http://"))
        here = here.replace("/streams/demo/", f"/streams/{stream}/")
        (folder / "index.html").write_text(HOST_PAGE + here)
        page = context.new_page()
        page.clock.install()
        complaints: list[str] = []
        sockets: list[WebSocket] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))

        def opened(socket: WebSocket) -> None:
            sockets.append(socket)

        page.on("websocket", opened)
        page.goto(f"http://{ALLOWED}:{port}/")
        expect(page.locator("li")).to_have_text(["There before"])
        yield page, server, sockets
        assert complaints == []


def test_the_lines_of_the_readme_show_what_the_stream_has_in_its_order(
    embedded: tuple[Page, Served, list[WebSocket]], stream: str
) -> None:
    page, server, _ = embedded
    server.publish_ok(stream, "Then live")
    expect(page.locator("li")).to_have_text(["Then live", "There before"])
    entries: list[tuple[str, dict[str, Any]]] = [
        ("late", {"headline": "Filed late", "published_at": "2020-01-01T00:00:00Z"}),
        ("pin", {"headline": "Pinned", "published_at": "2019-01-01T00:00:00Z", "flags": {"pinned": True}}),
        ("masthead", {"headline": "<b>No element of the page</b>"}),
    ]
    for id, fields in entries:
        assert server.send("PUT", f"/streams/{stream}/entries/{id}", fields).status_code == 201
    shown = ["Pinned", "<b>No element of the page</b>", "Then live", "There before", "Filed late"]
    expect(page.locator("li")).to_have_text(shown)
    server.send("PATCH", f"/streams/{stream}/entries/before", {"headline": "Corrected in its place"})
    shown[3] = "Corrected in its place"
    expect(page.locator("li")).to_have_text(shown)
    server.send("DELETE", f"/streams/{stream}/entries/masthead", b"")
    server.send("PATCH", f"/streams/{stream}/entries/late", {"sort_at": "2030-01-01T00:00:00Z"})
    expect(page.locator("li")).to_have_text(["Pinned", "Filed late", "Then live", "Corrected in its place"])
    expect(page.locator("#masthead")).to_have_text("The Kelm Gazette")


def test_the_lines_of_the_readme_stop_at_the_end_of_the_stream(
    embedded: tuple[Page, Served, list[WebSocket]], stream: str
) -> None:
    page, server, sockets = embedded
    with sockets[0].expect_event("close"):
        server.send("POST", f"/streams/{stream}/end", {})
    page.clock.run_for(600_000)  # whatever would reconnect does so now
    page.evaluate("dispatchEvent(new Event('online'))")
    page.evaluate("0")
    assert len(sockets) == 1


def test_the_lines_of_the_readme_come_back_after_the_connection_was_lost(
    embedded: tuple[Page, Served, list[WebSocket]], stream: str
) -> None:
    page, server, sockets = embedded
    with sockets[0].expect_event("close"):
        page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    server.publish_ok(stream, "Meanwhile")
    page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    expect(page.locator("li")).to_have_text(["Meanwhile", "There before"])
    assert len(sockets) == 2
