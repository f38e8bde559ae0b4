"""The script measures what a scrape of metrics and a look at the status cost after many workers.

    .venv/bin/python -m bench.scrape            # summaries of full size, in this process
    .venv/bin/python -m bench.scrape server     # a server with 1,000 streams that are followed

There are WORKERS workers that live, and PAST that have ended. The clock is that of the processor, so that a busy
machine changes little.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx2

from pushserver import metrics
from pushserver.bench.usage import measure
from pushserver.codec import dumps
from pushserver.server.cluster import WorkerCluster
from pushserver.server.exposition import exposition
from tests.support.scrapes import METRICS, metrics_url, status
from tests.support.server import Running, reader, running

from .returning import until

WORKERS, PAST = 3, 30
STREAMS = 1_000
TIMES = 200
SLOW = {
    **{"address": "2001:db8:1234:5678::1", "transport": "websocket", "stream": "s" * 64},
    **{"waiting_bytes": 65_536, "frames_behind": 1_000, "stalled_s": 25.0},
}


@dataclass(eq=False)
class Worker:
    """Worker is a worker as far as a cluster looks at it; its process is this one."""

    place: int
    pid: int = os.getpid()
    started_at: float = 0.0
    state: str = "serving"


def summary() -> bytes:
    """A summary in which nothing is 0."""
    value = metrics.summary()
    for family in metrics.FAMILIES.values():
        if isinstance(family, metrics.Counter):
            value["counters"][family.name] = {",".join(labels): 123_456 for labels in family.cells}
    return dumps({**value, "slowest": [SLOW] * 10}).encode()


def milliseconds(work: Callable[[], object]) -> float:
    """The median processor time of some work."""
    times = []
    for _ in range(TIMES):
        began = time.process_time()
        work()
        times.append(1_000 * (time.process_time() - began))
    return statistics.median(times)


async def scrape_server() -> None:
    """Restart the workers of a server until enough of them have ended, have streams followed, and scrape it."""
    options = ("--workers", str(WORKERS), "--drain-window", "0", *METRICS)
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data", *options) as server:
        for number in range(1, PAST // WORKERS + 1):
            server.process.send_signal(signal.SIGHUP)
            await until(partial(_has_restarted, server, number))
        async with AsyncExitStack() as readers:
            for number in range(STREAMS):
                server.publish_ok(f"stream-{number}", "One")
                await readers.enter_async_context(reader(server, f"stream-{number}"))
            await until(lambda: status(server)["totals"]["streams"] >= STREAMS)
            totals, url = status(server)["totals"], f"{metrics_url(server)}/metrics"
            before = measure([server.process.pid])
            with httpx2.Client() as http:
                size = max(len(http.get(url).content) for _ in range(TIMES))
            cost = 1_000 * measure([server.process.pid]).since(before).cpu / TIMES
    print(f"{WORKERS} workers, {PAST} past ones, {totals['streams']} streams; a scrape has {size:,} bytes")
    print(f"a scrape, with all else that the supervisor does meanwhile {cost:6.2f} ms")


def _has_restarted(server: Running, times: int) -> bool:
    return server.log.count("all workers have been restarted") == times


def main() -> None:
    cluster = WorkerCluster(clock=time.monotonic)
    data = summary()
    for number in range(PAST + WORKERS):
        worker = Worker(number)
        cluster.join(worker)
        cluster.take(worker, data)
        if number < PAST:
            cluster.forget(worker)
    living = Worker(WORKERS)
    cluster.join(living)
    rows = {
        "a scrape": lambda: exposition(cluster, "bench", ""),
        "a scrape in OpenMetrics": lambda: exposition(cluster, "bench", "application/openmetrics-text"),
        "a status": lambda: dumps(cluster.status("1")),
        "to read a summary": lambda: cluster.take(living, data),
        "to make a summary": lambda: dumps(metrics.summary()),
    }
    size = len(exposition(cluster, "bench", "")[0])
    print(f"{WORKERS} workers, {PAST} past ones; a summary has {len(data):,} bytes, a scrape {size:,}")
    for name, work in rows.items():
        print(f"{name:24} {milliseconds(work):6.2f} ms")
    assert len(json.loads(dumps(cluster.status("1")))["workers"]) == WORKERS + 1


if __name__ == "__main__":
    if sys.argv[1:] == ["server"]:
        asyncio.run(scrape_server())
    else:
        main()
