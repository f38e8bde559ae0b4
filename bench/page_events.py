"""The script measures page loads of a page that changes: what the first load after an event costs, and how loads wait.

    .venv/bin/python -m bench.page_events [SECONDS]

It prints, of a page of 100 different entries:

    first load    processor time of the worker for the first GET of a surface after an event, and for the next one
    events        10 events and 1,000 GETs a second, for SECONDS: the waits of the GETs, the longest acknowledgement
                  (the store answers no look while it syncs an event), the share of a core that the worker took
    memory        of a stream: page and entries in gzip and br, feeds in gzip
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

from pushserver.bench.pages import Orders, PageLoader
from pushserver.bench.reader import Endpoint
from pushserver.bench.usage import measure, memory
from tests.support.server import Running, running

from .connections import worker_of
from .entries import entries

STREAM, PAGE_ENTRIES = "measured", 100
SURFACES = {"page": "", "entries": "/entries", "atom": "/feed.atom", "json": "/feed.json"}
TIMES = 20  # that each surface is loaded after an event
REST = 0.005  # seconds without work after which a worker is at rest
EVENTS, LOADS, CONNECTIONS = 10.0, 1_000.0, 64  # events and loads a second
STREAMS = 20  # whose memory is measured


def publish(server: Running, stream: str, count: int, seed: int = 1) -> None:
    for entry in entries(count, seed):
        assert server.publish(stream, entry).status_code == 201


def load(server: Running, stream: str, surface: str, coding: str = "gzip") -> None:
    with server.http.stream("GET", f"/streams/{stream}{surface}", headers={"Accept-Encoding": coding}) as answer:
        assert answer.status_code == 200
        for _ in answer.iter_raw():
            pass


def await_rest(worker: int) -> None:
    """Wait until the worker has nothing to do: the event has come to it, which costs as much without a page load."""
    before = measure([worker])
    while True:
        time.sleep(REST)
        now = measure([worker])
        if now.since(before).cpu == 0:
            return
        before = now


def first_load(server: Running, worker: int, surface: str, coding: str) -> tuple[float, float, float]:
    """Milliseconds of processor time of the first load after an event: median and least, and the median of the next."""
    costs: list[list[float]] = [[], []]
    for number in range(TIMES):
        publish(server, STREAM, 1, seed=number + 2)
        for column in costs:
            await_rest(worker)
            before = measure([worker])
            load(server, STREAM, surface, coding)
            await_rest(worker)
            column.append(measure([worker]).since(before).cpu * 1e3)
    first, second = costs
    return statistics.median(first), min(first), statistics.median(second)


async def beside_events(server: Running, worker: int, seconds: float) -> str:
    """The waits of the loads, and the worker's share, while events come."""
    parts = urlsplit(server.url)
    assert parts.hostname
    assert parts.port
    endpoint = Endpoint(parts.hostname, parts.port, "", parts.hostname)
    loader = await PageLoader.start()
    await loader.begin(Orders(endpoint, [f"/streams/{STREAM}"], CONNECTIONS, LOADS))
    before, loop = measure([worker]), asyncio.get_running_loop()
    begin, acknowledged = loop.time(), 0.0
    for number in range(int(seconds * EVENTS)):
        await asyncio.sleep(max(0.0, begin + number / EVENTS - loop.time()))
        asked_at = loop.time()
        await asyncio.to_thread(publish, server, STREAM, 1, number + 1_000)
        acknowledged = max(acknowledged, loop.time() - asked_at)
    share = measure([worker]).since(before).cpu / (loop.time() - begin)
    loads = await loader.end()
    rate = loads.loads / loads.seconds
    waits = f"p50 {loads.p50:.1f} ms, p99 {loads.p99:.1f} ms, longest {loads.longest:.1f} ms"
    synced = f"longest acknowledgement {acknowledged * 1e3:.1f} ms"
    return f"{rate:,.0f} GETs a second: {waits}; {synced}; {share:.0%} of a core; {loads.statuses}"


def memory_of_a_stream(server: Running, worker: int) -> float:
    """KiB that a stream takes that is read in every way."""
    names = [f"{STREAM}-{number}" for number in range(STREAMS + 1)]
    for number, name in enumerate(names):
        publish(server, name, PAGE_ENTRIES, seed=number)
    before = 0
    for name in names:  # the first one has what a worker makes once
        for surface in SURFACES.values():
            load(server, name, surface)
        for surface in ("", "/entries"):
            load(server, name, surface, "br")
        before = before or memory([worker])
    return (memory([worker]) - before) / STREAMS


def main(seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data") as server:
        worker = worker_of(server)
        publish(server, STREAM, PAGE_ENTRIES)
        for name, surface in SURFACES.items():
            for coding in ("gzip", "br"):
                load(server, STREAM, surface, coding)
                first, least, second = first_load(server, worker, surface, coding)
                print(
                    f"first load   {name:8} {coding:5} {first:.2f} ms, {least:.2f} at least; {second:.2f} the next one"
                )
        print("events      ", uvloop.run(beside_events(server, worker, seconds)))
        print(f"memory       {memory_of_a_stream(server, worker):,.0f} KiB a stream")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0)
