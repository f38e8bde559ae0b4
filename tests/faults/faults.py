"""What can happen to a server, each as a function of the run that it happens to."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx2
import redis.asyncio as aioredis

from pushserver import model
from pushserver.store.folder import SOCKET

from ..support.server import LIMIT, clients_of
from .disk import filled
from .run import Run

FROZEN = 3.0  # seconds; more than two heartbeats, for which a reader may take nothing
PROBES = 10  # in a row, over a new connection each, that have to agree: there are several workers
LOOKS_LIKE_ONE: dict[Any, Any] = {
    "e": "0" * 16,
    "n": "many",
    "p": "none",
    "u": "0" * 16,
    "t": "entry.put",
    "s": "",
    "k": "x",
    "d": "{}",
}


@asynccontextmanager
async def store_of(run: Run) -> AsyncIterator[aioredis.Redis]:
    async with aioredis.Redis.from_url(f"unix://{run.server.data.absolute() / SOCKET}") as store:
        yield store


def key_of(run: Run, name: str) -> str:
    return f"{{p{model.partition_of(run.stream, 16):02d}}}:{run.stream}:{name}"


def workers(run: Run) -> list[int]:
    return [pid for pid in run.server.children() if pid != run.server.store_pid()]


async def a_worker_is_killed(run: Run) -> None:
    """Its readers come back elsewhere, the other workers' notice nothing, and another takes its place."""
    async with asyncio.timeout(LIMIT):
        while len(run.ports) < 0.8 * len(run.logs):  # the others have left for a while
            await asyncio.sleep(0.05)
    await run.more(10)
    before, broken = workers(run), set(run.broken)
    victim = max(before, key=lambda pid: len(clients_of(pid)))
    os.kill(victim, signal.SIGSTOP)  # so that nobody joins it between the look and the kill
    its = clients_of(victim).keys()
    os.kill(victim, signal.SIGKILL)
    async with asyncio.timeout(LIMIT):
        while len(workers(run)) < len(before) or victim in workers(run) or not run.broken & its:
            await asyncio.sleep(0.05)
    assert run.broken - broken <= its, "readers of other workers were cut off"


async def the_store_is_killed(run: Run) -> None:
    await run.more(10)
    victim = run.server.store_pid()
    os.kill(victim, signal.SIGKILL)
    async with asyncio.timeout(LIMIT):
        while run.server.store_pid() == victim:
            await asyncio.sleep(0.05)
    await run.more(10)


async def the_store_freezes(run: Run) -> None:
    pid = run.server.store_pid()
    await is_silent(run, partial(os.kill, pid, signal.SIGSTOP), partial(os.kill, pid, signal.SIGCONT))


async def is_silent(run: Run, hold: Callable[[], None], release: Callable[[], None]) -> None:
    """The store is there and says nothing: workers are not ready, and alive; readers are told, and stay.

    It is silent until both have been seen: longer than anything is believed without an answer.
    """
    await run.more(10)
    hold()
    try:
        async with asyncio.timeout(LIMIT):
            await _probed(run, 503)
            while len(run.stale) < len(run.logs) / 2:  # others have left, and may be waiting to be let in
                await asyncio.sleep(0.05)
    finally:
        release()
    async with asyncio.timeout(LIMIT):
        await _probed(run, 200)


async def _probed(run: Run, ready: int) -> None:
    """Wait until every probe says so."""
    agreed = 0
    while agreed < PROBES:
        async with httpx2.AsyncClient(base_url=run.server.url, timeout=LIMIT) as http:
            assert (await http.get("/livez")).status_code == 200
            agreed = agreed + 1 if (await http.get("/readyz")).status_code == ready else 0
        await asyncio.sleep(0.05)


async def a_worker_freezes(run: Run) -> None:
    """Longer than its readers may take nothing: they were not asked meanwhile, and are not cut off for it."""
    await run.more(10)
    pid = workers(run)[0]
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(FROZEN)  # this is what happens to it, and may take longer
    finally:
        os.kill(pid, signal.SIGCONT)


async def connections_to_the_store_are_cut(run: Run) -> None:
    async with store_of(run) as store:
        for _ in range(6):
            await run.more(5)
            await store.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")  # type: ignore[no-untyped-call]


