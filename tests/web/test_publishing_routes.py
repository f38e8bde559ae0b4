from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pushserver import model
from pushserver.model import Cursor
from pushserver.web.request import NDJSON

from ..support.refusals import problem
from ..support.server import LIMIT, Running
from ..support.worker import Serve

ENTRY = {"headline": "Sea wall holds", "body": "Engineers *say* so."}
IMAGE = {"type": "image", "src": "/x.jpg", "width": 1, "height": 1, "alt": "x", "caption": "x", "credit": "x"}


def assert_nothing_stored(server: Running, stream: str) -> None:
    assert server.http.get(f"/streams/{stream}/entries").status_code == 404
    assert server.http.get(f"/streams/{stream}").status_code == 404


def address(server: Running) -> tuple[str, int]:
    host, port = server.url.removeprefix("http://").split(":")
    return host, int(port)


def raw(server: Running, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """The answer to bytes that no HTTP client would send: status, headers and body, once the server closes."""
    with socket.create_connection(address(server), timeout=LIMIT) as connection:
        connection.sendall(request)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(first.split()[1]), headers, body


# --- what is taken


def test_an_entry_is_stored_and_the_answer_says_where(server: Running, stream: str) -> None:
    response = server.publish(stream, ENTRY)
    assert response.status_code == 201
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert set(answer) == {"id", "rev", "n", "cursor", "url", "durability"}
    assert (answer["rev"], answer["n"], answer["durability"]) == (1, 1, "disk")
    assert Cursor.parse(answer["cursor"]) is not None
    assert response.headers["location"] == answer["url"] == f"/streams/{stream}/entries/{answer['id']}"
    assert "idempotent-replayed" not in response.headers
    snapshot = server.snapshot(stream)
    assert (snapshot["n"], snapshot["cursor"]) == (1, answer["cursor"])
    assert [entry["id"] for entry in snapshot["entries"]] == [answer["id"]]
    assert snapshot["entries"][0]["blocks"] == [{"type": "paragraph", "html": "Engineers <em>say</em> so."}]


def test_the_first_entry_makes_the_stream(server: Running, stream: str) -> None:
    assert_nothing_stored(server, stream)
    server.publish_ok(stream, "one")
    assert server.snapshot(stream)["page"]["headline"] == stream.capitalize().replace("-", " ")
    assert "one" in server.http.get(f"/streams/{stream}").text


def test_events_are_numbered_without_a_gap(server: Running, stream: str) -> None:
    answers = [server.publish_ok(stream, str(number)) for number in range(5)]
    assert [answer["n"] for answer in answers] == [1, 2, 3, 4, 5]
    assert len({answer["id"] for answer in answers}) == len({answer["cursor"] for answer in answers}) == 5
    assert len({answer["cursor"].split(".")[1] for answer in answers}) == 1


def test_a_page_is_stored_and_its_rev_grows(server: Running, stream: str) -> None:
    first = server.put_page(stream, {"headline": "One"})
    assert first.status_code == 201
    assert set(first.json()) == {"rev", "n", "cursor", "url", "durability"}
    assert (first.json()["rev"], first.json()["n"], first.json()["durability"]) == (1, 1, "disk")
    assert first.headers["location"] == first.json()["url"] == f"/streams/{stream}"
    second = server.put_page(stream, {"headline": "Two", "kicker": "Storm"})
    assert (second.status_code, second.json()["rev"], second.json()["n"]) == (200, 2, 2)
    page = server.snapshot(stream)["page"]
    assert (page["rev"], page["headline"], page["kicker"]) == (2, "Two", "Storm")


def test_a_page_is_replaced_whole(server: Running, stream: str) -> None:
    server.put_page(stream, {"headline": "One", "kicker": "Storm", "timezone": "America/New_York"})
    server.put_page(stream, {"headline": "Two"})
    page = server.snapshot(stream)["page"]
    assert "kicker" not in page
    assert page["timezone"] == "UTC"


def test_many_at_once_change_a_page_one_after_the_other(server: Running, stream: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda number: server.put_page(stream, {"headline": str(number)}), range(4)))
    assert sorted(response.json()["rev"] for response in found) == [1, 2, 3, 4]
    last = max(range(4), key=lambda number: int(found[number].json()["rev"]))
    assert server.snapshot(stream)["page"]["headline"] == str(last)


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON", "application/json; charset=utf-8"])
def test_json_is_taken_however_its_type_is_written(server: Running, stream: str, kind: str) -> None:
    assert server.publish(stream, ENTRY, Content_Type=kind).status_code == 201


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_of_the_key_has_no_case(server: Running, stream: str, scheme: str) -> None:
    assert server.publish(stream, ENTRY, Authorization=f"{scheme} {server.key}").status_code == 201


