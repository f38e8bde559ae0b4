"""Pages of allowed origins may read what readers may, refusals too; publishing addresses are closed to browsers."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest

from pushserver.web.cors import is_reading
from pushserver.web.route_table import OPERATIONS, Operation

from ..support.server import Running, running

NEWS, EVIL = "https://news.example", "https://evil.example"
READABLE = [
    "/",
    "/openapi.json",
    "/streams/{stream}",
    "/streams/{stream}?before=0.a",
    "/streams/{stream}?before=bad",
    "/streams/{stream}/",
    "/streams/{stream}/entries",
    "/streams/{stream}/entries?limit=0",
    "/streams/{stream}/entries/there",
    "/streams/{stream}/entries/gone",
    "/streams/{stream}/entries/none",
    "/streams/{stream}/entries/export",
    "/streams/{stream}/events",
    "/streams/{stream}/feed.atom",
    "/streams/{stream}/feed.json",
    "/streams/{stream}/ws",
    "/streams/no-such-stream/entries",
    "/streams/no-such-stream/sse",
    "/streams/BAD/sse",
]
CLOSED = ["/livez", "/readyz", "/streams/{stream}/export", "/streams/{stream}/entries/there/delivery"]


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that allows one origin by name, with a stream `cors`."""
    with running(tmp_path_factory.mktemp("named") / "data", "--origins", "HTTPS://News.example:443/") as server:
        for id in ("there", "gone"):
            server.send("PUT", f"/streams/cors/entries/{id}", {"headline": "One"})
        server.send("DELETE", "/streams/cors/entries/gone", b"")
        yield server


@pytest.fixture(scope="module")
def open_to_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("open") / "data", "--origins", f"*,{NEWS}") as server:
        server.send("PUT", "/streams/cors/entries/there", {"headline": "One"})
        yield server


