"""What is stored, as an export holds it and a restore takes it: field by field, in its stored form. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from .errors import Fault, Invalid
from .fields import Instant, Line, Model, Text, checked
from .markup import Unsafe
from .model import check_id
from .schema import EntryIn, PageIn, WithdrawalIn, made
from .validate import read


def _id(text: str) -> str:
    try:
        return check_id(text)
    except Invalid as error:
        raise Unsafe(error.faults[0].expected, text) from None


Id = Annotated[str, Field(max_length=64), checked(_id)]
Rev = Annotated[int, Field(ge=1, le=2**31)]


class StoredCorrection(Model):
    kind: Annotated[Literal["correction"], Field(alias="class")]
    note: Text
    at: Instant


class StoredEntry(EntryIn):
    """An entry as it is stored, but for its address."""

    id: Id
    rev: Rev
    body: None = None
    published_at: Instant
    sort_at: Instant
    updated_at: Instant | None = None
    correction: StoredCorrection | None = None  # type: ignore[assignment]


class StoredWithdrawal(WithdrawalIn):
    """A withdrawal as it is stored."""

    at: Instant
    id: Id
    rev: Rev
    headline: Line | None = None


class StoredPage(PageIn):
    """A page as it is stored."""

    rev: Rev
    state: Literal["live", "paused", "ended"]  # type: ignore[assignment]
    updated_at: Instant


class ExportLine(Model):
    """A line of an export: one of the three."""

    entry: StoredEntry | None = None
    withdrawal: StoredWithdrawal | None = None
    page: StoredPage | None = None


def read_line(value: Any) -> tuple[str, dict[str, Any]]:
    """What a line of an export holds: `entry`, `withdrawal` or `page`, and that in its stored form, without address."""
    line = read(ExportLine, value)
    if line.entry and len(value) == 1:
        entry_in = line.entry
        entry = made(entry_in, id=entry_in.id, rev=entry_in.rev, published_at=entry_in.published_at)
        stamps = entry_in.model_dump(include={"updated_at", "correction"}, exclude_none=True, by_alias=True)
        kind, found = "entry", {**entry, **stamps}
    elif (held := line.withdrawal or line.page) and len(value) == 1:
        kind, found = ("withdrawal" if line.withdrawal else "page"), held.model_dump(exclude_none=True)
    else:
        raise Invalid("That is not a line of an export.", Fault("line", "an entry, a withdrawal or a page", "other"))
    if found != value[kind]:
        names = [name for name in {**found, **value[kind]} if found.get(name) != value[kind].get(name)]
        raise Invalid("That is not as an export has it.", Fault(f"{kind}.{names[0]}", "its stored form", "another"))
    return kind, found