def test_an_entry_of_exactly_the_limit_is_taken(server: Running, stream: str) -> None:
    body = json.dumps(ENTRY).encode()
    assert server.publish(stream, body + b" " * (65_536 - len(body))).status_code == 201


# --- what would be taken


def test_a_dry_run_shows_the_entry_and_stores_nothing(server: Running, stream: str) -> None:
    response = server.send("POST", f"/streams/{stream}/entries?dry_run=1", ENTRY)
    assert (response.status_code, response.json()["warnings"]) == (200, [])
    entry, html = response.json()["entry"], response.json()["html"]
    assert (entry["headline"], entry["rev"]) == (ENTRY["headline"], 1)
    assert entry["blocks"] == [{"type": "paragraph", "html": "Engineers <em>say</em> so."}]
    assert "Engineers <em>say</em> so." in html
    assert f'id="e-{entry["id"]}"' in html
    assert_nothing_stored(server, stream)
    assert "idempotency-key" not in response.headers


def test_a_dry_run_warns_of_what_is_perhaps_not_meant_so(server: Running, stream: str) -> None:
    server.put_page(stream, {"headline": "Page"})
    server.send("POST", f"/streams/{stream}/end", {})
    entry = {"headline": "x" * 111, "blocks": [{**IMAGE, "alt": ""}], "published_at": "2013-07-11T15:53:00Z"}
    response = server.send("POST", f"/streams/{stream}/entries?dry_run=1", entry)
    assert response.status_code == 200
    fields = [warning["field"] for warning in response.json()["warnings"]]
    assert fields == ["headline", "blocks.0.alt", "published_at", "stream"]
    assert all(set(warning) == {"code", "field", "expected", "got"} for warning in response.json()["warnings"])
    codes = [warning["code"] for warning in response.json()["warnings"]]
    assert codes == ["long-headline", "no-alt", "published-long-ago", "ended"]


TOMORROW = model.instant(model.now() + 86_400_000)


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ({"headline": "x", "published_at": TOMORROW}, "published-in-future"),
        ({"headline": "x", "sort_at": TOMORROW}, "sorted-in-future"),
        ({"body": "# *x*\n\ny"}, "not-kept"),
        ({"body": "```sh\nx\n```"}, "not-kept"),
    ],
)
def test_what_is_published_otherwise_than_it_reads_is_answered_with_a_warning(
    server: Running, stream: str, entry: dict[str, Any], code: str
) -> None:
    dry = server.send("POST", f"/streams/{stream}/entries?dry_run=1", entry).json()
    new = server.publish(stream, entry).json()
    own = server.send("PUT", f"/streams/{stream}/entries/x", entry).json()
    batch = server.send("POST", f"/streams/{stream}/entries", json.dumps(entry).encode(), Content_Type=NDJSON)
    for answer in (dry, new, own, json.loads(batch.text)):
        assert [warning["code"] for warning in answer["warnings"]] == [code]
    assert "warnings" not in server.publish_ok(stream, "usual")


def test_a_patch_is_answered_with_a_warning_as_well(server: Running, stream: str) -> None:
    server.send("PUT", f"/streams/{stream}/entries/x", {"headline": "x"})
    answer = server.send("PATCH", f"/streams/{stream}/entries/x", {"body": "# *x*"}).json()
    assert [(warning["code"], warning["field"]) for warning in answer["warnings"]] == [("not-kept", "body")]


# --- what was read is sent back


