"""What stands in addresses instead of names: it is refused as data, and never taken for a page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from pushserver.page.render import refusal_page
from pushserver.web.static_files import StaticSet

from ..support.judge import ATTACKS
from ..support.server import ROOT, Running, reader, receive, running

STREAM = "addresses"
SOME_AND_ALL = [pytest.param(ATTACKS[::10], id="some"), pytest.param(ATTACKS, id="all", marks=pytest.mark.full)]


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of its own: where a name is one, this creates a stream of it."""
    with running(tmp_path_factory.mktemp("named") / "data") as server:
        yield server


ADDRESSES = [
    ("PUT", f"/streams/{STREAM}/entries/§"),
    ("GET", f"/streams/{STREAM}/entries/§"),
    ("PUT", "/streams/§"),
    ("GET", "/streams/§"),
    ("GET", "/streams/§/entries"),
    ("GET", f"/streams/{STREAM}?before=§"),
    ("GET", f"/streams/{STREAM}/entries?limit=§"),
    ("GET", f"/streams/{STREAM}/sse?format=§"),
    ("GET", f"/streams/{STREAM}/entries/there/delivery?n=§"),
    ("DELETE", f"/streams/{STREAM}/entries/there?reason=§"),
    ("GET", "/§"),
    ("GET", "/static/§"),
]
SITE = StaticSet(ROOT / "static").site


def tags(html: str) -> list[str]:
    return re.findall("<[^>]*>", html)


@pytest.mark.parametrize(("method", "path"), ADDRESSES)
@pytest.mark.parametrize("attacks", SOME_AND_ALL)
def test_an_address_that_is_no_name_is_refused_as_data(
    named: Running, method: str, path: str, attacks: list[dict[str, str]]
) -> None:
    named.send("PUT", f"/streams/{STREAM}/entries/there", {"headline": "a"})
    for attack in attacks:
        text = attack["text"]
        content = b"" if method == "GET" else b'{"headline": "a"}'
        answer = named.send(method, path.replace("§", quote(text, safe="")), content, Accept="text/html")
        assert answer.headers["x-content-type-options"] == "nosniff"
        if answer.status_code == 308:  # to the address without the slash at its end
            assert (method, text[-1], answer.headers["location"][:9]) == ("GET", "/", "/streams/")
        elif answer.status_code < 400:  # a name like others, or an address that a client has shortened
            assert attack["kind"] == "name", (text, answer.text)
        else:
            assert answer.status_code in (404, 405, 409, 410, 422), (text, answer.text)
            if method != "GET" or "/sse" in path:
                assert answer.headers["content-type"] == "application/problem+json"
            else:
                assert answer.headers["content-type"] == "text/html; charset=utf-8"
                sent = answer.request.url.raw_path.partition(b"?")[0]  # a client shortens what has dots
                depth = sent.count(b"/") - 1
                assert tags(answer.text) == tags(refusal_page(404, "data", depth=depth, site=SITE)), (text, answer.text)


@pytest.mark.anyio
@pytest.mark.parametrize("attacks", SOME_AND_ALL)
async def test_a_cursor_that_is_none_is_not_repeated(named: Running, attacks: list[dict[str, str]]) -> None:
    named.publish_ok("cursors", "a")
    for attack in attacks:
        async with reader(named, "cursors", cursor=quote(attack["text"], safe=""), format="html") as socket:
            hello = await receive(socket)
            assert (hello["type"], hello["complete"], hello["reason"]) == ("hello", False, "no_cursor")
            assert attack["text"] not in hello.values()
