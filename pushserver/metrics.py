"""The metrics of a worker: plain integers in memory, which it sends to its supervisor as one summary.

To count costs an addition, so that page loads and passes can afford it. The supervisor adds up the summaries of all
workers, those that have ended included, and shows the total (`server/exposition`). No metric names a stream, a reader
or a key: the labels and their values are listed here, and each is there from the start.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

from .errors import CAUSES

OTHER = "other"  # the label value under which is counted what no list has
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # upper bounds of buckets

Labels = tuple[str, ...]


class Family:
    """Family is one metric with its labels. `FAMILIES` has every family by name."""

    def __init__(self, name: str, help: str, labels: Sequence[str] = (), values: Iterable[Labels] = ((),)) -> None:
        self.name = name
        self.help = help
        self.labels = tuple(labels)
        self.cells = tuple(values)
        FAMILIES[name] = self


FAMILIES: dict[str, Family] = {}


class Counter(Family):
    """Counter counts what happens, by the values of its labels."""

    def __init__(self, name: str, help: str, labels: Sequence[str] = (), values: Iterable[Labels] = ((),)) -> None:
        super().__init__(name, help, labels, values)
        self.counts = dict.fromkeys(self.cells, 0)

    def inc(self, *labels: str, by: int = 1) -> None:
        """Count so many more."""
        if labels not in self.counts:
            labels = (OTHER,) * len(self.labels)  # a list that lacks a value must not stop what is counted
        self.counts[labels] = self.counts.get(labels, 0) + by

    def value(self, *labels: str) -> int:
        """The count as it is now."""
        return self.counts.get(labels, 0)


class Gauge(Family):
    """Gauge is a value of now. `combine` says how those of several workers become one: sum, min or max."""

    def __init__(
        self,
        name: str,
        help: str,
        labels: Sequence[str] = (),
        values: Iterable[Labels] = ((),),
        *,
        combine: str = "sum",
    ) -> None:
        super().__init__(name, help, labels, values)
        self.combine: Any = {"sum": sum, "min": min, "max": max}[combine]
        self.values: dict[Labels, float] = dict.fromkeys(self.cells, 0)

    def set(self, value: float, *labels: str) -> None:
        """Replace the value."""
        self.values[labels] = float(value)

    def add(self, *labels: str, by: int = 1) -> None:
        """Change the value by so much."""
        self.values[labels] += by


class Histogram(Family):
    """Histogram counts observations in buckets: those up to each bound, and those above the last one."""

    def __init__(self, name: str, help: str, bounds: Sequence[float] = SECONDS) -> None:
        super().__init__(name, help)
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one observation, which is not negative."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


def summary() -> dict[str, dict[str, Any]]:
    """All that this process has counted since it began, and its gauges, as JSON can have it; without counts of 0."""
    counters, gauges, histograms = {}, {}, {}
    for family in FAMILIES.values():
        if isinstance(family, Counter):
            counters[family.name] = {",".join(cell): count for cell, count in family.counts.items() if count}
        elif isinstance(family, Gauge):
            gauges[family.name] = {",".join(cell): value for cell, value in family.values.items()}
        elif isinstance(family, Histogram):
            histograms[family.name] = [family.counts, family.sum]
    return {"counters": counters, "gauges": gauges, "histograms": histograms}


def _each(*values: str) -> list[Labels]:
    return [(value,) for value in values]


# --- readers

KINDS = list(product(("websocket", "sse"), ("public", "private")))  # of readers: their transport, and their stream
READERS = Gauge("pushserver_readers", "Readers connected now, count.", ("transport", "access"), KINDS)
OPENED = Counter("pushserver_readers_opened", "Readers that connected, count.", ("transport", "access"), KINDS)
# `client` left by itself; those of the second line name a close code, those of the last the `bye` before code 1012.
GONE = (
    *("client",),
    *("protocol_error", "not_utf8", "flood", "too_big", "internal", "restart", "overloaded"),
    *("bad_message", "token_expired", "too_slow", "ended"),
    *("drain", "resync", "renew", "build"),
)
CLOSED = Counter("pushserver_readers_closed", "Readers that left, by reason, count.", ("reason",), _each(*GONE))
SLOW = Gauge("pushserver_readers_slow", "Readers that accepted no data at the last check, count.")
FULL = Gauge("pushserver_readers_limit", "Readers that the workers accept at most (--readers), count.")
PUT_OFF = Counter("pushserver_readers_put_off", "Readers refused with 503 because too many connected at once, count.")
CUT = Counter(
    "pushserver_connections_cut",
    "Connections cut by a limit, an error or a stop, by reason, count.",
    ("reason",),
    _each("head", "body", "unread", "memory", "failed", "stopping"),
)
LIMITED = Counter(
    "pushserver_limited",
    "Connections and requests refused by a limit, by limit, count.",
    ("limit",),
    _each(
        *("files", "readers", "address_connections", "address_handshakes", "address_requests", "unknown_streams"),
    ),
)
REFUSED = Counter(
    "pushserver_refused",
    "Requests refused, by HTTP status and cause (the end of the problem's type), count.",
    ("status", "cause"),
    [*((str(status), cause) for status, cause in CAUSES), (OTHER, OTHER)],
)

# --- events

PUBLISHED = Counter(
    "pushserver_published",
    "Attempts to store an event, by outcome, count.",
    ("outcome",),
    _each("stored", "replayed", "reused", "full", "gone", "deleted", "ended", "rev", "unavailable"),
)
PUBLISHING = Histogram(
    "pushserver_publish_seconds", "Time from a valid publish request until it is stored or refused, s."
)
WRITTEN = Counter("pushserver_events_written", "Events written to readers, one for each reader, count.")
LAG = Histogram(
    "pushserver_written_lag_seconds",
    "Time from an event's instant in the store until a worker has written it to each reader of its stream that accepts "
    "data, s.",
)
UNKNOWN_EVENTS = Counter(
    "pushserver_events_unknown", "Events of a type unknown to this version, passed on to readers unchanged, count."
)
UNKNOWN_BLOCKS = Counter(
    "pushserver_blocks_unknown", "Blocks of a type unknown to this version, left out of pages and feeds, count."
)
SKIPPED = Counter("pushserver_records_skipped", "Records in the log skipped because they are not events, count.")
STREAMS = Gauge("pushserver_streams_followed", "Streams followed, each once per worker that follows it, count.")
RINGS = Gauge("pushserver_ring_bytes", "Memory that the rings of all streams use, bytes.")
RINGS_LIMIT = Gauge("pushserver_ring_limit_bytes", "Memory that the rings may use (--rings-bytes), bytes.")

# --- losses

RESETS = Counter(
    "pushserver_resets",
    "Streams reset because the log lost or replaced events, by reason, count.",
    ("reason",),
    _each("rollback", "epoch", "trimmed", "empty"),
)
LOST = Counter(
    "pushserver_events_lost", "Acknowledged events lost by the store; each worker that notices a loss counts it, count."
)
HEALED = Counter("pushserver_events_healed", "Lost events stored again, by this or another worker, count.")
RECOVERIES_FAILED = Counter(
    "pushserver_recoveries_failed", "Recoveries of a stream that failed and are retried, count."
)

# --- the store

STORE_UP = Gauge("pushserver_store_up", "Whether every worker's last check of the store passed, 0 or 1.", combine="min")
ROUND_TRIP = Histogram("pushserver_store_roundtrip_seconds", "Time of a write to the store, every 2 s, s.")
STORE_FAILED = Counter(
    "pushserver_store_failed",
    "Commands to the store that failed, by cause, count.",
    ("cause",),
    _each("timeout", "connection", "refused"),
)
CONDITION = Gauge(
    "pushserver_store_condition",
    "Condition of the embedded store's folder and disk: 1 for the one that holds.",
    ("condition",),
    _each("sound", "disk_reserve", "disk_full", "folder_lost"),
    combine="max",
)
TAILS = Gauge(
    "pushserver_tails",
    "Connections that read a partition for a worker, by state, count.",
    ("state",),
    _each("idle", "connecting", "reading", "lost"),
)
TAIL_SILENCE = Gauge(
    "pushserver_tail_silence_seconds",
    "Time since the store last answered the tail that has waited for longest, s. Up to about 2 s is normal; from 10 s "
    "on the check `tail` fails.",
    combine="max",
)
TAILS_LOST = Counter("pushserver_tails_lost", "Connections lost while reading a partition from the store, count.")

# --- page loads

PAGE_LOADS = Counter(
    "pushserver_page_loads",
    "Reads of pages, entries and feeds of public streams, by source, count.",
    ("surface", "source"),
    list(product(("page", "entries", "feed.atom", "feed.json", "entry"), ("memory", "made", "stale", "refused"))),
)
PAGES = Gauge("pushserver_page_bytes", "Memory that finished pages and feeds use, bytes.")
PAGES_LIMIT = Gauge(
    "pushserver_page_limit_bytes", "Memory that finished pages and feeds may use (--page-bytes), bytes."
)
PURGES = Counter(
    "pushserver_purges",
    "Addresses purged from caches after withdrawals, by outcome, count.",
    ("outcome",),
    _each("done", "failed", "dropped"),
)

# --- workers

CHECKS = (
    *("store", "fast", "folder", "replicas", "tail", "receipts", "room", "files", "staying"),
)  # of readiness, as /readyz names them
CHECK = Gauge(
    "pushserver_check",
    "Whether a check of /readyz passes on every worker, 0 or 1.",
    ("check",),
    _each(*CHECKS),
    combine="min",
)
PHASES = ("serving", "notice", "leaving", "finishing", "over")  # of a drain
PHASE = Gauge("pushserver_drain_phase", "Workers by phase of their drain, count.", ("phase",), _each(*PHASES))
LOOP_LATE = Histogram(
    "pushserver_loop_late_seconds", "Time by which a worker's event loop ran a timer late, every second, s."
)
