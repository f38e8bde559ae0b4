"""`static/stream.js` as a library in a real Chromium: it ends when it is told to, says why, and carries a token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from ..support.issuer import ALL, token
from ..support.pages import NEEDS_CHROMIUM
from ..support.server import Running

pytestmark = NEEDS_CHROMIUM

# Follow a stream until `until`, and return what was dispatched.
FOLLOW = """async ([url, options, until]) => {
    const { Stream } = await import("/static/stream.js");
    const stream = (window.stream = new Stream(url, "", options));
    const seen = (window.seen = []);
    return new Promise((resolve) => {
        for (const type of ["frame", "state", "head"]) {
            stream.addEventListener(type, ({ detail }) => {
                seen.push(detail.state ? `${detail.state} ${detail.reason}`.trim() : detail.type);
                if (seen.at(-1) === until) resolve(seen);
            });
        }
        stream.open();
    });
}"""
IS_BACK = "() => window.seen.lastIndexOf('live') > window.seen.lastIndexOf('waiting')"
WAKE = """() => {
    for (const type of ["pageshow", "online"]) dispatchEvent(new Event(type));
    document.dispatchEvent(new Event("visibilitychange"));
}"""


@pytest.fixture
def page(chromium: Browser, server: Running) -> Iterator[Page]:
    with chromium.new_context() as context:
        page = context.new_page()
        page.goto(f"{server.url}/")
        yield page


def test_a_stream_that_was_closed_or_disposed_opens_for_no_event_of_the_page(
    page: Page, server: Running, stream: str
) -> None:
    server.publish_ok(stream, "One")
    sockets: list[str] = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    assert page.evaluate(FOLLOW, [f"/streams/{stream}/ws", {}, "live"])[0] == "connecting"
    page.evaluate("window.stream.close()")
    page.evaluate(WAKE)
    assert (len(sockets), page.evaluate("window.seen.at(-1)")) == (1, "waiting")
    page.evaluate("window.stream.open()")
    page.wait_for_function(IS_BACK)
    page.evaluate("window.stream.dispose()")
    page.evaluate(WAKE)
    page.evaluate("window.stream.open()")
    page.evaluate(WAKE)
    assert (len(sockets), page.evaluate("window.seen.at(-1)")) == (2, "waiting")


def test_a_page_that_was_put_away_comes_back_by_itself(page: Page, server: Running, stream: str) -> None:
    server.publish_ok(stream, "One")
    page.evaluate(FOLLOW, [f"/streams/{stream}/ws", {}, "live"])
    page.evaluate("dispatchEvent(new Event('pagehide'))")
    assert page.evaluate("window.seen.at(-1)") == "waiting"
    page.evaluate(WAKE)
    page.wait_for_function(IS_BACK)


def test_a_stream_that_does_not_exist_ends_at_once_also_without_abort_signal_timeout(page: Page) -> None:
    page.evaluate("delete AbortSignal.timeout")
    seen = page.evaluate(FOLLOW, ["/streams/there-is-none/ws", {}, "ended unknown"])
    # On a busy machine it connects again before it knows why it was refused.
    assert (seen[:2], seen[-1]) == (["connecting", "waiting"], "ended unknown")
    assert {*seen} == {"connecting", "waiting", "ended unknown"}


@pytest.mark.parametrize("by", ["sockets", "events"])
def test_a_token_opens_a_private_stream(chromium: Browser, start: Any, tmp_path: Path, by: str) -> None:
    (tmp_path / "keys").write_bytes(ALL)
    server = start("--private", "desk-*", "--token-keys", str(tmp_path / "keys"))
    server.publish_ok("desk-1", "For the desk")
    with chromium.new_context() as context:
        page = context.new_page()
        if by == "events":
            page.route_web_socket("**", lambda socket: None)
        page.goto(f"{server.url}/")
        good = {"token": token("desk-*")}
        seen = page.evaluate(FOLLOW, ["/streams/desk-1/ws", good, "live"])
        assert "snapshot" in seen
        page.evaluate("window.stream.dispose()")
        bad = {"token": token("desk-*", exp=1)}
        assert page.evaluate(FOLLOW, ["/streams/desk-1/ws", bad, "ended token"])[-1] == "ended token"
        other = {"token": token("other-*")}
        assert page.evaluate(FOLLOW, ["/streams/desk-1/ws", other, "ended refused"])[-1] == "ended refused"
