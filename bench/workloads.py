"""A workload is what is done to each contender in a round; it returns figures by name.

Each round starts the contender anew and counts what every reader receives. It raises InvalidRound where a reader missed
an entry or received one twice.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from pushserver.bench import usage
from pushserver.bench.measurement import Outcome
from pushserver.bench.publisher import PublisherConnection, PublishRefused, PublishSchedule, answered_error
from pushserver.bench.run import run_schedule
from pushserver.bench.swarm import DeliveryCounts, ReaderPool

from .contenders import Contender, Rig, Running

SETTLED = 1.5  # seconds from the last connect until the memory is measured
LIMIT = 90.0  # seconds of one run
REPLAYED = 100  # entries
POLLED_EVERY = 0.005  # seconds
PROBED_EVERY = 0.2
Figures = dict[str, float | str]


class InvalidRound(Exception):
    """A round does not count; the text says why."""


class Size(NamedTuple):
    """Size is the size of every workload: WHOLE is what docs/performance.md shows, SHORT takes a few minutes."""

    flood_readers: int
    flood_entries: int
    paced_readers: int
    paced_entries: int
    single_entries: int
    idle_readers: tuple[int, int]
    idle_seconds: float
    storm_readers: int
    publish_entries: int
    groups: int
    group_entries: int
    polled_entries: int
    page_seconds: float
    beside_readers: int
    beside_entries: int


WHOLE = Size(1_000, 200, 5_000, 50, 200, (1_000, 10_000), 15.0, 5_000, 5_000, 1_000, 2_000, 10, 3.0, 500, 100)
SHORT = Size(1_000, 60, 2_000, 10, 50, (200, 1_000), 0.0, 1_000, 1_000, 200, 400, 4, 1.0, 200, 30)


class Load(NamedTuple):
    """Load is a running contender with its readers and publishers."""

    running: Running
    readers: ReaderPool
    connections: list[PublisherConnection]
    groups: int

    async def run(self, first: int, entries: int, rate: float = 0.0, publishers: int = 1) -> Outcome:
        """Publish entries from number `first` on, entry `n` to group `n`, `rate` a second. Raises InvalidRound."""
        running = self.running
        for number, connection in enumerate(self.connections):
            if not connection.is_open:  # a server closes a connection that was idle for a while
                self.connections[number] = await running.connect_publisher()
        schedule = PublishSchedule(lambda n: running.publish_path(n % self.groups), running.body, first, entries, rate)
        outcome = await run_schedule(
            self.readers,
            self.connections[:publishers],
            schedule,
            groups=self.groups,
            server=running.processes,
            limit=LIMIT,
        )
        if not outcome.is_complete:
            raise InvalidRound(f"of {outcome.expected} deliveries: {_faults(outcome.counts)}")
        return outcome


@asynccontextmanager
async def loaded(
    contender: Contender, rig: Rig, *, readers: int, groups: int = 1, publishers: int = 1, workers: int = 1
) -> AsyncIterator[Load]:
    """Start a contender with readers, each of which has received a first entry."""
    async with contender.start(rig, groups, workers) as running:
        pool = await ReaderPool.start(running.endpoint, groups=groups, cpus=rig.load_cpus)
        connections = [await running.connect_publisher() for _ in range(publishers)]
        try:
            load = Load(running, pool, connections, groups)
            await pool.open(1)  # broadcaster loses readers that are the first of a group together
            await pool.open(readers - 1)
            await load.run(0, groups, publishers=publishers)
            yield load
        finally:
            for connection in connections:
                connection.close()
            await pool.close()


def _faults(counts: DeliveryCounts) -> str:
    return f"{counts.missing} missing, {counts.duplicates} duplicates, disconnected: {counts.disconnected}"


def figures(outcome: Outcome) -> Figures:
    values = outcome.figures()
    cost = values["server"]
    return {
        "deliveries/s": values["deliveries_per_second"],
        "CPU us/delivery": cost["us_per_delivery"],
        "of it kernel": cost["us_system_per_delivery"],
        "writes/delivery": cost["writes_per_delivery"],
        "store us/entry": values["store"]["us_per_entry"],
        "p50 ms": values["late_ms"]["p50"],
        "p99 ms": values["late_ms"]["p99"],
        "load": values["load"]["share"],
        "limit": values["limit"],
    }


async def flood(contender: Contender, rig: Rig, size: Size) -> Figures:
    async with loaded(contender, rig, readers=size.flood_readers) as load:
        return figures(await load.run(1, max(1, size.flood_entries // contender.slow)))


async def paced(contender: Contender, rig: Rig, size: Size) -> Figures:
    async with loaded(contender, rig, readers=size.paced_readers, publishers=4) as load:
        return figures(await load.run(1, size.paced_entries, 1 / 0.15, publishers=4))


async def single(contender: Contender, rig: Rig, size: Size) -> Figures:
    async with loaded(contender, rig, readers=size.flood_readers, publishers=4) as load:
        return figures(await load.run(1, size.single_entries, 1 / 0.04, publishers=4))


async def groups(contender: Contender, rig: Rig, size: Size) -> Figures:
    async with loaded(contender, rig, readers=10 * size.groups, groups=size.groups, publishers=4) as load:
        return figures(await load.run(size.groups, size.group_entries, 200.0, publishers=4))


async def publish(contender: Contender, rig: Rig, size: Size) -> Figures:
    async with loaded(contender, rig, readers=1, publishers=16) as load:
        values = (await load.run(1, size.publish_entries, publishers=16)).figures()
    return {
        "entries/s": values["entries_per_second"],
        "ack p50 ms": values["acknowledged_ms"]["p50"],
        "ack p99 ms": values["acknowledged_ms"]["p99"],
        "CPU us/entry": values["server"]["us_per_entry"],
        "store us/entry": values["store"]["us_per_entry"],
    }


async def idle(contender: Contender, rig: Rig, size: Size) -> Figures:
    """Measure the cost of idle connections, and the longest wait of a request while many readers are written to."""
    few, many = size.idle_readers
    async with loaded(contender, rig, readers=few) as load:
        pids = load.running.processes.server
        memory, kernel = await _memory(pids)
        quiet = await _idle(pids, few, size.idle_seconds)
        before = usage.measure(pids)
        await load.readers.open(many - few)
        connecting = usage.measure(pids).since(before)
        more_memory, more_kernel = await _memory(pids)
        busy = await _idle(pids, many, size.idle_seconds)
        # The later readers have not received the first entry; only entries from here on are counted.
        block = await _longest_wait(load, size.polled_entries)
    return {
        "KiB/connection": (more_memory - memory) / (many - few),
        "kernel KiB, both ends": (more_kernel - kernel) / (many - few),
        "CPU us/connect": connecting.cpu / (many - few) * 1e6,
        **({f"idle us/s at {few:,}": quiet, f"idle us/s at {many:,}": busy} if size.idle_seconds else {}),
        "longest wait ms": block,
    }


async def _memory(pids: Any) -> tuple[int, int]:
    await asyncio.sleep(SETTLED)
    return usage.memory(pids), usage.kernel_memory()


async def _idle(pids: Any, count: int, seconds: float) -> float:
    """Return the processor time of an idle connection, in us a second."""
    before = usage.measure(pids)
    await asyncio.sleep(seconds)
    return usage.measure(pids).since(before).cpu / count / max(seconds, 1e-9) * 1e6


async def _longest_wait(load: Load, entries: int) -> float:
    """Return the longest time in ms of a `GET /livez`, sent every 5 ms while two entries a second are published."""
    waits: list[float] = []
    connection = await load.running.connect_publisher()

    async def poll() -> None:
        while True:
            begin = time.monotonic()
            await connection.send("GET", "/livez")
            waits.append((time.monotonic() - begin) * 1e3)
            await asyncio.sleep(POLLED_EVERY)

    polling = asyncio.create_task(poll())
    try:
        await load.run(load.groups, entries, 2.0)
    finally:
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)
        connection.close()
    return max(waits)


async def storm(contender: Contender, rig: Rig, size: Size) -> Figures:
    """Connect all readers at once, each with 100 entries to be replayed, while another stream is published to."""
    async with contender.start(rig, 2, 1) as running:
        assert running.replay is not None
        connection = await running.connect_publisher()
        for number in range(REPLAYED):
            await connection.send("POST", running.publish_path(0), running.body(number, time.monotonic_ns()))
        readers = await ReaderPool.start(running.replay, cpus=rig.load_cpus)
        probing = asyncio.create_task(_probe(connection, running))
        try:
            before, begin = usage.measure(running.processes.server), time.monotonic()
            await readers.open(size.storm_readers, at_once=size.storm_readers)
            while readers.delivered < size.storm_readers * REPLAYED and time.monotonic() < begin + LIMIT:
                await asyncio.sleep(0.05)
            used, seconds = usage.measure(running.processes.server).since(before), time.monotonic() - begin
            counts = await readers.end(0, REPLAYED)
            probing.cancel()
            (probes,) = await asyncio.gather(probing, return_exceptions=True)
        finally:
            probing.cancel()
            await readers.close()
            connection.close()
    if counts.missing or counts.duplicates or counts.disconnected:
        raise InvalidRound(_faults(counts))
    if not isinstance(probes, asyncio.CancelledError):
        raise InvalidRound(f"a publish failed during the storm: {probes}")
    return {
        "CPU us/reader": used.cpu / size.storm_readers * 1e6,
        "seconds to all": seconds,
        "put off": counts.deferred,
    }


async def _probe(connection: PublisherConnection, running: Running) -> None:
    """Publish to the second stream five times a second, until cancelled. Raises PublishRefused."""
    while True:
        status, answer = await connection.send("POST", running.publish_path(1), running.body(0, 0))
        if not 200 <= status < 300:
            raise PublishRefused(answered_error(status, answer))
        await asyncio.sleep(PROBED_EVERY)


async def even(contender: Contender, rig: Rig, size: Size) -> Figures:
    """Measure how evenly two workers share the connections: how far the larger share is from half, in % of half."""
    async with loaded(contender, rig, readers=size.flood_readers, workers=2) as load:
        files = sorted(len(os.listdir(f"/proc/{pid}/fd")) for pid in load.running.processes.server)
        workers = files[-2:]
    return {"larger share above half, % of half": abs(workers[1] / sum(workers) - 0.5) * 200}


class Workload(NamedTuple):
    """Workload is one row of the comparison: which contenders take part (None: all) and at most how many rounds."""

    letter: str
    title: str
    do: Callable[[Contender, Rig, Size], Awaitable[Figures]]
    only: tuple[str, ...] | None = None
    without: tuple[str, ...] = ()
    rounds: int = 99


WORKLOADS = [
    Workload("a", "flood", flood),
    Workload("b", "paced", paced, without=("Channels",)),
    Workload("c", "one entry a pass", single, without=("Channels",)),
    Workload("d", "idle", idle, without=("Channels",), rounds=1),
    Workload("e", "storm", storm, only=("pushserver", "nchan")),
    Workload("f", "publish", publish, only=("pushserver",)),
    Workload("g", "many streams", groups),
    Workload("w", "two workers", even, only=("pushserver",)),
]
