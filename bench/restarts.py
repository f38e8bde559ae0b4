"""The script measures what restarts, kills and hangs of workers cost readers and publishers.

    .venv/bin/python -m bench.restarts [READERS] [WORD …]

Each row is one case on a server of its own, with readers who come back by their cursors, and a publisher at 20 a second
that sends nothing twice. Words choose the rows that have one of them. Beside the table stands the load of the machine.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2

from tests.support.balancers import BALANCERS
from tests.support.processes import workers_of
from tests.support.server import Running, clients_of, running
from tests.support.server import until as wait_until

from . import deploys
from .returning import STREAM, Swarm, until
from .visitors import Visited, Visitor, publisher

LIFETIME = 20.0  # seconds, of a reader in the deploys after which the shares are measured
SELDOM = 0.5  # seconds between two publishes in a storm, which the readers here have to keep up with
PROBES, BETWEEN_PROBES = 4, 0.01  # clients that ask all the time while a server stops; seconds
LISTENING = 0  # where /proc has the port at the other end of a connection
SETTLE = 2.0  # seconds of publishing before and after what is measured

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
    """kill -9 of all workers, so that all readers come back together; publishing begins once a worker is ready."""
    visitor = publisher(server.url, server.key, SELDOM)
    begun = time.monotonic()
    for pid in workers_of(server):
        os.kill(pid, signal.SIGKILL)
    await until(lambda: all(reader.returns for reader in swarm.readers))
    await until(lambda: _is_ready(server))
    await visitor.begin()
    await swarm.all_live()
    took = time.monotonic() - begun
    published = await visitor.end()
    return f"all live {took:.1f} s after; publishes failed: {published.failed}, longest {published.longest:.2f} s"


async def slow(server: Running, swarm: Swarm) -> str:
    """TERM while a request is slow: how long new connections wait, and how the slow ones end."""
    probes = [Visitor(server.url, "GET", "/livez", every=BETWEEN_PROBES) for _ in range(PROBES)]
    await asyncio.gather(*(each.begin() for each in probes))
    entry = server.publish_ok(STREAM, "asked about")["id"]
    head = f"HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.key}\r\nContent-Type: application/json\r\n"
    upload = await ask(server, f"POST /streams/{STREAM}/entries {head}Content-Length: 100\r\n\r\n{{")
    delivery = await ask(server, f"GET /streams/{STREAM}/entries/{entry}/delivery?n=99&wait=10 {head}\r\n")
    server.process.terminate()
    await until(lambda: server.process.poll() is not None)
    swarm.is_over = True
    probed = [await visitor.end() for visitor in probes]
    refused = sum((each.failures for each in probed), Counter[str]())
    answered = sum(each.sent for each in probed) - refused.total()
    longest = max(each.longest for each in probed)
    ends = [(await answer.read()).decode()[9:12] for answer, _ in (upload, delivery)]
    waits = f"{answered} answered, {dict(refused)}, longest {longest:.2f} s"
    return f"{waits}; the upload and the delivery: {' and '.join(ends)}"


async def ask(server: Running, text: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a text on a connection of its own."""
    reader, writer = await asyncio.open_connection(*server.url.removeprefix("http://").split(":"))
    writer.write(text.encode())
    return reader, writer


WINDOW = 5.0
CASES: dict[str, tuple[int, bool, Work]] = {
    "SIGHUP, 3 workers": (3, True, rolling),
    "SIGHUP, 1 worker": (1, True, rolling),
    "kill -9 of one of 3": (3, False, killed),
    "SIGSTOP of one of 3": (3, False, hung),
    "TERM, the readers leave": (1, False, leaving),
    "TERM, slow requests": (1, False, slow),
    "kill -9 of all 3, storm": (3, False, storm),
}
DEPLOYS = {name: (name, 0.0) for name in BALANCERS}
DEPLOYS |= {f"{name}, lifetime of {LIFETIME:g} s": (name, LIFETIME) for name in BALANCERS}


def _is_ready(server: Running) -> bool:
    with suppress(httpx2.TransportError):
        return httpx2.get(f"{server.url}/readyz").status_code == 200
    return False


def _most_loaded(server: Running, swarm: Swarm) -> int:
    ports = {reader.port for reader in swarm.readers}
    return max(workers_of(server), key=lambda pid: len(ports & {*clients_of(pid)}))


@contextmanager
def served(workers: int) -> Iterator[Running]:
    with tempfile.TemporaryDirectory() as folder:
        options = ("--workers", str(workers), "--drain-window", f"{WINDOW:g}", "--heartbeat", "5")
        with running(Path(folder) / "data", *options) as server:
            server.publish_ok(STREAM, "first")
            wait_until(lambda: all(LISTENING in clients_of(pid) for pid in workers_of(server)))  # each gets its readers
            yield server


async def measure(server: Running, readers: int, work: Work, *, publishes: bool) -> str:
    host, port = server.url.removeprefix("http://").split(":")
    swarm = Swarm((host, int(port)), readers)
    await swarm.open()
    visitor = publisher(server.url, server.key) if publishes else None
    if visitor:
        await visitor.begin()
    await asyncio.sleep(SETTLE)
    said = await work(server, swarm)
    published: Visited | None = None
    if server.process.poll() is None:
        await asyncio.sleep(SETTLE)
        await swarm.all_live()
        published = await visitor.end() if visitor else None
        last = server.snapshot(STREAM)["n"]
        await until(lambda: all(reader.n == last for reader in swarm.readers))
    swarm.close()
    publishing = f"{published.failed} | {published.longest:.2f}" if published else "- | -"
    return f"{publishing} | {swarm.row()} | {said} | {os.getloadavg()[0]:.1f}"


def chosen(name: str, words: tuple[str, ...]) -> bool:
    return not words or any(word in name for word in words)


def measure_workers(readers: int, words: tuple[str, ...]) -> None:
    print(
        "| case | publishes failed | longest, s | live again p50 / p99 / max, s | returns, most | handshakes failed "
        "| lost or twice | | load |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, (workers, publishes, work) in CASES.items():
        if chosen(name, words):
            with served(workers) as server:
                print(f"| {name} | {asyncio.run(measure(server, readers, work, publishes=publishes))} |", flush=True)


def measure_deploys(readers: int, words: tuple[str, ...]) -> None:
    print(
        f"| {deploys.SERVERS} single servers behind | publishes failed | pages failed | longest publish, s | page, s "
        "| live again p50 / p99 / max, s | returns, most | handshakes failed | lost or twice "
        "| returns for one server, most | most readers on one server, of its share | after a lifetime | load |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for case, (name, lifetime) in DEPLOYS.items():
        if chosen(case, words):
            with tempfile.TemporaryDirectory() as folder, deploys.fleet(Path(folder), lifetime) as fleet:
                row = asyncio.run(deploys.deploy(name, Path(folder), fleet, readers)).row()
            print(f"| {case} | {row} | {os.getloadavg()[0]:.1f} |", flush=True)


def main(readers: int = 1_000, *words: str) -> None:
    if any(chosen(name, words) for name in CASES):
        measure_workers(readers, words)
    if any(chosen(name, words) for name in DEPLOYS):
        measure_deploys(readers, words)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 1_000, *sys.argv[2:])