def test_an_entry_is_taken_back_as_it_was_shown(server: Running, stream: str) -> None:
    path = f"/streams/{stream}/entries/x"
    server.send("PUT", path, {"headline": "x", "body": "a\n\n| b |\n|---|\n| c |"})
    correction = {"class": "correction", "note": "y"}
    server.send("PATCH", path, {"headline": "y", "correction": correction})
    shown = server.http.get(path, headers={"Accept": "application/json"}).json()
    assert {"id", "rev", "url", "updated_at", "correction"} <= shown.keys()
    for method in ("PUT", "PATCH"):
        assert server.send(method, path, shown).json()["unchanged"] is True
        changed = server.send(method, path, {**shown, "headline": f"by {method}"})
        assert (changed.status_code, changed.json()["rev"]) == (200, shown["rev"] + 1)
        shown = server.http.get(path, headers={"Accept": "application/json"}).json()
        assert shown["correction"]["note"] == "y"


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", "other"),
        ("rev", 7),
        ("url", "/streams/other/entries/x"),
        ("updated_at", "2023-07-11T15:53:00.000Z"),
        ("correction", {"class": "correction", "note": "y", "at": "2023-07-11T15:53:00.000Z"}),
    ],
)
def test_a_field_of_the_servers_is_not_changed_by_sending_another(
    server: Running, stream: str, method: str, name: str, value: Any
) -> None:
    path = f"/streams/{stream}/entries/x"
    server.send("PUT", path, {"headline": "x"})
    response = server.send(method, path, {"headline": "y", name: value})
    (fault,) = response.json()["errors"]
    assert (response.status_code, fault["field"]) == (422, name)
    assert (value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))) in fault["got"]
    assert server.http.get(path, headers={"Accept": "application/json"}).json()["headline"] == "x"


@pytest.mark.parametrize("value", ["y", 1, None, {"a": 1}])
def test_a_patch_of_an_unknown_field_says_what_came(server: Running, stream: str, value: Any) -> None:
    path = f"/streams/{stream}/entries/x"
    server.send("PUT", path, {"headline": "x"})
    (fault,) = server.send("PATCH", path, {"titel": value}).json()["errors"]
    known = "headline, blocks, bylines, tags, flags, published_at, sort_at, body, correction"
    assert (fault["field"], fault["expected"]) == ("titel", f"only known fields, which are {known}")
    assert ("null" if value is None else str(value)) in fault["got"]


def test_a_page_is_taken_back_as_it_was_shown(server: Running, stream: str) -> None:
    server.put_page(stream, {"headline": "Page", "topics": [{"label": "a"}]})
    server.publish_ok(stream, "one")
    shown = server.snapshot(stream)["page"]
    assert server.send("PUT", f"/streams/{stream}", shown).status_code == 200
    (fault,) = server.send("PUT", f"/streams/{stream}", shown).json()["errors"]
    assert (fault["field"], fault["got"]) == ("rev", str(shown["rev"]))
    (fault,) = server.send("PUT", f"/streams/{stream}", {"headline": "Page", "state": "ended"}).json()["errors"]
    assert (fault["field"], fault["got"]) == ("state", "ended")
    server.send("POST", f"/streams/{stream}/end", {})
    shown = server.snapshot(stream)["page"]
    for method in ("PUT", "PATCH"):
        assert server.send(method, f"/streams/{stream}", {**shown, "dek": method}).status_code == 200
        shown = server.snapshot(stream)["page"]
        assert (shown["state"], shown["dek"]) == ("ended", method)


def test_a_dry_run_refuses_what_publishing_would(server: Running, stream: str) -> None:
    path = f"/streams/{stream}/entries?dry_run=1"
    (fault,) = problem(server.send("POST", path, {"headline": 1}), 422)
    assert fault["field"] == "headline"
    assert problem(server.send("POST", path, ENTRY, Authorization="Bearer no"), 401)


@pytest.mark.parametrize(
    ("query", "kind", "field"),
    [
        ("dry_run=1", "application/x-ndjson", "dry_run"),
        ("dry_run=yes", "application/json", "dry_run"),
        ("dryrun=1", "application/json", "dryrun"),
        ("dry_run=1&dry_run=0", "application/json", "dry_run"),
    ],
)
def test_a_dry_run_that_is_not_one_stores_nothing(
    server: Running, stream: str, query: str, kind: str, field: str
) -> None:
    (fault,) = problem(server.send("POST", f"/streams/{stream}/entries?{query}", ENTRY, Content_Type=kind), 422)
    assert fault["field"] == field
    assert_nothing_stored(server, stream)


