"""The history of an entry: which publish key made each revision, and which fields it changed. Never a text. Pure.

A row is the revision, the instant in milliseconds, and what its event has as `by`: JSON, which has no line's end. Rows
are joined by line ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..codec import dumps, loads
from ..model import Author, instant, milliseconds

ROWS = 50  # of an entry, the newest; append.lua has the same number
NAME_LIMIT = 80  # characters of the name of a key
_UNTOLD = ("rev", "url", "updated_at")  # fields that change with every revision, or never


class Revision(NamedTuple):
    """A Revision is one row: what was done, by which key, and the names of the fields that it changed."""

    rev: int
    at: str
    author: Author
    action: str
    changed: list[str]

    def shown(self) -> dict[str, Any]:
        """The revision as answers and exports have it."""
        key = {"id": self.author.id, "name": self.author.name}
        return {"rev": self.rev, "at": self.at, "key": key, "action": self.action, "changed": self.changed}

    def row(self) -> str:
        """The revision as it is stored."""
        return f"{self.rev} {milliseconds(self.at)} {by(self.author, self.action, self.changed)}"


def by(author: Author | None, action: str, changed: list[str] | None = None) -> str:
    """The JSON that the event of a change has of its maker; '' where that is not known."""
    return dumps([author.id, author.name[:NAME_LIMIT], action, changed or []]) if author else ""


def changed_fields(entry: Mapping[str, Any], current: Mapping[str, Any] | None) -> list[str]:
    """The names of the fields that a revision changes; none for the first one."""
    if current is None:
        return []
    names = {*entry, *current}.difference(_UNTOLD)
    return sorted(name for name in names if entry.get(name) != current.get(name))


def revisions(rows: bytes | None) -> list[Revision]:
    """The rows of an entry, the oldest first."""
    return [_revision(row) for row in (rows or b"").split(b"\n") if row]


def _revision(row: bytes) -> Revision:
    rev, at, made = row.split(b" ", 2)
    fields: Any = loads(made)
    id, name, action, changed = fields
    return Revision(int(rev), instant(int(at)), Author(id, name), action, changed)


def restored(value: Mapping[str, Any]) -> list[Revision]:
    """The revisions that a line of an export has."""
    return [
        Revision(
            row["rev"], row["at"], Author(row["key"]["id"], row["key"]["name"]), row["action"], list(row["changed"])
        )
        for row in value["revisions"]
    ]
