"""One trial of a server: what is published, what arrives where, and what it costs; and a server of one's own to try.

What a figure means, and how it may mislead, is in docs/performance.md.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from .. import settings
from ..access import keyfile
from . import usage
from .publisher import Course, Poster, publish
from .reader import TICK_NS, Away
from .swarm import Readers, Result

LOOKED_EVERY = 0.05  # seconds
SILENCE = 10.0  # seconds without a delivery, when all is published, after which none is waited for
START_LIMIT, STOP_LIMIT = 30.0, 60.0  # seconds
BUSY = 0.8  # of a processor, from which on a process is what limits
LATE_MS = 50.0  # by which the clocks of readers that keep up are not late
LAST_LINES = 5  # of a server's log, told where it does not start


class Machine(NamedTuple):
    """The processes of a server on this machine, and which of them are its store."""

    server: Sequence[int] = ()
    store: Sequence[int] = ()

    @classmethod
    def of(cls, pid: int) -> Machine:
        pids = usage.tree(pid)
        store = [pid for pid in pids if usage.name(pid) in ("valkey-server", "redis-server")]
        return cls([pid for pid in pids if pid not in store], store)


class Outcome(NamedTuple):
    """What became of a trial. Times in seconds unless they say otherwise."""

    readers: int
    entries: int
    expected: int
    seen: Result
    seconds: float  # from when the first entry was due to the last delivery
    acknowledged: list[int]  # how late, in ns
    server: usage.Usage
    store: usage.Usage
    load: float  # share of a processor that the busiest process of readers used
    server_share: float  # and of those of the server

    @property
    def is_whole(self) -> bool:
        """Whether every reader had every entry once."""
        return not (self.seen.missing or self.seen.twice or self.seen.lost)

    def figures(self) -> dict[str, Any]:
        """The figures, rounded as far as they tell something."""
        late = [ticks * TICK_NS / 1e6 for ticks in percentiles(self.seen.late)]
        acknowledged = [ns / 1e6 for ns in percentiles(Counter(self.acknowledged))]
        timers = sorted(self.seen.timers) or [0.0]
        told: dict[str, Any] = {
            "readers": self.readers,
            "entries": self.entries,
            "expected": self.expected,
            "deliveries": self.seen.deliveries,
            "missing": self.seen.missing,
            "twice": self.seen.twice,
            "lost": self.seen.lost,
            "seconds": round(self.seconds, 3),
            "deliveries_per_second": round(self.seen.deliveries / self.seconds),
            "entries_per_second": round(self.entries / self.seconds, 1),
            "late_ms": _named(late),
            "acknowledged_ms": _named(acknowledged),
            "load": {
                "share": round(self.load, 3),
                "clock_late_ms": {"p99": timers[len(timers) * 99 // 100], "max": timers[-1]},
            },
            "limit": self.limit(),
        }
        if self.server.cpu:
            told["server"] = {**self._cost(self.server), "share": round(self.server_share, 3)}
            told["store"] = self._cost(self.store)
        return told

    def _cost(self, used: usage.Usage) -> dict[str, float]:
        count = max(1, self.seen.deliveries)
        return {
            "us_per_delivery": round(used.cpu / count * 1e6, 3),
            "us_system_per_delivery": round(used.system / count * 1e6, 3),
            "writes_per_delivery": round(used.writes / count, 4),
            "us_per_entry": round(used.cpu / self.entries * 1e6, 1),
        }

    def limit(self) -> str:
        """Who had no more to give: `load`, `server`, or `none`."""
        timers = sorted(self.seen.timers) or [0.0]
        if self.load > BUSY or timers[len(timers) // 2] > LATE_MS:
            return "load"
        return "server" if self.server_share > BUSY else "none"


def percentiles(counted: Counter[int]) -> tuple[float, ...]:
    """The 50th, 90th and 99th of a hundred values, and the largest; nearest rank."""
    total, passed, found = counted.total(), 0, []
    ranks = deque(-(-total * percent // 100) for percent in (50, 90, 99, 100))
    for value, count in sorted(counted.items()):
        passed += count
        while ranks and passed >= ranks[0]:
            found.append(float(value))
            ranks.popleft()
    return tuple(found) if total else (0.0,) * 4


def _named(values: Iterable[float]) -> dict[str, float]:
    return dict(zip(("p50", "p90", "p99", "max"), (round(value, 2) for value in values), strict=True))


async def run(
    readers: Readers,
    posters: list[Poster],
    course: Course,
    *,
    groups: int = 1,
    machine: Machine = Machine(),  # noqa: B008 (it cannot be changed)
    limit: float = 60.0,
    show: Callable[[int], None] = lambda deliveries: None,
) -> Outcome:
    """Publish a course and wait until every reader has it, or until the limit. Raises Denied, Away."""
    expected = readers.opened // groups * course.entries
    loaders = [process.pid for process in readers.processes]
    await readers.begin()
    before = [usage.usage(machine.server), usage.usage(machine.store), *(usage.usage([pid]) for pid in loaders)]
    begin = time.monotonic_ns()
    publishing = asyncio.create_task(publish(posters, course))
    try:
        await _finished(publishing, readers, expected, limit, show)
        after = [usage.usage(machine.server), usage.usage(machine.store), *(usage.usage([pid]) for pid in loaders)]
        wall = (time.monotonic_ns() - begin) / 1e9
        acknowledged = publishing.result() if publishing.done() else []
    finally:
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
    seen = await readers.end(course.first, course.first + course.entries)
    server, store, *loads = (now.since(then) for now, then in zip(after, before, strict=True))
    return Outcome(
        readers.opened,
        course.entries,
        expected,
        seen,
        max(1e-3, (seen.last - begin) / 1e9),
        acknowledged,
        server,
        store,
        load=max(load.cpu for load in loads) / wall,
        server_share=server.cpu / wall,
    )


async def _finished(
    publishing: asyncio.Task[list[int]],
    readers: Readers,
    expected: int,
    limit: float,
    show: Callable[[int], None],
) -> None:
    """Wait until all is published and received, something went wrong, or the time is over."""
    over, heard, deliveries = time.monotonic() + limit, time.monotonic(), 0
    while time.monotonic() < min(over, heard + SILENCE) and not readers.lost:
        await asyncio.wait([publishing], timeout=LOOKED_EVERY)
        if readers.deliveries > deliveries or not publishing.done():
            heard, deliveries = time.monotonic(), readers.deliveries
            show(deliveries)
        if publishing.done():
            publishing.result()
            if deliveries >= expected:
                return
            await asyncio.sleep(LOOKED_EVERY)


# --- a server to try


class Local(NamedTuple):
    """A server that was started for a trial. `pid` is its supervisor's."""

    url: str
    key: str
    pid: int