# --- what is refused, and stores nothing


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        ({**ENTRY, "titel": "x"}, "titel"),
        ({**ENTRY, "id": "x"}, "id"),
        ({"headline": 1}, "headline"),
        ({"headline": ""}, "headline"),
        ({"headline": " "}, "headline"),
        ({"headline": "x" * 301}, "headline"),
        ({"headline": "a\u202eb"}, "headline"),
        ({"headline": "\ud800"}, "headline"),
        ({}, "body"),
        ([], "body"),
        ("x", "body"),
        (None, "body"),
        ({"body": ""}, "body"),
        ({"body": "x", "blocks": [{"type": "paragraph", "html": "x"}]}, "body"),
        ({"body": "<script>alert(1)</script>"}, "body"),
        ({"body": "[x](javascript:alert(1))"}, "body"),
        ({"body": "![x](https://a.example/x.jpg)"}, "body"),
        ({"blocks": [{"type": "paragraph", "html": "<script>alert(1)</script>"}]}, "blocks.0.html"),
        ({"blocks": [{"type": "paragraph", "html": '<b onclick="x">x</b>'}]}, "blocks.0.html"),
        ({"blocks": [{"type": "paragraph", "html": '<a href="javascript:alert(1)">x</a>'}]}, "blocks.0.html"),
        ({"blocks": [{**IMAGE, "src": "javascript:alert(1)"}]}, "blocks.0.src"),
        ({"blocks": [{**IMAGE, "src": "//evil.example/x.jpg"}]}, "blocks.0.src"),
        ({"blocks": [{"type": "embed", "url": "data:text/html,x", "title": "x"}]}, "blocks.0.url"),
        ({"headline": "x", "tags": "x"}, "tags"),
        ({"headline": "x", "published_at": "2023-07-11T15:53:00"}, "published_at"),
        ({"headline": "x", "flags": {"pinned": "yes"}}, "flags.pinned"),
    ],
)
def test_an_entry_that_is_not_valid_is_refused_by_field(
    server: Running, stream: str, entry: dict[str, Any], field: str
) -> None:
    (fault,) = problem(server.publish(stream, entry), 422)
    assert fault["field"] == field
    assert_nothing_stored(server, stream)


@pytest.mark.parametrize(
    ("page", "field"),
    [
        ({}, "headline"),
        ({"headline": "x", "titel": "y"}, "titel"),
        ({"headline": "x", "timezone": "Mars/Olympus"}, "timezone"),
        ({"headline": "x", "timezone": "\ud800"}, "timezone"),
        ({"headline": "x", "lang": "xx"}, "lang"),
        ({"headline": "x", "state": "ended"}, "state"),
        ({"headline": "x", "dek": "a\x00b"}, "dek"),
        ({"headline": "x", "previous": [{"label": "y", "url": "javascript:alert(1)"}]}, "previous.0.url"),
        ({"headline": "x", "background": [{"type": "paragraph", "html": "<style>x"}]}, "background.0.html"),
    ],
)
def test_a_page_that_is_not_valid_is_refused_by_field(
    server: Running, stream: str, page: dict[str, Any], field: str
) -> None:
    (fault,) = problem(server.put_page(stream, page), 422)
    assert fault["field"] == field
    assert_nothing_stored(server, stream)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"not json", "body"),
        (b'{"headline": "x"', "body"),
        (b'{"headline": "x",}', "body"),
        (b'{"headline": "x"} {}', "body"),
        (b'{"headline": "\xff"}', "body"),
        (b'{"headline": "\xed\xa0\x80"}', "body"),
        (b' \xef\xbb\xbf{"headline": "x"}', "body"),
        (b'{"headline": NaN}', "body"),
        (b'{"headline": "x", "headline": "y"}', "headline"),
        (b"[" * 60_000, "body"),
        (b'{"headline": ' + b"9" * 5_000 + b"}", "body"),
    ],
    ids=range(12),
)
def test_a_body_that_is_not_json_is_refused(server: Running, stream: str, body: bytes, field: str) -> None:
    (fault,) = problem(server.publish(stream, body), 400)
    assert fault["field"] == field
    assert_nothing_stored(server, stream)


@pytest.mark.parametrize(
    "name",
    [
        "x" * 300,
        "x" * 65,
        "{x}",
        "%7Bx%7D",
        "{p07}:x",
        "a/b",
        "a%2Fb",
        "%2F",
        "..%2F..",
        "A",
        "-a",
        "a_b",
        "a%00",
        "%C3%A9",
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "GET"])
def test_a_name_that_is_not_one_of_a_stream_is_refused(server: Running, name: str, method: str) -> None:
    before = server.http.get("/").text
    path = f"/streams/{name}" if method == "PUT" else f"/streams/{name}/entries"
    body = b"" if method == "GET" else json.dumps({"headline": "x"}).encode()
    (fault,) = problem(server.send(method, path, body), 422)
    assert fault["field"] == "stream"
    assert server.http.get("/").text == before


