"""A measurement is the outcome of one run, and the figures that are computed from it.

docs/performance.md says what each figure means and how it may mislead.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Any, NamedTuple

from .reader import TICK_NS
from .swarm import DeliveryCounts
from .usage import Usage

BUSY = 0.8  # of a processor, from which on a process counts as the bottleneck
LATE_MS = 50.0  # median lateness of the readers' timers, from which on the load generator counts as the bottleneck


class Outcome(NamedTuple):
    """Outcome is what one run measured. Times are in seconds unless they say otherwise."""

    readers: int
    entries: int
    expected: int  # deliveries
    counts: DeliveryCounts
    seconds: float  # from the first entry's due time to the last delivery
    acknowledged: list[int]  # ns from each entry's due time to its acknowledgement
    server: Usage
    store: Usage
    load: float  # share of a processor that the busiest reader process used
    server_share: float  # share of a processor that the server used

    @property
    def is_complete(self) -> bool:
        """Whether every reader received every entry once."""
        return not (self.counts.missing or self.counts.duplicates or self.counts.disconnected)

    def figures(self) -> dict[str, Any]:
        """Return the figures, rounded, as `pushserver bench --json` prints them."""
        timers = sorted(self.counts.timers) or [0.0]
        figures: dict[str, Any] = {
            "readers": self.readers,
            "entries": self.entries,
            "expected": self.expected,
            "deliveries": self.counts.delivered,
            "missing": self.counts.missing,
            "twice": self.counts.duplicates,
            "lost": self.counts.disconnected,
            "seconds": round(self.seconds, 3),
            "deliveries_per_second": round(self.counts.delivered / self.seconds),
            "entries_per_second": round(self.entries / self.seconds, 1),
            "late_ms": _named(ticks * TICK_NS / 1e6 for ticks in percentiles(self.counts.late)),
            "acknowledged_ms": _named(ns / 1e6 for ns in percentiles(Counter(self.acknowledged))),
            "load": {
                "share": round(self.load, 3),
                "clock_late_ms": {"p99": timers[len(timers) * 99 // 100], "max": timers[-1]},
            },
            "limit": self.bottleneck(),
        }
        if self.server.cpu:
            figures["server"] = {**self._cost(self.server), "share": round(self.server_share, 3)}
            figures["store"] = self._cost(self.store)
        return figures

    def _cost(self, used: Usage) -> dict[str, float]:
        delivered = max(1, self.counts.delivered)
        return {
            "us_per_delivery": round(used.cpu / delivered * 1e6, 3),
            "us_system_per_delivery": round(used.system / delivered * 1e6, 3),
            "writes_per_delivery": round(used.writes / delivered, 4),
            "us_per_entry": round(used.cpu / self.entries * 1e6, 1),
        }

    def bottleneck(self) -> str:
        """Return what limited the run: `load`, `server`, or `none`."""
        timers = sorted(self.counts.timers) or [0.0]
        if self.load > BUSY or timers[len(timers) // 2] > LATE_MS:
            return "load"
        return "server" if self.server_share > BUSY else "none"


def percentiles(counted: Counter[int]) -> tuple[float, ...]:
    """Return the 50th, 90th and 99th percentile and the largest of counted values, by nearest rank."""
    total, passed, values = counted.total(), 0, []
    ranks = deque(-(-total * percent // 100) for percent in (50, 90, 99, 100))
    for value, count in sorted(counted.items()):
        passed += count
        while ranks and passed >= ranks[0]:
            values.append(float(value))
            ranks.popleft()
    return tuple(values) if total else (0.0,) * 4


def _named(values: Iterable[float]) -> dict[str, float]:
    return dict(zip(("p50", "p90", "p99", "max"), (round(value, 2) for value in values), strict=True))