async def the_store_loses_its_newest_events(run: Run) -> None:
    """As a failover to a replica that lagged behind does: the log and the state are those of a moment ago."""
    await run.more(20)
    async with store_of(run) as store:
        names = ["log", "entries", "order", "page", "withdrawn", "gone"]
        keys = [key_of(run, name) for name in names]
        idempotency = {key async for key in store.scan_iter(key_of(run, "idem:*"))}
        pipeline = store.pipeline(transaction=True)
        for key in keys:
            pipeline.dump(key)
        dumps = await pipeline.execute()
        await run.more(15)
        async with run.paused():  # what no worker has read cannot be healed
            for key, dump in zip(keys, dumps, strict=True):
                pipeline.delete(key)
                if dump is not None:
                    pipeline.restore(key, 0, dump)
            for key in {key async for key in store.scan_iter(key_of(run, "idem:*"))} - idempotency:
                pipeline.delete(key)
            await pipeline.execute()


async def the_log_is_deleted(run: Run) -> None:
    await run.more(20)
    async with store_of(run) as store:
        await store.delete(key_of(run, "log"))
    await run.more(10)


async def events_of_the_log_are_deleted(run: Run) -> None:
    async with store_of(run) as store:
        for _ in range(5):
            await run.more(5)
            records: Any = await store.xrevrange(key_of(run, "log"), count=4)
            await store.xdel(key_of(run, "log"), records[-1][0], records[0][0])


async def everything_is_flushed(run: Run) -> None:
    await run.more(20)
    async with store_of(run) as store, run.paused():
        run.forget()
        await store.flushall()


async def everything_is_evicted(run: Run) -> None:
    """As a store does that was told to, once it is full. It is refused at start, and unready when it is told later."""
    await run.more(20)
    async with store_of(run) as store, run.paused():
        run.forget()
        await _configured(store, "maxmemory", "1", "maxmemory-policy", "allkeys-lru")
        try:
            while await store.exists(key_of(run, "log"), key_of(run, "entries")):
                await asyncio.sleep(0.01)
        finally:
            await _configured(store, "maxmemory", "0", "maxmemory-policy", "noeviction")


async def _configured(store: aioredis.Redis, *words: str) -> None:
    await store.execute_command("CONFIG", "SET", *words)  # type: ignore[no-untyped-call]


async def the_disk_is_full(run: Run) -> None:
    """Publishing is refused and reading goes on: the store, which syncs each write, would end on one that fails."""
    await run.more(10)
    full = run.server.log.count("disk full")
    with filled(run.server.data):
        async with asyncio.timeout(LIMIT):
            while run.server.log.count("disk full") == full:
                await asyncio.sleep(0.05)
            await _probed(run, 200)


async def the_disk_is_full_for_a_store_that_syncs_later(run: Run) -> None:
    """It stays, and refuses to write (MISCONF); nobody looks at the disk, as with a store of somebody else."""
    await run.more(10)
    refused = run.server.log.count("refused by the store: MISCONF")
    async with store_of(run) as store:
        await _configured(store, "appendfsync", "everysec")
        run.server.process.send_signal(signal.SIGSTOP)
        try:
            with filled(run.server.data):
                async with asyncio.timeout(LIMIT):
                    while run.server.log.count("refused by the store: MISCONF") == refused:
                        await asyncio.sleep(0.05)
        finally:
            run.server.process.send_signal(signal.SIGCONT)
            await _configured(store, "appendfsync", "always")


async def the_store_is_full(run: Run) -> None:
    await run.more(10)
    async with store_of(run) as store:
        await store.config_set("maxmemory", "1")
        try:
            async with asyncio.timeout(LIMIT):
                await _probed(run, 503)
        finally:
            await store.config_set("maxmemory", "0")


async def strange_records_are_in_the_log(run: Run) -> None:
    """Records of something else, some that look like an event, one of 20 MB that does."""
    strange: list[dict[Any, Any]] = [{"what": "x" * 10}, LOOKS_LIKE_ONE, {**LOOKS_LIKE_ONE, "n": "-1"}]
    async with store_of(run) as store:
        for number in range(10):
            await run.more(2)
            await store.xadd(key_of(run, "log"), strange[number % 3])
        await store.xadd(key_of(run, "log"), {**LOOKS_LIKE_ONE, "d": "{" + "x" * 20_000_000})


async def the_log_is_trimmed(run: Run) -> None:
    async with store_of(run) as store:
        for _ in range(10):
            await run.more(3)
            await store.xtrim(key_of(run, "log"), maxlen=1, approximate=False)


FAULTS: list[Callable[[Run], Coroutine[Any, Any, None]]] = [
    a_worker_is_killed,
    the_store_is_killed,
    the_store_freezes,
    a_worker_freezes,
    connections_to_the_store_are_cut,
    the_store_loses_its_newest_events,
    the_log_is_deleted,
    events_of_the_log_are_deleted,
    everything_is_flushed,
    everything_is_evicted,
    the_store_is_full,
    the_disk_is_full,
    the_disk_is_full_for_a_store_that_syncs_later,
    strange_records_are_in_the_log,
    the_log_is_trimmed,
]
