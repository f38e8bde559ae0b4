from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket as sockets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from pushserver.live.fanout import Fanout
from pushserver.live.reader import ReaderState
from pushserver.live.ring import Ring
from pushserver.model import Cursor
from pushserver.transport.asgi import CLOSE_LIMIT
from pushserver.transport.socket import SocketReader
from pushserver.wire import frames
from pushserver.wire.codes import Close
from pushserver.wire.frames import Coding, Format

from ..support.server import LIMIT, Running, reader, receive, running

pytestmark = pytest.mark.anyio

# On our server a socket is detached; on any other the ASGI reader sends the same frames.
SERVERS = {"detached": "pushserver", "adapter": "tests.support.granian"}
# What is a server's to limit, and not the application's.
on_our_server = pytest.mark.parametrize("module", ["detached"], indirect=True, scope="module")


@pytest.fixture(scope="module", params=["detached", pytest.param("adapter", marks=pytest.mark.full)])
def module(request: pytest.FixtureRequest) -> str:
    return SERVERS[request.param]


@pytest.fixture(scope="module")
def server(module: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("server") / "data", "--heartbeat", "0.5", module=module) as server:
        yield server


@pytest.fixture
def start(module: str, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    with ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(running(tmp_path / "data", *arguments, module=module))


async def test_without_a_cursor_the_snapshot_comes_first(server: Running, stream: str) -> None:
    server.publish_ok(stream, "one")
    async with reader(server, stream) as socket:
        hello, snapshot = await receive(socket), await receive(socket)
    assert (hello["complete"], hello["reason"], hello["from"]) == (False, "no_cursor", 1)
    assert [entry["headline"] for entry in snapshot["entries"]] == ["one"]
    assert {name: snapshot[name] for name in ("n", "cursor")} == hello["head"]
    assert hello["head"] == {"n": 1, "cursor": server.snapshot(stream)["cursor"]}


async def test_a_cursor_is_answered_with_what_came_after_it(server: Running, stream: str) -> None:
    first = server.publish_ok(stream, "one")
    missed = [server.publish_ok(stream, headline) for headline in ("two", "three")]
    async with reader(server, stream, cursor=first["cursor"]) as socket:
        hello = await receive(socket)
        frames = [await receive(socket) for _ in missed]
        live = server.publish_ok(stream, "four")
        frames.append(await receive(socket, "entry.put"))
    assert (hello["complete"], hello["from"], "reason" in hello) == (True, 1, False)
    assert [frame["n"] for frame in frames] == [2, 3, 4]
    assert [frame["cursor"] for frame in frames] == [answer["cursor"] for answer in (*missed, live)]
    assert [frame["prev"] for frame in frames] == [answer["cursor"] for answer in (first, *missed)]
    assert [frame["entry"]["headline"] for frame in frames] == ["two", "three", "four"]


async def test_the_head_is_a_cursor_after_which_there_is_nothing(server: Running, stream: str) -> None:
    head = server.publish_ok(stream, "one")["cursor"]
    async with reader(server, stream, cursor=head) as socket:
        hello = await receive(socket)
        assert (hello["complete"], hello["from"]) == (True, 1)
        assert (await receive(socket))["type"] == "head"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda cursor: "rubbish", "no_cursor"),
        (lambda cursor: str(cursor._replace(epoch="0" * 16)), "epoch"),
        (lambda cursor: str(cursor._replace(nonce="0" * 16)), "rollback"),
        (lambda cursor: str(cursor._replace(id="99999999999999-0")), "rollback"),
        (lambda cursor: str(cursor._replace(id="1-1")), "trimmed"),
    ],
)
async def test_a_cursor_that_the_log_does_not_hold_gets_the_snapshot(
    server: Running, stream: str, change: Callable[[Cursor], str], reason: str
) -> None:
    cursor = Cursor.parse(server.publish_ok(stream, "one")["cursor"])
    assert cursor is not None
    async with reader(server, stream, cursor=change(cursor)) as socket:
        hello, snapshot = await receive(socket), await receive(socket)
    assert (hello["complete"], hello["reason"], snapshot["type"]) == (False, reason, "snapshot")


