"""What a stream holds, as lines of an export: `{"page"}`, `{"entry"}`, `{"withdrawal"}`, each as it is stored. Pure.

Each is checked by the rules for what publishers send, and has to come out of them as it came in: nothing is restored
that could not have been stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from .. import model
from ..codec import dumps
from ..errors import Fault, Invalid, shorten
from .fields import Instant, Line, Model, Text, checked
from .markup import Unsafe
from .schema import CorrectionIn, EntryIn, PageIn, WithdrawalIn
from .validation import read


def _id(text: str) -> str:
    try:
        return model.check_id(text)
    except Invalid as error:
        raise Unsafe(error.faults[0].expected, text) from None


Id = Annotated[str, checked(_id)]
Revision = Annotated[int, Field(ge=1, le=999_999_999)]


class Correction(CorrectionIn):
    kind: Annotated[Literal["correction"], Field(alias="class")]
    note: Text
    at: Instant


class Entry(EntryIn):
    """An entry at some revision. Its address is left out: that is the stream's."""

    id: Id
    rev: Revision
    published_at: Instant
    sort_at: Instant
    updated_at: Instant | None = None
    correction: Correction | None = None


class Withdrawal(WithdrawalIn):
    """That an entry was withdrawn, with what is kept of it."""

    id: Id
    rev: Annotated[int, Field(ge=2, le=999_999_999)]
    at: Instant
    headline: Line | None = None

    @model_validator(mode="after")
    def _legal(self) -> Self:
        if self.reason == "legal" and self.headline:
            context = {"expected": "no headline where the reason is legal", "got": self.headline, "field": "headline"}
            raise PydanticCustomError("legal", "{expected}", context)
        return self


class Page(PageIn):
    """A page at some revision, with when it last changed, and when its coverage began."""

    rev: Revision
    state: Literal["live", "paused", "ended"]  # type: ignore[assignment]
    updated_at: Instant
    began_at: Instant


class ExportLine(Model):
    """A line of an export: one of the three."""

    page: Page | None = None
    entry: Entry | None = None
    withdrawal: Withdrawal | None = None


def read_line(value: Any) -> tuple[str, dict[str, Any]]:
    """What a line holds: `entry`, `withdrawal` or `page`, and that in its stored form, without its address."""
    line = read(ExportLine, value)
    made = line.model_dump(exclude_none=True, by_alias=True)
    if len(made) != 1 or len(value) != 1:
        got = " and ".join(value) or "nothing"
        raise Invalid("That is not a line of an export.", Fault("line", "an entry, a withdrawal or a page", got))
    if line.entry:
        made["entry"]["flags"] = line.entry.flags.model_dump(exclude_defaults=True)
    for fault in _differences(made, value, ""):
        raise Invalid("That is not as an export has it.", fault)
    ((kind, held),) = value.items()
    return kind, held


def _differences(made: Any, given: Any, path: str) -> Iterator[Fault]:
    """Where what came is not what is made of it."""
    if isinstance(made, dict) and isinstance(given, dict):
        for name in {**made, **given}:
            yield from _differences(made.get(name, ...), given.get(name, ...), f"{path}.{name}" if path else name)
    elif isinstance(made, list) and isinstance(given, list) and len(made) == len(given):
        for number, pair in enumerate(zip(made, given, strict=True)):
            yield from _differences(*pair, f"{path}.{number}")
    elif made != given:
        yield Fault(path, *("nothing" if side is ... else shorten(dumps(side)) for side in (made, given)))


def line(kind: str, held: Mapping[str, Any]) -> str:
    """The line of an export that restores what is held; what is null or made from the stream's name is left out."""
    return dumps({kind: {name: value for name, value in held.items() if value is not None and name != "url"}}) + "\n"
