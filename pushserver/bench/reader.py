"""The readers of a benchmark, on raw WebSockets, and what they saw.

A reader has no task, no queue and no parser: what a thousand readers are sent alike is parsed once. Each entry carries
a mark in its text, its number and the instant when it was due, on this machine's monotonic clock; so whoever publishes
late makes it late, and every reader knows which entries it has had.
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

TICK_NS = 100_000  # lateness is counted in tenths of a millisecond
MARK = re.compile(rb"mark-(\d{6})-(\d{18})-")
MEMO_CHUNKS, MEMO_BYTES = 512, 65_536  # what is remembered of what was parsed
HEAD_LIMIT = 65_536  # bytes of the answer to a handshake
CLOSE, PING, PONG = 8, 9, 10  # opcodes of RFC 6455, 5.2


class Away(Exception):
    """The server is not reached, or has gone."""


class Target(NamedTuple):
    """Where readers connect to: `address` is `host` as it was looked up, `path` has a place for the `{group}`.

    `hello` is sent after the handshake. A reader is ready when `ready` has come, or at once where that is empty.
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
        """A browser's handshake, for its size and its headers."""
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
        """Open a connection. Raises Away."""
        secure: dict[str, Any] = {"ssl": _secure(), "server_hostname": self.host} if self.tls else {}
        try:
            await asyncio.get_running_loop().create_connection(lambda: protocol, self.address, self.port, **secure)
        except OSError as error:
            raise Away(f"expected a server at {self.host}:{self.port}, got: {error}") from None


@functools.cache
def _secure() -> ssl.SSLContext:
    return ssl.create_default_context()


def mark(number: int, due: int) -> str:
    """What an entry's text has in it, of one length: its number, below a million, and when it was due, in ns."""
    return f"mark-{number:06d}-{due:018d}-"


class Chunk(NamedTuple):
    """What some bytes of a connection hold: the entries, as bits by their numbers, and when each was due."""

    numbers: int
    due: tuple[int, ...]
    rest: bytes  # of a frame that is not whole yet
    pings: tuple[bytes, ...]
    close: int  # the code, or 0


def parse(data: bytes) -> Chunk:
    """Read the frames of a server (RFC 6455, 5.2: not masked)."""
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
            for found in MARK.finditer(data, begin, at):
                numbers |= 1 << int(found[1])
                due.append(int(found[2]))
    return Chunk(numbers, tuple(due), data[at:], tuple(pings), close)


def masked(opcode: int, payload: bytes) -> bytes:
    """A client's short frame; its mask is 0, which leaves the bytes as they are."""
    return bytes([128 | opcode, 128 | len(payload), 0, 0, 0, 0]) + payload


class Seen:
    """What the readers of one process have had."""

    def __init__(self) -> None:
        self.deliveries = 0
        self.twice = 0
        self.lost: Counter[str] = Counter()  # readers that went away, by why
        self.last = 0  # when the last delivery came, in ns
        self.late: Counter[int] = Counter()  # deliveries, by how many ticks they came after they were due
        self._memo: dict[bytes, Chunk] = {}

    def parsed(self, data: bytes) -> Chunk:
        chunk = self._memo.get(data)
        if chunk is None:
            chunk = parse(data)
            if len(data) <= MEMO_BYTES:
                if len(self._memo) == MEMO_CHUNKS:
                    self._memo.clear()
                self._memo[data] = chunk
        return chunk

    def note(self, before: int, chunk: Chunk) -> int:
        """Count a reader's entries; `before` are those it had, and what it has now is given back."""
        self.last = now = time.monotonic_ns()
        for due in chunk.due:
            self.late[(now - due) // TICK_NS] += 1
        self.deliveries += len(chunk.due)
        self.twice += len(chunk.due) - (chunk.numbers & ~before).bit_count()
        return before | chunk.numbers


class Socket(asyncio.Protocol):
    """One reader: its handshake, then whatever comes. `ready` is told once: None, or the answer that was no welcome."""

    __slots__ = ("_rest", "_seen", "_target", "_transport", "_waits", "group", "numbers", "ready")

    _transport: asyncio.Transport

    def __init__(self, target: Target, group: int, seen: Seen, ready: Callable[[bytes | None], None]) -> None:
        self._target = target
        self._seen = seen
        self._rest = b""
        self._waits: bytes | None = b"\r\n\r\n"  # what has to come before it is a reader
        self.group = group
        self.numbers = 0
        self.ready = ready

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._target.request(self.group))

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        if self._waits is not None:
            self._answered(data)
            return
        chunk = self._seen.parsed(data)
        self._rest = chunk.rest
        if chunk.due:
            self.numbers = self._seen.note(self.numbers, chunk)
        for ping in chunk.pings:
            self._transport.write(masked(PONG, ping))
        if chunk.close:
            self._lose(f"close code {chunk.close}")

    def _answered(self, data: bytes) -> None:
        """Look for the end of the handshake, then for what makes the reader ready; of that, nothing is taken away."""
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
            if self._target.hello:
                self._transport.write(masked(1, self._target.hello.encode()))
            self._waits, self._rest = self._target.ready.encode(), data
        if (self._waits or b"") in data:
            self._waits, self._rest = None, b""
            self.ready(None)
            if data:
                self.data_received(data)

    def eof_received(self) -> None:
        self._lose("end of the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waits is not None:
            self.ready(b"")
        elif exc is not None:
            self._lose(str(exc))

    def _lose(self, why: str) -> None:
        self._seen.lost[why] += 1
        self._transport.abort()

    def leave(self) -> None:
        self._transport.abort()
