"""What comes again and again is one line and a count."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from pushserver.log_throttle import KEYS, OTHERS, PERIOD, REASONS, Tally, Trouble

logger = logging.getLogger("throttle")


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The lines since the last call."""
    caplog.set_level(logging.INFO, logger="throttle")

    def new() -> list[str]:
        messages = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return messages

    return new


def test_a_trouble_is_two_lines_however_often_it_fails(lines: Callable[[], list[str]]) -> None:
    now = [0.0]
    trouble = Trouble(logger, "the store answers again", clock=lambda: now[0])
    trouble.over()
    assert lines() == []
    for _ in range(100):
        trouble.failed("no answer: %s", "refused", reason="refused")
        now[0] += 0.1
    assert lines() == ["no answer: refused"]
    trouble.over()
    trouble.over()
    assert lines() == ["the store answers again, after 100 failures in 10.0 s"]
    trouble.failed("no answer: %s", "refused", reason="refused")
    assert lines() == ["no answer: refused"]


def test_another_reason_is_another_line_and_ever_new_ones_are_not(lines: Callable[[], list[str]]) -> None:
    trouble = Trouble(logger, "again")
    for number in range(50):
        trouble.failed("failed: %d", number, reason=number)
    assert lines() == [f"failed: {number}" for number in range(REASONS)]


def test_a_trouble_of_several_is_over_when_all_of_them_work(lines: Callable[[], list[str]]) -> None:
    trouble = Trouble(logger, "all again")
    for key in "abc":
        trouble.failed("lost", key=key)
    trouble.over("a")
    trouble.over("b")
    assert lines() == ["lost"]
    trouble.over("c")
    assert [line.partition(" in ")[0] for line in lines()] == ["all again, after 3 failures"]


def test_a_tally_is_a_line_a_minute_and_key(lines: Callable[[], list[str]]) -> None:
    due: list[Callable[[], None]] = []
    tally = Tally(logger, "wrong keys from", later=lambda seconds, call: due.append(call))
    for _ in range(20):
        tally.note("192.0.2.1", "wrong key from %s", "192.0.2.1")
    tally.note("192.0.2.2", "wrong key from %s", "192.0.2.2")
    assert lines() == ["wrong key from 192.0.2.1", "wrong key from 192.0.2.2"]
    first, second = due
    first()
    second()
    assert lines() == [f"wrong keys from 192.0.2.1: 19 more in {PERIOD:.0f} s"]
    due[2]()  # nothing came since: it is forgotten
    assert lines() == []
    tally.note("192.0.2.1", "wrong key from %s", "192.0.2.1")
    assert lines() == ["wrong key from 192.0.2.1"]
    assert len(due) == 4


def test_ever_new_keys_do_not_fill_the_memory(lines: Callable[[], list[str]]) -> None:
    due: list[Callable[[], None]] = []
    tally = Tally(logger, "wrong keys from", later=lambda seconds, call: due.append(call))
    for number in range(3 * KEYS):
        tally.note(str(number), "wrong key")
    assert len(lines()) == len(due) == KEYS + 1
    due[-1]()
    assert lines() == [f"wrong keys from {OTHERS}: {2 * KEYS - 1} more in {PERIOD:.0f} s"]