async def test_further_back_than_is_replayed_gets_the_snapshot(start: Callable[..., Running], stream: str) -> None:
    server = start("--replay-events", "2", "--ring-events", "1")
    cursors = [server.publish_ok(stream, str(number))["cursor"] for number in range(4)]
    async with reader(server, stream, cursor=cursors[1]) as socket:
        assert (await receive(socket))["complete"] is True
    async with reader(server, stream, cursor=cursors[0]) as socket:
        assert (await receive(socket))["reason"] == "too_far"


async def test_heartbeats_carry_the_head_and_the_readers(server: Running, stream: str) -> None:
    cursor = server.publish_ok(stream, "one")["cursor"]
    async with reader(server, stream, cursor=cursor) as socket:
        head = await receive(socket, "head")
    assert (head["head"], head["readers"]) == ({"n": 1, "cursor": cursor}, 1)


async def test_the_html_format_carries_the_entry_as_the_page_shows_it(server: Running, stream: str) -> None:
    cursor = server.put_page(stream, {"headline": "Page", "timezone": "America/New_York", "lang": "en-US"}).json()[
        "cursor"
    ]
    async with reader(server, stream, cursor=cursor, format="html") as socket:
        await receive(socket, "hello")
        server.publish(stream, {"headline": "A & B", "published_at": "2023-07-11T15:53:00Z"})
        frame = await receive(socket, "entry.put")
    page = server.http.get(f"/streams/{stream}").text
    assert "Jul 11, 2023, 11:53 AM EDT" in frame["html"]
    assert frame["html"] in page
    assert frame["parts"]["updated"] in page
    assert frame["day"]["html"].removesuffix("</ol></section>") in page
    assert set(frame["entry"]) == {"id", "rev", "sort_at"}


async def test_a_reader_has_nothing_to_say(server: Running, stream: str) -> None:
    server.publish_ok(stream, "one")
    async with reader(server, stream) as socket:
        await socket.send("hello?")
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == Close.BAD_MESSAGE


@on_our_server
async def test_a_message_that_is_too_big_is_not_read(server: Running, stream: str) -> None:
    server.publish_ok(stream, "one")
    async with reader(server, stream) as socket:
        await socket.send("x" * 5_000)
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


@pytest.mark.parametrize(
    ("name", "format", "status", "field"),
    [("no-such-stream", "json", 404, None), ("Bad{name}", "json", 422, "stream"), ("x", "xml", 422, "format")],
)
async def test_a_handshake_is_refused_with_a_status(
    server: Running, name: str, format: str, status: int, field: str | None
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with reader(server, name, format=format):
            pass
    assert refused.value.response.status_code == status
    problem = json.loads(refused.value.response.body or b"")
    assert problem["status"] == status
    assert [fault["field"] for fault in problem.get("errors", [])] == ([field] if field else [])


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("{url}", True),
        ("https://news.example", True),
        ("https://news.example.evil.example", False),
        ("http://news.example", False),
        ("https://news.example:444", False),
        ("null", False),
        ("", False),
    ],
)
async def test_only_pages_of_allowed_origins_read(
    origin_server: Running, stream: str, origin: str | None, allowed: bool
) -> None:
    origin_server.publish_ok(stream, "one")
    headers = {} if origin is None else {"Origin": origin.format(url=origin_server.url)}
    if allowed:
        async with reader(origin_server, stream, additional_headers=headers) as socket:
            assert (await receive(socket))["type"] == "hello"
    else:
        with pytest.raises(InvalidStatus) as refused:
            async with reader(origin_server, stream, additional_headers=headers):
                pass
        assert refused.value.response.status_code == 403