def cors(answer: httpx2.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


def varies(answer: httpx2.Response) -> set[str]:
    return set(answer.headers.get("vary", "").split(", "))


@pytest.mark.parametrize("path", READABLE)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_page_of_a_named_origin_reads_answers_and_refusals(named: Running, path: str, method: str) -> None:
    answer = named.http.request(method, path.format(stream="cors"), headers={"Origin": NEWS})
    assert cors(answer) == {
        "access-control-allow-origin": NEWS,
        "access-control-allow-credentials": "true",
        "access-control-expose-headers": "ETag, Link, Retry-After",
    }
    assert "Origin" in varies(answer)


@pytest.mark.parametrize("path", READABLE)
@pytest.mark.parametrize("origin", [EVIL, "null", f"{NEWS}.evil.example", "http://news.example", None])
def test_a_page_of_another_origin_reads_nothing(named: Running, path: str, origin: str | None) -> None:
    answer = named.http.get(path.format(stream="cors"), headers={"Origin": origin} if origin else {})
    assert cors(answer) == {}
    assert "Origin" in varies(answer)  # a cache must not give this answer to a page that may read


def test_what_has_not_changed_and_what_has_ended_can_be_read_too(named: Running) -> None:
    for path in ("/streams/cors", "/streams/cors/entries", "/streams/cors/feed.atom", "/openapi.json"):
        etag = named.http.get(path).headers["etag"]
        answer = named.http.get(path, headers={"Origin": NEWS, "If-None-Match": etag})
        assert (answer.status_code, cors(answer)["access-control-allow-origin"]) == (304, NEWS)
    named.publish_ok("ended", "one")
    cursor = named.send("POST", "/streams/ended/end", {}).json()["cursor"]
    answer = named.http.get(f"/streams/ended/sse?cursor={cursor}", headers={"Origin": NEWS})
    assert (answer.status_code, cors(answer)["access-control-allow-origin"]) == (204, NEWS)


def test_an_event_source_of_a_named_origin_reads_with_credentials(named: Running) -> None:
    with named.http.stream("GET", "/streams/cors/sse", headers={"Origin": NEWS}) as answer:
        assert cors(answer)["access-control-allow-origin"] == NEWS
        assert cors(answer)["access-control-allow-credentials"] == "true"
    assert named.http.get("/streams/cors/sse", headers={"Origin": EVIL}).status_code == 403


@pytest.mark.parametrize("origin", [EVIL, "null", None])
def test_a_page_of_any_origin_reads_without_credentials_where_all_may(open_to_all: Running, origin: str | None) -> None:
    for path in ("/streams/cors/entries", "/streams/no/entries", "/streams/cors"):
        answer = open_to_all.http.get(path, headers={"Origin": origin} if origin else {})
        assert cors(answer) == {
            "access-control-allow-origin": "*",
            "access-control-expose-headers": "ETag, Link, Retry-After",
        }


def test_a_named_origin_may_send_credentials_where_all_may_read(open_to_all: Running) -> None:
    answer = open_to_all.http.get("/streams/cors/entries", headers={"Origin": NEWS})
    assert cors(answer)["access-control-allow-origin"] == NEWS
    assert cors(answer)["access-control-allow-credentials"] == "true"


def ask(
    server: Running, path: str, origin: str, method: str = "GET", headers: str = "authorization"
) -> httpx2.Response:
    """The answer to a preflight."""
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return server.http.options(path, headers={"Origin": origin, **asked})


@pytest.mark.parametrize("path", READABLE)
def test_a_preflight_of_a_named_origin_is_answered(named: Running, path: str) -> None:
    answer = ask(named, path.format(stream="cors"), NEWS)
    assert (answer.status_code, answer.content) == (204, b"")
    allowed = cors(answer)
    assert allowed["access-control-allow-origin"] == NEWS
    assert allowed["access-control-allow-credentials"] == "true"
    assert allowed["access-control-allow-methods"] == "GET, HEAD"
    names = allowed["access-control-allow-headers"].lower().split(", ")
    assert {"authorization", "last-event-id", "if-none-match"} <= set(names)


def test_where_all_may_read_no_page_may_send_a_token_unless_it_is_named(open_to_all: Running) -> None:
    allowed = cors(ask(open_to_all, "/streams/cors/entries", EVIL, headers="last-event-id"))
    assert allowed["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in allowed
    assert "authorization" not in allowed["access-control-allow-headers"].lower()
    assert "Authorization" in cors(ask(open_to_all, "/streams/cors/entries", NEWS))["access-control-allow-headers"]


def test_a_preflight_of_another_origin_is_refused_by_name(named: Running) -> None:
    answer = ask(named, "/streams/cors/entries", EVIL)
    assert (answer.status_code, answer.json()["errors"][0]["field"], cors(answer)) == (403, "Origin", {})


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize("origin", [NEWS, EVIL])
def test_other_addresses_are_closed(named: Running, open_to_all: Running, path: str, origin: str) -> None:
    for server in (named, open_to_all):
        answer = server.http.get(path.format(stream="cors"), headers={"Origin": origin})
        assert cors(answer) == {}
        assert cors(ask(server, path.format(stream="cors"), origin)) == {}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_no_page_may_publish(named: Running, open_to_all: Running, operation: Operation) -> None:
    """Nor may a page of another origin read what needs a publish key."""
    path = operation.path.format(stream="cors", id="there")
    for server in (named, open_to_all):
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert cors(ask(server, path, NEWS, method)) == {}
            refused = server.http.request(method, path, headers={"Origin": NEWS})
            assert (refused.status_code >= 400, cors(refused)) == (True, {})
    if operation.right is not None and operation.method == "GET":
        assert not is_reading(path)
    elif operation.is_for_readers:
        assert is_reading(path)


@pytest.mark.parametrize(
    "path", ["/static/stream.js", "/static/subscription.js", "/static/page.css", "/static/none.js"]
)
def test_static_modules_are_open_to_all(named: Running, server: Running, path: str) -> None:
    for each in (named, server):
        for headers in ({}, {"Origin": EVIL}, {"Origin": "null"}):
            answer = each.http.get(path, headers=headers)
            assert cors(answer) == {"access-control-allow-origin": "*"}
    etag = server.http.get("/static/stream.js").headers["etag"]
    unchanged = server.http.get("/static/stream.js", headers={"If-None-Match": etag})
    assert (unchanged.status_code, cors(unchanged)) == (304, {"access-control-allow-origin": "*"})


def test_where_no_origin_is_allowed_nothing_says_so(server: Running, stream: str) -> None:
    server.publish_ok(stream, "one")
    answer = server.http.get(f"/streams/{stream}/entries", headers={"Origin": NEWS})
    assert (cors(answer), "Origin" in varies(answer)) == ({}, False)
