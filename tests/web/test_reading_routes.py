"""The reading routes answer with pages, snapshots and events, and with 304 where a client's copy is current."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx2
import pytest
from starlette.requests import Request

from pushserver.access.tokens import Tokens
from pushserver.errors import Unavailable
from pushserver.page.site import Site
from pushserver.settings import Settings
from pushserver.store.listing import Listing
from pushserver.store.log import Log, Snapshot
from pushserver.store.store import Store, StoreError
from pushserver.web import reading_routes
from pushserver.web.reading_routes import TURNS, ReadingRoutes

from ..support.logs import put
from ..support.server import LIMIT, Running, Served
from ..support.worker import Serve


def events(server: Served, stream: str, query: str = "") -> dict[str, Any]:
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


def test_a_part_is_no_larger_than_the_limit_and_never_empty(serve: Serve, stream: str) -> None:
    server = serve("--replay-bytes", "3000")
    for _ in range(4):
        assert server.publish(stream, {"body": "x" * 2_000}).status_code == 201
    parts = [events(server, stream)]
    while parts[-1]["more"]:
        parts.append(events(server, stream, f"after={parts[-1]['cursor']}"))
    assert [len(part["events"]) for part in parts] == [1, 1, 1, 1]


def test_what_the_log_does_not_reach_back_to_is_said(serve: Serve, stream: str) -> None:
    server = serve("--log-events", "100")
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


SURFACES = ["", "/entries", "/entries/one", "/events", "/feed.atom", "/feed.json", "?before=9.x", "/entries?limit=1"]
EVERY_ADDRESS = [*SURFACES, "/entries/one as a page", "/static/page.js", "/openapi.json"]


def read(server: Running, stream: str, surface: str, method: str = "GET", **headers: str) -> httpx2.Response:
    """Read an address of a stream, or of the server, as a program or as a browser does."""
    surface, as_page, _ = surface.partition(" as a page")
    prefix = "" if surface.endswith((".js", "openapi.json")) else f"/streams/{stream}"
    fields = {
        "Accept": "text/html" if as_page else "*/*",
        **{name.replace("_", "-"): headers[name] for name in headers},
    }
    return server.http.request(method, f"{prefix}{surface}", headers=fields)


@pytest.fixture
def one_entry(server: Running, stream: str) -> str:
    """A stream with an entry."""
    server.send("PUT", f"/streams/{stream}/entries/one", {"headline": "One"})
    return stream


@pytest.mark.parametrize("surface", EVERY_ADDRESS)
def test_a_current_copy_is_not_sent_again(server: Running, one_entry: str, surface: str) -> None:
    etag = read(server, one_entry, surface).headers["etag"]
    opaque = etag.removeprefix("W/")
    for condition in (etag, opaque, f"W/{opaque}", f'"x", {etag}', "*"):
        answer = read(server, one_entry, surface, If_None_Match=condition)
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
        assert "cache-control" in answer.headers
    for condition in (f'"x{opaque[1:]}', f'{opaque[:-1]}x"', opaque[1:-1], '"x"', f"{opaque}, *", ""):
        assert read(server, one_entry, surface, If_None_Match=condition).status_code == 200


@pytest.mark.parametrize("surface", EVERY_ADDRESS)
def test_a_read_with_if_match_is_refused_where_it_names_other_copies(
    server: Running, one_entry: str, surface: str
) -> None:
    etag = read(server, one_entry, surface).headers["etag"]
    matches = ["*"] if etag.startswith("W/") else ["*", etag, f'"x", {etag}']
    for condition in matches:
        assert read(server, one_entry, surface, If_Match=condition).status_code == 200
        assert read(server, one_entry, surface, If_Match=condition, If_None_Match=etag).status_code == 304
    for condition in ('"x"', f"W/{etag.removeprefix('W/')}"):
        answer = read(server, one_entry, surface, If_Match=condition, If_None_Match=etag)
        assert (answer.status_code, "etag" in answer.headers) == (412, False)


@pytest.mark.parametrize("surface", EVERY_ADDRESS)
def test_a_head_request_has_the_headers_and_no_body(server: Running, one_entry: str, surface: str) -> None:
    get, head = read(server, one_entry, surface), read(server, one_entry, surface, "HEAD")
    assert (head.status_code, head.content) == (200, b"")
    own = {"date": "", "x-request-id": ""}
    assert {**head.headers, **own} == {**get.headers, **own}


def test_an_entry_has_other_tags_as_json_and_as_a_page_and_after_each_change(server: Running, one_entry: str) -> None:
    surfaces = ("/entries/one", "/entries/one as a page")
    tags = [read(server, one_entry, surface).headers["etag"] for surface in surfaces]
    server.send("PATCH", f"/streams/{one_entry}/entries/one", {"headline": "Two"}, If_Match=tags[0])
    tags += [read(server, one_entry, surface).headers["etag"] for surface in surfaces]
    assert len(set(tags)) == 4
    late = server.send("PATCH", f"/streams/{one_entry}/entries/one", {"headline": "Three"}, If_Match=tags[0])
    assert late.status_code == 412


def test_a_copy_of_an_entry_that_was_withdrawn_is_not_current(server: Running, one_entry: str) -> None:
    server.send("DELETE", f"/streams/{one_entry}/entries/one", b"")
    for surface in ("/entries/one", "/entries/one as a page"):
        answer = read(server, one_entry, surface, If_None_Match="*", If_Match='"x"')
        assert (answer.status_code, "etag" in answer.headers) == (410, False)


def test_html_that_is_not_accepted_is_not_sent(server: Running, one_entry: str) -> None:
    for accept in ("text/html;q=0", "text/html;q=0, */*", "text/html;q=0.1, application/json"):
        answer = read(server, one_entry, "/entries/one", Accept=accept)
        assert answer.headers["content-type"] == "application/json"
        answer = read(server, one_entry, "/entries/none", Accept=accept)
        assert answer.headers["content-type"] == "application/problem+json"


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
    page, entry = "text/html; charset=utf-8", "application/json"
    for accept, kind, vary in (("*/*", entry, "Accept"), ("text/html,*/*", page, "Accept, Accept-Encoding")):
        answer = server.http.get(path, headers={"Accept": accept})
        assert (answer.status_code, answer.headers["content-type"], answer.headers["vary"]) == (200, kind, vary)
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


ADDRESSED = ["", "/entries", "/feed.atom", "/feed.json", "/entries/one", "/none"]
HOSTS: list[dict[str, str]] = [
    {"Host": "evil.example"},
    {"Host": "evil.example:8443", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"},
    {"Host": "10.0.0.7:8000", "X-Forwarded-Proto": "wss"},
]


def answers(server: Served, stream: str, headers: dict[str, str]) -> list[tuple[bytes, str | None]]:
    """The answer and its ETag, by the address that was read."""
    paths = ["/", "/none/of/these", *(f"/streams/{stream}{path}" for path in ADDRESSED)]
    loaded = [server.http.get(path, headers={**headers, "Accept": "text/html"}) for path in paths]
    older = server.http.get(f"/streams/{stream}?before=9007199254740991.zzz", headers=headers)
    return [(answer.content, answer.headers.get("etag")) for answer in (*loaded, older)]


@pytest.mark.parametrize("public", ["", "https://news.example/live"])
def test_an_invented_host_changes_no_byte(serve: Serve, stream: str, public: str) -> None:
    server = serve("--public-url", public)
    server.send("PUT", f"/streams/{stream}/entries/one", {"headline": "One"})
    expected = answers(server, stream, {})
    assert all(b"evil" not in content for content, _ in expected)
    for headers in HOSTS:
        assert answers(server, stream, headers) == expected


def test_without_a_public_address_no_link_names_a_host(server: Running, stream: str) -> None:
    server.send("PUT", f"/streams/{stream}/entries/one", {"headline": "One"})
    for content, _ in answers(server, stream, {}):
        assert b"canonical" not in content
        assert server.url.removeprefix("http://").encode() not in content
        assert not re.search(rb"(?:href|src)=\"(?:http|/)", content)


def test_the_public_address_is_that_of_every_canonical_link(serve: Serve, stream: str) -> None:
    server = serve("--public-url", "https://News.example/live/")
    server.send("PUT", f"/streams/{stream}/entries/one", {"headline": "One"})
    address = f"https://news.example/live/streams/{stream}"
    page = server.http.get(f"/streams/{stream}").text
    entry = server.http.get(f"/streams/{stream}/entries/one", headers={"Accept": "text/html"}).text
    assert f'<link rel="canonical" href="{address}">' in page
    assert f'<link rel="canonical" href="{address}/entries/one">' in entry
    feed = server.http.get(f"/streams/{stream}/feed.json").json()
    assert (feed["home_page_url"], feed["feed_url"]) == (address, f"{address}/feed.json")
    assert feed["items"][0]["url"] == f"{address}/entries/one"
    assert f'href="{address}/entries/one"' in server.http.get(f"/streams/{stream}/feed.atom").text
    assert server.http.get(f"/streams/{stream}/").headers["location"] == f"/live/streams/{stream}"


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
    return log, ReadingRoutes(log, Tokens.of(Settings()), Site(), cache_control="no-cache", **options)


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


class Silent(Log):
    """A log whose store does not answer."""

    async def snapshot(self, stream: str, **options: Any) -> Snapshot | None:
        await asyncio.Event().wait()
        return None

    async def entry(self, stream: str, id: str) -> Any:
        await asyncio.Event().wait()


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["index", "page", "entries", "events", "entry", "feed_atom", "feed_json"])
async def test_no_read_waits_for_a_store_that_is_silent(
    log_store: Store, stream: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def places(*arguments: Any, **options: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(reading_routes, "LIMIT", 0.01)
    monkeypatch.setattr(Listing, "places", places)
    log = Silent(log_store, log_events=1_000, entry_limit=500, idempotency=60)
    options = {"page_entries": 10, "replay_events": 10, "replay_bytes": 1_000}
    routes = ReadingRoutes(log, Tokens.of(Settings()), Site(), cache_control="no-cache", **options)
    request = request_for(stream)
    request.path_params["id"] = "x"
    with pytest.raises(StoreError):
        async with asyncio.timeout(LIMIT):
            await getattr(routes, name)(request)
