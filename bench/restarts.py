"""The script measures what restarts, kills and hangs of workers cost readers and publishers.

    .venv/bin/python -m bench.restarts [READERS] [WORD …]

Each row is one case on a server of its own, with readers who come back by their cursors, and a publisher at 20 a second
that sends nothing twice. Words choose the rows that have one of them. Beside the table stands the load of the machine.
"""

from __future__ import annotations

import asyncio
import multiprocessing as mp
import os
import random
import re
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2

from tests.support.processes import workers_of
from tests.support.server import Running, clients_of, running

STREAM = "measured"
EVERY = 0.05  # seconds between two publishes
SETTLE = 2.0  # seconds of publishing before and after what is measured
LIMIT = 120.0  # seconds
AT_ONCE = 100  # handshakes
N = re.compile(rb'"n":(\d+)')
CURSOR = re.compile(rb'"cursor":"([^"]+)"')
RETRY = re.compile(rb'"retry_ms":(\d+)')
GET = (
    "GET /streams/{stream}/ws?cursor={cursor} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class Reader(asyncio.Protocol):
    """Reader follows the stream, and comes back whenever it is disconnected; it sends nothing."""

    def __init__(self, swarm: Swarm) -> None:
        self.port = 0  # its own, on the connection of now
        self.n = 0
        self.cursor = ""
        self.is_live = False
        self.returns = 0
        self._swarm = swarm
        self._away_since = 0.0
        self._retry = 0.5
        self._data = b""
        self._is_open = False
        self._transport: asyncio.Transport | None = None

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._swarm.is_over:
            async with self._swarm.handshakes:
                try:
                    await loop.create_connection(lambda: self, *self._swarm.address)
                    return
                except OSError as error:
                    self._swarm.failures[type(error).__name__] += 1
            await asyncio.sleep(random.uniform(0, 1))

    def connection_made(self, transport: Any) -> None:
        self._transport, self._data, self._is_open = transport, b"", False
        self.port = transport.get_extra_info("sockname")[1]
        transport.write(GET.format(stream=STREAM, cursor=self.cursor).encode())

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._is_open:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return
            self._data = rest
            self._is_open = head.startswith(b"HTTP/1.1 101")
            if not self._is_open:
                self._swarm.failures[head[9:12].decode()] += 1
                assert self._transport is not None
                self._transport.abort()
                return
        while (frame := self._frame()) is not None:
            self._take(*frame)

    def _frame(self) -> tuple[int, bytes] | None:
        data = self._data
        if len(data) < 2:
            return None
        size, start = data[1], 2
        if size >= 126:
            start = 4 if size == 126 else 10
            size = int.from_bytes(data[2:start], "big")
        if len(data) < start + size or len(data) < start:
            return None
        self._data = data[start + size :]
        return data[0] & 15, data[start : start + size]

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == 8:
            assert self._transport is not None
            self._transport.write(b"\x88\x82\0\0\0\0" + payload[:2])
        elif payload.startswith(b'{"type":"bye"'):
            match = RETRY.search(payload)
            assert match
            self._retry = int(match[1]) / 1000
            self._swarm.byes.append(time.monotonic())
        elif payload.startswith(b'{"type":"hello"'):
            if self._away_since:
                self._swarm.away.append(time.monotonic() - self._away_since)
            self.is_live = True
        else:
            self._follow(payload)

    def _follow(self, payload: bytes) -> None:
        n, cursor = N.search(payload), CURSOR.search(payload)
        if not n or not cursor or payload.startswith(b'{"type":"head"'):
            return
        number = int(n[1])
        if payload.startswith(b'{"type":"snapshot"'):
            self._swarm.snapshots += bool(self.n)
        elif self.n and number != self.n + 1:
            self._swarm.wrong += 1
        self.n, self.cursor = number, cursor[1].decode()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.is_live:
            self._away_since = time.monotonic()
            self.returns += 1
        self.is_live = False
        delay, self._retry = random.uniform(0, self._retry), 0.5
        if not self._swarm.is_over:
            asyncio.get_running_loop().call_later(delay, self._swarm.start, self)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Swarm:
    """Swarm is the readers of a case, and what they have seen."""

    def __init__(self, address: tuple[str, int], count: int) -> None:
        self.address = address
        self.handshakes = asyncio.Semaphore(AT_ONCE)
        self.failures: Counter[str] = Counter()
        self.away: list[float] = []
        self.byes: list[float] = []
        self.wrong = self.snapshots = 0
        self.is_over = False
        self.readers = [Reader(self) for _ in range(count)]
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, reader: Reader) -> None:
        if not self.is_over:
            task = asyncio.get_running_loop().create_task(reader.connect())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def open(self) -> None:
        for reader in self.readers:
            self.start(reader)
        await self.all_live()

    async def all_live(self) -> None:
        await until(lambda: all(reader.is_live for reader in self.readers))

    def close(self) -> None:
        self.is_over = True
        for reader in self.readers:
            reader.close()

    def row(self) -> str:
        away = sorted(self.away) or [0.0]
        returns = [reader.returns for reader in self.readers]
        live = f"{statistics.median(away):.2f} / {away[int(0.99 * (len(away) - 1))]:.2f} / {away[-1]:.2f}"
        failed = ", ".join(f"{count} {name}" for name, count in self.failures.items()) or "0"
        return f"{live} | {max(returns)} | {failed} | {self.wrong + self.snapshots}"


async def until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not is_true():
            await asyncio.sleep(0.05)


