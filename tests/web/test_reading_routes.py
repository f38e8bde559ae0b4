"""The reading routes answer with pages, snapshots and events, and with 304 where a client's copy is current."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
from starlette.requests import Request

from pushserver.access.origins import Origins
from pushserver.access.tokens import Tokens
from pushserver.errors import Unavailable
from pushserver.settings import Settings
from pushserver.store.log import Log, Snapshot
from pushserver.store.store import Store
from pushserver.web import reading_routes
from pushserver.web.reading_routes import TURNS, ReadingRoutes

from ..support.logs import put
from ..support.server import Running


def events(server: Running, stream: str, query: str = "") -> dict[str, Any]:
    response = server.http.get(f"/streams/{stream}/events?{query}")
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_all_there_is_comes_in_parts_in_order_once(server: Running, stream: str) -> None:
    for number in range(25):
        server.publish_ok(stream, str(number))
    read: list[dict[str, Any]] = []
    query = "limit=7"
    while True:
        part = events(server, stream, query)
        assert (part["complete"], part["from"]) == (True, len(read))
        read += part["events"]
        query = f"limit=7&after={part['cursor']}"
        if not part["more"]:
            break
    assert [event["n"] for event in read] == list(range(1, 26))
    assert [event["prev"] for event in read[1:]] == [event["cursor"] for event in read[:-1]]
    assert read[3]["entry"]["headline"] == "3"
    end = events(server, stream, query)
    assert (end["events"], end["more"], end["from"], end["cursor"]) == ([], False, 25, read[-1]["cursor"])


def test_a_part_is_sent_once_until_something_in_it_is_withdrawn(server: Running, stream: str) -> None:
    for number in range(5):
        server.send("PUT", f"/streams/{stream}/entries/e{number}", {"headline": str(number)})
    path = f"/streams/{stream}/events?limit=3"
    etag = server.http.get(path).headers["etag"]
    server.publish_ok(stream, "more")
    assert server.http.get(path, headers={"If-None-Match": etag}).status_code == 304
    server.send("DELETE", f"/streams/{stream}/entries/e1", b"")
    changed = server.http.get(path, headers={"If-None-Match": etag})
    assert changed.status_code == 200
    assert [event["type"] for event in changed.json()["events"]] == ["entry.put", "entry.withdraw", "entry.put"]


def test_a_part_is_no_larger_than_the_limit_and_never_empty(start: Callable[..., Running], stream: str) -> None:
    server = start("--replay-bytes", "3000")
    for _ in range(4):
        assert server.publish(stream, {"body": "x" * 2_000}).status_code == 201
    parts = [events(server, stream)]
    while parts[-1]["more"]:
        parts.append(events(server, stream, f"after={parts[-1]['cursor']}"))
    assert [len(part["events"]) for part in parts] == [1, 1, 1, 1]


def test_what_the_log_does_not_reach_back_to_is_said(start: Callable[..., Running], stream: str) -> None:
    server = start("--log-events", "100")
    cursor = server.publish_ok(stream, "first")["cursor"]
    for number in range(400):
        server.publish_ok(stream, str(number))
    for query in ("", f"after={cursor}"):
        assert events(server, stream, query) == {
            "complete": False,
            "reason": "trimmed",
            "entries": f"/streams/{stream}/entries",
        }
    other = cursor.replace(cursor.split(".")[1], "0" * 16)
    assert events(server, stream, f"after={other}")["reason"] == "epoch"


SURFACES = ["", "/entries", "/events", "/feed.atom", "/feed.json"]


@pytest.mark.parametrize("surface", SURFACES)
def test_a_current_copy_is_not_sent_again(server: Running, stream: str, surface: str) -> None:
    server.publish_ok(stream, "one")
    path = f"/streams/{stream}{surface}"
    etag = server.http.get(path).headers["etag"]
    opaque = etag.removeprefix("W/")
    for condition in (etag, opaque, f"W/{opaque}", f'"x", {etag}', "*"):
        answer = server.http.get(path, headers={"If-None-Match": condition})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    for condition in (f'"x{opaque[1:]}', f'{opaque[:-1]}x"', opaque[1:-1], '"x"', ""):
        assert server.http.get(path, headers={"If-None-Match": condition}).status_code == 200


@pytest.mark.parametrize("surface", SURFACES)
def test_a_head_request_has_the_headers_and_no_body(server: Running, stream: str, surface: str) -> None:
    server.publish_ok(stream, "one")
    path = f"/streams/{stream}{surface}"
    got, head = server.http.get(path), server.http.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert (head.headers["etag"], head.headers["content-type"]) == (got.headers["etag"], got.headers["content-type"])


def test_slices_lead_to_the_oldest_entry(server: Running, stream: str) -> None:
    for number in range(5):
        server.publish_ok(stream, str(number))
    headlines: list[str] = []
    older = "?"
    while older:
        part = server.http.get(f"/streams/{stream}/entries{older}&limit=2").json()
        headlines += [entry["headline"] for entry in part["entries"]]
        older = part["older"]
    assert headlines == ["4", "3", "2", "1", "0"]


@pytest.mark.parametrize(
    "query", ["before=x", "before=1", "before=1.", "before=1.a.b", "limit=0", "limit=101", "limit=x"]
)
def test_a_bad_slice_is_refused_by_the_name_of_the_parameter(server: Running, stream: str, query: str) -> None:
    server.publish_ok(stream, "one")
    response = server.http.get(f"/streams/{stream}/entries?{query}")
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, query.partition("=")[0])


def test_an_entry_is_json_unless_html_is_accepted(server: Running, stream: str) -> None:
    id = server.publish_ok(stream, "One")["id"]
    path = f"/streams/{stream}/entries/{id}"
    for accept, kind in (("*/*", "application/json"), ("text/html,*/*", "text/html; charset=utf-8")):
        answer = server.http.get(path, headers={"Accept": accept})
        assert (answer.status_code, answer.headers["content-type"], answer.headers["vary"]) == (200, kind, "Accept")
        assert "One" in answer.text
    server.send("DELETE", f"{path}?note=Taken+back.", b"")
    for accept in ("*/*", "text/html"):
        answer = server.http.get(path, headers={"Accept": accept})
        assert answer.status_code == 410
        assert "Taken back." in answer.text


@pytest.mark.parametrize("accept", ["*/*", "text/html"])
@pytest.mark.parametrize("id", ["none", "-", "x" * 65])
def test_an_entry_that_does_not_exist_is_not_found(server: Running, stream: str, accept: str, id: str) -> None:
    server.publish_ok(stream, "one")
    assert server.http.get(f"/streams/{stream}/entries/{id}", headers={"Accept": accept}).status_code == 404


def test_an_entry_may_have_the_name_of_an_address(server: Running, stream: str) -> None:
    path = f"/streams/{stream}/entries/entries"
    assert server.send("PUT", path, {"headline": "One"}).status_code == 201
    assert server.http.get(path).json()["headline"] == "One"


@pytest.mark.parametrize(("query", "field"), [("after=x", "after"), ("limit=0", "limit"), ("limit=1001", "limit")])
def test_a_bad_question_is_refused(server: Running, stream: str, query: str, field: str) -> None:
    server.publish_ok(stream, "one")
    response = server.http.get(f"/streams/{stream}/events?{query}")
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, field)
    assert server.http.get(f"/streams/{stream}-none/events").status_code == 404


def canonical(server: Running, stream: str, headers: dict[str, str]) -> str:
    """The address that the page, its entries and its feeds name; it is the same in all of them."""
    base = server.http.get(f"/streams/{stream}", headers=headers)
    (address,) = re.findall('<link rel="canonical" href="(.*?)/streams/', base.text)
    entry = server.http.get(f"/streams/{stream}/entries/one", headers={**headers, "Accept": "text/html"})
    feed = server.http.get(f"/streams/{stream}/feed.json", headers=headers).json()
    atom = server.http.get(f"/streams/{stream}/feed.atom", headers=headers).text
    assert f'<link rel="canonical" href="{address}/streams/{stream}/entries/one">' in entry.text
    assert feed["home_page_url"] == f"{address}/streams/{stream}"
    assert f"{address}/streams/{stream}" in atom
    assert "wss:" not in base.text + entry.text + atom
    return str(address)


@pytest.mark.parametrize(
    ("host", "scheme", "address"),
    [
        ("live.news.example", "wss", "https://live.news.example"),
        ("live.news.example", "ws", "http://live.news.example"),
        ("live.news.example", "https", "https://live.news.example"),
        ("live.news.example:443", "https", "https://live.news.example"),
        ("LIVE.news.example:80", "http", "http://live.news.example"),
        ("live.news.example:8443", "wss", "https://live.news.example:8443"),
        ("live.news.example", "gopher", "http://live.news.example"),
    ],
)
def test_canonical_addresses_are_of_the_web_whatever_a_proxy_forwards(
    server: Running, stream: str, host: str, scheme: str, address: str
) -> None:
    server.send("PUT", f"/streams/{stream}/entries/one", {"headline": "One"})
    headers = {"Host": host, "X-Forwarded-Proto": scheme}
    assert canonical(server, stream, headers) == address.format(url=server.url)


def test_the_public_address_is_that_of_every_link(start: Callable[..., Running], stream: str) -> None:
    server = start("--public-url", "https://Live.News.example/")
    server.send("PUT", f"/streams/{stream}/entries/one", {"headline": "One"})
    for headers in ({}, {"Host": "10.0.0.7:8000"}, {"Host": "other.example", "X-Forwarded-Proto": "http"}):
        assert canonical(server, stream, headers) == "https://live.news.example"


@pytest.mark.parametrize("path", ["/streams/{stream}", "/streams/{stream}/feed.atom", "/streams/{stream}/feed.json"])
def test_a_copy_with_the_links_of_another_address_is_not_current(server: Running, stream: str, path: str) -> None:
    server.publish_ok(stream, "one")
    path = path.format(stream=stream)
    etag = server.http.get(path, headers={"Host": "a.example", "X-Forwarded-Proto": "https"}).headers["etag"]
    for host, scheme, status in [
        ("a.example", "https", 304),
        ("A.example:443", "wss", 304),
        ("a.example", "http", 200),
        ("b.example", "https", 200),
    ]:
        headers = {"Host": host, "X-Forwarded-Proto": scheme, "If-None-Match": etag}
        assert server.http.get(path, headers=headers).status_code == status


class Counting(Log):
    """A log that counts who reads a snapshot at once."""

    now = most = 0

    async def snapshot(self, stream: str, **options: Any) -> Snapshot | None:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await super().snapshot(stream, **options)
        finally:
            self.now -= 1


@pytest.fixture
async def counting(log_store: Store, stream: str) -> tuple[Counting, ReadingRoutes]:
    log = Counting(log_store, log_events=1_000, entry_limit=500, idempotency=60)
    await log.append(put(stream))
    options: dict[str, Any] = {"page_entries": 10, "replay_events": 10, "replay_bytes": 1_000}
    return log, ReadingRoutes(log, Tokens.of(Settings()), Origins(""), description="", **options)


def request_for(stream: str) -> Request:
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [(b"host", b"a.example")]}
    return Request({**scope, "path_params": {"stream": stream}, "server": ("a.example", 80), "scheme": "http"})


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["page", "entries", "feed_atom", "feed_json"])
async def test_few_snapshots_are_in_memory_at_once(
    counting: tuple[Counting, ReadingRoutes], stream: str, name: str
) -> None:
    log, routes = counting
    handler = getattr(routes, name)
    answers = await asyncio.gather(*(handler(request_for(stream)) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert log.most == TURNS


@pytest.mark.anyio
async def test_who_gets_no_turn_is_told_to_come_back(
    counting: tuple[Counting, ReadingRoutes], stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_routes, "TURN_WAIT", 0.01)
    _, routes = counting
    for _ in range(TURNS):
        await routes.turns.acquire()
    with pytest.raises(Unavailable):
        await routes.page(request_for(stream))
    routes.turns.release()
    assert (await routes.page(request_for(stream))).status_code == 200
