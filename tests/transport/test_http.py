"""A connection leaves each of its states by itself, holds little, and carries one request after the other."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest

from pushserver.transport.deadline import LIMITS

from ..support.connections import HOST, LARGE, Serving, Wire, serving
from ..support.server import until

SHORT = 0.2  # seconds
UPGRADE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def brief() -> Iterator[Serving]:
    """A server that waits a short time in every state."""
    with serving(LIMITS._replace(idle=SHORT, head=SHORT, body=SHORT, unread=SHORT, close=SHORT)) as server:
        yield server


# --- states and their ends


@pytest.mark.parametrize("after", [b"", b"\r\n", b"\r\n\r\n\r\n", b"GET /short HTTP/1.1\r\n", b"G"])
def test_a_client_that_says_no_more_after_an_answer_is_let_go(brief: Serving, after: bytes) -> None:
    with brief.wire() as wire:
        wire.get("/short")
        assert wire.answer() == (200, b"/short")
        wire.send(after)
        assert wire.rest() == b""


@pytest.mark.parametrize("first", [b"", b"\r\n", b"GET", b"GET /short HTTP/1.1\r\nHost: a.example\r\nX: y"])
def test_a_client_that_does_not_finish_its_first_head_is_cut(brief: Serving, first: bytes) -> None:
    with brief.wire() as wire:
        wire.send(first)
        assert wire.rest() == b""


def test_a_client_that_sends_an_empty_line_again_and_again_is_let_go(brief: Serving) -> None:
    with brief.wire() as wire:
        wire.get("/short")
        wire.answer()
        is_over = threading.Event()
        trickling = threading.Thread(target=trickle, args=(wire, b"\r\n", is_over))
        trickling.start()
        assert wire.rest() == b""
        is_over.set()
        trickling.join()


def trickle(wire: Wire, data: bytes, is_over: threading.Event) -> None:
    """Send the same bytes at short intervals until it is over."""
    while not is_over.wait(SHORT / 4):
        wire.send(data)


@pytest.mark.parametrize("length", [b"Content-Length: 1000\r\n", b"Transfer-Encoding: chunked\r\n"])
@pytest.mark.parametrize("first", [b"", b"1\r\n"])
def test_a_body_that_does_not_come_is_refused(brief: Serving, length: bytes, first: bytes) -> None:
    with brief.wire() as wire:
        wire.send(b"POST /read HTTP/1.1\r\n" + HOST + length + b"\r\n" + first)
        status, body = wire.answer()
        assert (status, json.loads(body)["type"]) == (408, "urn:pushserver:problem:body-late")
        assert wire.rest() == b""
        assert brief.site.gone.is_set()


def test_a_body_that_trickles_is_refused(brief: Serving) -> None:
    with brief.wire() as wire:
        wire.send(b"POST /read HTTP/1.1\r\n" + HOST + b"Content-Length: 1000\r\n\r\n")
        is_over = threading.Event()
        trickling = threading.Thread(target=trickle, args=(wire, b"x", is_over))
        trickling.start()
        assert wire.answer()[0] == 408
        assert wire.rest() == b""
        is_over.set()
        trickling.join()


def test_the_time_of_a_body_begins_when_its_request_has_its_turn(brief: Serving) -> None:
    """And no time runs for a head while its client has to wait."""
    with brief.wire() as wire:
        wire.send(
            b"GET /slow HTTP/1.1\r\n" + HOST + b"\r\nPOST /read HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\n\r\nab"
        )
        with brief.wire() as other:  # it comes after, and is let go after the same time
            assert other.rest() == b""
        brief.site.go_on.set()
        assert wire.answer() == (200, b"slow")
        wire.send(b"cd")
        assert wire.answer() == (200, b"abcd")


def test_a_client_that_takes_nothing_of_an_answer_is_cut(brief: Serving) -> None:
    with brief.wire() as wire:
        wire.get("/large")
        until(lambda: brief.unread.bytes > 0)
        until(lambda: brief.unread.bytes == 0)
        assert len(wire.rest()) < LARGE


def test_a_client_that_pipelines_and_reads_nothing_is_cut(brief: Serving) -> None:
    with brief.wire() as wire:
        asked = len(brief.site.asked)
        wire.send((b"GET /large HTTP/1.1\r\n" + HOST + b"\r\n") * 20_000)
        until(lambda: brief.unread.bytes == 0 and len(brief.site.asked) > asked)
        assert len(wire.rest()) < LARGE
        assert len(brief.site.asked) == asked + 1


# --- pipelining


def test_pipelined_requests_are_answered_in_order_and_few_wait_at_once(server: Serving) -> None:
    server.site.waiting.clear()
    with server.wire() as wire:
        requests = b"".join(b"GET /short/%d HTTP/1.1\r\nHost:\r\n\r\n" % number for number in range(5_000))
        sending = threading.Thread(target=wire.send, args=(requests,))
        sending.start()
        assert [wire.answer()[1] for _ in range(5_000)] == [b"/short/%d" % number for number in range(5_000)]
        sending.join()
    assert max(server.site.waiting) <= 16


def test_pipelined_bodies_are_not_mixed_up(server: Serving) -> None:
    with server.wire() as wire:
        bodies = [b"x" * size for size in (1, 600, 0, 70_000, 3)]
        heads = [b"POST /read HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % len(body) for body in bodies]
        chunked = b"POST /read HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        wire.send(b"".join(map(bytes.__add__, heads, bodies)) + chunked)
        assert [wire.answer()[1] for _ in (*bodies, chunked)] == [*bodies, b"abc"]


def test_what_comes_after_the_last_request_is_not_answered(server: Serving) -> None:
    with server.wire() as wire:
        wire.send(b"GET /short HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        wire.send(b"GET /large HTTP/1.1\r\n" + HOST + b"\r\n")
        assert wire.answer() == (200, b"/short")
        assert wire.rest() == b""


def test_rubbish_behind_a_request_is_refused_after_its_answer(server: Serving) -> None:
    with server.wire() as wire:
        wire.send(b"GET /short HTTP/1.1\r\n" + HOST + b"\r\n\x01\x02\x03")
        assert wire.answer() == (200, b"/short")
        assert wire.answer()[0] == 400
        assert wire.rest() == b""


@pytest.mark.parametrize("padding", [0, 300, 600, 5_000])
def test_a_websocket_does_not_begin_while_an_answer_is_due(server: Serving, padding: int) -> None:
    field = b"X: " + b"y" * padding + b"\r\n"
    with server.wire() as wire:
        wire.send(
            b"GET /short HTTP/1.1\r\n"
            + HOST
            + field
            + b"\r\nGET /socket HTTP/1.1\r\n"
            + HOST
            + UPGRADE
            + field
            + b"\r\n"
        )
        assert wire.answer() == (200, b"/short")
        status, body = wire.answer()
        assert (status, json.loads(body)["errors"][0]["field"]) == (400, "Upgrade")
        assert wire.rest() == b""


def test_a_websocket_begins_after_an_answer_that_was_read(server: Serving) -> None:
    with server.wire() as wire:
        wire.get("/short")
        wire.answer()
        wire.get("/socket", UPGRADE)
        assert wire.answer()[0] == 101
        assert wire.socket.recv(8) == b"accepted"


# --- answers from memory


def test_answers_from_memory_and_of_the_application_come_in_the_order_of_their_requests(server: Serving) -> None:
    paths = ["/ready", "/short", "/later/short", "/ready", "/ready"] * 20
    with server.wire() as wire:
        asked = len(server.site.asked)
        wire.send(b"".join(b"GET %b HTTP/1.1\r\nHost:\r\n\r\n" % path.encode() for path in paths))
        bodies = {"/ready": b"ready", "/short": b"/short", "/later/short": b"later"}
        assert [wire.answer() for _ in paths] == [(200, bodies[path]) for path in paths]
        assert len(server.site.asked) == asked + 40


@pytest.mark.parametrize("fields", [HOST + b"Connection: close\r\n", b""])
def test_an_answer_from_memory_may_be_the_last_one(server: Serving, fields: bytes) -> None:
    version = b"1.1" if fields else b"1.0"
    with server.wire() as wire:
        wire.send(b"GET /ready HTTP/%b\r\n%b\r\n" % (version, fields))
        head, _, body = wire.rest().partition(b"\r\n\r\n")
        assert b"connection: close" in head
        assert body == b"ready"


def test_an_answer_from_memory_has_no_body_for_head_and_nothing_else_is_answered_from_it(server: Serving) -> None:
    with server.wire() as wire:
        wire.send(b"HEAD /ready HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        assert wire.rest().endswith(b"\r\nconnection: close\r\n\r\n")
    with server.wire() as wire:
        wire.send(b"POST /ready HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n\r\nx")
        assert wire.answer()[0] == 500  # the application has no such path


# --- bodies


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("field", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_a_request_that_reads_has_no_body(server: Serving, method: str, field: bytes) -> None:
    with server.wire() as wire:
        wire.send(f"{method} /short HTTP/1.1\r\n".encode() + HOST + field + b"\r\n")
        assert b"400 Bad Request" in wire.rest()


@pytest.mark.parametrize("field", [b"Content-Length: 0\r\n", b"Content-Length: 00\r\n"])
def test_no_bytes_are_no_body(server: Serving, field: bytes) -> None:
    with server.wire() as wire:
        for _ in range(2):
            wire.get("/short", field)
            assert wire.answer() == (200, b"/short")
        wire.get("/socket", UPGRADE + field)
        assert wire.answer()[0] == 101


@pytest.mark.parametrize("field", [b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n0\r\n"])
@pytest.mark.parametrize("upgrade", [UPGRADE, UPGRADE.replace(b"websocket", b"h2c")])
def test_an_upgrade_has_no_body(server: Serving, field: bytes, upgrade: bytes) -> None:
    with server.wire() as wire:
        wire.get("/socket", upgrade + field)
        status, body = wire.answer()
        assert (status, json.loads(body)["errors"][0]["field"]) == (400, "body")
        wire.socket.shutdown(1)
        assert wire.rest() == b""


def test_an_upgrade_of_another_method_has_no_body_either(server: Serving) -> None:
    with server.wire() as wire:
        fields = HOST + UPGRADE.replace(b"websocket", b"h2c") + b"Content-Length: 5\r\n\r\nhello"
        wire.send(b"POST /short HTTP/1.1\r\n" + fields)
        status, body = wire.answer()
        assert (status, json.loads(body)["errors"][0]["field"]) == (400, "body")


def test_an_upgrade_to_something_else_is_answered_without_it(server: Serving) -> None:
    with server.wire() as wire:
        for _ in range(2):
            wire.get("/short", UPGRADE.replace(b"websocket", b"h2c"))
        assert [wire.answer(), wire.answer()] == [(200, b"/short")] * 2


def test_a_body_that_nobody_reads_ends_with_the_answer(brief: Serving) -> None:
    """The answer arrives although the client is still sending; then the connection ends, however much is to come."""
    with brief.wire() as wire:
        wire.send(b"POST /refuse HTTP/1.1\r\n" + HOST + b"Content-Length: 100000000\r\n\r\n" + b"x" * 1_000_000)
        assert wire.answer() == (404, b"no such thing")
        assert wire.rest() == b""


def test_a_body_that_was_announced_is_asked_for_once(server: Serving) -> None:
    with server.wire() as wire:
        wire.send(b"POST /read HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert wire.answer() == (100, b"")
        wire.send(b"abc")
        assert wire.answer() == (200, b"abc")
        wire.send(b"POST /refuse HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert wire.answer()[0] == 404


# --- heads


@pytest.mark.parametrize(
    ("line", "hosts", "status"),
    [
        ("GET /short HTTP/1.1", [], 400),
        ("GET /short HTTP/1.1", ["a.example"], 200),
        ("GET /short HTTP/1.1", ["a.example:8000"], 200),
        ("GET /short HTTP/1.1", ["[::1]:8000"], 200),
        ("GET /short HTTP/1.1", [""], 200),
        ("GET /short HTTP/1.1", ["a.example", "a.example"], 400),
        ("GET /short HTTP/1.1", ["a.example", "b.example"], 400),
        ("GET /short HTTP/1.1", ["a.example, b.example"], 400),
        ("GET /short HTTP/1.1", ["a.example/path"], 400),
        ("GET /short HTTP/1.1", ["user@a.example"], 400),
        ("GET /short HTTP/1.1", ["a.example:port"], 400),
        ("GET http://a.example/short HTTP/1.1", [], 400),
        ("GET /short HTTP/1.0", [], 200),
        ("GET /short HTTP/1.0", ["a.example", "b.example"], 400),
        ("GET /short", [], 505),
        ("GET /short HTTP/0.9", ["a.example"], 505),
        ("GET /short HTTP/2.0", ["a.example"], 505),
        ("GET /short HTTP/3.1", ["a.example"], 400),
        ("hello", [], 400),
    ],
)
def test_a_request_has_a_version_and_a_host(server: Serving, line: str, hosts: list[str], status: int) -> None:
    with server.wire() as wire:
        wire.send("\r\n".join([line, *(f"Host: {host}" for host in hosts), "\r\n"]).encode())
        assert wire.answer()[0] == status
        if status != 200:
            assert wire.rest() == b""


def test_a_websocket_has_a_host_too(server: Serving) -> None:
    with server.wire() as wire:
        wire.send(b"GET /socket HTTP/1.1\r\n" + UPGRADE + b"\r\n")
        assert wire.answer()[0] == 400


def test_a_head_in_single_bytes_is_a_head(server: Serving) -> None:
    with server.wire() as wire:
        for byte in b"POST /read HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\nab":
            wire.send(bytes([byte]))
        assert wire.answer() == (200, b"ab")
