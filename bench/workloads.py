"""What is done to each contender, and what is measured: a workload is a function that gives figures, by name.

Every one of them starts the contender anew, counts what every reader had, and raises Invalid where one missed an entry
or had it twice.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from pushserver.bench import usage
from pushserver.bench.publisher import Course, Denied, Poster, said
from pushserver.bench.run import Outcome
from pushserver.bench.run import run as run_trial
from pushserver.bench.swarm import Readers

from .contenders import Contender, Rig, Running

SETTLED = 1.5  # seconds from the last connect to a look at the memory
LIMIT = 90.0  # seconds of one trial
REPLAYED = 100  # entries
POLLED_EVERY = 0.005  # seconds
PROBED_EVERY = 0.2
Figures = dict[str, float | str]


class Invalid(Exception):
    """A round that does not count; says why."""


class Size(NamedTuple):
    """How much of everything: `whole` is what docs/performance.md shows, `short` what a few minutes allow."""

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


WHOLE = Size(1_000, 200, 5_000, 50, 200, (1_000, 10_000), 15.0, 5_000, 5_000, 1_000, 2_000, 10)
SHORT = Size(1_000, 60, 2_000, 10, 50, (200, 1_000), 0.0, 1_000, 1_000, 200, 400, 4)


class Field(NamedTuple):
    """A contender under load: its readers, its publishers, what has been published."""

    running: Running
    readers: Readers
    posters: list[Poster]
    groups: int

    async def run(self, first: int, entries: int, rate: float = 0.0, posters: int = 1) -> Outcome:
        """Publish so many entries, entry `n` to group `n`. Raises Invalid."""
        running = self.running
        for number, poster in enumerate(self.posters):
            if not poster.is_open:  # a server lets go of a connection on which nothing comes
                self.posters[number] = await running.poster()
        course = Course(lambda n: running.publish_path(n % self.groups), running.body, first, entries, rate)
        outcome = await run_trial(
            self.readers, self.posters[:posters], course, groups=self.groups, machine=running.machine, limit=LIMIT
        )
        if not outcome.is_whole:
            seen = outcome.seen
            raise Invalid(f"{seen.missing} of {outcome.expected} missing, {seen.twice} twice, gone: {seen.lost}")
        return outcome


@asynccontextmanager
async def field(
    contender: Contender, rig: Rig, *, readers: int, groups: int = 1, posters: int = 1, workers: int = 1
) -> AsyncIterator[Field]:
    """A contender, with readers who have all had a first entry each."""
    async with contender.start(rig, groups, workers) as running:
        loader = await Readers.start(running.target, groups=groups, cpus=rig.load_cpus)
        publishers = [await running.poster() for _ in range(posters)]
        try:
            made = Field(running, loader, publishers, groups)
            await loader.open(1)  # broadcaster loses those who are the first of a group together
            await loader.open(readers - 1)
            await made.run(0, groups, posters=posters)
            yield made
        finally:
            for poster in publishers:
                poster.close()
            await loader.close()


def figures(outcome: Outcome) -> Figures:
    told = outcome.figures()
    cost = told["server"]
    return {
        "deliveries/s": told["deliveries_per_second"],
        "CPU us/delivery": cost["us_per_delivery"],
        "of it kernel": cost["us_system_per_delivery"],
        "writes/delivery": cost["writes_per_delivery"],
        "store us/entry": told["store"]["us_per_entry"],
        "p50 ms": told["late_ms"]["p50"],
        "p99 ms": told["late_ms"]["p99"],
        "load": told["load"]["share"],
        "limit": told["limit"],
    }


async def flood(contender: Contender, rig: Rig, size: Size) -> Figures:
    async with field(contender, rig, readers=size.flood_readers) as made:
        return figures(await made.run(1, max(1, size.flood_entries // contender.slow)))


async def paced(contender: Contender, rig: Rig, size: Size) -> Figures:
    async with field(contender, rig, readers=size.paced_readers, posters=4) as made:
        return figures(await made.run(1, size.paced_entries, 1 / 0.15, posters=4))


async def single(contender: Contender, rig: Rig, size: Size) -> Figures:
    async with field(contender, rig, readers=size.flood_readers, posters=4) as made:
        return figures(await made.run(1, size.single_entries, 1 / 0.04, posters=4))


async def groups(contender: Contender, rig: Rig, size: Size) -> Figures:
    async with field(contender, rig, readers=10 * size.groups, groups=size.groups, posters=4) as made:
        return figures(await made.run(size.groups, size.group_entries, 200.0, posters=4))


async def publish(contender: Contender, rig: Rig, size: Size) -> Figures:
    async with field(contender, rig, readers=1, posters=16) as made:
        told = (await made.run(1, size.publish_entries, posters=16)).figures()
    return {
        "entries/s": told["entries_per_second"],
        "ack p50 ms": told["acknowledged_ms"]["p50"],
        "ack p99 ms": told["acknowledged_ms"]["p99"],
        "CPU us/entry": told["server"]["us_per_entry"],
        "store us/entry": told["store"]["us_per_entry"],
    }


async def idle(contender: Contender, rig: Rig, size: Size) -> Figures:
    """What connections take that do nothing; and the longest that a request waits while many are written to."""
    few, many = size.idle_readers
    async with field(contender, rig, readers=few) as made:
        pids = made.running.machine.server
        memory, kernel = await _memory(pids)
        quiet = await _idle(pids, few, size.idle_seconds)
        before = usage.usage(pids)
        await made.readers.open(many - few)
        connecting = usage.usage(pids).since(before)
        more_memory, more_kernel = await _memory(pids)
        busy = await _idle(pids, many, size.idle_seconds)
        # The readers that came later had not had the first entry: it is theirs to miss.
        block = await _longest_wait(made, size.polled_entries)
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
    """Processor time of a connection, us a second."""
    before = usage.usage(pids)
    await asyncio.sleep(seconds)
    return usage.usage(pids).since(before).cpu / count / max(seconds, 1e-9) * 1e6


async def _longest_wait(made: Field, entries: int) -> float:
    """The longest that `GET /livez` took, asked every 5 ms while entries are published at two a second; in ms."""
    waits: list[float] = []
    poster = await made.running.poster()

    async def poll() -> None:
        while True:
            begin = time.monotonic()
            await poster.send("GET", "/livez")
            waits.append((time.monotonic() - begin) * 1e3)
            await asyncio.sleep(POLLED_EVERY)

    polling = asyncio.create_task(poll())
    try:
        await made.run(made.groups, entries, 2.0)
    finally:
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)
        poster.close()
    return max(waits)


async def storm(contender: Contender, rig: Rig, size: Size) -> Figures:
    """All connect at once, to a stream of which they miss the newest entries; others publish elsewhere meanwhile."""
    async with contender.start(rig, 2, 1) as running:
        assert running.replay is not None
        poster = await running.poster()
        for number in range(REPLAYED):
            await poster.send("POST", running.publish_path(0), running.body(number, time.monotonic_ns()))
        readers = await Readers.start(running.replay, cpus=rig.load_cpus)
        probing = asyncio.create_task(_probe(poster, running))
        try:
            before, begin = usage.usage(running.machine.server), time.monotonic()
            await readers.open(size.storm_readers, at_once=size.storm_readers)
            while readers.deliveries < size.storm_readers * REPLAYED and time.monotonic() < begin + LIMIT:
                await asyncio.sleep(0.05)
            used, seconds = usage.usage(running.machine.server).since(before), time.monotonic() - begin
            seen = await readers.end(0, REPLAYED)
            probing.cancel()
            (probes,) = await asyncio.gather(probing, return_exceptions=True)
        finally:
            probing.cancel()
            await readers.close()
            poster.close()
    if seen.missing or seen.twice or seen.lost:
        raise Invalid(f"{seen.missing} missing, {seen.twice} twice, gone: {seen.lost}")
    if not isinstance(probes, asyncio.CancelledError):
        raise Invalid(f"a publish failed meanwhile: {probes}")
    return {
        "CPU us/reader": used.cpu / size.storm_readers * 1e6,
        "seconds to all": seconds,
        "put off": seen.put_off,
    }


async def _probe(poster: Poster, running: Running) -> None:
    """Publish now and then to the second stream, until cancelled. Raises Denied."""
    while True:
        status, answer = await poster.send("POST", running.publish_path(1), running.body(0, 0))
        if not 200 <= status < 300:
            raise Denied(said(status, answer))
        await asyncio.sleep(PROBED_EVERY)


async def even(contender: Contender, rig: Rig, size: Size) -> Figures:
    """How evenly two workers share the connections: how far the one that has most is from half, in percent."""
    async with field(contender, rig, readers=size.flood_readers, workers=2) as made:
        files = sorted(len(os.listdir(f"/proc/{pid}/fd")) for pid in made.running.machine.server)
        workers = files[-2:]
    return {"most from half %": abs(workers[1] / sum(workers) - 0.5) * 200}


class Workload(NamedTuple):
    """What is compared, who takes part (all, if None), who does not and why, how often at most."""

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
