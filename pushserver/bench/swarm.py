"""Readers in processes of their own, and the handle by which a benchmark moves them.

A process is told lines of JSON, and tells some: `open` so many readers, `begin` to count, `end` with what was seen. It
tells every 50 ms how far it is, and ends when nobody listens any more.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import resource
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import uvloop

from ..client.publisher import retry_after
from .reader import Away, Seen, Socket, Target

TOLD_EVERY = 0.05  # seconds
LATER = re.compile(rb"HTTP/1\.1 (?:429|503) ")
RETRY_AFTER = re.compile(rb"\r\nretry-after: *([^\r]*)", re.IGNORECASE)
LINE_LIMIT = 2**24
SPARE_FILES = 64  # that a process needs beside its connections


class Swarm:
    """The readers of this process. Reader `i` of all follows group `i` modulo `groups`."""

    def __init__(self, target: Target, groups: int) -> None:
        self._target = target
        self._groups = groups
        self._sockets: list[Socket] = []
        self.seen = Seen()
        self.ready = 0
        self.put_off = 0  # times that the server asked a reader to come later

    async def open(self, first: int, count: int, at_once: int) -> None:
        """Connect so many more, so many at the same time. Raises Away, where one is turned away for good."""
        numbers = iter(range(first, first + count))

        async def run() -> None:
            for number in numbers:
                await self._connect(number % self._groups)

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(at_once, count)):
                    tasks.create_task(run())
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _connect(self, group: int) -> None:
        loop = asyncio.get_running_loop()
        while True:
            answered: asyncio.Future[bytes | None] = loop.create_future()
            socket = Socket(self._target, group, self.seen, answered.set_result)
            await self._target.connect(socket)
            refusal = await answered
            if refusal is None:
                self._sockets.append(socket)
                self.ready += 1
                return
            if not LATER.match(refusal):
                first = refusal.partition(b"\r\n")[0].decode(errors="replace")
                raise Away(f"a reader was refused: {first or 'the connection was closed during the handshake'}")
            self.put_off += 1
            asked = RETRY_AFTER.search(refusal)
            await asyncio.sleep(retry_after(asked[1].decode(errors="replace") if asked else "1"))

    def count(self, first: int, end: int) -> int:
        """How many deliveries are missing, of the entries from `first` to before `end`; entry `n` is for group `n`."""
        wanted = [0] * self._groups
        for number in range(first, end):
            wanted[number % self._groups] |= 1 << number
        return sum((wanted[socket.group] & ~socket.numbers).bit_count() for socket in self._sockets)

    def close(self) -> None:
        for socket in self._sockets:
            socket.leave()


async def work() -> None:
    """A process of readers: do as told on standard input."""
    lines = await _standard_input()
    order = json.loads(await lines.readline())
    swarm = Swarm(Target(**{**order["target"], "headers": tuple(order["target"]["headers"])}), order["groups"])
    timers: list[float] = []
    teller = asyncio.create_task(_tell(swarm, timers))
    try:
        while line := await lines.readline():
            match json.loads(line):
                case {"do": "open", "first": first, "count": count, "at_once": at_once}:
                    await swarm.open(first, count, at_once)
                    _say({"did": "open"})
                case {"do": "begin"}:
                    swarm.seen.late.clear()
                    timers.clear()
                    swarm.seen.deliveries = 0
                    _say({"did": "begin"})
                case {"do": "end", "first": first, "end": end}:
                    _say({"did": "end", **_result(swarm, timers, first, end)})
    except Away as error:
        _say({"error": str(error)})
    finally:
        teller.cancel()
        swarm.close()


def _result(swarm: Swarm, timers: list[float], first: int, end: int) -> dict[str, Any]:
    seen = swarm.seen
    return {
        "deliveries": seen.deliveries,
        "missing": swarm.count(first, end),
        "twice": seen.twice,
        "lost": dict(seen.lost),
        "last": seen.last,
        "late": list(seen.late.items()),
        "put_off": swarm.put_off,
        "timers": timers,
    }


async def _tell(swarm: Swarm, timers: list[float]) -> None:
    """Say how far it is; note by how many ms the clock that does so is late."""
    while True:
        due = time.monotonic() + TOLD_EVERY
        await asyncio.sleep(TOLD_EVERY)
        timers.append(round((time.monotonic() - due) * 1e3, 1))
        lost = sum(swarm.seen.lost.values())
        _say({"ready": swarm.ready, "deliveries": swarm.seen.deliveries, "lost": lost})


def _say(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


async def _standard_input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


# --- the other side


class Process:
    """One process of readers, as the benchmark sees it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.ready = self.deliveries = self.lost = 0
        self.pid = process.pid
        self._process = process
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._listener = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            told = json.loads(line)
            if "ready" in told:
                self.ready, self.deliveries, self.lost = told["ready"], told["deliveries"], told["lost"]
            else:
                self._answers.put_nowait(told)
        self._answers.put_nowait({"error": "a process of readers ended by itself"})

    def send(self, **order: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")

    async def do(self, what: str, **order: Any) -> dict[str, Any]:
        """Have it done, and wait until it is. Raises Away."""
        self.send(do=what, **order)
        answer = await self._answers.get()
        if "error" in answer:
            raise Away(answer["error"])
        return answer

    async def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._listener


class Result(NamedTuple):
    """What all readers saw, from `begin` on."""

    deliveries: int
    missing: int
    twice: int
    lost: dict[str, int]
    last: int  # when the last delivery came, in ns
    late: Counter[int]  # deliveries, by how many ticks they were late
    put_off: int
    timers: list[float]  # by how many ms clocks were late


class Readers:
    """All readers: some processes, used as one."""

    def __init__(self, processes: list[Process]) -> None:
        self.processes = processes
        self.opened = 0

    @classmethod
    async def start(
        cls, target: Target, *, groups: int = 1, processes: int = 1, cpus: set[int] | None = None
    ) -> Readers:
        started = []
        for _ in range(processes):
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "pushserver.bench.swarm"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=LINE_LIMIT,
            )
            if cpus:
                os.sched_setaffinity(child.pid, cpus)
            started.append(Process(child))
            started[-1].send(target=target._asdict(), groups=groups)
        return cls(started)

    @property
    def ready(self) -> int:
        return sum(process.ready for process in self.processes)

    @property
    def deliveries(self) -> int:
        """Those since `begin`."""
        return sum(process.deliveries for process in self.processes)

    @property
    def lost(self) -> int:
        """Readers that went away."""
        return sum(process.lost for process in self.processes)

    async def open(self, count: int, at_once: int = 64) -> None:
        """Connect so many more. Raises Away."""
        shares = [len(range(i, count, len(self.processes))) for i in range(len(self.processes))]
        firsts = [self.opened + sum(shares[:i]) for i in range(len(shares))]
        together = max(1, at_once // len(shares))
        await self._all(lambda number: {"first": firsts[number], "count": shares[number], "at_once": together}, "open")
        self.opened += count

    async def begin(self) -> None:
        await self._all(lambda number: {}, "begin")

    async def end(self, first: int, end: int) -> Result:
        """What was seen, if entries `first` to before `end` were to be."""
        found = await self._all(lambda number: {"first": first, "end": end}, "end")
        lost: Counter[str] = Counter()
        late: Counter[int] = Counter()
        for part in found:
            lost.update(part["lost"])
            late.update(dict(part["late"]))
        sums = {name: sum(part[name] for part in found) for name in ("deliveries", "missing", "twice", "put_off")}
        timers = [late for part in found for late in part["timers"]]
        return Result(**sums, lost=dict(lost), last=max(part["last"] for part in found), late=late, timers=timers)

    async def _all(self, order: Callable[[int], dict[str, int]], what: str) -> list[dict[str, Any]]:
        work: list[Awaitable[dict[str, Any]]] = [
            process.do(what, **order(number)) for number, process in enumerate(self.processes)
        ]
        return await asyncio.gather(*work)

    async def close(self) -> None:
        for process in self.processes:
            await process.close()


def files_short(readers: int) -> str:
    """Raise this process's limit of open files for so many readers; why not, in words, where that is too many."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and readers + SPARE_FILES > most:
        return f"expected a limit of at least {readers + SPARE_FILES} open files, got {most}: raise it with ulimit -n"
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return ""


if __name__ == "__main__":
    gc.disable()  # nothing here makes cycles by the delivery, and a collection would make readers late
    uvloop.run(work())
