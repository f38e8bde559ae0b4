"""A TCP proxy that treats connections badly, as networks do: holds, delays, cuts, refuses and swallows them."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
CHUNK = 65_536


class Proxy:
    """Between whoever connects to `port` and what `target` opens. Everything passes until it is told otherwise."""

    def __init__(self, target: Callable[[], Awaitable[Streams]]) -> None:
        self.port = 0
        self.connections = 0
        self.cuts = 0
        self._target = target
        self._open = asyncio.Event()
        self._open.set()
        self._delay = 0.0
        self._refuses = False
        self._swallowed: bytes | None = None
        self._chance: tuple[random.Random, float] | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def hold(self) -> None:
        """Let nothing through; connections stay open, and new ones are taken."""
        self._open.clear()

    def refuse(self) -> None:
        """Reset new connections as they come."""
        self._refuses = True

    def release(self) -> None:
        """Let through what was held, and what comes."""
        self._refuses = False
        self._open.set()

    def swallow(self, text: bytes) -> None:
        """Let nothing through any more of a connection that says this, in capitals or not; it stays open."""
        self._swallowed = text.lower()

    def delay(self, seconds: float) -> None:
        """Keep every chunk for so long."""
        self._delay = seconds

    def cut_at_random(self, seed: int, chance: float) -> None:
        """Cut a connection, with this chance at each chunk: before it passes, in its middle, or after it."""
        self._chance = (random.Random(seed), chance)

    def cut(self) -> None:
        """Reset every connection."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    @asynccontextmanager
    async def running(self, port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[Proxy]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            writer.transport.abort()
            return
        self.connections += 1
        self._writers.add(writer)
        try:
            their_reader, their_writer = await self._target()
        except OSError:
            writer.transport.abort()
            self._writers.discard(writer)
            return
        self._writers.add(their_writer)
        both = (writer, their_writer)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass(reader, their_writer, both))
                tasks.create_task(self._pass(their_reader, writer, both))
        finally:
            self._writers.difference_update(both)
            for end in both:
                end.close()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, both: tuple[asyncio.StreamWriter, ...]
    ) -> None:
        with suppress(OSError):  # the other end has gone meanwhile
            while chunk := await reader.read(CHUNK):
                if self._swallowed and self._swallowed in chunk.lower():
                    await _read_all(reader)
                    break
                await asyncio.sleep(self._delay)
                await self._open.wait()
                passed = self._how_much(chunk)
                writer.write(chunk[:passed])
                await writer.drain()
                if passed < len(chunk) or self._is_cut():
                    self.cuts += 1
                    for end in both:
                        end.transport.abort()
                    return
            if writer.can_write_eof():
                writer.write_eof()

    def _how_much(self, chunk: bytes) -> int:
        """How many bytes of a chunk pass before its connection is cut."""
        if self._is_cut():
            assert self._chance is not None
            return self._chance[0].randrange(len(chunk))
        return len(chunk)

    def _is_cut(self) -> bool:
        return self._chance is not None and self._chance[0].random() < self._chance[1]


async def _read_all(reader: asyncio.StreamReader) -> None:
    while await reader.read(CHUNK):
        pass


def to_server(url: str) -> Callable[[], Awaitable[Streams]]:
    """Where a server listens."""
    host, port = url.removeprefix("http://").split(":")
    return lambda: asyncio.open_connection(host, int(port))


def to_socket(path: str) -> Callable[[], Awaitable[Streams]]:
    """Where an embedded store listens."""
    return lambda: asyncio.open_unix_connection(path)
