"""The readers of a benchmark use raw WebSockets and count what arrives.

A reader has no task and no queue, and bytes that many readers receive alike are parsed once. The text of each entry has
a stamp: its number and its due time on this machine's monotonic clock. So an entry that is published late counts as
late, and every reader knows which entries it has received.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import os
import re
import ssl
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

TICK_NS = 100_000  # a tick, the unit in which lateness is counted: a tenth of a millisecond
STAMP = re.compile(rb"stamp-(\d{6})-(\d{18})-")
MEMO_CHUNKS, MEMO_BYTES = 512, 65_536  # chunks that are remembered with their results, and the largest of them
HEAD_LIMIT = 65_536  # bytes of the answer to a handshake
CLOSE, PING, PONG = 8, 9, 10  # opcodes of RFC 6455, 5.2


class ServerUnavailable(Exception):
    """The server cannot be reached, or closed a connection."""


class Endpoint(NamedTuple):
    """Endpoint is where readers connect: `address` is the IP address of `host`, `path` has a place for the `{group}`.

    A reader sends `hello` after the handshake. It is ready when it has received `ready`, or at once where that is ''.
    """

    host: str
    port: int
    path: str
    address: str
    tls: bool = False
    headers: tuple[str, ...] = ()
    hello: str = ""
    ready: str = ""

    def request(self, group: int) -> bytes:
        """Return the bytes of a handshake, with the headers that a browser sends."""
        lines = [
            f"GET {self.path.format(group=group)} HTTP/1.1",
            f"Host: {self.host}:{self.port}",
            "Connection: Upgrade",
            "Pragma: no-cache",
            "Cache-Control: no-cache",
            "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0 (pushserver bench)",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Accept-Encoding: gzip, deflate, br, zstd",
            "Accept-Language: en-GB,en;q=0.9",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            *self.headers,
        ]
        return "\r\n".join([*lines, "", ""]).encode()

    async def connect(self, protocol: asyncio.Protocol) -> None:
        """Open a connection. Raises ServerUnavailable."""
        secure: dict[str, Any] = {"ssl": _secure(), "server_hostname": self.host} if self.tls else {}
        try:
            await asyncio.get_running_loop().create_connection(lambda: protocol, self.address, self.port, **secure)
        except OSError as error:
            raise ServerUnavailable(f"expected a server at {self.host}:{self.port}, got: {error}") from None


@functools.cache
def _secure() -> ssl.SSLContext:
    return ssl.create_default_context()


def stamp(number: int, due: int) -> str:
    """Return the stamp of an entry, always of one length: its number, below a million, and its due time in ns."""
    return f"stamp-{number:06d}-{due:018d}-"


class Chunk(NamedTuple):
    """Chunk is what bytes of a connection contain: `numbers` has a bit for each entry, `due` the due times in ns."""

    numbers: int
    due: tuple[int, ...]
    rest: bytes  # of a frame that is not complete yet
    pings: tuple[bytes, ...]
    close: int  # the close code, or 0


def parse_frames(data: bytes) -> Chunk:
    """Parse a server's frames (RFC 6455, 5.2: without masks)."""
    at, numbers, due, pings, close = 0, 0, [], [], 0
    while len(data) - at >= 2:
        begin, length = at + 2, data[at + 1] & 127
        if length > 125:
            begin += 2 if length == 126 else 8
            length = int.from_bytes(data[at + 2 : begin]) if len(data) >= begin else len(data)
        if begin + length > len(data):
            break
        opcode, at = data[at] & 15, begin + length
        if opcode == PING:
            pings.append(data[begin:at])
        elif opcode == CLOSE:
            close = int.from_bytes(data[begin : begin + 2]) or 1005
        elif opcode != PONG:
            for match in STAMP.finditer(data, begin, at):
                numbers |= 1 << int(match[1])
                due.append(int(match[2]))
    return Chunk(numbers, tuple(due), data[at:], tuple(pings), close)


