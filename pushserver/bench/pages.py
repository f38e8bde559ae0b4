"""Page loads of a benchmark run in a process of their own: connections that ask for addresses again and again.

The process writes a line when it is ready, reads its orders, writes a line once each path was answered, and loads until
its input ends. Then it writes its figures. Each line is JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import count
from typing import Any, NamedTuple

import httptools
import uvloop

from .reader import Endpoint, ServerUnavailable

TICK = 1e-4  # seconds, to which waits are counted
LINE_LIMIT = 2**20  # bytes of a line between the processes


class Orders(NamedTuple):
    """Orders say what is loaded: `paths` in turn, on so many connections, `rate` a second, 0 for without a pause."""

    endpoint: Endpoint
    paths: Sequence[str]
    connections: int
    rate: float = 0.0
    headers: Sequence[str] = ("Accept-Encoding: gzip",)


class LoadFigures(NamedTuple):
    """LoadFigures are those of all loads: how many, the statuses of their answers, and their waits in ms."""

    loads: int
    seconds: float
    statuses: dict[str, int]
    p50: float
    p99: float
    longest: float


class PageConnection(asyncio.Protocol):
    """PageConnection sends one request at a time and waits for the end of its answer."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._answer: asyncio.Future[int] | None = None
        self.is_last = False  # the server answers no more on this connection

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    async def send(self, request: bytes) -> int:
        """Send a request and return the answer's status. Raises ServerUnavailable."""
        if self._transport is None or self._transport.is_closing():
            raise ServerUnavailable("the server closed a connection of the page loads")
        self._parser, self._answer = httptools.HttpResponseParser(self), asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.is_last = not self._parser.should_keep_alive()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(self._parser.get_status_code())

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ServerUnavailable(f"a page load was not answered: {exc or 'closed'}"))


class PageLoads:
    """PageLoads asks for the pages until it is cancelled, and counts."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self.begun = asyncio.Event()  # each path was answered once
        self._numbers = count()
        self._begun_at = time.monotonic()
        self._waits: Counter[int] = Counter()
        self._statuses: Counter[str] = Counter()
        host = f"{orders.endpoint.host}:{orders.endpoint.port}"
        self._requests = [
            "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {host}", *orders.headers, "", ""]).encode()
            for path in orders.paths
        ]
        self._due = set(range(len(self._requests)))  # that were not answered yet

    async def run(self) -> None:
        """Load on all connections. Raises ServerUnavailable."""
        connections = [PageConnection() for _ in range(self._orders.connections)]
        for connection in connections:
            await self._orders.endpoint.connect(connection)
        self._begun_at = time.monotonic()  # a load that is due while connections are opened would count as late
        async with asyncio.TaskGroup() as tasks:
            for connection in connections:
                tasks.create_task(self._load(connection))

    async def _load(self, connection: PageConnection) -> None:
        for number in self._numbers:
            due = time.monotonic()
            if self._orders.rate:  # a load that cannot begin when it is due is late by that, too
                due = self._begun_at + number / self._orders.rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            place = number % len(self._requests)
            if connection.is_last:  # proxies end a connection after a number of answers
                connection.close()
                connection = PageConnection()
                await self._orders.endpoint.connect(connection)
            status = await connection.send(self._requests[place])
            self._waits[round((time.monotonic() - due) / TICK)] += 1
            self._statuses[str(status)] += 1
            self._due.discard(place)
            if not self._due:
                self.begun.set()

    def figures(self) -> LoadFigures:
        ticks = sorted(self._waits.elements()) or [0]
        p50, p99, longest = (ticks[int(share * (len(ticks) - 1))] * TICK * 1e3 for share in (0.5, 0.99, 1))
        seconds = time.monotonic() - self._begun_at
        return LoadFigures(self._statuses.total(), seconds, dict(self._statuses), p50, p99, longest)


async def _serve() -> None:
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader(LINE_LIMIT)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    _say({"ready": True})
    if not (line := await reader.readline()):
        return
    values = json.loads(line)
    loads = PageLoads(Orders(**{**values, "endpoint": Endpoint(**values["endpoint"])}))
    loading = asyncio.create_task(loads.run())
    for event, name in ((loads.begun.wait(), "begun"), (reader.read(), "ended")):
        waiting = asyncio.create_task(event)
        await asyncio.wait([loading, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        failed = {"error": _reason(loading)} if loading.done() else {}
        _say({name: True, **loads.figures()._asdict(), **failed})
    loading.cancel()
    await asyncio.gather(loading, return_exceptions=True)


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _reason(loading: asyncio.Task[None]) -> str:
    """Return why the loads have ended."""
    error = loading.exception()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)


# --- the benchmark's side


class PageLoader:
    """PageLoader is the process that loads pages, as the benchmark sees it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.pid = process.pid
        self._process = process

    @classmethod
    async def start(cls, *, cpus: set[int] | None = None) -> PageLoader:
        """Start the process, pinned to `cpus`; it loads nothing yet. Raises ServerUnavailable."""
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pushserver.bench.pages"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        if cpus:
            os.sched_setaffinity(child.pid, cpus)
        loader = cls(child)
        await loader._answer()
        return loader

    async def begin(self, orders: Orders) -> None:
        """Load, and wait until each path was answered once. Raises ServerUnavailable."""
        assert self._process.stdin is not None
        self._process.stdin.write(
            json.dumps({**orders._asdict(), "endpoint": orders.endpoint._asdict()}).encode() + b"\n"
        )
        await self._answer()

    async def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        figures: dict[str, Any] = json.loads(line or b'{"error": "the process of the page loads failed"}')
        if "error" in figures:
            raise ServerUnavailable(figures["error"])
        return figures

    async def end(self) -> LoadFigures:
        """End the loads and return their figures. Raises ServerUnavailable."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            figures = await self._answer()
        finally:
            await self.close()
        return LoadFigures(**{name: figures[name] for name in LoadFigures._fields})

    async def close(self) -> None:
        """End the process; a second call changes nothing."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.communicate()


if __name__ == "__main__":
    gc.disable()  # a collection would count as a wait
    uvloop.run(_serve())
