"""Hubs that run in the test's own process, on its log, and readers that record what they receive."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import redis.asyncio as aioredis

from pushserver import model
from pushserver.live.hub import Hub
from pushserver.live.options import HubOptions
from pushserver.live.reader import Reader, ReaderState
from pushserver.model import Cursor
from pushserver.settings import Settings
from pushserver.store.log import Appended, Log
from pushserver.wire.codes import Close
from pushserver.wire.frames import Batch, Format, Notice

from .logs import log_key
from .server import entry_append

LIMIT = 90.0  # seconds after which a test gives up waiting
BEAT = 0.05  # seconds between heartbeats


class RecordingReader(Reader):
    """RecordingReader takes everything, and keeps the frames that it received."""

    def __init__(self, format: Format = Format.JSON) -> None:
        super().__init__(format)
        self.frames: list[dict[str, Any]] = []
        self.code: Close | None = None
        self._more = asyncio.Event()

    def write(self, batch: Batch) -> None:
        assert self.state is ReaderState.OPEN
        self.frames += map(json.loads, batch.texts())
        self._more.set()

    def close(self, code: Close, farewell: Notice | None = None) -> None:
        assert self.state is not ReaderState.CLOSED, "closed twice"
        self.state, self.code = ReaderState.CLOSED, code
        if farewell is not None:
            self.frames.append(json.loads(farewell.body))
        self._more.set()

    def kinds(self) -> list[str]:
        """The types of the frames it received, heartbeats aside."""
        return [frame["type"] for frame in self.frames if frame["type"] != "head"]

    def frames_of(self, kind: str) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if frame["type"] == kind]

    def numbers(self) -> list[int]:
        """The numbers of the events it received."""
        return [frame["n"] for frame in self.frames if "prev" in frame]

    async def until(self, is_true: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT):
            while not is_true():
                self._more.clear()
                await self._more.wait()

    async def until_read(self, n: int) -> None:
        """Wait for event `n`."""
        await self.until(lambda: n in self.numbers())

    async def until_closed(self) -> None:
        await self.until(lambda: self.state is ReaderState.CLOSED)

    async def beats(self, count: int) -> None:
        """Wait for as many heartbeats."""
        had = len(self.frames_of("head"))
        await self.until(lambda: len(self.frames_of("head")) >= had + count)


@asynccontextmanager
async def running(log: Log, **settings: Any) -> AsyncIterator[Hub]:
    """A hub that runs."""
    hub = Hub(log, HubOptions.of(Settings(**{"heartbeat": BEAT, **settings})))
    task = asyncio.create_task(hub.run())
    try:
        yield hub
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=LIMIT)
        assert task.cancelled(), "the hub did not end when it was cancelled, or before"


@asynccontextmanager
async def reading(
    hub: Hub, stream: str, cursor: Cursor | None = None, **options: Any
) -> AsyncIterator[RecordingReader]:
    """A reader that follows a stream, until the end or until it is closed."""
    async with hub.follow(stream) as live:
        reader = RecordingReader(**options)
        await hub.arrivals.join(live, reader, cursor)
        try:
            yield reader
        finally:
            live.fanout.leave(reader)


async def append(log: Log, stream: str, headline: str = "one") -> Appended:
    return await log.append(entry_append(stream, headline))


async def append_and_read(log: Log, stream: str, reader: RecordingReader, n: int) -> Appended:
    """Append event `n`, and let a reader have it before anything else happens."""
    answer = await append(log, stream, str(n))
    await reader.until_read(n)
    return answer


async def delete_log(store_url: str, stream: str) -> None:
    async with aioredis.Redis.from_url(store_url) as store:
        await store.delete(log_key(stream))


async def append_at_once(store_url: str, stream: str, last: Appended, *, events: int, size: int) -> None:
    """Events after the last one, past the log and all of one instant, so that one read carries them all."""
    async with aioredis.Redis.from_url(store_url) as store, store.pipeline(transaction=True) as pipeline:
        prev = last.cursor
        for n in range(last.n + 1, last.n + 1 + events):
            cursor = prev._replace(id=f"{model.now() + 1_000}-{n}", nonce=f"{n:016x}")
            fields: dict[Any, Any] = {"e": cursor.epoch, "n": n, "p": f"{prev.id}.{prev.nonce}", "u": cursor.nonce}
            fields |= {"t": "entry.put", "s": model.instant(0), "d": json.dumps({"at": "x" * size}), "i": "", "k": ""}
            pipeline.xadd(log_key(stream), fields, id=cursor.id)
            prev = cursor
        await pipeline.execute()


async def until_reset(reader: RecordingReader) -> list[dict[str, Any]]:
    """The reset and the snapshot that follows it."""
    await reader.until(lambda: reader.kinds()[-2:] == ["reset", "snapshot"])
    return [frame for frame in reader.frames if frame["type"] in ("reset", "snapshot")][-2:]


async def joined(hub: Hub, stack: AsyncExitStack, stream: str, cursor: Cursor | None) -> RecordingReader:
    return await stack.enter_async_context(reading(hub, stream, cursor))
