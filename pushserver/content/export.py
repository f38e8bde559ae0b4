"""Lines of an export: an object with one member, stream, page, entry, withdrawal or history, each as stored. Pure.

A line that is imported is validated as a request body is, and has to be equal to the stored form of its value: nothing
is restored that could not have been stored.
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
from .history import NAME_LIMIT, ROWS
from .plaintext import Unsafe
from .schema import CorrectionIn, EntryIn, PageIn, WithdrawalIn
from .validation import read


def _id(text: str) -> str:
    try:
        return model.check_id(text)
    except Invalid as error:
        raise Unsafe(error.faults[0].expected, text) from None


OWN = ("url", "erased_at")  # what follows from the stream and the id, and what is true of this store alone
FEED_ID_LIMIT = 2_048  # characters
FEED_ID = r"^(urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|https?://[!-~]+)$"
Id = Annotated[str, checked(_id)]
Revised = Annotated[int, Field(ge=1, le=999_999_999)]


class Correction(CorrectionIn):
    kind: Annotated[Literal["correction"], Field(alias="class")]
    note: Text
    at: Instant


class Entry(EntryIn):
    """An entry at some revision. It has no `url`, which follows from the stream and the id."""

    id: Id
    rev: Revised
    published_at: Instant
    sort_at: Instant
    updated_at: Instant | None = None
    correction: Correction | None = None


class Withdrawal(WithdrawalIn):
    """A withdrawal of an entry, with the headline unless it was for legal reasons."""

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
    """A page at some revision, with its last update and the oldest instant that the stream ever showed."""

    rev: Revised
    state: Literal["live", "paused", "ended"]  # type: ignore[assignment]
    updated_at: Instant
    began_at: Instant


class Stream(Model):
    """The id of a stream's feeds. It is the first line: the first entry would give the feeds another id."""

    feed_id: Annotated[str, Field(max_length=FEED_ID_LIMIT, pattern=FEED_ID)]


class Key(Model):
    """The publish key that made a revision."""

    id: Annotated[str, Field(max_length=64, pattern=r"^[0-9a-z-]+$")]
    name: Annotated[str, Field(max_length=NAME_LIMIT)]


class Revision(Model):
    """A revision names the key that made it, and the fields that it changed."""

    rev: Revised
    at: Instant
    key: Key
    action: Literal["publish", "correct", "withdraw", "restore", "erase"]
    changed: list[Annotated[str, Field(max_length=64, pattern=r"^[a-z_]+$")]] = Field(max_length=50)


class History(Model):
    """The newest revisions of an entry. The line follows that of the entry, or of its withdrawal."""

    id: Id
    revisions: list[Revision] = Field(min_length=1, max_length=ROWS)


class ExportLine(Model):
    """A line of an export, which has one of these members."""

    stream: Stream | None = None
    page: Page | None = None
    entry: Entry | None = None
    withdrawal: Withdrawal | None = None
    history: History | None = None


def read_line(value: Any) -> tuple[str, dict[str, Any]]:
    """The kind of a line, such as `entry`, and its value as it is stored. Raises Invalid."""
    line = read(ExportLine, value)
    made = line.model_dump(exclude_none=True, by_alias=True)
    if len(made) != 1 or len(value) != 1:
        got = " and ".join(value) or "nothing"
        raise Invalid(
            "A line of an export must be an object with one member: stream, entry, withdrawal, history or page.",
            Fault("line", "a stream, an entry, a withdrawal, a history or a page", got),
        )
    if line.entry:
        made["entry"]["flags"] = line.entry.flags.model_dump(exclude_defaults=True)
    for fault in _differences(made, value, ""):
        raise Invalid("This line differs from what an export contains.", fault)
    ((kind, stored),) = value.items()
    return kind, stored


def _differences(made: Any, sent: Any, path: str) -> Iterator[Fault]:
    """A fault for each place where the value that was sent is not the one that is made of it."""
    if isinstance(made, dict) and isinstance(sent, dict):
        for name in {**made, **sent}:
            yield from _differences(made.get(name, ...), sent.get(name, ...), f"{path}.{name}" if path else name)
    elif isinstance(made, list) and isinstance(sent, list) and len(made) == len(sent):
        for number, pair in enumerate(zip(made, sent, strict=True)):
            yield from _differences(*pair, f"{path}.{number}")
    elif made != sent:
        yield Fault(path, *("nothing" if side is ... else shorten(dumps(side)) for side in (made, sent)))


def line(kind: str, stored: Mapping[str, Any]) -> str:
    """The line of an export for a stored value, without fields that are null and those of OWN."""
    return (
        dumps({kind: {name: value for name, value in stored.items() if value is not None and name not in OWN}}) + "\n"
    )
