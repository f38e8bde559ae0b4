"""The figures of an outcome: percentiles, and what limited the run."""

from __future__ import annotations

from collections import Counter

from pushserver.bench.measurement import Outcome, percentiles
from pushserver.bench.swarm import DeliveryCounts
from pushserver.bench.usage import Usage


def outcome(load: float = 0.1, server: float = 0.1, timers: tuple[float, ...] = (0.1,)) -> Outcome:
    counts = DeliveryCounts(10, 0, 0, {}, 0, Counter({5: 10}), 0, list(timers))
    return Outcome(1, 10, 10, counts, 1.0, [1], Usage(1, 0, 10), Usage(0, 0, 0), load, server)


def test_it_says_who_was_the_limit() -> None:
    assert outcome().bottleneck() == "none"
    assert outcome(server=0.95).bottleneck() == "server"
    assert outcome(server=0.95, load=0.95).bottleneck() == "load"
    assert outcome(server=0.95, timers=(80.0, 90.0, 0.1)).bottleneck() == "load"


def test_percentiles_are_values_that_came() -> None:
    assert percentiles(Counter(range(1, 101))) == (50, 90, 99, 100)
    assert percentiles(Counter({3: 1})) == (3, 3, 3, 3)
    assert percentiles(Counter({1: 98, 7: 2})) == (1, 1, 7, 7)
    assert percentiles(Counter()) == (0, 0, 0, 0)
