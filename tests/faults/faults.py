"""What can happen to a server, each as a function of the run that it happens to."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio as aioredis

from pushserver import model
from pushserver.embedded import SOCKET

from .run import Run

FROZEN = 6.5  # seconds; longer than a command to the store may take


@asynccontextmanager
async def store_of(run: Run) -> AsyncIterator[aioredis.Redis]:
    async with aioredis.Redis.from_url(f"unix://{run.server.data.absolute() / SOCKET}") as store:
        yield store


def key_of(run: Run, name: str) -> str:
    return f"{{p{model.partition_of(run.stream, 16):02d}}}:{run.stream}:{name}"


def workers(run: Run) -> list[int]:
    return [pid for pid in run.server.children() if pid != run.server.store_pid()]


async def a_worker_is_killed(run: Run) -> None:
    await asyncio.sleep(0.5)
    os.kill(workers(run)[0], signal.SIGKILL)
    await asyncio.sleep(1.5)


async def the_store_is_killed(run: Run) -> None:
    await asyncio.sleep(0.5)
    os.kill(run.server.store_pid(), signal.SIGKILL)
    await asyncio.sleep(1.5)


async def the_store_freezes(run: Run) -> None:
    await _frozen(run.server.store_pid(), FROZEN)


async def a_worker_freezes(run: Run) -> None:
    await _frozen(workers(run)[0], 3.0)


async def _frozen(pid: int, seconds: float) -> None:
    await asyncio.sleep(0.5)
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)


async def connections_to_the_store_are_cut(run: Run) -> None:
    async with store_of(run) as store:
        for _ in range(6):
            await asyncio.sleep(0.3)
            await store.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")  # type: ignore[no-untyped-call]


async def the_store_loses_its_newest_events(run: Run) -> None:
    """As a failover to a replica that lagged behind does: the log and the state are those of a moment ago."""
    await asyncio.sleep(1.0)
    async with store_of(run) as store:
        names = ["log", "entries", "order", "page", "withdrawn", "gone"]
        keys = [key_of(run, name) for name in names]
        idempotency = {key async for key in store.scan_iter(key_of(run, "idem:*"))}
        pipeline = store.pipeline(transaction=True)
        for key in keys:
            pipeline.dump(key)
        dumps = await pipeline.execute()
        await asyncio.sleep(0.7)
        async with run.held():  # what no worker has read cannot be healed
            for key, dump in zip(keys, dumps, strict=True):
                pipeline.delete(key)
                if dump is not None:
                    pipeline.restore(key, 0, dump)
            for key in {key async for key in store.scan_iter(key_of(run, "idem:*"))} - idempotency:
                pipeline.delete(key)
            await pipeline.execute()


async def the_log_is_deleted(run: Run) -> None:
    await asyncio.sleep(1.0)
    async with store_of(run) as store:
        await store.delete(key_of(run, "log"))
    await asyncio.sleep(0.5)


async def the_store_is_full(run: Run) -> None:
    await asyncio.sleep(0.5)
    async with store_of(run) as store:
        await store.config_set("maxmemory", "1")
        await asyncio.sleep(1.5)
        await store.config_set("maxmemory", "0")


async def strange_records_are_in_the_log(run: Run) -> None:
    async with store_of(run) as store:
        for number in range(10):
            await asyncio.sleep(0.1)
            await store.xadd(key_of(run, "log"), {"what": "x" * (5_000_000 if number == 5 else 10)})


async def the_log_is_trimmed(run: Run) -> None:
    async with store_of(run) as store:
        for _ in range(10):
            await asyncio.sleep(0.2)
            await store.xtrim(key_of(run, "log"), maxlen=1, approximate=False)


FAULTS: list[Callable[[Run], Coroutine[Any, Any, None]]] = [
    a_worker_is_killed,
    the_store_is_killed,
    the_store_freezes,
    a_worker_freezes,
    connections_to_the_store_are_cut,
    the_store_loses_its_newest_events,
    the_log_is_deleted,
    the_store_is_full,
    strange_records_are_in_the_log,
    the_log_is_trimmed,
]
