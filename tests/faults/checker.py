"""Judges a run: what publishers were told, what readers were told, and what is stored, against what is promised.

Pure. A reader's log is every frame that it got, across its connections; it has no rule of its own to hide a gap with.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

Frame = dict[str, Any]


class Outcome(NamedTuple):
    """What a publisher knows of a request in the end: its key, and the answer to it."""

    key: str
    entry_id: str
    withdrawn: bool = False


class Violation(NamedTuple):
    """A promise that was not kept."""

    promise: str
    what: str


def judge(outcomes: list[Outcome], logs: list[list[Frame]], stored: Frame, withdrawn: set[str]) -> list[Violation]:
    """Every violation in a run; `stored` is the whole stream as it is served in the end."""
    violations = [*_lost(outcomes, stored, withdrawn), *_doubled(outcomes)]
    for number, log in enumerate(logs):
        violations += [Violation(promise, f"reader {number}: {what}") for promise, what in _out_of_order(log)]
        if log and log[-1].get("n") is not None and _state(log) != _revisions(stored):
            violations.append(
                Violation("state", f"reader {number} shows {_difference(_state(log), _revisions(stored))}")
            )
    return violations


def _lost(outcomes: list[Outcome], stored: Frame, withdrawn: set[str]) -> list[Violation]:
    known = {entry["id"] for entry in stored["entries"]} | withdrawn
    gone = [outcome for outcome in outcomes if outcome.entry_id not in known]
    back = [outcome for outcome in outcomes if outcome.withdrawn and outcome.entry_id not in withdrawn]
    return [Violation("lost", f"{outcome.key} was acknowledged") for outcome in gone] + [
        Violation("lost", f"the withdrawal of {outcome.entry_id} was acknowledged") for outcome in back
    ]


def _doubled(outcomes: list[Outcome]) -> list[Violation]:
    """One key, one entry."""
    entries: dict[str, set[str]] = {}
    for outcome in outcomes:
        entries.setdefault(outcome.key, set()).add(outcome.entry_id)
    return [Violation("doubled", f"{key} became {ids}") for key, ids in entries.items() if len(ids) > 1]


def _out_of_order(log: list[Frame]) -> list[Violation]:
    """Each event after the one before it, by number and name; anything else only after the reader was told."""
    position = Position()
    return [violation for frame in log if (violation := position.take(frame))]


class Position:
    """What a reader has: the last event, and the frame that has to come before the next one."""

    def __init__(self) -> None:
        self.n, self.cursor, self.owed = 0, "", ""

    def take(self, frame: Frame) -> Violation | None:
        before = self.n, self.cursor, self.owed
        if "cursor" in frame:
            self.n, self.cursor = frame["n"], frame["cursor"]
        match frame["type"]:
            case "hello" if frame["complete"]:
                self.n, self.owed = frame["from"], ""
                return self._gap(f"resumed at {frame['from']}", before) if before[1] and self.n != before[0] else None
            case "hello" | "reset":
                self.owed = "snapshot"
            case "snapshot":
                self.owed = ""
                return None if before[2] else self._gap(f"a snapshot at {self.n} that nothing announced", before)
            case _ if "prev" in frame:
                return self._event(frame, before)
        return None

    def _event(self, frame: Frame, before: tuple[int, str, str]) -> Violation | None:
        n, cursor, owed = before
        if owed or self.n > n + 1:
            return self._gap(f"event {self.n}", before)
        if self.n <= n:
            return Violation("repeat", f"event {self.n} came after {n}")
        if cursor and frame["prev"] != cursor:
            return Violation("order", f"event {self.n} follows {frame['prev']}, not {cursor}")
        return None

    def _gap(self, what: str, before: tuple[int, str, str]) -> Violation:
        n, _, owed = before
        return Violation("gap", f"{what}, having {n}{f' and waiting for a {owed}' if owed else ''}")


def _state(log: list[Frame]) -> dict[str, int]:
    """The revision of each entry that a reader shows in the end."""
    revisions: dict[str, int] = {}
    for frame in log:
        match frame["type"]:
            case "snapshot":
                revisions = {entry["id"]: entry["rev"] for entry in frame["entries"]}
            case "entry.put":
                revisions[frame["entry"]["id"]] = frame["entry"]["rev"]
            case "entry.withdraw":
                revisions.pop(frame["id"], None)
    return revisions


def _revisions(stored: Frame) -> dict[str, int]:
    return {entry["id"]: entry["rev"] for entry in stored["entries"]}


def _difference(shown: dict[str, int], stored: dict[str, int]) -> str:
    return f"{dict(shown.items() - stored.items())} instead of {dict(stored.items() - shown.items())}"


def summary(violations: list[Violation]) -> Counter[str]:
    return Counter(violation.promise for violation in violations)