def client_frame(opcode: int, payload: bytes) -> bytes:
    """Return a client's frame of up to 125 bytes; its mask is 0, which leaves the bytes as they are."""
    return bytes([128 | opcode, 128 | len(payload), 0, 0, 0, 0]) + payload


class DeliveryCounter:
    """DeliveryCounter counts what the readers of one process receive."""

    def __init__(self) -> None:
        self.delivered = 0
        self.duplicates = 0
        self.disconnected: Counter[str] = Counter()  # readers whose connection ended, by the reason
        self.last = 0  # time of the last delivery, in ns of the monotonic clock
        self.late: Counter[int] = Counter()  # deliveries, by the ticks after the due time
        self._memo: dict[bytes, Chunk] = {}

    def parsed(self, data: bytes) -> Chunk:
        """Parse bytes, or return what the same bytes contained before."""
        chunk = self._memo.get(data)
        if chunk is None:
            chunk = parse_frames(data)
            if len(data) <= MEMO_BYTES:
                if len(self._memo) == MEMO_CHUNKS:
                    self._memo.clear()
                self._memo[data] = chunk
        return chunk

    def count(self, before: int, chunk: Chunk) -> int:
        """Count a reader's new entries; `before` has a bit for each entry that it had, the result for each it has."""
        self.last = now = time.monotonic_ns()
        for due in chunk.due:
            self.late[(now - due) // TICK_NS] += 1
        self.delivered += len(chunk.due)
        self.duplicates += len(chunk.due) - (chunk.numbers & ~before).bit_count()
        return before | chunk.numbers


class ReaderConnection(asyncio.Protocol):
    """ReaderConnection is one reader. It calls `ready` once: with None, or with the answer that refused it."""

    __slots__ = ("_counter", "_endpoint", "_rest", "_transport", "_waits", "group", "numbers", "ready")

    _transport: asyncio.Transport

    def __init__(
        self, endpoint: Endpoint, group: int, counter: DeliveryCounter, ready: Callable[[bytes | None], None]
    ) -> None:
        self._endpoint = endpoint
        self._counter = counter
        self._rest = b""
        self._waits: bytes | None = b"\r\n\r\n"  # bytes that must come next before the reader is ready; None: it is
        self.group = group
        self.numbers = 0
        self.ready = ready

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._endpoint.request(self.group))

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        if self._waits is not None:
            self._answered(data)
            return
        chunk = self._counter.parsed(data)
        self._rest = chunk.rest
        if chunk.due:
            self.numbers = self._counter.count(self.numbers, chunk)
        for ping in chunk.pings:
            self._transport.write(client_frame(PONG, ping))
        if chunk.close:
            self._disconnected(f"close code {chunk.close}")

    def _answered(self, data: bytes) -> None:
        """Wait for the end of the handshake, then for `endpoint.ready`, whose bytes are parsed as well."""
        self._rest = data
        if self._waits == b"\r\n\r\n":
            head, end, data = data.partition(self._waits)
            if (end and not head.startswith(b"HTTP/1.1 101")) or len(head) > HEAD_LIMIT:
                self._waits = None
                self._transport.abort()
                self.ready(self._rest)
                return
            if not end:
                return
            if self._endpoint.hello:
                self._transport.write(client_frame(1, self._endpoint.hello.encode()))
            self._waits, self._rest = self._endpoint.ready.encode(), data
        if (self._waits or b"") in data:
            self._waits, self._rest = None, b""
            self.ready(None)
            if data:
                self.data_received(data)

    def eof_received(self) -> None:
        self._disconnected("end of the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waits is not None:
            self.ready(b"")
        elif exc is not None:
            self._disconnected(str(exc))

    def _disconnected(self, reason: str) -> None:
        self._counter.disconnected[reason] += 1
        self._transport.abort()

    def close(self) -> None:
        self._transport.abort()
