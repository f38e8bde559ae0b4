"""Findings: a check's results, each with what to do, as a list for people and as JSON."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable
from typing import NamedTuple

from . import logs


class Level(enum.StrEnum):
    """A level says how bad a finding is. An error prevents a start, or loses something for readers or publishers."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class Finding(NamedTuple):
    """A Finding is one result: what was looked at, what is the case, and what the operator does about it."""

    level: Level
    subject: str
    says: str
    do: str = ""

    def sentence(self) -> str:
        """The finding as one line of a log."""
        return f"{self.subject}: {self.says}{f'; {self.do}' if self.do else ''}"


def ok(subject: str, says: str) -> Finding:
    """A finding that asks for nothing."""
    return Finding(Level.OK, subject, says)


def warning(subject: str, says: str, do: str = "") -> Finding:
    """A finding that may be meant, and mostly is not."""
    return Finding(Level.WARNING, subject, says, do)


def error(subject: str, says: str, do: str = "") -> Finding:
    """A finding that has to be mended."""
    return Finding(Level.ERROR, subject, says, do)


def has_errors(findings: Iterable[Finding]) -> bool:
    """Whether one of them has to be mended."""
    return any(finding.level is Level.ERROR for finding in findings)


def listing(findings: Iterable[Finding]) -> str:
    """The findings as lines for people: the level, what was looked at, what is the case; below it what to do."""
    lines = []
    for level, subject, says, do in findings:
        lines.append(logs.one_line(f"{level:<8} {subject}: {says}"))
        lines += [f"{'':<8} > {logs.one_line(line)}" for line in do.splitlines()]
    return "\n".join(lines)


def as_json(findings: Iterable[Finding]) -> str:
    """The findings as JSON. Secrets in addresses are hidden, as in lines."""
    rows = [
        {
            "level": level,
            "subject": logs.one_line(subject),
            "says": logs.one_line(says),
            "do": [logs.one_line(line) for line in do.splitlines()],
        }
        for level, subject, says, do in findings
    ]
    counts = {level: sum(row["level"] == level for row in rows) for level in Level}
    return json.dumps({"ok": counts[Level.ERROR] == 0, "counts": counts, "findings": rows}, ensure_ascii=False)
