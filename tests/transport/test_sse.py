"""Server-Sent Events: the same frames, for whoever cannot have a WebSocket."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

import pytest
from starlette.types import Message

from pushserver.live.fanout import Fanout
from pushserver.live.ring import Ring
from pushserver.model import Cursor
from pushserver.stretch import Stretch
from pushserver.transport import asgi
from pushserver.transport.sse import SseReader
from pushserver.wire.codes import Close
from pushserver.wire.frames import Batch, Coding, Format, Notice

from ..support.server import LIMIT, Running, Served
from ..support.worker import Serve


class Sent(NamedTuple):
    """An event as it came: its id, and the frame in it."""

    id: str
    frame: dict[str, Any]


@contextmanager
def listening(server: Served, stream: str, query: str = "", **headers: str) -> Iterator[Iterator[Sent]]:
    with server.http.stream("GET", f"/streams/{stream}/sse?{query}", headers=headers) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"] == "text/event-stream"
        yield events(response.iter_lines())


def events(lines: Iterator[str]) -> Iterator[Sent]:
    """What an EventSource makes of the lines (WHATWG HTML, 9.2.6)."""
    id, data = "", ""
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "id":
            id = value
        elif name == "data":
            data = value
        elif name == "retry":
            assert 1_000 <= int(value) <= 5_000
        else:
            assert not line
            assert data, "a block without data: to many clients an empty event"
            yield Sent(id, json.loads(data))
            id, data = "", ""


def test_without_a_cursor_the_snapshot_comes_first_and_then_what_comes(server: Served, stream: str) -> None:
    first = server.publish_ok(stream, "one\ntwo")
    with listening(server, stream) as frames:
        hello, snapshot = next(frames), next(frames)
        assert (hello.frame["type"], hello.frame["reason"], hello.id) == ("hello", "no_cursor", "")
        assert (snapshot.frame["type"], snapshot.id) == ("snapshot", first["cursor"])
        second = server.publish_ok(stream, "two \u2028 lines")
        came = next(sent for sent in frames if sent.frame["type"] != "head")
        assert (came.id, came.frame["cursor"]) == (second["cursor"],) * 2
        assert came.frame["entry"]["headline"] == "two \u2028 lines"


def test_the_first_block_says_when_to_reconnect_and_is_an_event(server: Served, stream: str) -> None:
    server.publish_ok(stream, "one")
    with server.http.stream("GET", f"/streams/{stream}/sse") as response:
        lines = response.iter_lines()
        assert re.fullmatch("retry: [1-5][0-9]{3}", next(lines))
        assert json.loads(next(lines).removeprefix("data: "))["type"] == "hello"


def test_the_html_format_is_the_same_as_on_the_socket(server: Served, stream: str) -> None:
    server.publish_ok(stream, "One")
    with listening(server, stream, "format=html") as frames:
        next(frames)
        assert "One" in next(frames).frame["parts"]["entries"]


def test_heartbeats_move_nobody(server: Served, stream: str) -> None:
    cursor = server.publish_ok(stream, "one")["cursor"]
    with listening(server, stream, f"cursor={cursor}") as frames:
        head = next(sent for sent in frames if sent.frame["type"] == "head")
        assert (head.id, head.frame["head"]["cursor"]) == ("", cursor)


def test_an_ended_stream_tells_its_end_once_and_then_to_stop(server: Served, stream: str) -> None:
    cursor = server.publish_ok(stream, "one")["cursor"]
    server.send("POST", f"/streams/{stream}/end", {})
    with listening(server, stream, f"cursor={cursor}") as frames:
        ended = next(sent for sent in frames if sent.frame["type"] == "stream.end")
        assert [sent for sent in frames if sent.frame["type"] != "head"] == [], "it goes on after the end"
    response = server.http.get(f"/streams/{stream}/sse", headers={"Last-Event-ID": ended.id})
    assert response.status_code == 204


def test_a_reader_that_takes_nothing_is_cut_off(serve: Serve, stream: str) -> None:
    server = serve("--heartbeat", "1", "--ring-events", "5")
    server.publish_ok(stream, "one")
    host, port = server.url.removeprefix("http://").split(":")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.settimeout(LIMIT)
        connection.connect((host, int(port)))
        connection.sendall(f"GET /streams/{stream}/sse HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert connection.recv(16).startswith(b"HTTP/1.1 200")
        entry = {"body": "\n\n".join(["x" * 19_000] * 2)}
        with listening(server, stream) as frames:
            while True:  # until the healthy one is the only one left
                for _ in range(3):
                    assert server.publish(stream, entry).status_code == 201
                if next(sent for sent in frames if sent.frame["type"] == "head").frame["readers"] == 1:
                    break
        with suppress(ConnectionResetError):
            while connection.recv(65_536):  # what the kernel held for it, and then an end
                pass


def test_a_reader_on_http_1_0_gets_events_and_no_chunk_sizes(server: Served, stream: str) -> None:
    server.publish_ok(stream, "one")
    server.send("POST", f"/streams/{stream}/end", {})
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=LIMIT) as connection:
        connection.sendall(f"GET /streams/{stream}/sse HTTP/1.0\r\n\r\n".encode())
        head, _, body = b"".join(iter(lambda: connection.recv(65_536), b"")).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert [sent.frame["type"] for sent in events(iter(body.decode().splitlines()))][:2] == ["hello", "snapshot"]


def test_readers_are_sent_away_when_the_server_stops(start: Callable[..., Running], stream: str) -> None:
    server = start()
    server.publish_ok(stream, "one")
    with listening(server, stream) as frames:
        next(frames)
        server.process.terminate()
        assert [sent.frame["type"] for sent in frames][-1] == "bye"


@pytest.mark.anyio
async def test_a_connection_that_is_used_for_something_else_is_not_cut_off_any_more() -> None:
    """Where an answer ends and its connection lives on, as behind a proxy."""
    fanout = Fanout(Ring(Cursor("e" * 16, "1-1", "0" * 16), 1, max_events=10, max_bytes=1_000))
    reader = SseReader(Format.JSON, fanout, abort=lambda: None, coding=Coding.EVENT)
    reader.close(Close.RESTART)
    timer = reader._timer
    assert timer is not None
    assert not timer.cancelled()
    reader.release()
    assert timer.cancelled()


@pytest.mark.anyio
async def test_a_reader_who_takes_all_at_once_lets_others_in_between_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel takes many frames without a wait, and each may have to be rendered."""
    monkeypatch.setattr(asgi, "Stretch", partial(Stretch, 0.0))
    order: list[str] = []

    async def transmit(message: Message) -> None:
        order.append("frame")

    fanout = Fanout(Ring(Cursor("e" * 16, "1-1", "0" * 16), 1, max_events=10, max_bytes=1_000))
    reader = SseReader(Format.JSON, fanout, abort=lambda: None, coding=Coding.EVENT)
    reader.transmit = transmit
    reader.write(Batch([Notice("{}")] * 4, Format.JSON, Coding.EVENT))
    sending = asyncio.create_task(reader.run())
    while order.count("frame") < 4:
        order.append("other")
        await asyncio.sleep(0)
    sending.cancel()
    assert "frame frame" not in " ".join(order)
