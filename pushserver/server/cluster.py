"""The cluster is the workers of a server as an operator sees them: who runs, how busy, how late, and who is slow.

It has the totals of what they count, and their rates over the last ten seconds. The clocks are arguments.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from .. import metrics, model
from ..metrics import Histogram
from .totals import SLOWEST, Buckets, Summary, Totals
from .usage import ProcessUsage, cpu_of, usage_of

WINDOW = 10  # looks, a second apart, over which rates are counted
LAG = metrics.LAG.name


class SeenWorker(Hashable, Protocol):
    """A SeenWorker is a worker process, as far as an operator sees it."""

    pid: int
    place: int
    started_at: float  # on the clock of the event loop

    @property
    def state(self) -> str:
        """`starting`, `serving` or `leaving`, as the supervisor knows it."""


class CountsAt(NamedTuple):
    """CountsAt is what a worker had counted at an instant of the clock."""

    at: float
    published: int
    written: int
    lag: Buckets
    cpu: float


@dataclass
class Seen:
    """Seen is what is remembered of a worker: its looks, and when its last summary came."""

    looks: deque[CountsAt] = field(default_factory=lambda: deque(maxlen=WINDOW + 1))
    heard_at: float | None = None


class WorkerCluster:
    """WorkerCluster keeps the totals of the workers. `tick` is to be called each second."""

    def __init__(self, *, clock: Callable[[], float], usage: Callable[[int], Any] = usage_of) -> None:
        self.totals = Totals()
        self._clock = clock
        self._usage = usage
        self._began = time.time()
        self._workers: dict[SeenWorker, Seen] = {}
        self.started = self.ended = 0  # workers

    # --- called by the supervisor

    def join(self, worker: SeenWorker) -> None:
        """Count a worker that has been started."""
        self._workers[worker] = Seen()
        self.started += 1

    def take(self, worker: SeenWorker, summary: bytes) -> None:
        """Take the newest summary of a worker that is not forgotten."""
        seen = self._workers.get(worker)
        if seen is not None:
            self.totals.take(worker, summary)
            seen.heard_at = self._clock()

    def forget(self, worker: SeenWorker) -> None:
        """Let go of a worker that has ended; a second call changes nothing."""
        if self._workers.pop(worker, None) is not None:
            self.totals.forget(worker)
            self.ended += 1

    def tick(self) -> None:
        """Look at what each worker has counted."""
        for worker, seen in self._workers.items():
            own = self.totals.of(worker)
            published = own.counters.get(metrics.PUBLISHED.name, {}).get(("stored",), 0)
            look = CountsAt(
                self._clock(), published, own.count(metrics.WRITTEN.name), own.buckets(LAG), cpu_of(worker.pid)
            )
            seen.looks.append(look)

    # --- shown to the operator

    def processes(self) -> dict[str, ProcessUsage]:
        """The usage of each process: `supervisor`, and the workers by place; one that does not serve by state, too."""
        pids = {"supervisor": os.getpid()}
        for worker in self._workers:
            pids[str(worker.place) if worker.state == "serving" else f"{worker.place}-{worker.state}"] = worker.pid
        usages = {name: self._usage(pid) for name, pid in pids.items()}
        return {name: usage for name, usage in usages.items() if usage is not None}

    def states(self) -> dict[str, int]:
        """The number of workers by state."""
        states = [worker.state for worker in self._workers]
        return {state: states.count(state) for state in ("starting", "serving", "leaving")}

    def status(self, version: str) -> dict[str, Any]:
        """The cluster as `/status.json` shows it (docs/metrics.md)."""
        workers = [self._shown(worker, seen) for worker, seen in self._workers.items()]
        workers.sort(key=lambda worker: (worker["place"], -worker["age_s"]))
        rates = [_rates(seen.looks) for seen in self._workers.values()]
        sums = ("readers", "streams", "publishes_per_s", "entries_written_per_s", "rss_bytes", "cpu_percent")
        slowest = [
            {"place": worker.place, "pid": worker.pid, **row}
            for worker in self._workers
            for row in self.totals.of(worker).slowest
        ]
        slowest.sort(key=lambda row: (row["stalled_s"], row["waiting_bytes"]), reverse=True)
        return {
            "version": version,
            "at": model.instant(model.now()),
            "pid": os.getpid(),
            "uptime_s": round(time.time() - self._began, 1),
            "workers": workers,
            "totals": {
                **{name: round(sum(worker[name] for worker in workers), 2) for name in sums},
                "lag_ms": _lag([rate.lag for rate in rates]),
                "workers_started": self.started,
                "workers_ended": self.ended,
            },
            "slowest": slowest[:SLOWEST],
        }

    def _shown(self, worker: SeenWorker, seen: Seen) -> dict[str, Any]:
        own, rates, usage, now = self.totals.of(worker), _rates(seen.looks), self._usage(worker.pid), self._clock()
        readers = own.gauges.get(metrics.READERS.name, {})
        checks = {labels[0]: passes for labels, passes in own.gauges.get(metrics.CHECK.name, {}).items()}
        return {
            "place": worker.place,
            "pid": worker.pid,
            "state": _state(worker, own),
            "ready": bool(checks) and all(checks.values()),
            "failing": [name for name, passes in checks.items() if not passes],
            "age_s": round(now - worker.started_at, 1),
            "heard_s": None if seen.heard_at is None else round(now - seen.heard_at, 1),
            "readers": int(sum(readers.values())),
            "readers_by": {" ".join(labels): int(count) for labels, count in readers.items()},
            "readers_slow": int(own.gauge(metrics.SLOW.name)),
            "streams": int(own.gauge(metrics.STREAMS.name)),
            "publishes_per_s": round(rates.published, 2),
            "entries_written_per_s": round(rates.written, 2),
            "lag_ms": _lag([rates.lag]),
            "store_up": bool(own.gauge(metrics.STORE_UP.name)),
            "rss_bytes": usage.resident if usage else 0,
            "cpu_percent": round(100 * rates.cpu, 1),
            "files": usage.files if usage else 0,
        }


class Rates(NamedTuple):
    """Rates are what a worker does a second, and its lag, over the looks that are remembered."""

    published: float
    written: float
    cpu: float
    lag: Buckets


def _rates(looks: Sequence[CountsAt]) -> Rates:
    if not looks:
        return Rates(0.0, 0.0, 0.0, Summary({}, {}, {}).buckets(LAG))
    first, last = looks[0], looks[-1]
    seconds = last.at - first.at or 1.0
    return Rates(
        (last.published - first.published) / seconds,
        (last.written - first.written) / seconds,
        (last.cpu - first.cpu) / seconds,
        last.lag.minus(first.lag),
    )


def _state(worker: SeenWorker, own: Summary) -> str:
    """The state as the supervisor knows it; of a worker that serves or leaves, the phase that it reports itself."""
    phases = own.gauges.get(metrics.PHASE.name, {})
    phase = next((labels[0] for labels, is_now in phases.items() if is_now), "")
    return worker.state if worker.state == "starting" or phase in ("", "serving") else phase


def _lag(lags: Sequence[Buckets]) -> dict[str, float] | None:
    """The lag of half and of 99 of 100 events, in milliseconds; None where no event was written."""
    total = lags[0] if lags else Summary({}, {}, {}).buckets(LAG)
    for lag in lags[1:]:
        total = total.plus(lag)
    if not sum(total.counts):
        return None
    return {name: round(1_000 * quantile(metrics.LAG, total, part), 1) for name, part in (("p50", 0.5), ("p99", 0.99))}


def quantile(histogram: Histogram, buckets: Buckets, part: float) -> float:
    """The value up to which this part of the observations is, within its bucket in proportion, as Prometheus does."""
    rank, lower = part * sum(buckets.counts), 0.0
    for bound, count in zip(histogram.bounds, buckets.counts, strict=False):
        if count and rank <= count:
            return lower + (bound - lower) * rank / count
        rank -= count
        lower = bound
    return lower
