"""Page loads from memory: exact after each publish, gone after a withdrawal, and there while the store is away."""

from __future__ import annotations

import gzip
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product

import brotli
import httpx2
import pytest

from ..support.server import Running, until

READER = {"Accept": "text/html,*/*;q=0.1"}
SURFACES = ["", "/entries", "/feed.atom", "/feed.json"]
BEFORE_ALL = "before=9007199254740991.z"  # no entry is above it: the slice shows all
EXCERPTS = ["/entries/one", f"?{BEFORE_ALL}", f"/entries?{BEFORE_ALL}"]
ALL = [*SURFACES, *EXCERPTS]
CODINGS = ["identity", "gzip", "br"]
REST = [coding for coding in CODINGS if coding != "gzip"]


def load(server: Running, path: str, coding: str = "identity", **headers: str) -> tuple[httpx2.Response, str]:
    """An answer, and its text decoded by other code than the client's."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    with server.http.stream("GET", path, headers={**READER, "Accept-Encoding": coding, **fields}) as answer:
        body = b"".join(answer.iter_raw())
    named = answer.headers.get("content-encoding", "identity")
    decode = {"identity": bytes, "gzip": gzip.decompress, "br": brotli.decompress}[named]
    return answer, decode(body).decode()


def put_one(server: Running, stream: str, headline: str) -> str:
    """Publish the entry `one`, or replace it. Its path is returned."""
    path = f"/streams/{stream}/entries/one"
    answer = server.send("PUT", path, {"headline": headline, "body": "A long text. " * 200})
    assert answer.status_code in (200, 201), answer.text
    return path


def publish_twenty(server: Running, stream: str) -> None:
    for number in range(20):
        server.publish_ok(stream, f"Headline {number} {'x' * 100}")
    put_one(server, stream, "One")


@contextmanager
def frozen(server: Running) -> Iterator[None]:
    """The store answers nothing meanwhile."""
    os.kill(server.store_pid(), signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.store_pid(), signal.SIGCONT)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("surface", SURFACES)
def test_a_read_shows_what_was_acknowledged_before_it(server: Running, stream: str, surface: str, coding: str) -> None:
    path, id = f"/streams/{stream}{surface}", ""
    for number in range(20):
        id = server.publish_ok(stream, f"Headline {number:03d} {'x' * 100}")["id"]
        answer, text = load(server, path, coding)
        assert answer.status_code == 200
        assert f"Headline {number:03d}" in text
    assert answer.headers.get("content-encoding", "identity") == coding
    server.send("PATCH", f"/streams/{stream}/entries/{id}", {"headline": "Corrected headline"})
    assert "Corrected headline" in load(server, path, coding)[1]
    server.send("DELETE", f"/streams/{stream}/entries/{id}?reason=legal", b"")
    text = load(server, path, coding)[1]
    assert "Corrected headline" not in text
    assert "Headline 018" in text


@pytest.mark.parametrize("coding", ["gzip", *(pytest.param(other, marks=pytest.mark.full) for other in REST)])
@pytest.mark.parametrize("excerpt", EXCERPTS)
def test_an_excerpt_shows_what_was_acknowledged_before_it(
    server: Running, stream: str, excerpt: str, coding: str
) -> None:
    path = f"/streams/{stream}{excerpt}"
    server.publish_ok(stream, "Another")
    for number in range(20):
        entry = put_one(server, stream, f"Headline {number:03d}")
        answer, text = load(server, path, coding)
        assert f"Headline {number:03d}" in text
    assert answer.headers.get("content-encoding", "identity") == coding
    server.send("PATCH", entry, {"headline": "Corrected headline"})
    assert "Corrected headline" in load(server, path, coding)[1]
    server.send("DELETE", f"{entry}?reason=legal", b"")
    answer, text = load(server, path, coding)
    assert answer.status_code == (410 if excerpt == "/entries/one" else 200)
    assert "Corrected headline" not in text


@pytest.mark.parametrize("surface", ALL)
def test_every_coding_has_the_same_text_and_a_tag_of_its_own(server: Running, stream: str, surface: str) -> None:
    publish_twenty(server, stream)
    answers = [load(server, f"/streams/{stream}{surface}", coding) for coding in CODINGS]
    assert len({text for _, text in answers}) == 1
    assert len({answer.headers["etag"] for answer, _ in answers}) == 3
    for answer, _ in answers:
        assert not answer.headers["etag"].startswith("W/")
        assert "Accept-Encoding" in answer.headers["vary"]


@pytest.mark.parametrize("surface", ALL)
def test_a_copy_that_is_current_is_not_sent_again(server: Running, stream: str, surface: str) -> None:
    path = f"/streams/{stream}{surface}"
    put_one(server, stream, "One")
    etag = load(server, path)[0].headers["etag"]
    for field in (etag, f'"other", {etag}', f"W/{etag}", "*"):
        answer, text = load(server, path, If_None_Match=field)
        assert (answer.status_code, text, answer.headers["etag"]) == (304, "", etag)
    assert load(server, path, If_None_Match=f'"x{etag[1:]}')[0].status_code == 200
    put_one(server, stream, "Two")
    assert load(server, path, If_None_Match=etag)[0].status_code == 200


@pytest.mark.parametrize("surface", ALL)
def test_head_is_get_without_a_body(server: Running, stream: str, surface: str) -> None:
    put_one(server, stream, "One")
    path = f"/streams/{stream}{surface}"
    get, head = (server.http.request(method, path, headers=READER) for method in ("GET", "HEAD"))
    assert (head.status_code, head.content) == (200, b"")
    others = {"date", "x-request-id"}
    assert {k: v for k, v in head.headers.items() if k not in others} == {
        k: v for k, v in get.headers.items() if k not in others
    }


@pytest.mark.parametrize("query", ["utm_source=alert", "fbclid=x&y=%00", "x", "=&&="])
def test_parameters_that_nobody_knows_change_nothing(server: Running, stream: str, query: str) -> None:
    server.publish_ok(stream, "One")
    plain, other = load(server, f"/streams/{stream}")[0], load(server, f"/streams/{stream}?{query}")[0]
    assert plain.headers["etag"] == other.headers["etag"]


def test_a_slice_of_older_entries_is_another_page(server: Running, stream: str) -> None:
    for number in range(101):
        server.publish_ok(stream, f"Headline {number:03d}")
    (older,) = re.findall(r'rel="next" href="([^"]+)"', load(server, f"/streams/{stream}")[1])
    assert "Headline 000" in load(server, f"/streams/{stream}{older}")[1]
    assert "Headline 000" not in load(server, f"/streams/{stream}")[1]


def test_a_stream_that_does_not_exist_is_not_found(server: Running, stream: str) -> None:
    assert load(server, f"/streams/{stream}")[0].status_code == 404
    server.publish_ok(stream, "One")
    assert load(server, f"/streams/{stream}")[0].status_code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("surface", ALL)
def test_an_answer_from_memory_is_that_of_the_application(
    server: Running, stream: str, surface: str, method: str
) -> None:
    """The application alone looks at `If-Match`."""
    publish_twenty(server, stream)
    path = f"/streams/{stream}{surface}"
    etag = load(server, path, "gzip")[0].headers["etag"]
    first = "&" if "?" in surface else "?"
    queries = ["", f"{first}utm_source=x", f"{first}n=1", f"{first}fbclid={'x' * 1_000}"]
    for query, fields in product(queries, ({}, {"If-None-Match": etag}, {"If-None-Match": '"other"'})):
        headers = {**READER, "Accept-Encoding": "gzip", **fields}
        prepared = server.http.request(method, path + query, headers=headers)
        made = server.http.request(method, path + query, headers={**headers, "If-Match": "*"})
        assert (prepared.status_code, prepared.content) == (made.status_code, made.content)
        own = {"date": "", "x-request-id": ""}
        assert {**prepared.headers, **own} == {**made.headers, **own}
        assert prepared.headers["x-request-id"] != made.headers["x-request-id"]


@pytest.mark.parametrize("coding", ["gzip", *(pytest.param(other, marks=pytest.mark.full) for other in REST)])
def test_pages_are_served_as_they_were_while_the_store_is_away(start: Callable[..., Running], coding: str) -> None:
    server = start()
    put_one(server, "storm", "One")
    fresh = {surface: load(server, f"/streams/storm{surface}", coding) for surface in ALL}
    with frozen(server):
        for surface in ALL:
            answer, text = load(server, f"/streams/storm{surface}", coding)
            assert answer.status_code == 200
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", answer.headers["pushserver-stale-since"])
            assert answer.headers["etag"] != fresh[surface][0].headers["etag"]
            assert "One" in text
        n = fresh["/entries"][1].rpartition('"n":')[2].partition(",")[0]
        assert load(server, f"/streams/storm?n={n}", coding)[0].status_code == 200
        newer = load(server, f"/streams/storm?n={int(n) + 1}", coding)[0]
        assert (newer.status_code, newer.headers["cache-control"]) == (503, "no-cache")
        assert server.http.get("/readyz/read").status_code == 200
        assert "Updates are delayed since" in load(server, "/streams/storm", coding)[1]
        for other in ("calm", "calm/entries/one", "storm/entries/two", "storm?before=1.x"):
            assert load(server, f"/streams/{other}", coding)[0].status_code == 503

    def is_fresh() -> bool:
        return "pushserver-stale-since" not in load(server, "/streams/storm", coding)[0].headers

    until(is_fresh)
    for surface in ALL:
        assert load(server, f"/streams/storm{surface}", coding)[1] == fresh[surface][1]


def test_pages_are_not_served_for_longer_than_is_set(start: Callable[..., Running]) -> None:
    server = start("--stale-pages", "0")
    server.publish_ok("storm", "One")
    assert load(server, "/streams/storm")[0].status_code == 200
    with frozen(server):
        answer, text = load(server, "/streams/storm")
        assert (answer.status_code, "One" in text) == (503, False)
        assert "retry-after" in answer.headers


def test_what_was_withdrawn_is_in_no_page_while_the_store_is_away(start: Callable[..., Running]) -> None:
    server = start()
    server.publish_ok("storm", "Stays")
    entry = put_one(server, "storm", "Withdrawn")
    paths = [f"/streams/storm{surface}" for surface in ALL]
    for path in paths:
        assert "Withdrawn" in load(server, path)[1]
    receipt = server.send("DELETE", f"{entry}?reason=legal", b"").json()["receipt"]
    assert receipt["reached"] is True
    with frozen(server):
        for path in paths:
            assert "Withdrawn" not in load(server, path)[1]


def test_a_private_stream_is_in_no_cache(
    start: Callable[..., Running], tmp_path_factory: pytest.TempPathFactory
) -> None:
    keys = tmp_path_factory.mktemp("keys") / "secret"
    keys.write_text("s" * 40)
    server = start("--private", "desk-*", "--token-keys", str(keys), "--token-algorithms", "HS256")
    put_one(server, "desk-one", "One")
    for surface in ALL:
        assert load(server, f"/streams/desk-one{surface}")[0].status_code == 401


def test_a_host_that_a_client_made_up_changes_no_byte_where_the_public_address_is_set(
    start: Callable[..., Running],
) -> None:
    server = start("--public-url", "https://live.news.example")
    server.send("PUT", "/streams/storm/entries/one", {"headline": "One", "body": "A long text. " * 200})
    paths = [f"/streams/storm{surface}" for surface in [*SURFACES, "?before=9.x", "/entries/one", "/entries/none"]]
    made_up = [{"Host": "evil.example"}, {"Host": "evil.example:8443", "X-Forwarded-Proto": "https"}]
    for path in [*paths, "/", "/none", "/streams/storm/"]:
        for accept in ("text/html", "*/*"):
            usual, *others = (load(server, path, Accept=accept, **host) for host in [{}, *made_up])
            for answer, text in others:
                assert text == usual[1]
                own = {"date": "", "x-request-id": ""}
                assert {**answer.headers, **own} == {**usual[0].headers, **own}
            assert "evil" not in usual[1]
