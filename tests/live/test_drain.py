from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushserver.live.drain import CLOSE_WAIT, FINISH, HURRIED, Departures, Drain, Phase, longest, longest_leaving
from pushserver.live.fanout import Fanout
from pushserver.live.reader import Reader
from pushserver.live.ring import Ring
from pushserver.model import Cursor
from pushserver.wire.frames import Format

ORDER = list(Phase)
FANOUT = Fanout(Ring(Cursor("e", "1-0", "u"), 0, max_events=1, max_bytes=1))


def begun(delay: float = 5.0, window: float = 5.0, at: float = 100.0) -> Drain:
    drain = Drain(delay=delay, window=window)
    drain.begin(at)
    return drain


def test_nothing_happens_before_it_begins() -> None:
    drain = Drain(delay=0.0, window=0.0)
    assert drain.step(1e9, requests=0) is Phase.SERVING


def test_the_delay_is_waited_out_without_readers_too() -> None:
    drain = begun(delay=5.0)
    assert drain.step(104.9, requests=0) is Phase.NOTICE
    assert drain.step(105.0, requests=0) is Phase.LEAVING


def test_the_window_ends_with_the_last_reader_of_all_workers() -> None:
    drain = begun(delay=0.0)
    drain.step(100.0, requests=0)
    assert not drain.has_left(101.0, readers=1)
    assert drain.has_left(101.1, readers=0)
    assert drain.step(101.1, requests=0) is Phase.LEAVING, "it goes on accepting for the other workers"
    drain.finish(101.2)
    assert drain.step(101.3, requests=1) is Phase.FINISHING
    assert drain.step(101.2 + FINISH - 0.1, requests=1) is Phase.FINISHING, "the others took none of its time"
    assert drain.step(101.4, requests=0) is Phase.OVER


def test_only_readers_who_leave_are_waited_for() -> None:
    drain = begun()
    drain.finish(100.0)
    assert drain.phase is Phase.NOTICE


def test_who_does_not_leave_holds_up_nothing_for_longer_than_the_limits() -> None:
    drain = begun(delay=1.0, window=2.0)
    at = 100.0
    while drain.step(at, requests=1) is Phase.NOTICE:
        at += 0.01
    assert drain.leaving_for(at) == 2.0 + CLOSE_WAIT
    while not drain.has_left(at, readers=1):
        at += 0.01
    assert at - 100.0 == pytest.approx(longest_leaving(1.0, 2.0), abs=0.05)
    drain.finish(at)
    while drain.step(at, requests=1) is not Phase.OVER:
        at += 0.01
    assert at - 100.0 == pytest.approx(longest(1.0, 2.0), abs=0.05)
    assert longest(1.0, 2.0) == 3.0 + CLOSE_WAIT + FINISH


def test_a_second_begin_changes_nothing() -> None:
    drain = begun(delay=5.0)
    drain.begin(104.0)
    assert drain.step(105.0, requests=0) is Phase.LEAVING


def test_another_worker_makes_the_delay_needless() -> None:
    drain = begun(delay=300.0)
    drain.skip_delay()
    assert drain.step(100.0, requests=0) is Phase.LEAVING


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 3), st.integers(0, 3)), max_size=60), st.integers(0, 60))
def test_the_phases_come_in_their_order_whenever_it_is_hurried(
    steps: list[tuple[float, int, int]], hurried: int
) -> None:
    drain, at, phases = begun(), 100.0, [Phase.NOTICE]
    for number, (passed, readers, requests) in enumerate(steps):
        at += passed
        if number == hurried:
            drain.hurry(at)
        if drain.has_left(at, readers):
            drain.finish(at)
            phases.append(drain.phase)
        phases.append(drain.step(at, requests=requests))
    places = [ORDER.index(phase) for phase in phases]
    assert all(later - earlier in (0, 1) for earlier, later in pairwise(places))


def test_a_hurried_drain_sends_all_away_at_once_and_waits_little() -> None:
    drain = begun(delay=300.0, window=300.0)
    drain.hurry(101.0)
    assert drain.step(101.0, requests=1) is Phase.LEAVING
    assert drain.due(101.0, 9) == 9
    assert drain.has_left(101.0 + HURRIED, readers=9)
    drain.finish(101.0 + HURRIED)
    assert drain.step(101.0 + 2 * HURRIED, requests=1) is Phase.OVER


def test_readers_are_due_evenly() -> None:
    drain = begun(delay=0.0, window=5.0)
    drain.step(100.0, requests=0)
    due = [drain.due(100.0 + second, 5_000) for second in range(7)]
    assert due == [0, 1_000, 2_000, 3_000, 4_000, 5_000, 5_000]
    assert drain.due(100.01, 1) == 1, "a single reader need not wait"
    assert begun(window=0.0).due(100.0, 7) == 7


def test_each_reader_departs_once_in_an_order_that_is_not_that_of_arrival() -> None:
    readers = [Reader(Format.JSON) for _ in range(1_000)]
    departures = Departures()
    for reader in readers[:900]:
        departures.add(FANOUT, reader)
    first = departures.next(300)
    for reader in readers[900:]:
        departures.add(FANOUT, reader)
    order = [reader for _, reader in (*first, *departures.next(300), *departures.next(len(departures)))]
    assert Counter(map(id, order)) == Counter(map(id, readers))
    assert order[:900] != readers[:900]
    early = sum(readers.index(reader) < 450 for reader in order[:300])
    assert 100 < early < 200, "the first half of those who came make about a half of the first to leave"
    assert departures.next(5_000) == []
