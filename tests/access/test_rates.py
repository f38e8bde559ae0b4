from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushserver.access.rates import BURST, KEYED_BURST, LONGEST, Bucket, KeyedRates, RateLimit
from pushserver.errors import TooMany

rates = st.integers(0, 7).map(lambda power: 2**power)  # so that sums of their parts are exact
gaps = st.lists(st.floats(0, 0.5), min_size=1, max_size=200)


@given(rate=rates, gaps=gaps)
def test_no_more_are_let_in_than_a_burst_and_what_the_rate_gives(rate: int, gaps: list[float]) -> None:
    limit, now, let_in = RateLimit(rate), 1_000.0, []
    for gap in gaps:
        now += gap
        if not limit.wait(now):
            let_in.append(now)
    for number, since in enumerate(let_in):
        assert len(let_in) - number <= rate * (BURST + let_in[-1] - since) + 1e-6


@given(rate=rates, count=st.integers(1, 300))
def test_of_a_storm_a_burst_is_let_in_and_the_others_when_they_were_told(rate: int, count: int) -> None:
    limit = RateLimit(rate)
    waits = [limit.wait(50.0) for _ in range(count)]
    later = [wait for wait in waits if wait]
    assert len(waits) - len(later) == min(count, rate * BURST)
    assert later == sorted(later)
    assert all(wait <= LONGEST for wait in later)
    if count <= rate * LONGEST:
        assert [limit.wait(50.0 + wait) for wait in later] == [0.0] * len(later)


def test_a_place_that_was_promised_long_ago_puts_nobody_off() -> None:
    limit = RateLimit(2)
    waits = [limit.wait(0.0) for _ in range(20)]
    assert waits[-1] == 9.0
    assert [limit.wait(100.0) for _ in range(4)] == [0.0, 0.0, 0.5, 1.0]


def test_a_bucket_may_be_overdrawn_once() -> None:
    bucket = Bucket(10)
    bucket.take(10)
    bucket.charge(1_000)
    with pytest.raises(TooMany) as refused:
        bucket.take(10)
    assert 98 <= int(refused.value.headers["Retry-After"]) <= 99  # 981 requests at 10 a second


@given(rate=rates, gaps=gaps)
def test_a_key_gets_a_burst_and_what_its_rate_gives(rate: int, gaps: list[float]) -> None:
    limit, now, let_in = KeyedRates(rate, 10), 1_000.0, []
    for gap in gaps:
        now += gap
        if not limit.wait("a", now):
            let_in.append(now)
    for number, since in enumerate(let_in):
        assert len(let_in) - number <= rate * (KEYED_BURST + let_in[-1] - since) + 1e-6


@given(rate=rates)
def test_a_key_that_waits_as_long_as_it_was_told_gets_a_place(rate: int) -> None:
    limit = KeyedRates(rate, 10)
    assert not any(limit.wait("a", 50.0) for _ in range(int(rate * KEYED_BURST)))
    wait = limit.wait("a", 50.0)
    assert wait == 1 / rate
    assert limit.wait("a", 50.0) == wait  # who was refused takes nothing
    assert limit.wait("b", 50.0) == limit.wait("a", 50.0 + wait) == 0.0


def test_the_key_that_was_used_least_recently_is_forgotten_first() -> None:
    limit = KeyedRates(1, 2)
    for key in ("a", "a", "b", "b", "a"):
        limit.wait(key, 0.0)
    assert limit.wait("c", 0.0) == 0.0
    assert limit.wait("a", 0.0) > 0.0
    assert limit.wait("b", 0.0) == 0.0


def test_a_bucket_tells_its_room_and_when_it_is_full_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    bucket = Bucket(10)
    assert bucket.fields() == {"RateLimit-Policy": '"key";q=20;w=2', "RateLimit": '"key";r=20;t=0'}
    for _ in range(15):
        bucket.take(10)
    assert bucket.fields()["RateLimit"] == '"key";r=5;t=2'
    bucket.charge(100)
    assert bucket.fields()["RateLimit"] == '"key";r=0;t=12'
    with pytest.raises(TooMany) as refused:
        bucket.take(10)
    assert refused.value.headers == {"Retry-After": "10", **bucket.fields()}
    clock[0] += 12
    assert bucket.fields()["RateLimit"] == '"key";r=20;t=0'


def test_a_key_of_a_low_rate_has_room_for_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    bucket = Bucket(0.1)
    bucket.take(0.1)
    assert bucket.fields() == {"RateLimit-Policy": '"key";q=1;w=10', "RateLimit": '"key";r=0;t=10'}
    with pytest.raises(TooMany):
        bucket.take(0.1)
    clock[0] += 10
    bucket.take(0.1)
