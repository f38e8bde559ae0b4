"""`python -m bench.erasure`: what it costs the store to erase a withdrawn text from a log of 10,000 events.

An embedded store has one stream with so many entries of 1,000 characters, and the bytes that an entry takes there are
printed. The oldest is withdrawn and erased; any other would cost as much, since the log is copied whole. Meanwhile
another client pings the store again and again: a ping waits for as long as a step holds the store.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import tempfile
import time
from pathlib import Path
from typing import cast

import redis.asyncio as aioredis

from pushserver import model
from pushserver.access.keys import SERVER
from pushserver.content import changes, schema
from pushserver.model import Idempotency, StoredEntry
from pushserver.store.embedded import embedded
from pushserver.store.erasure import Erasures
from pushserver.store.listing import WEIGHED
from pushserver.store.log import Log
from pushserver.store.store import Store

STREAM = "erasure"
CHARACTERS = 1_000  # of an entry
AT_ONCE = 50  # appends


async def fill(log: Log, events: int) -> StoredEntry:
    """Publish so many entries; the first of them."""
    first: list[StoredEntry] = []

    async def publish(number: int) -> None:
        at = model.now()
        entry_in = schema.EntryIn.model_validate(
            {"headline": f"Entry {number}", "body": f"{number} ".ljust(CHARACTERS, "x")}
        )
        entry = changes.revise_entry(entry_in, stream=STREAM, id=model.new_id(), at=at)
        if number == 0:
            first.append(entry)
        idempotency = Idempotency(secrets.token_hex(16), secrets.token_hex(32), author=SERVER)
        await log.append(changes.put_entry(STREAM, entry, at=at, idempotency=idempotency))

    await publish(0)
    for start in range(1, events, AT_ONCE):
        await asyncio.gather(*(publish(number) for number in range(start, min(start + AT_ONCE, events))))
    return first[0]


async def weigh(redis: aioredis.Redis, log: Log, events: int) -> None:
    """Print what an entry takes in each key of the stream, in bytes of the store's memory."""
    sizes = [(name, await redis.memory_usage(log.key(STREAM, name), samples=0) or 0) for name in WEIGHED]
    keys = [key async for key in redis.scan_iter(log.key(STREAM, "idem:*"), count=1_000)]
    one = await redis.memory_usage(keys[0]) or 0
    each = [(name, size / events) for name, size in sizes if size > events]
    listed = ", ".join(f"{name} {size:.0f}" for name, size in [*each, ("idempotency key", one)])
    print(f"an entry takes {sum(size for _, size in each) + one:.0f} bytes: {listed}")


async def ping(redis: aioredis.Redis, waits: list[float]) -> None:
    """Ask the store for nothing until cancelled, and note how long each answer took, in seconds."""
    while True:
        began = time.perf_counter()
        await redis.ping()
        waits.append(time.perf_counter() - began)
        await asyncio.sleep(0.001)


async def scripts(redis: aioredis.Redis) -> tuple[int, float]:
    """Return how many scripts the store ran, and the milliseconds that they took."""
    stats = await redis.info("commandstats")
    ran = cast(dict[str, float], stats.get("cmdstat_evalsha", {"calls": 0, "usec": 0}))
    return int(ran["calls"]), ran["usec"] / 1_000


async def measure(events: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with embedded(Path(folder)) as url, aioredis.Redis.from_url(url) as redis:
            store = Store(url, partitions=16)
            await store.check()
            log = Log(store, log_events=max(events, 10_000), entry_limit=events + 1, idempotency=60)
            entry = await fill(log, events)
            await weigh(redis, log, events)
            legal = schema.WithdrawalIn(reason="legal")
            await log.append(changes.withdraw_entry(STREAM, entry, legal, at=model.now()))
            await redis.config_resetstat()
            waits: list[float] = []
            pinging = asyncio.create_task(ping(redis, waits))
            began = time.perf_counter()
            erased = await Erasures(log).erase(STREAM, entry["id"])
            took = time.perf_counter() - began
            pinging.cancel()
            calls, milliseconds = await scripts(redis)
            await store.close()
    longest = max(waits) * 1_000
    print(f"{events} events: {calls} steps of {milliseconds / calls:.1f} ms, {milliseconds:.0f} ms of the store's time")
    print(f"another client waited {longest:.1f} ms at most; the answer came after {took:.2f} s; files: {erased.files}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("events", type=int, nargs="?", default=10_000, help="of the log, 10,000 by default")
    asyncio.run(measure(parser.parse_args().events))


if __name__ == "__main__":
    main()