@pytest.mark.parametrize("id", ["a/b", "a%2Fb", "a/b/c", "-a/b", "a b/c", "entries/x/entries/y"])
@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_an_id_with_a_slash_is_refused_as_an_id(server: Running, stream: str, id: str, method: str) -> None:
    (fault,) = problem(server.send(method, f"/streams/{stream}/entries/{id}", ENTRY), 422)
    assert fault["field"] == "id"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "%2fentries%2F{id}"),
        ("DELETE", "/entries%2F{id}"),
        ("PATCH", "%2Fentries/{id}"),
        ("GET", "%2Fentries%2F{id}"),
        ("GET", "%2Fexport"),
        ("GET", "%2F"),
    ],
)
def test_an_encoded_slash_leads_to_no_other_address(server: Running, stream: str, method: str, path: str) -> None:
    """A deletion of the stream `a/entries/b` must not withdraw the entry b of the stream a."""
    id = server.publish_ok(stream, "One")["id"]
    before = server.snapshot(stream)
    address = f"/streams/{stream}{path.format(id=id)}"
    (fault,) = problem(server.send(method, address, b"" if method == "GET" else ENTRY), 422)
    assert fault["field"] == "stream"
    assert server.snapshot(stream)["cursor"] == before["cursor"]


def test_there_is_no_entry_whose_id_has_a_slash(server: Running, stream: str) -> None:
    server.publish_ok(stream, "One")
    answer = server.http.get(f"/streams/{stream}/entries/a/b")
    assert (answer.status_code, answer.json()["detail"]) == (404, f"There is no entry a/b in stream {stream}.")


@pytest.mark.parametrize("name", [b"{x}", b"a/b", b"a%2Fb", b"a//b", b"a%FF", b"a%C3%A9"])
def test_a_name_is_refused_as_it_comes_on_the_wire_too(server: Running, name: bytes) -> None:
    body = b'{"headline": "x"}'
    request = b"POST /streams/%s/entries HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n" % (
        name,
        server.key.encode(),
    )
    request += b"Content-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    status, headers, answer = raw(server, request + body)
    assert (status, headers["content-type"]) == (422, "application/problem+json")
    assert json.loads(answer)["errors"][0]["field"] == "stream"


def test_a_body_over_the_limit_is_refused_by_its_length(server: Running, stream: str) -> None:
    (fault,) = problem(server.publish(stream, json.dumps({"headline": "x" * 65_536}).encode()), 413)
    assert fault["field"] == "body"
    assert "65536" in fault["expected"]
    assert_nothing_stored(server, stream)


def test_a_body_over_the_limit_is_refused_without_its_length_too(server: Running, stream: str) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"headline": "'
        for _ in range(70):
            yield b"x" * 1_000
        yield b'"}'

    headers = {"Authorization": f"Bearer {server.key}", "Content-Type": "application/json"}
    response = server.http.post(f"/streams/{stream}/entries", content=chunks(), headers=headers)
    assert "content-length" not in response.request.headers
    (fault,) = problem(response, 413)
    assert fault["field"] == "body"
    assert_nothing_stored(server, stream)


def test_a_body_in_chunks_is_taken(server: Running, stream: str) -> None:
    headers = {"Authorization": f"Bearer {server.key}", "Content-Type": "application/json"}
    chunks = iter([b'{"head', b'line": "x', b'"}'])
    assert server.http.post(f"/streams/{stream}/entries", content=chunks, headers=headers).status_code == 201


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "application/jsonp", "json", ""]
)
def test_another_content_type_is_refused(server: Running, stream: str, kind: str) -> None:
    (fault,) = problem(server.publish(stream, ENTRY, Content_Type=kind), 415)
    assert fault["field"] == "Content-Type"
    assert "application/json" in fault["expected"]
    assert_nothing_stored(server, stream)


def test_no_content_type_is_refused(server: Running, stream: str) -> None:
    headers = {"Authorization": f"Bearer {server.key}"}
    response = server.http.post(f"/streams/{stream}/entries", content=b'{"headline": "x"}', headers=headers)
    assert "content-type" not in response.request.headers
    (fault,) = problem(response, 415)
    assert (fault["field"], fault["got"]) == ("Content-Type", "none")
    assert_nothing_stored(server, stream)


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer wrong",
        "Bearer {key}x",
        "Bearer x{key}",
        "Bearer {key} {key}",
        "Basic {key}",
        "Token {key}",
        "{key}",
        "Bearer pk_\xe9",
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_without_the_key_nothing_is_published(server: Running, stream: str, method: str, authorization: str) -> None:
    path = f"/streams/{stream}/entries" if method == "POST" else f"/streams/{stream}"
    headers: list[tuple[bytes, bytes]] = [
        (b"Content-Type", b"application/json"),
        (b"Authorization", authorization.format(key=server.key).encode("latin-1")),
    ]
    response = server.http.request(method, path, content=b'{"headline": "x"}', headers=headers)
    (fault,) = problem(response, 401)
    assert fault["field"] == "Authorization"
    is_bearer = authorization.lower().startswith("bearer")
    assert is_bearer or fault["got"] == ("a header that does not begin with Bearer" if authorization else "no key")
    assert server.key not in response.text
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert_nothing_stored(server, stream)


