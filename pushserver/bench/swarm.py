"""A swarm is the readers of one process; a pool is all readers of a benchmark, in processes of their own.

A reader process takes commands as lines of JSON on standard input, `open` so many readers, `begin` to count and `end`
with the counts, and answers each on standard output. It reports its progress every 50 ms, and exits when its standard
input ends.
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

from ..client.retry import retry_after
from .reader import DeliveryCounter, Endpoint, ReaderConnection, ServerUnavailable

REPORT_EVERY = 0.05  # seconds
RETRY_LATER = re.compile(rb"HTTP/1\.1 (?:429|503) ")
RETRY_AFTER = re.compile(rb"\r\nretry-after: *([^\r]*)", re.IGNORECASE)
LINE_LIMIT = 2**24  # bytes of one line of JSON
SPARE_FILES = 64  # that a process needs beside its connections


class Swarm:
    """Swarm connects the readers of this process. Reader `i` of the pool follows group `i` modulo `groups`."""

    def __init__(self, endpoint: Endpoint, groups: int) -> None:
        self._endpoint = endpoint
        self._groups = groups
        self._readers: list[ReaderConnection] = []
        self.counter = DeliveryCounter()
        self.ready = 0
        self.deferred = 0  # handshakes that the server answered with 429 or 503

    async def open(self, first: int, count: int, at_once: int) -> None:
        """Connect `count` more readers, `at_once` at the same time. Raises ServerUnavailable where one is refused."""
        numbers = iter(range(first, first + count))

        async def connect_next() -> None:
            for number in numbers:
                await self._connect(number % self._groups)

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(at_once, count)):
                    tasks.create_task(connect_next())
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _connect(self, group: int) -> None:
        loop = asyncio.get_running_loop()
        while True:
            ready: asyncio.Future[bytes | None] = loop.create_future()
            reader = ReaderConnection(self._endpoint, group, self.counter, ready.set_result)
            await self._endpoint.connect(reader)
            refusal = await ready
            if refusal is None:
                self._readers.append(reader)
                self.ready += 1
                return
            if not RETRY_LATER.match(refusal):
                line = refusal.partition(b"\r\n")[0].decode(errors="replace")
                raise ServerUnavailable(f"a reader was refused: {line or 'the server closed it during the handshake'}")
            self.deferred += 1
            match = RETRY_AFTER.search(refusal)
            await asyncio.sleep(retry_after(match[1].decode(errors="replace") if match else "1"))

    def missing(self, first: int, end: int) -> int:
        """Count the missing deliveries of the entries from `first` to before `end`; entry `n` is for group `n`."""
        wanted = [0] * self._groups
        for number in range(first, end):
            wanted[number % self._groups] |= 1 << number
        return sum((wanted[reader.group] & ~reader.numbers).bit_count() for reader in self._readers)

    def close(self) -> None:
        for reader in self._readers:
            reader.close()


async def serve_commands() -> None:
    """Run a reader process: carry out the commands on standard input until it ends."""
    lines = await _standard_input()
    setup = json.loads(await lines.readline())
    endpoint = Endpoint(**{**setup["endpoint"], "headers": tuple(setup["endpoint"]["headers"])})
    swarm = Swarm(endpoint, setup["groups"])
    timers: list[float] = []
    reporting = asyncio.create_task(_report_progress(swarm, timers))
    try:
        while line := await lines.readline():
            match json.loads(line):
                case {"do": "open", "first": first, "count": count, "at_once": at_once}:
                    await swarm.open(first, count, at_once)
                    _write({"did": "open"})
                case {"do": "begin"}:
                    swarm.counter.late.clear()
                    timers.clear()
                    swarm.counter.delivered = 0
                    _write({"did": "begin"})
                case {"do": "end", "first": first, "end": end}:
                    _write({"did": "end", **_counts(swarm, timers, first, end)})
    except ServerUnavailable as error:
        _write({"error": str(error)})
    finally:
        reporting.cancel()
        swarm.close()


def _counts(swarm: Swarm, timers: list[float], first: int, end: int) -> dict[str, Any]:
    counter = swarm.counter
    return {
        "delivered": counter.delivered,
        "missing": swarm.missing(first, end),
        "duplicates": counter.duplicates,
        "disconnected": dict(counter.disconnected),
        "last": counter.last,
        "late": list(counter.late.items()),
        "deferred": swarm.deferred,
        "timers": timers,
    }


async def _report_progress(swarm: Swarm, timers: list[float]) -> None:
    """Write the progress every 50 ms, and note by how many ms each of these timers was late."""
    while True:
        due = time.monotonic() + REPORT_EVERY
        await asyncio.sleep(REPORT_EVERY)
        timers.append(round((time.monotonic() - due) * 1e3, 1))
        counter = swarm.counter
        disconnected = sum(counter.disconnected.values())
        _write({"ready": swarm.ready, "delivered": counter.delivered, "disconnected": disconnected})


def _write(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


async def _standard_input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


# --- the benchmark's side


class ReaderProcess:
    """ReaderProcess is a reader process as the benchmark sees it: commands, answers, and the newest progress."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.ready = self.delivered = self.disconnected = 0
        self.pid = process.pid
        self._process = process
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._listener = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            message = json.loads(line)
            if "ready" in message:
                self.ready, self.delivered = message["ready"], message["delivered"]
                self.disconnected = message["disconnected"]
            else:
                self._answers.put_nowait(message)
        self._answers.put_nowait({"error": "a reader process exited"})

    def send(self, **message: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def do(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Send a command and wait for its answer. Raises ServerUnavailable."""
        self.send(do=command, **arguments)
        answer = await self._answers.get()
        if "error" in answer:
            raise ServerUnavailable(answer["error"])
        return answer

    async def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._listener


class DeliveryCounts(NamedTuple):
    """DeliveryCounts are what all readers received since `begin`."""

    delivered: int
    missing: int
    duplicates: int
    disconnected: dict[str, int]  # readers, by the reason
    last: int  # time of the last delivery, in ns of the monotonic clock
    late: Counter[int]  # deliveries, by the ticks after the due time
    deferred: int  # handshakes that the server answered with 429 or 503
    timers: list[float]  # by how many ms the reader processes' timers were late


class ReaderPool:
    """ReaderPool is all readers of a benchmark, in some processes."""

    def __init__(self, processes: list[ReaderProcess]) -> None:
        self.processes = processes
        self.opened = 0

    @classmethod
    async def start(
        cls, endpoint: Endpoint, *, groups: int = 1, processes: int = 1, cpus: set[int] | None = None
    ) -> ReaderPool:
        """Start the processes, pinned to `cpus`; no reader is connected yet."""
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
            started.append(ReaderProcess(child))
            started[-1].send(endpoint=endpoint._asdict(), groups=groups)
        return cls(started)

    @property
    def ready(self) -> int:
        return sum(process.ready for process in self.processes)

    @property
    def delivered(self) -> int:
        """The deliveries since `begin`."""
        return sum(process.delivered for process in self.processes)

    @property
    def disconnected(self) -> int:
        """The readers whose connection ended."""
        return sum(process.disconnected for process in self.processes)

    async def open(self, count: int, at_once: int = 64) -> None:
        """Connect `count` more readers, `at_once` at the same time. Raises ServerUnavailable."""
        shares = [len(range(i, count, len(self.processes))) for i in range(len(self.processes))]
        firsts = [self.opened + sum(shares[:i]) for i in range(len(shares))]
        together = max(1, at_once // len(shares))
        await self._all("open", lambda i: {"first": firsts[i], "count": shares[i], "at_once": together})
        self.opened += count

    async def begin(self) -> None:
        """Count from now on."""
        await self._all("begin", lambda i: {})

    async def end(self, first: int, end: int) -> DeliveryCounts:
        """Return the counts since `begin`, where the entries from `first` to before `end` were published."""
        parts = await self._all("end", lambda i: {"first": first, "end": end})
        disconnected: Counter[str] = Counter()
        late: Counter[int] = Counter()
        for part in parts:
            disconnected.update(part["disconnected"])
            late.update(dict(part["late"]))
        names = ("delivered", "missing", "duplicates", "deferred")
        sums = {name: sum(part[name] for part in parts) for name in names}
        timers = [ms for part in parts for ms in part["timers"]]
        last = max(part["last"] for part in parts)
        return DeliveryCounts(**sums, disconnected=dict(disconnected), last=last, late=late, timers=timers)

    async def _all(self, command: str, arguments: Callable[[int], dict[str, int]]) -> list[dict[str, Any]]:
        answers: list[Awaitable[dict[str, Any]]] = [
            process.do(command, **arguments(number)) for number, process in enumerate(self.processes)
        ]
        return await asyncio.gather(*answers)

    async def close(self) -> None:
        for process in self.processes:
            await process.close()


def check_file_limit(readers: int) -> str:
    """Raise this process's limit of open files for so many readers; return an error where the limit is too low."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and readers + SPARE_FILES > most:
        return f"expected a limit of at least {readers + SPARE_FILES} open files, got {most}: raise it with ulimit -n"
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return ""


if __name__ == "__main__":
    gc.disable()  # a collection would make deliveries late, and a delivery makes no cycle to collect
    uvloop.run(serve_commands())
