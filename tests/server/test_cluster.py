"""The cluster as an operator sees it: rates of the last ten seconds, states, and who is slow."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

import pytest

from pushserver import metrics
from pushserver.metrics import LAG
from pushserver.server.cluster import WINDOW, WorkerCluster, quantile
from pushserver.server.totals import Buckets, no_buckets
from pushserver.server.usage import usage_of

from .test_totals import SLOW, summary


@dataclass(eq=False)
class Worker:
    place: int
    pid: int = os.getpid()
    started_at: float = 0.0
    state: str = "serving"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def cluster_of(*workers: Worker) -> tuple[WorkerCluster, Clock]:
    clock = Clock()
    cluster = WorkerCluster(clock=clock)
    for worker in workers:
        cluster.join(worker)
    return cluster, clock


def take(cluster: WorkerCluster, worker: Worker, **fields: Any) -> None:
    cluster.take(worker, json.dumps(summary(**fields)).encode())


def test_rates_and_lag_are_of_the_last_ten_seconds() -> None:
    worker = Worker(1)
    cluster, clock = cluster_of(worker)
    for second in range(30):
        take(cluster, worker, stored=min(second, 20), lag=2 * min(second, 20))
        cluster.tick()
        clock.now += 1
    (shown,) = cluster.status("1")["workers"]
    assert shown["publishes_per_s"] == 1 / WINDOW
    assert shown["lag_ms"] == {"p50": 0.5, "p99": 1.0}
    for _ in range(WINDOW):
        cluster.tick()
        clock.now += 1
    (shown,) = cluster.status("1")["workers"]
    assert (shown["publishes_per_s"], shown["lag_ms"]) == (0, None)


def test_a_worker_that_has_said_nothing_yet_is_shown() -> None:
    cluster, _ = cluster_of(Worker(1, state="starting"))
    status = cluster.status("1")
    (shown,) = status["workers"]
    assert (shown["state"], shown["ready"], shown["heard_s"], shown["readers"]) == ("starting", False, None, 0)
    assert status["totals"]["lag_ms"] is None
    json.dumps(status)


def test_workers_stand_by_place_and_the_slowest_readers_come_first() -> None:
    one, two, leaving = Worker(2), Worker(1), Worker(1, state="leaving", started_at=-50.0)
    cluster, _ = cluster_of(one, two, leaving)
    take(cluster, one, slowest=[SLOW])
    take(cluster, two, slowest=[{**SLOW, "stalled_s": 9.0, "address": "192.0.2.9"}] * 10)
    status = cluster.status("1")
    assert [(worker["place"], worker["state"]) for worker in status["workers"]] == [
        (1, "leaving"),
        (1, "serving"),
        (2, "serving"),
    ]
    assert [row["address"] for row in status["slowest"]] == ["192.0.2.9"] * 10
    assert status["totals"]["readers"] == 6
    assert set(cluster.processes()) == {"supervisor", "1", "2", "1-leaving"}
    assert cluster.states() == {"starting": 0, "serving": 2, "leaving": 1}


def test_what_a_worker_says_of_its_own_drain_is_shown() -> None:
    worker = Worker(1)
    cluster, _ = cluster_of(worker)
    gauges = {
        metrics.PHASE.name: {"finishing": 1, "serving": 0},
        metrics.CHECK.name: {"store": 1, "staying": 0},
    }
    take(cluster, worker, gauges=gauges)
    (shown,) = cluster.status("1")["workers"]
    assert (shown["state"], shown["ready"], shown["failing"]) == ("finishing", False, ["staying"])


def test_a_worker_that_ended_is_shown_no_more_and_counted() -> None:
    worker = Worker(1)
    cluster, _ = cluster_of(worker)
    take(cluster, worker, stored=3)
    cluster.forget(worker)
    cluster.forget(worker)
    take(cluster, worker, stored=4)  # what was read after its end
    assert cluster.status("1")["workers"] == []
    assert (cluster.started, cluster.ended) == (1, 1)
    assert cluster.totals.total().count(metrics.PUBLISHED.name) == 3


def test_the_usage_of_a_process_is_read_and_that_of_none_is_none() -> None:
    usage = usage_of(os.getpid())
    assert usage is not None
    assert 0 < usage.resident < usage.virtual
    assert 0 < usage.files < usage.most_files
    assert usage_of(2**22 + 1) is None


@pytest.mark.parametrize(("counts", "part", "value"), [({0: 10}, 0.5, 0.0005), ({1: 4}, 1, 0.002), ({13: 1}, 0.5, 10)])
def test_a_quantile_lies_in_its_bucket_as_prometheus_has_it(counts: dict[int, int], part: float, value: float) -> None:
    empty = no_buckets(LAG.name)
    buckets = Buckets(tuple(counts.get(at, 0) for at in range(len(empty.counts))), 0.0)
    assert quantile(LAG, buckets, part) == pytest.approx(value)
