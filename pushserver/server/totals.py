"""The totals of a server: what all its workers have counted, those that have ended included. Pure.

Each summary has what a worker has counted since it began, so that one that is lost costs nothing: the next one has it
too. What a killed worker counted after its last summary, a second's worth at most, is in no total.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

from ..metrics import FAMILIES, OTHER, Counter, Gauge, Histogram, Labels

SLOWEST = 10  # readers of a summary that are looked at
MOST = 2**63  # no count of a summary is as high
TEXT_LIMIT = 100  # characters of a text in a summary


class Buckets(NamedTuple):
    """Buckets are the counts of a histogram, one for each bucket, and the sum of what was observed."""

    counts: tuple[int, ...]
    sum: float

    def plus(self, other: Buckets) -> Buckets:
        """Both together."""
        return Buckets(tuple(map(sum, zip(self.counts, other.counts, strict=True))), self.sum + other.sum)

    def minus(self, other: Buckets) -> Buckets:
        """All that was observed since `other`."""
        pairs = zip(self.counts, other.counts, strict=True)
        return Buckets(tuple(max(0, now - before) for now, before in pairs), self.sum - other.sum)


class Summary(NamedTuple):
    """Summary is what one worker has counted, by family and labels, and its slowest readers."""

    counters: Mapping[str, Mapping[Labels, int]]
    gauges: Mapping[str, Mapping[Labels, float]]
    histograms: Mapping[str, Buckets]
    slowest: tuple[Mapping[str, Any], ...] = ()

    def count(self, family: str) -> int:
        """The count of a counter over all its labels."""
        return sum(self.counters.get(family, {}).values())

    def gauge(self, family: str, *labels: str) -> float:
        """The value of a gauge; 0 where the worker has not sent one."""
        return self.gauges.get(family, {}).get(labels, 0)

    def buckets(self, family: str) -> Buckets:
        """The buckets of a histogram; empty where the worker has not sent any."""
        return self.histograms.get(family) or no_buckets(family)


EMPTY = Summary({}, {}, {})


def no_buckets(family: str) -> Buckets:
    """The buckets of a histogram that has observed nothing."""
    known = FAMILIES[family]
    assert isinstance(known, Histogram)
    return Buckets((0,) * (len(known.bounds) + 1), 0.0)


class Totals:
    """Totals adds up summaries, the newest one of each living worker and what the others left."""

    def __init__(self) -> None:
        self._past = EMPTY
        self._living: dict[Hashable, Summary] = {}

    def take(self, worker: Hashable, data: bytes) -> None:
        """Put a worker's newest summary in the place of the one before; one that cannot be read changes nothing."""
        summary = parse(data)
        if summary is not None:
            self._living[worker] = summary

    def of(self, worker: Hashable) -> Summary:
        """The newest summary of a worker."""
        return self._living.get(worker, EMPTY)

    def forget(self, worker: Hashable) -> None:
        """Let go of a worker that has ended: its gauges go, its counts stay."""
        self._past = _sum([self._past, self._living.pop(worker, EMPTY)])._replace(gauges={})

    def total(self) -> Summary:
        """All workers together: every family, and every value of its labels."""
        living = list(self._living.values())
        total = _sum([self._past, *living])
        gauges = {name: _combined(family, living) for name, family in FAMILIES.items() if isinstance(family, Gauge)}
        return total._replace(gauges=gauges)


def _sum(summaries: list[Summary]) -> Summary:
    counters: dict[str, Mapping[Labels, int]] = {}
    histograms: dict[str, Buckets] = {}
    for name, family in FAMILIES.items():
        if isinstance(family, Counter):
            counts = dict.fromkeys(family.cells, 0)
            for summary in summaries:
                for labels, count in summary.counters.get(name, {}).items():
                    counts[labels] = counts.get(labels, 0) + count
            counters[name] = counts
        elif isinstance(family, Histogram):
            buckets = no_buckets(name)
            for summary in summaries:
                buckets = buckets.plus(summary.buckets(name))
            histograms[name] = buckets
    return Summary(counters, {}, histograms)


def _combined(gauge: Gauge, living: list[Summary]) -> dict[Labels, float]:
    each = [summary.gauges[gauge.name] for summary in living if gauge.name in summary.gauges]
    return {
        labels: gauge.combine(values) if (values := [own[labels] for own in each if labels in own]) else 0
        for labels in gauge.cells
    }


# --- reading a summary: a worker may be of another version, or dying


def parse(data: bytes) -> Summary | None:
    """A summary as a worker sent it; what is not known in it is left out. None where it cannot be read."""
    try:
        value = json.loads(data)
        return Summary(
            {name: _counts(name, cells) for name, cells in value["counters"].items() if _is(name, Counter)},
            {name: _values(name, cells) for name, cells in value["gauges"].items() if _is(name, Gauge)},
            {name: _buckets(own) for name, own in value["histograms"].items() if _has_buckets(name, own)},
            tuple(_slow_reader(row) for row in value["slowest"][:SLOWEST]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _is(name: str, kind: type) -> bool:
    return isinstance(FAMILIES.get(name), kind)


def _counts(name: str, cells: Mapping[str, Any]) -> dict[Labels, int]:
    family = FAMILIES[name]
    known = {*family.cells, (OTHER,) * len(family.labels)}
    return {labels: _count(value) for text, value in cells.items() if (labels := _labels(text)) in known}


def _values(name: str, cells: Mapping[str, Any]) -> dict[Labels, float]:
    known = set(FAMILIES[name].cells)
    return {labels: _number(value) for text, value in cells.items() if (labels := _labels(text)) in known}


def _labels(text: str) -> Labels:
    return tuple(text.split(",")) if text else ()


def _has_buckets(name: str, value: Any) -> bool:
    """Whether a histogram is one of this version, with the same buckets."""
    return _is(name, Histogram) and len(value[0]) == len(no_buckets(name).counts)


def _buckets(value: Any) -> Buckets:
    counts, total = value
    return Buckets(tuple(map(_count, counts)), _number(total))


def _slow_reader(row: Mapping[str, Any]) -> dict[str, Any]:
    texts = {name: str(row[name])[:TEXT_LIMIT] for name in ("address", "transport", "stream")}
    counts = {name: _count(row[name]) for name in ("waiting_bytes", "frames_behind")}
    return {**texts, **counts, "stalled_s": _number(row["stalled_s"])}


def _count(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < MOST:
        raise ValueError(f"expected a count, got {value!r}")
    return value


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"expected a number, got {value!r}")
    return float(value)
