"""The middleware sets headers that keep a browser from misreading an answer.

A new kind of answer joins the table.
"""

from __future__ import annotations

import socket

import pytest

from ..support.server import LIMIT, Running, until
from ..support.worker import Serve

ENTRY = "/streams/headers/entries/there"
GONE = "/streams/headers/entries/gone"
UPGRADE = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n".format(
    "AAAAAAAAAAAAAAAAAAAAAA=="
)
KEYED = "Authorization: Bearer {key}\r\n"
TYPED = KEYED + "Content-Type: application/json\r\n"
HTML = "Accept: text/html\r\n"

# request line, headers, status, whether a page answers
ANSWERS = [
    ("GET /", "", 200, True),
    ("GET /streams/headers", "", 200, True),
    ("HEAD /streams/headers", "", 200, True),
    ("GET /streams/headers?before=0.a", "", 200, True),
    (f"GET {ENTRY}", HTML, 200, True),
    (f"GET {GONE}", HTML, 410, True),
    (f"GET {ENTRY}", "", 200, False),
    (f"GET {GONE}", "", 410, False),
    (f"GET {ENTRY}/delivery", KEYED, 200, False),
    ("GET /streams/headers/entries", "", 200, False),
    ("GET /streams/headers/feed.atom", "", 200, False),
    ("GET /streams/headers/feed.json", "", 200, False),
    ("GET /streams/headers/events", "", 200, False),
    ("GET /streams/headers/sse", "", 200, False),
    ("GET /streams/headers/export", KEYED, 200, False),
    ("GET /livez", "", 200, False),
    ("GET /readyz", "", 200, False),
    ("GET /static/page.js", "", 200, False),
    ("HEAD /static/page.css", "", 200, False),
    ("GET /static/icon.svg", "", 200, False),
    ("GET /static/nothing", "", 404, False),
    ("GET /nothing", HTML, 404, True),
    ("GET /streams/nothing", HTML, 404, True),
    ("GET /nothing", "", 404, False),
    ("GET /streams/nothing", "Accept: application/json\r\n", 404, False),
    ("GET /streams/nothing/sse", HTML, 404, False),
    ("GET /streams/headers/", HTML, 308, False),
    ("GET /streams/headers/ws", "", 426, False),
    ("GET /streams/nothing/ws", UPGRADE, 404, False),
    ("GET /streams/headers/ws?format=x", UPGRADE, 422, False),
    ("GET /nothing", UPGRADE, 404, False),
    ("GET /static/page.js", UPGRADE, 404, False),
    ("DELETE /", "", 405, False),
    ("GET /streams/headers?before=x", HTML, 422, True),
    ("POST /streams/headers/entries", TYPED + "Content-Length: 2\r\n", 422, False),
    ("POST /streams/headers/entries", TYPED + "Content-Length: 1\r\n", 400, False),
    ("POST /streams/headers/entries", "Content-Length: 2\r\n", 401, False),
    ("POST /streams/headers/entries", KEYED + "Content-Length: 2\r\n", 415, False),
    ("POST /streams/headers/entries", TYPED + "Content-Length: 99999999\r\n", 413, False),
    ("PATCH /streams/headers/entries/there", TYPED + 'If-Match: "9"\r\nContent-Length: 2\r\n', 412, False),
    ("GET /openapi.json", "", 200, False),
]


@pytest.fixture(scope="module")
def filled(server: Running) -> Running:
    """The server with a stream of one entry and a withdrawal."""
    for path in (ENTRY, GONE):
        assert server.send("PUT", path, {"headline": "One"}).status_code in (200, 201, 410)
    assert server.send("DELETE", GONE, b"").status_code in (200, 410)
    return server


def ask(server: Running, line: str, headers: str) -> tuple[int, list[tuple[str, str]]]:
    """Status and headers as they come on the wire, each as often as it comes."""
    host, port = server.url.removeprefix("http://").split(":")
    method, path = line.split(" ")
    with socket.create_connection((host, int(port)), timeout=LIMIT) as wire:
        close = "" if "Upgrade:" in headers else "Connection: close\r\n"
        headers = headers.replace("{key}", server.key)
        body = "{}" if "Content-Length: 2\r" in headers else "x" if "Content-Length: 1\r" in headers else ""
        wire.sendall(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{close}{headers}\r\n{body}".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            came = wire.recv(65536)
            assert came, f"the answer ends in its head: {head!r}"
            head += came
    first, *lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    pairs = [line.partition(": ") for line in lines]
    return int(first.split()[1]), [(name.lower(), value) for name, _, value in pairs]


@pytest.mark.parametrize(("line", "sent", "status", "is_page"), ANSWERS)
def test_every_answer_is_what_it_says_and_lets_nothing_foreign_run(
    filled: Running, line: str, sent: str, status: int, is_page: bool
) -> None:
    answered, headers = ask(filled, line, sent)
    assert answered == status
    names = [name for name, _ in headers]
    assert "server" not in names
    assert names.count("x-content-type-options") == names.count("content-security-policy") == 1
    assert dict(headers)["x-content-type-options"] == "nosniff"
    policy = dict(headers)["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    if is_page:
        assert dict(headers)["content-type"] == "text/html; charset=utf-8"
        assert "script-src 'self';" in policy
        assert policy.endswith("frame-ancestors 'self'; require-trusted-types-for 'script'; trusted-types pushserver")
    else:
        assert policy == "default-src 'none'; frame-ancestors 'none'"
        assert "text/html" not in dict(headers).get("content-type", "")


@pytest.mark.parametrize("path", ["/streams/headers", "/streams/headers/entries", "/static/page.js"])
def test_an_answer_that_nothing_changed_has_them_too(filled: Running, path: str) -> None:
    etag = dict(ask(filled, f"GET {path}", "")[1])["etag"]
    status, headers = ask(filled, f"GET {path}", f"If-None-Match: {etag}\r\n")
    assert status == 304
    assert dict(headers)["x-content-type-options"] == "nosniff"
    assert ("script-src 'self'" in dict(headers)["content-security-policy"]) is (path == "/streams/headers")


def test_an_unknown_address_and_method_are_named(server: Running) -> None:
    unknown = server.http.get("/nothing")
    assert (unknown.status_code, "/nothing" in unknown.json()["detail"]) == (404, True)
    method = server.http.request("DELETE", "/livez")
    assert (method.status_code, method.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert method.json()["errors"] == [{"field": "method", "expected": "GET, HEAD, OPTIONS", "got": "DELETE"}]


@pytest.mark.parametrize("came", [b"", b'{"headline"'])
@pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson"])
def test_a_publisher_that_goes_in_the_middle_of_its_body_is_one_line_in_the_log(
    serve: Serve, came: bytes, kind: str
) -> None:
    server = serve("--log-level", "info")
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=LIMIT) as wire:
        head = TYPED.replace("{key}", server.key).replace("application/json", kind)
        line = f"POST /streams/headers/entries HTTP/1.1\r\nHost: {host}\r\n{head}Expect: 100-continue\r\n"
        wire.sendall(f"{line}Content-Length: 1000\r\n\r\n".encode() + came)
        assert wire.recv(64).startswith(b"HTTP/1.1 100")  # the server waits for the body
        before = len(server.log.splitlines())
    until(lambda: "disconnected before the end" in server.log)
    assert server.http.get("/livez").status_code == 200
    assert "Traceback" not in server.log
    assert len(server.log.splitlines()) == before + 1