@asynccontextmanager
async def local_server(
    data: Path, *arguments: str, python: str = sys.executable, folder: Path | None = None
) -> AsyncIterator[Local]:
    """Start a server on a free port and a data folder, and stop it at the end. Raises Away, where it does not start.

    Nothing of the environment's settings reaches it: they may name a store that is in use.
    """
    named = {name for field in settings.KNOBS for name in settings.variables(field.name)}
    with (data.parent / f"{data.name}.log").open("w+") as log:
        process = await asyncio.create_subprocess_exec(
            *(python, "-m", "pushserver", "serve", "--port", "0", "--data", str(data), *arguments),
            cwd=folder,
            env={name: value for name, value in os.environ.items() if name not in named},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        try:
            url = await _address(process)
            if not url:
                log.seek(0)
                raise Away(f"the server did not start: {''.join(log.readlines()[-LAST_LINES:]).strip()}")
            yield Local(url, keyfile.local_key(data) or "", process.pid)
        finally:
            await end(process)


async def end(process: asyncio.subprocess.Process) -> None:
    """End a process that was started; kill it where it takes too long."""
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.communicate(), STOP_LIMIT)
    except TimeoutError:
        process.kill()
        await process.wait()


async def _address(process: asyncio.subprocess.Process) -> str:
    """The address in a server's greeting; '' where it ends, or says nothing, before."""
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_LIMIT):
            async for line in process.stdout:
                if found := re.search(rb"  pages +(http://\S+)/", line):
                    return found[1].decode()
    except TimeoutError:
        pass
    return ""


def pin_apart(machine: Machine) -> set[int]:
    """Keep a server on the first processor, and what else there is off it: the processors for those.

    On a machine with one processor nothing is pinned.
    """
    first, *others = sorted(os.sched_getaffinity(0))
    if not others:
        return {first}
    usage.pin(machine.server, {first})
    usage.pin(machine.store, set(others))
    return set(others)
