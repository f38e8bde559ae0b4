"""Readers of a measurement: they come back by their cursors whenever they are disconnected."""

from __future__ import annotations

import asyncio
import random
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

STREAM = "measured"
LIMIT = 120.0  # seconds
AT_ONCE = 100  # handshakes
N = re.compile(rb'"n":(\d+)')
CURSOR = re.compile(rb'"cursor":"([^"]+)"')
RETRY = re.compile(rb'"retry_ms":(\d+)')
GET = (
    "GET /streams/{stream}/ws?cursor={cursor} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class Reader(asyncio.Protocol):
    """Reader follows the stream, and comes back whenever it is disconnected; it sends nothing."""

    def __init__(self, swarm: Swarm) -> None:
        self.port = 0  # its own, on the connection of now
        self.n = 0
        self.cursor = ""
        self.is_live = False
        self.returns = 0
        self.left: Counter[int] = Counter()  # how often it was disconnected in each stage of the case
        self._swarm = swarm
        self._away_since = 0.0
        self._retry = 0.5
        self._data = b""
        self._is_open = False
        self._transport: asyncio.Transport | None = None

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._swarm.is_over:
            async with self._swarm.handshakes:
                try:
                    await loop.create_connection(lambda: self, *self._swarm.address)
                    return
                except OSError as error:
                    self._swarm.failures[type(error).__name__] += 1
            await asyncio.sleep(random.uniform(0, 1))

    def connection_made(self, transport: Any) -> None:
        self._transport, self._data, self._is_open = transport, b"", False
        self.port = transport.get_extra_info("sockname")[1]
        host = "{}:{}".format(*self._swarm.address)
        transport.write(GET.format(stream=STREAM, cursor=self.cursor, host=host).encode())

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._is_open:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return
            self._data = rest
            self._is_open = head.startswith(b"HTTP/1.1 101")
            if not self._is_open:
                self._swarm.failures[head[9:12].decode()] += 1
                assert self._transport is not None
                self._transport.abort()
                return
        while (frame := self._frame()) is not None:
            self._take(*frame)

    def _frame(self) -> tuple[int, bytes] | None:
        data = self._data
        if len(data) < 2:
            return None
        size, start = data[1], 2
        if size >= 126:
            start = 4 if size == 126 else 10
            size = int.from_bytes(data[2:start], "big")
        if len(data) < start + size or len(data) < start:
            return None
        self._data = data[start + size :]
        return data[0] & 15, data[start : start + size]

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == 8:
            assert self._transport is not None
            self._transport.write(b"\x88\x82\0\0\0\0" + payload[:2])
        elif payload.startswith(b'{"type":"bye"'):
            match = RETRY.search(payload)
            assert match
            self._retry = int(match[1]) / 1000
            self._swarm.byes.append(time.monotonic())
        elif payload.startswith(b'{"type":"hello"'):
            if self._away_since:
                self._swarm.away.append(time.monotonic() - self._away_since)
            self.is_live = True
        else:
            self._follow(payload)

    def _follow(self, payload: bytes) -> None:
        n, cursor = N.search(payload), CURSOR.search(payload)
        if not n or not cursor or payload.startswith(b'{"type":"head"'):
            return
        number = int(n[1])
        if payload.startswith(b'{"type":"snapshot"'):
            self._swarm.snapshots += bool(self.n)
        elif self.n and number != self.n + 1:
            self._swarm.wrong += 1
        self.n, self.cursor = number, cursor[1].decode()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.is_live and not self._swarm.is_over:
            self._away_since = time.monotonic()
            self.returns += 1
            self.left[self._swarm.stage] += 1
        self.is_live = False
        delay, self._retry = random.uniform(0, self._retry), 0.5
        if not self._swarm.is_over:
            asyncio.get_running_loop().call_later(delay, self._swarm.start, self)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Swarm:
    """Swarm is the readers of a case, and what they have seen. Whoever measures counts its stages in `stage`."""

    def __init__(self, address: tuple[str, int], count: int) -> None:
        self.address = address
        self.handshakes = asyncio.Semaphore(AT_ONCE)
        self.failures: Counter[str] = Counter()
        self.away: list[float] = []
        self.byes: list[float] = []
        self.wrong = self.snapshots = self.stage = 0
        self.is_over = False
        self.readers = [Reader(self) for _ in range(count)]
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, reader: Reader) -> None:
        if not self.is_over:
            task = asyncio.get_running_loop().create_task(reader.connect())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def open(self) -> None:
        for reader in self.readers:
            self.start(reader)
        await self.all_live()

    async def all_live(self) -> None:
        await until(lambda: all(reader.is_live for reader in self.readers))

    def close(self) -> None:
        self.is_over = True
        for reader in self.readers:
            reader.close()

    def row(self) -> str:
        away = sorted(self.away) or [0.0]
        returns = [reader.returns for reader in self.readers]
        live = f"{statistics.median(away):.2f} / {away[int(0.99 * (len(away) - 1))]:.2f} / {away[-1]:.2f}"
        failed = ", ".join(f"{count} {name}" for name, count in self.failures.items()) or "0"
        return f"{live} | {max(returns)} | {failed} | {self.wrong + self.snapshots}"


async def until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not is_true():
            await asyncio.sleep(0.05)
