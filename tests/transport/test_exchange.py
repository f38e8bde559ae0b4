"""An exchange frames its answer as the request can read it, and a failing application ends the connection."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..support.connections import HOST, Serving, serving


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with serving() as server:
        yield server


def test_an_answer_without_a_length_is_chunked(server: Serving) -> None:
    with server.wire() as wire:
        wire.get("/parts", b"Connection: close\r\n")
        head, _, body = wire.rest().partition(b"\r\n\r\n")
        assert b"transfer-encoding: chunked" in head
        assert body == b"4\r\none \r\n4\r\ntwo \r\n0\r\n\r\n"


@pytest.mark.parametrize("fields", [b"", b"Connection: keep-alive\r\n", HOST])
def test_to_a_client_of_http_1_0_it_ends_with_the_connection(server: Serving, fields: bytes) -> None:
    """RFC 9112, 6.1: to HTTP/1.0 nothing is sent in chunks."""
    with server.wire() as wire:
        wire.send(b"GET /parts HTTP/1.0\r\n" + fields + b"\r\n")
        head, _, body = wire.rest().partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head
        assert b"connection: close" in head
        assert body == b"one two "


def test_head_is_answered_without_a_body(server: Serving) -> None:
    with server.wire() as wire:
        for path, field in (("short", b"content-length: 6"), ("parts", b"HTTP/1.1 200 OK")):
            wire.send(f"HEAD /{path} HTTP/1.1\r\n".encode() + HOST + b"\r\n")
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += wire.socket.recv(1)
            assert field in head
        wire.get("/short")
        assert wire.answer() == (200, b"/short")


@pytest.mark.parametrize("path", ["/fails", "/splits"])
def test_a_failing_application_is_answered_for(server: Serving, path: str) -> None:
    with server.wire() as wire:
        wire.get(path)
        assert wire.answer()[0] == 500
        assert wire.rest() == b""


@pytest.mark.parametrize("path", ["/late", "/longer"])
def test_an_answer_that_fails_half_way_is_cut(server: Serving, path: str) -> None:
    """Its client notices, as fewer bytes come than were announced."""
    with server.wire() as wire:
        wire.get(path)
        assert wire.rest().partition(b"\r\n\r\n")[2] in (b"", b"some")
