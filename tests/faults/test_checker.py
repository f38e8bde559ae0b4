"""A checker that cannot object proves nothing: it is shown each violation."""

from __future__ import annotations

from typing import Any

import pytest

from .checker import Outcome, judge

HELLO = {"type": "hello", "complete": True, "from": 0}
TOLD: dict[str, Any] = {"type": "hello", "complete": False, "reason": "trimmed"}


def put(n: int, *, prev: int | None = None, id: str | None = None, rev: int = 1) -> dict[str, Any]:
    before = n - 1 if prev is None else prev
    entry = {"id": id or f"e{n}", "rev": rev}
    return {"type": "entry.put", "n": n, "cursor": f"c{n}", "prev": f"c{before}", "entry": entry}


def snapshot(n: int) -> dict[str, Any]:
    return {"type": "snapshot", "n": n, "cursor": f"c{n}", "entries": entries(n)}


def entries(n: int) -> list[dict[str, Any]]:
    return [{"id": f"e{number}", "rev": 1} for number in range(1, n + 1)]


STORED = {"entries": entries(3)}
KNOWN = [Outcome(f"k{n}", f"e{n}") for n in (1, 2, 3)]
WHOLE = [HELLO, put(1), put(2), put(3)]


@pytest.mark.parametrize(
    "log",
    [
        WHOLE,
        [HELLO, put(1), {**HELLO, "from": 1}, put(2), put(3)],
        [HELLO, put(1), TOLD, snapshot(3)],
        [HELLO, put(1), {"type": "reset", "reason": "rollback"}, snapshot(2), put(3)],
    ],
)
def test_what_is_promised_is_no_violation(log: list[dict[str, Any]]) -> None:
    assert judge(KNOWN, [log], STORED, set()) == []


@pytest.mark.parametrize(
    ("promise", "log"),
    [
        ("gap", [HELLO, put(1), put(3, prev=1)]),
        ("gap", [HELLO, put(1), {**HELLO, "from": 2}, put(3)]),
        ("gap", [HELLO, put(1), TOLD, put(2), put(3)]),
        ("gap", [HELLO, put(1), {"type": "reset"}, put(2), put(3)]),
        ("gap", [HELLO, put(1), snapshot(3)]),
        ("repeat", [HELLO, put(1), put(2), put(2), put(3)]),
        ("repeat", [HELLO, put(1), put(2), put(3), put(1)]),
        ("order", [HELLO, put(1), put(2, prev=7), put(3)]),
        ("state", [HELLO, put(1), put(2), put(3, rev=2)]),
        ("state", [HELLO, put(1), put(2)]),
    ],
)
def test_what_a_reader_was_not_told_is_a_violation(promise: str, log: list[dict[str, Any]]) -> None:
    assert promise in {violation.promise for violation in judge(KNOWN, [WHOLE, log], STORED, set())}


def test_what_was_acknowledged_and_is_not_there_is_a_violation() -> None:
    lost = judge([*KNOWN, Outcome("k4", "e4")], [], STORED, set())
    assert [violation.promise for violation in lost] == ["lost"]
    assert judge([*KNOWN, Outcome("k4", "e4")], [], STORED, {"e4"}) == []


def test_one_key_that_became_two_entries_is_a_violation() -> None:
    assert [violation.promise for violation in judge([*KNOWN, Outcome("k1", "e2")], [], STORED, set())] == ["doubled"]