def test_without_any_key_nothing_is_published(server: Running, stream: str) -> None:
    response = server.http.post(f"/streams/{stream}/entries", json=ENTRY)
    assert "authorization" not in response.request.headers
    (fault,) = problem(response, 401)
    assert fault["got"] == "no key"
    assert_nothing_stored(server, stream)


@pytest.mark.parametrize("authorization", [None, "Bearer wrong"])
def test_a_wrong_key_is_refused_before_the_body_is_read(
    server: Running, stream: str, authorization: str | None
) -> None:
    request = f"POST /streams/{stream}/entries HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    if authorization:
        request += f"Authorization: {authorization}\r\n"
    # The body never comes: who waits for it does not answer.
    status, headers, _ = raw(server, f"{request}Content-Length: 60000\r\n\r\n".encode())
    assert status == 401
    assert headers["content-type"] == "application/problem+json"


def test_a_length_over_the_limit_is_refused_before_the_body_is_read(server: Running, stream: str) -> None:
    request = f"POST /streams/{stream}/entries HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    request += f"Authorization: Bearer {server.key}\r\nContent-Length: 1000000000\r\n\r\n"
    status, headers, _ = raw(server, request.encode())
    assert (status, headers["content-type"]) == (413, "application/problem+json")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/streams/{}/entries", {"GET", "POST"}),
        ("PUT", "/streams/{}/entries", {"GET", "POST"}),
        ("PATCH", "/streams/{}/entries", {"GET", "POST"}),
        ("POST", "/streams/{}", {"GET", "PUT", "PATCH", "DELETE"}),
        ("DELETE", "/streams", {"GET"}),
        ("POST", "/", {"GET"}),
        ("POST", "/streams/{}/ws", {"GET"}),
        ("POST", "/static/page.js", {"GET"}),
        ("PUT", "/streams/{}/feed.atom", {"GET"}),
        ("POST", "/streams/{}/feed.json", {"GET"}),
        ("GET", "/streams/{}/end", {"POST"}),
        ("POST", "/streams/{}/entries/x/delivery", {"GET"}),
        ("POST", "/livez", {"GET", "OPTIONS"}),
        ("POST", "/readyz", {"GET", "OPTIONS"}),
    ],
)
def test_a_method_that_is_not_there_is_refused_with_those_that_are(
    server: Running, stream: str, method: str, path: str, allowed: set[str]
) -> None:
    response = server.send(method, path.format(stream), b"" if method == "GET" else {"headline": "x"})
    (fault,) = problem(response, 405)
    assert fault["field"] == "method"
    assert fault["got"] == method
    assert set(re.split(r",\s*", response.headers["allow"])) - {"HEAD"} == allowed
    assert_nothing_stored(server, stream)


