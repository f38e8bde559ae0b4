"""The totals contain the dead, and no summary can harm them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pushserver import metrics
from pushserver.server.totals import SLOWEST, TEXT_LIMIT, Totals, parse

STORED, LAG, LOST = "pushserver_published", "pushserver_written_lag_seconds", "pushserver_events_lost"
BUCKETS = len(metrics.SECONDS) + 1
SLOW = {
    **{"address": "192.0.2.1", "transport": "sse", "stream": "storm"},
    **{"waiting_bytes": 1, "frames_behind": 2, "stalled_s": 5.0},
}


def summary(stored: int = 0, *, up: int = 1, lag: int = 0, **other: Any) -> dict[str, Any]:
    counts = [lag, *[0] * (BUCKETS - 1)]
    return {
        "counters": {STORED: {"stored": stored}, LOST: {"": 2}},
        "gauges": {"pushserver_store_up": {"": up}, "pushserver_readers": {"sse,public": 3}},
        "histograms": {LAG: [counts, lag / 1_000]},
        "slowest": [SLOW],
        **other,
    }


def packed(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_a_worker_that_ends_leaves_its_counts_and_takes_its_gauges() -> None:
    totals = Totals()
    totals.take("one", packed(summary(5, lag=4)))
    totals.take("two", packed(summary(7, up=0)))
    totals.take(
        "one", packed(summary(6, lag=5))
    )  # it has counted all of its life: it takes the place of the one before
    total = totals.total()
    assert (total.counters[STORED]["stored",], total.counters[LOST][()]) == (13, 4)
    assert total.gauges["pushserver_readers"]["sse", "public"] == 6
    assert total.gauges["pushserver_store_up"][()] == 0, "one of them has lost the store"
    totals.forget("two")
    totals.forget("two")
    total = totals.total()
    assert (total.counters[STORED]["stored",], total.counters[LOST][()]) == (13, 4)
    assert total.gauges["pushserver_readers"]["sse", "public"] == 3
    assert total.gauges["pushserver_store_up"][()] == 1
    assert (total.histograms[LAG].counts[0], total.histograms[LAG].sum) == (5, 0.005)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        packed(summary(5))[:-20],
        b"[]",
        b"null",
        b"[" * 50_000,
        packed({**summary(5), "counters": {STORED: {"stored": -1}}}),
        packed({**summary(5), "counters": {STORED: {"stored": 2**70}}}),
        packed({**summary(5), "counters": {STORED: 5}}),
        packed({**summary(5), "gauges": {"pushserver_store_up": {"": "up"}}}),
        packed({**summary(5), "gauges": {"pushserver_store_up": {"": float("nan")}}}),
        packed({**summary(5), "histograms": {LAG: 3}}),
        packed({**summary(5), "slowest": [{}]}),
        packed({"counters": {}}),
    ],
)
def test_a_summary_that_cannot_be_read_changes_nothing(data: bytes) -> None:
    totals = Totals()
    totals.take("one", packed(summary(4)))
    totals.take("one", data)
    assert totals.total().counters[STORED]["stored",] == 4


def test_what_another_version_counts_is_left_out() -> None:
    value = summary(4, counters={"tomorrow": {"": 1}, STORED: {"stored": 4, "tomorrow": 9}, LAG: {"": 1}})
    value["histograms"] = {LAG: [[1, 2, 3], 0.5]}
    read = parse(packed(value))
    assert read is not None
    assert read.counters == {STORED: {("stored",): 4}}
    assert read.histograms == {}


def test_a_summary_is_bounded() -> None:
    many = [{**SLOW, "address": "x" * 10_000} for _ in range(1_000)]
    read = parse(packed(summary(slowest=many)))
    assert read is not None
    assert len(read.slowest) == SLOWEST
    assert len(read.slowest[0]["address"]) == TEXT_LIMIT


def test_a_worker_s_own_summary_can_be_read() -> None:
    read = parse(packed({**metrics.summary(), "slowest": []}))
    assert read is not None
    assert read.gauges.keys() | read.counters.keys() | read.histograms.keys() == metrics.FAMILIES.keys()