def publish(url: str, key: str, over: Any, results: Any) -> None:
    """Publish until it is over; put how many were sent, how many of them failed, and the longest wait."""
    sent = failed = 0
    longest = 0.0
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    with httpx2.Client(base_url=url, timeout=30) as http:
        while not over.is_set():
            begun = time.monotonic()
            try:
                ok = http.post(f"/streams/{STREAM}/entries", content=b'{"headline":"x"}', headers=headers).is_success
            except httpx2.TransportError:
                ok = False
            sent, failed, longest = sent + 1, failed + (not ok), max(longest, time.monotonic() - begun)
            time.sleep(max(0.0, EVERY - (time.monotonic() - begun)))
    results.put((sent, failed, longest))


class Published(NamedTuple):
    sent: int = 0
    failed: int = 0
    longest: float = 0.0


class Publisher:
    """Publisher publishes in a process of its own."""

    def __init__(self, server: Running) -> None:
        context = mp.get_context("spawn")
        self._over, self._results = context.Event(), context.Queue()
        arguments = (server.url, server.key, self._over, self._results)
        self._process = context.Process(target=publish, args=arguments, daemon=True)
        self._process.start()

    async def end(self) -> Published:
        self._over.set()
        return Published(*await asyncio.to_thread(self._results.get, True, LIMIT))


Work = Callable[[Running, Swarm], Any]


async def rolling(server: Running, swarm: Swarm) -> str:
    server.process.send_signal(signal.SIGHUP)
    await until(lambda: "all workers have been restarted" in server.log)
    return ""


async def killed(server: Running, swarm: Swarm) -> str:
    os.kill(_most_loaded(server, swarm), signal.SIGKILL)
    await until(lambda: any(reader.returns for reader in swarm.readers))
    return ""


async def hung(server: Running, swarm: Swarm) -> str:
    victim, begun = _most_loaded(server, swarm), time.monotonic()
    ports = {*clients_of(victim)}
    readers = [reader for reader in swarm.readers if reader.port in ports]
    os.kill(victim, signal.SIGSTOP)
    await until(lambda: all(reader.returns and reader.is_live for reader in readers))
    return f"{len(readers)} readers live elsewhere {time.monotonic() - begun:.1f} s after SIGSTOP"


async def leaving(server: Running, swarm: Swarm) -> str:
    """TERM: how long and how evenly the readers leave."""
    server.process.terminate()
    await until(lambda: server.process.poll() is not None)
    swarm.is_over = True
    first = swarm.byes[0]
    seconds = Counter(int(at - first) for at in swarm.byes if at - first < WINDOW)
    peak = max(seconds.values()) / (len(swarm.byes) / WINDOW)
    span = swarm.byes[-1] - first
    return f"{len(swarm.byes)} byes in {span:.2f} s of {WINDOW:g}, the fullest second {peak:.2f} of the mean"


async def storm(server: Running, swarm: Swarm) -> str:
    """kill -9 of all workers at once, so that all readers come back together."""
    begun = time.monotonic()
    for pid in workers_of(server):
        os.kill(pid, signal.SIGKILL)
    await until(lambda: all(reader.returns for reader in swarm.readers))
    await swarm.all_live()
    return f"all live {time.monotonic() - begun:.1f} s after"


WINDOW = 5.0
CASES: dict[str, tuple[int, bool, Work]] = {
    "SIGHUP, 3 workers": (3, True, rolling),
    "SIGHUP, 1 worker": (1, True, rolling),
    "kill -9 of one of 3": (3, False, killed),
    "SIGSTOP of one of 3": (3, False, hung),
    "TERM, the readers leave": (1, False, leaving),
    "kill -9 of all 3, storm": (3, False, storm),
}


def _most_loaded(server: Running, swarm: Swarm) -> int:
    ports = {reader.port for reader in swarm.readers}
    return max(workers_of(server), key=lambda pid: len(ports & {*clients_of(pid)}))


@contextmanager
def served(workers: int) -> Iterator[Running]:
    with tempfile.TemporaryDirectory() as folder:
        options = ("--workers", str(workers), "--drain-window", f"{WINDOW:g}", "--heartbeat", "5")
        with running(Path(folder) / "data", *options) as server:
            server.publish_ok(STREAM, "first")
            yield server


async def measure(server: Running, readers: int, work: Work, *, publishes: bool) -> str:
    host, port = server.url.removeprefix("http://").split(":")
    swarm = Swarm((host, int(port)), readers)
    await swarm.open()
    publisher = Publisher(server) if publishes else None
    await asyncio.sleep(SETTLE)
    said = await work(server, swarm)
    published = Published()
    if server.process.poll() is None:
        await asyncio.sleep(SETTLE)
        await swarm.all_live()
        published = await publisher.end() if publisher else published
        last = server.snapshot(STREAM)["n"]
        await until(lambda: all(reader.n == last for reader in swarm.readers))
    swarm.close()
    publishing = f"{published.failed} of {published.sent} | {published.longest:.2f}" if publisher else "- | -"
    return f"{publishing} | {swarm.row()} | {said} | {os.getloadavg()[0]:.1f}"


def main(readers: int = 1_000, *words: str) -> None:
    print(
        "| case | publishes failed | longest, s | live again p50 / p99 / max, s | returns, most | handshakes failed "
        "| lost or twice | | load |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, (workers, publishes, work) in CASES.items():
        if words and not any(word in name for word in words):
            continue
        with served(workers) as server:
            print(f"| {name} | {asyncio.run(measure(server, readers, work, publishes=publishes))} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 1_000, *sys.argv[2:])
