"""Measure what a scrape of metrics and a look at the status cost after many workers: `python -m bench.scrape`.

Summaries of full size come from WORKERS workers that live, and came from PAST that have ended. The clock is that of the
processor, so that a busy machine changes little.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from pushserver import metrics
from pushserver.codec import dumps
from pushserver.server.cluster import WorkerCluster
from pushserver.server.exposition import exposition

WORKERS, PAST = 3, 30
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
    main()