@pytest.fixture(scope="module")
def origin_server(module: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    data = tmp_path_factory.mktemp("origins") / "data"
    with running(data, "--origins", "https://news.example", module=module) as server:
        yield server


async def test_a_full_worker_sends_readers_elsewhere(start: Callable[..., Running], stream: str) -> None:
    server = start("--readers", "1")
    server.publish_ok(stream, "one")
    async with reader(server, stream) as socket:
        await receive(socket)
        with pytest.raises(InvalidStatus) as refused:
            async with reader(server, stream):
                pass
    assert refused.value.response.status_code == 503
    assert int(refused.value.response.headers["Retry-After"]) > 0


async def test_readers_who_come_faster_than_a_worker_takes_them_are_told_when_to_come(
    start: Callable[..., Running], stream: str
) -> None:
    server = start("--admit", "1", "--heartbeat", "0.5")
    server.publish_ok(stream, "one")
    async with reader(server, stream) as socket:
        await receive(socket)
        assert 1 <= await put_off(server, stream) <= 30
        for method in ("GET", "HEAD"):
            while True:
                with server.http.stream(method, f"/streams/{stream}/sse") as answer:
                    if "Retry-After" in answer.headers:  # else it came a second after the one before
                        assert answer.status_code == (503 if method == "HEAD" else 200)
                        assert int(answer.headers["Retry-After"]) > 0
                        break
        assert server.publish(stream, {"headline": "two"}).status_code == 201
        while not await comes_in(server, stream):
            await receive(socket, "head")  # a heartbeat later it may be its turn


async def put_off(server: Running, stream: str) -> int:
    """The seconds after which a reader is told to come back; one that comes a second after the others is let in."""
    while True:
        try:
            async with reader(server, stream):
                pass
        except InvalidStatus as refused:
            if refused.response.status_code == 503:
                return int(refused.response.headers["Retry-After"])


async def comes_in(server: Running, stream: str) -> bool:
    with contextlib.suppress(InvalidStatus):
        async with reader(server, stream) as socket:
            return bool(await receive(socket))
    return False


async def test_a_plain_get_is_told_that_this_is_a_websocket(server: Running, stream: str) -> None:
    assert server.http.get(f"/streams/{stream}/ws").status_code == 426


async def read_numbers(socket: ClientConnection, count: int) -> list[int]:
    """The numbers of the next entries."""
    return [(await receive(socket, "entry.put"))["n"] for _ in range(count)]


async def test_500_readers_get_100_entries_in_order_once(start: Callable[..., Running], stream: str) -> None:
    server = start()
    cursor = server.publish_ok(stream, "start")["cursor"]

    async def read() -> list[int]:
        async with reader(server, stream, cursor=cursor) as socket:
            ready.release()
            return await read_numbers(socket, 100)

    ready = asyncio.Semaphore(0)
    reading = [asyncio.create_task(read()) for _ in range(500)]
    for _ in reading:
        await ready.acquire()
    for number in range(100):
        await asyncio.to_thread(server.publish_ok, stream, f"entry {number}")
    assert await asyncio.gather(*reading) == [list(range(2, 102))] * 500


@on_our_server
async def test_a_reader_that_takes_nothing_is_cut_off_and_harms_nobody(
    start: Callable[..., Running], stream: str
) -> None:
    server = start("--heartbeat", "1", "--ring-events", "50")
    cursor = server.publish_ok(stream, "start")["cursor"]
    stalled = sockets.socket()
    stalled.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    host, port = server.url.removeprefix("http://").split(":")
    stalled.connect((host, int(port)))
    stalled.sendall(
        f"GET /streams/{stream}/ws?cursor={cursor} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    body = "word " * 3_900
    async with reader(server, stream, cursor=cursor) as healthy, asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(read_numbers(healthy, 400))
        for number in range(400):
            response = await asyncio.to_thread(server.publish, stream, {"headline": str(number), "body": body})
            assert response.status_code == 201
        assert await reading == list(range(2, 402))
        while (await receive(healthy, "head"))["readers"] > 1:
            pass  # a heartbeat later the stalled one is not among the readers any more
    taken = b""
    with stalled, contextlib.suppress(ConnectionResetError):  # it is cut off with what was not taken
        stalled.settimeout(LIMIT)
        while chunk := stalled.recv(65536):
            taken += chunk
    assert b'"n":2,' in taken
    assert b'"n":401,' not in taken


async def test_a_reader_that_is_told_to_go_and_reads_nothing_is_cut_off(
    start: Callable[..., Running], stream: str
) -> None:
    """The fan-out has removed it: nothing else would visit it again, and it would keep its place for ever."""
    server = start("--readers", "1")
    entry = {"headline": "x", "blocks": [{"type": "paragraph", "html": "x" * 19_000}] * 3}
    for _ in range(100):
        assert server.publish(stream, entry).status_code == 201
    host, port = server.url.removeprefix("http://").split(":")
    with sockets.socket() as stalled:
        stalled.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        stalled.connect((host, int(port)))
        stalled.sendall(
            f"GET /streams/{stream}/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        stalled.settimeout(LIMIT)
        stalled.recv(12)
        stalled.sendall(b"\x81\x82\0\0\0\0hi")
        async with asyncio.timeout(CLOSE_LIMIT + LIMIT):
            while True:
                try:
                    async with reader(server, stream) as socket:
                        assert (await receive(socket))["type"] == "hello"
                        return
                except InvalidStatus:
                    await asyncio.sleep(0.2)


@on_our_server
@pytest.mark.parametrize(
    "head", [b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000, b"GET / HTTP/1.1\r\nX: " + b"y" * 100_000]
)
def test_a_head_without_end_is_cut_off(server: Running, head: bytes) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with sockets.create_connection((host, int(port)), timeout=LIMIT) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(head)
            assert connection.recv(64) == b""
    assert server.http.get("/livez").status_code == 200


# --- one reader by itself


class Listening(asyncio.Protocol):
    """What comes to the other end of a connection."""

    def __init__(self) -> None:
        self.heard = b""

    def data_received(self, data: bytes) -> None:
        self.heard += data


HEAD = Cursor("e" * 16, "1-0", "0" * 16)
LARGE = [frames.Notice(f'"{letter * frames.PIECE}"') for letter in "abcdef"]  # a piece each


@pytest.fixture
async def joined() -> AsyncIterator[tuple[SocketReader, Fanout, asyncio.Transport, Listening]]:
    """A reader of a fanout, in this process, and the other end of its connection."""
    fanout = Fanout(Ring(HEAD, 1, max_events=10, max_bytes=10**6))
    hub, stream = SimpleNamespace(leave=lambda stream, kind: None), SimpleNamespace(fanout=fanout)
    reading = SocketReader(hub, stream, Format.JSON)  # type: ignore[arg-type]
    loop = asyncio.get_running_loop()
    ours, theirs = sockets.socketpair()
    other, listening = await loop.create_connection(Listening, sock=theirs)
    transport, _ = await loop.create_connection(lambda: reading, sock=ours)
    yield reading, fanout, other, listening
    transport.abort()
    other.abort()


async def until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not is_true():
            await asyncio.sleep(0.01)


async def test_a_reader_whose_socket_takes_less_than_it_could_gets_everything(
    joined: tuple[SocketReader, Fanout, asyncio.Transport, Listening], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transport then takes the rest at once, and neither pauses nor resumes."""
    reading, fanout, _, listening = joined
    written, os_write = [], os.write

    def write(file: int, data: bytes) -> int:
        written.append(len(data))
        return os_write(file, data[: len(data) // 2])

    with monkeypatch.context() as patch:
        patch.setattr("pushserver.transport.socket.os.write", write)
        fanout.join(reading, 0, HEAD, LARGE)
        await until(lambda: len(listening.heard) == sum(written))
    assert len(written) == len(LARGE)
    assert reading.state is ReaderState.OPEN


async def test_a_ping_that_comes_while_a_reader_is_behind_is_answered_between_two_frames(
    joined: tuple[SocketReader, Fanout, asyncio.Transport, Listening],
) -> None:
    reading, fanout, other, listening = joined
    other.pause_reading()
    fanout.join(reading, 0, HEAD, LARGE)
    assert reading.state is ReaderState.PAUSED
    other.write(bytes([0x89, 0x82, 0, 0, 0, 0]) + b"hi")
    await until(lambda: not reading._transport.is_reading())
    other.resume_reading()
    pong, whole = b"\x8a\x02hi", [one.encoded(Format.JSON, Coding.MESSAGE) for one in LARGE]
    await until(lambda: len(listening.heard) == sum(map(len, whole)) + len(pong))
    before, _, after = listening.heard.partition(pong)
    assert before + after == b"".join(whole)
    assert before in [b"".join(whole[:count]) for count in range(len(whole))]
    await until(lambda: reading.state is ReaderState.OPEN)
