"""The script measures in one process what a worker does for the first load after an event: the look, and the making.

    .venv/bin/python -m bench.page_making [EVENTS]

It prints, of a page of 100 different entries and in microseconds of processor time:

    look      a look at the newest event, beside a PING by way of redis-py's pool
    making    all that the first load after an event costs but for HTTP, and its longest stretch on the event loop:
              median and least over EVENTS
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from pathlib import Path
from typing import Any

import uvloop

from pushserver.page import render
from pushserver.page.site import Site
from pushserver.store.embedded import embedded
from pushserver.store.log import Log
from pushserver.store.store import Store
from pushserver.surfaces.cache import SurfaceCache
from pushserver.surfaces.codings import ContentCoding
from pushserver.surfaces.surface import NEWEST, Surface
from tests.support.hubs import running
from tests.support.server import entry_append

from .entries import entries

STREAM, PAGE_ENTRIES = "measured", 100
BEFORE_ALL = "9007199254740991.z"  # a `before` ahead of every entry: the slice has the newest entries
EVENTS = 30
LOOKS = 2_000
QUIET = 0.02  # seconds in which an event comes to the ring, which costs as much without a page load


class Stretches(Coroutine[Any, Any, Any]):
    """Stretches is the coroutine of a task, and notes the processor time of the longest stretch in `longest`."""

    longest = 0.0

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine

    def send(self, value: Any) -> Any:
        begin = time.thread_time()
        try:
            return self._coroutine.send(value)
        finally:
            Stretches.longest = max(Stretches.longest, time.thread_time() - begin)

    def throw(self, *error: Any) -> Any:
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        raise NotImplementedError("a task sends to it")


async def look_cost(log: Log, look: Callable[[], Awaitable[Any]]) -> float:
    """Microseconds of processor time, the least of five rounds."""
    costs = []
    for _ in range(5):
        begin = time.process_time()
        for _ in range(LOOKS // 5):
            await look()
        costs.append((time.process_time() - begin) / (LOOKS // 5) * 1e6)
    return min(costs)


async def making(
    log: Log, cache: SurfaceCache, surface: Surface, coding: ContentCoding, events: int, excerpt: str = ""
) -> str:
    """The cost of the first load after an event, and its longest stretch."""
    await cache.read(STREAM, surface, coding, excerpt)
    costs, longest = [], []
    for entry in entries(events, seed=hash(surface.value) % 1_000):
        await log.append(entry_append(STREAM, **entry))
        await asyncio.sleep(QUIET)
        Stretches.longest, begin = 0.0, time.process_time()
        await cache.read(STREAM, surface, coding, excerpt)
        costs.append((time.process_time() - begin) * 1e6)
        longest.append(Stretches.longest * 1e6)
    whole, stretch = ([statistics.median(column), min(column)] for column in (costs, longest))
    return (
        f"{whole[0]:6,.0f} us, {whole[1]:6,.0f} at least; in stretches of {stretch[0]:,.0f}, {stretch[1]:,.0f} at least"
    )


async def main(events: int) -> None:
    asyncio.get_running_loop().set_task_factory(
        lambda loop, coroutine, **options: asyncio.Task(Stretches(coroutine), loop=loop, **options)
    )
    render.prepare()
    with tempfile.TemporaryDirectory() as folder:
        async with embedded(Path(folder)) as url:
            store = Store(url, partitions=16)
            await store.check()
            log = Log(store, log_events=1_000, entry_limit=500, idempotency=60)
            appended = [await log.append(entry_append(STREAM, **entry)) for entry in entries(PAGE_ENTRIES)]
            node = await store.node(log.key(STREAM, "log"))
            look, ping = await look_cost(log, lambda: log.heads([STREAM])), await look_cost(log, node.redis.ping)
            print(f"look      {look:.0f} us, and {ping:.0f} for a PING by way of the pool")
            options: Any = {"page_entries": PAGE_ENTRIES, "limit_bytes": 2**26, "stale_pages": 300}
            async with running(log, heartbeat=30.0) as hub:
                cache = SurfaceCache(log, hub, site=Site(), version="1", **options)
                excerpts = [(Surface.PAGE, BEFORE_ALL), (Surface.ENTRY, appended[-1].entry_id)]
                for coding in (ContentCoding.GZIP, ContentCoding.BROTLI):
                    for surface, excerpt in [*((surface, "") for surface in NEWEST), *excerpts]:
                        name = "slice" if excerpt == BEFORE_ALL else surface.value
                        figures = await making(log, cache, surface, coding, events, excerpt)
                        print(f"making    {name:9} {coding.value:5} {figures}")
            await store.close()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS))