@pytest.mark.parametrize("path", ["/nothing", "/stream/x", "/entries", "/favicon.ico"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_address_that_is_not_there_is_not_found(server: Running, method: str, path: str) -> None:
    problem(server.send(method, path, b"" if method == "GET" else {}), 404)


@pytest.mark.parametrize("path", ["/static/nothing.js", "/static/", "/static/%2e%2e/pyproject.toml", "/static/..%2fx"])
def test_a_file_that_is_not_there_is_not_found(server: Running, path: str) -> None:
    problem(server.http.get(path), 404)


@pytest.mark.parametrize("path", ["/streams/{}", "/streams/{}/entries"])
def test_a_stream_that_is_not_there_is_not_found(server: Running, stream: str, path: str) -> None:
    problem(server.http.get(path.format(stream)), 404)


# --- what readers get: the snapshot


def test_the_snapshot_has_the_page_the_newest_entries_and_the_head(server: Running, stream: str) -> None:
    server.put_page(stream, {"headline": "Storm", "timezone": "America/New_York"})
    answers = [server.publish_ok(stream, headline) for headline in ("one", "two", "three")]
    response = server.http.get(f"/streams/{stream}/entries")
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"].startswith("public, max-age=0, s-maxage=1, ")
    snapshot = response.json()
    assert set(snapshot) == {"page", "entries", "cursor", "n", "older"}
    assert (snapshot["n"], snapshot["cursor"], snapshot["older"]) == (4, answers[-1]["cursor"], None)
    assert [entry["headline"] for entry in snapshot["entries"]] == ["three", "two", "one"]
    assert (snapshot["page"]["headline"], snapshot["page"]["timezone"]) == ("Storm", "America/New_York")
    assert snapshot["page"]["updated_at"] == snapshot["entries"][0]["published_at"]
    assert set(snapshot["entries"][0]) == {
        *("id", "rev", "headline", "blocks", "bylines", "tags", "flags", "published_at", "sort_at", "url"),
    }


@pytest.mark.parametrize("path", ["/streams/{}", "/streams/{}/entries"])
def test_what_did_not_change_is_not_sent_again(server: Running, stream: str, path: str) -> None:
    server.publish_ok(stream, "one")
    path = path.format(stream)
    first = server.http.get(path)
    assert server.snapshot(stream)["cursor"] in first.headers["etag"]
    same = server.http.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    assert same.headers["etag"] == first.headers["etag"]
    listed = server.http.get(path, headers={"If-None-Match": f'"other", {first.headers["etag"]}'})
    assert listed.status_code == 304
    server.publish_ok(stream, "two")
    changed = server.http.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert changed.status_code == 200
    assert changed.headers["etag"] != first.headers["etag"]
    assert "two" in changed.text


def test_entries_of_one_instant_come_each_once_in_one_order(server: Running, stream: str) -> None:
    at = "2023-07-11T15:53:00Z"
    ids = [server.publish(stream, {"headline": str(n), "published_at": at}).json()["id"] for n in range(7)]
    whole = [entry["id"] for entry in server.snapshot(stream)["entries"]]
    assert whole == sorted(ids, reverse=True)
    for limit in (1, 2, 3, 6, 7):
        found: list[str] = []
        query = f"?limit={limit}"
        while query:
            slice = server.http.get(f"/streams/{stream}/entries{query}").json()
            assert 1 <= len(slice["entries"]) <= limit
            found += [entry["id"] for entry in slice["entries"]]
            query = slice["older"] and f"{slice['older']}&limit={limit}"
        assert found == whole


def test_paging_goes_on_where_it_was_while_entries_are_added(server: Running, stream: str) -> None:
    for headline in ("one", "two", "three"):
        server.publish_ok(stream, headline)
    newest = server.http.get(f"/streams/{stream}/entries?limit=2").json()
    server.publish_ok(stream, "four")
    older = server.http.get(f"/streams/{stream}/entries{newest['older']}&limit=2").json()
    assert [entry["headline"] for entry in newest["entries"]] == ["three", "two"]
    assert ([entry["headline"] for entry in older["entries"]], older["older"]) == (["one"], None)


def test_entries_are_in_the_order_that_they_are_to_be_sorted_in(server: Running, stream: str) -> None:
    entries: dict[str, dict[str, Any]] = {
        "late": {"published_at": "2023-07-11T15:53:00Z"},
        "pinned": {"published_at": "2020-01-01T00:00:00Z", "flags": {"pinned": True}},
        "early": {"published_at": "2023-07-11T15:52:59.999Z"},
        "moved": {"published_at": "2020-01-01T00:00:00Z", "sort_at": "2023-07-11T15:53:00Z"},
        "old": {"published_at": "1955-07-11T15:53:00Z"},
    }
    for headline, fields in entries.items():
        assert server.publish(stream, {"headline": headline, **fields}).status_code == 201
    headlines = [entry["headline"] for entry in server.snapshot(stream)["entries"]]
    assert headlines == ["pinned", "moved", "late", "early", "old"]
    found: list[str] = []
    query = "?limit=1"
    while query:
        slice = server.http.get(f"/streams/{stream}/entries{query}").json()
        found += [entry["headline"] for entry in slice["entries"]]
        query = slice["older"] and f"{slice['older']}&limit=1"
    assert found == headlines


@pytest.mark.parametrize("limit", ["0", "-1", "101", "x", "1.5", "", "%D9%A1", "9" * 400, "+1", "%201"])
def test_a_bad_limit_is_refused(server: Running, stream: str, limit: str) -> None:
    server.publish_ok(stream, "one")
    (fault,) = problem(server.http.get(f"/streams/{stream}/entries?limit={limit}"), 422)
    assert fault["field"] == "limit"


def test_a_page_has_as_many_entries_as_it_says(serve: Serve, stream: str) -> None:
    server = serve("--page-entries", "3")
    for number in range(5):
        server.publish_ok(stream, str(number))
    page = server.http.get(f"/streams/{stream}?limit=1").text
    assert ('data-limit="3"' in page, page.count("<article")) == (True, 3)


@pytest.mark.parametrize("path", ["/streams/{}", "/streams/{}/entries"])
@pytest.mark.parametrize(
    ("query", "field"),
    [
        *((f"before={before}", "before") for before in ("x", "", "1", ".", "1.", ".a", "1.%7B", "9" * 17 + ".a")),
        ("before=1." + "a" * 65, "before"),
        ("before=1.5.a", "before"),
        ("before=%00", "before"),
    ],
)
def test_a_bad_slice_is_refused(server: Running, stream: str, path: str, query: str, field: str) -> None:
    server.publish_ok(stream, "one")
    (fault,) = problem(server.http.get(f"{path.format(stream)}?{query}"), 422)
    assert fault["field"] == field


def test_a_slice_before_everything_is_empty(server: Running, stream: str) -> None:
    server.publish_ok(stream, "one")
    slice = server.http.get(f"/streams/{stream}/entries?before=-9999999999999.a").json()
    assert (slice["entries"], slice["older"]) == ([], None)


# --- what readers get: the page


def test_the_page_is_html_with_every_entry_and_its_cursor(server: Running, stream: str) -> None:
    server.put_page(stream, {"headline": "Storm & tide", "lang": "en-US", "timezone": "America/New_York"})
    answer = server.publish(stream, {"headline": "Smith & Sons", "published_at": "2023-07-11T15:53:00Z"}).json()
    response = server.http.get(f"/streams/{stream}")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert f'data-cursor="{answer["cursor"]}"' in response.text
    assert f'id="e-{answer["id"]}"' in response.text
    assert '<h1 dir="auto">Storm &amp; tide</h1>' in response.text
    assert "Smith &amp; Sons" in response.text
    assert "Jul 11, 2023, 11:53 AM EDT" in response.text


def test_the_page_lets_nothing_run_that_is_not_the_servers_own(server: Running, stream: str) -> None:
    server.publish_ok(stream, "one")
    headers = server.http.get(f"/streams/{stream}").headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["base-uri"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_the_page_leads_to_older_entries(serve: Serve, stream: str) -> None:
    server = serve("--page-entries", "2")
    for headline in ("one", "two", "three"):
        server.publish_ok(stream, headline)
    html = server.http.get(f"/streams/{stream}").text
    assert html.count("<article") == 2
    found = re.search(r'<p id="older"><a rel="next" href="([^"]+)">', html)
    assert found
    older = server.http.get(f"/streams/{stream}{found[1]}").text
    assert older.count("<article") == 1
    assert 'id="older" hidden' in older
    assert "data-newer" in older
    assert re.search(rf'href="[./]*/streams/{stream}"', older)


def test_the_front_page_lists_the_streams_the_newest_first(server: Running, stream: str) -> None:
    server.put_page(stream, {"headline": "Storm & <tide>"})
    server.publish_ok(f"{stream}-b", "one")
    while server.snapshot(f"{stream}-b")["page"]["updated_at"] <= server.snapshot(stream)["page"]["updated_at"]:
        server.publish_ok(f"{stream}-b", "in the same millisecond")
    response = server.http.get("/")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert re.search(rf'<a href="[./]*/streams/{stream}"[^>]*>Storm &amp; &lt;tide&gt;</a>', response.text)
    assert response.text.index(f"/streams/{stream}-b") < response.text.index(f'/streams/{stream}"')
    assert "default-src 'none'" in response.headers["content-security-policy"]


READY = ("ready", "store", "folder", "publishing", "replicas", "tail", "receipts", "staying", "fast", "room", "files")


def test_the_server_is_alive_and_ready(server: Running) -> None:
    alive, ready = server.http.get("/livez"), server.http.get("/readyz")
    assert (alive.status_code, alive.json()) == (200, {"live": True})
    assert ready.status_code == 200
    assert ready.json() == {**dict.fromkeys(READY, True), "reasons": []}
    assert alive.headers["cache-control"] == ready.headers["cache-control"] == "no-store"
