"""Fields of entries and pages: texts, links, instants, blocks. A value is validated, and stored cleaned. Pure.

Strings that a JSON schema cannot describe have a `format` of their own: `text`, `inline-html`, `markdown`, `time-zone`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import resources
from typing import Annotated, Any, Literal, Self, get_args

from babel import Locale, UnknownLocaleError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from ..model import instant
from . import markup, plaintext

BODY_LIMIT, HTML_LIMIT = 50_000, 20_000  # characters


def fault(error: plaintext.Unsafe) -> PydanticCustomError:
    """The error of a check as pydantic's, which has the value expected and the value that came."""
    return PydanticCustomError("unsafe", "{expected}", {"expected": error.expected, "got": error.got})


def checked(check: Any) -> AfterValidator:
    """A validator for pydantic, of a check that returns the cleaned value or raises Unsafe."""

    def run(value: str) -> str:
        try:
            return check(value)  # type: ignore[no-any-return]
        except plaintext.Unsafe as error:
            raise fault(error) from None

    return AfterValidator(run)


_FIRST, _LAST = (round(datetime(year, 1, 1, tzinfo=UTC).timestamp() * 1000) for year in (1900, 9001))


def instant_of(text: str) -> str:
    """An instant in UTC, with milliseconds, from ISO 8601 with any offset. Raises Unsafe."""
    try:
        at = datetime.fromisoformat(text)
        ms = round(at.timestamp() * 1000)
        if at.tzinfo is not None and _FIRST <= ms < _LAST:
            return instant(ms)
    except (ValueError, OverflowError):
        pass
    raise plaintext.Unsafe("an instant of the years 1900 to 9000 with its offset, such as 2023-07-11T15:53:00Z", text)


# The zones of the tzdata package; the list of an operating system has names that are unknown on another one.
_ZONES = frozenset(resources.files("tzdata").joinpath("zones").read_text("utf-8").split())


def _zone(name: str) -> str:
    if name not in _ZONES:
        raise plaintext.Unsafe("an IANA time zone, such as America/New_York", name)
    return name


def _language(tag: str) -> str:
    try:
        if re.fullmatch(r"[A-Za-z]{2,3}(-[A-Za-z]{4})?(-([A-Za-z]{2}|[0-9]{3}))?", tag):
            Locale.parse(tag, sep="-")
            return tag
    except (ValueError, UnknownLocaleError):
        pass
    raise plaintext.Unsafe("a language tag of Unicode CLDR, such as en-US", tag)


def direction(lang: str) -> str:
    """The direction in which a language is written: ltr or rtl."""
    return str(Locale.parse(lang, sep="-").text_direction)


def _most(limit: int, length: Callable[[str], int] = len) -> AfterValidator:
    """Limit the cleaned text to so many characters: cleaning may add some, and an export of it has to be valid."""

    def within(text: str) -> str:
        if length(text) > limit:
            raise plaintext.Unsafe(f"at most {limit} characters", text)
        return text

    return checked(within)


def _whole(value: Any) -> Any:
    """Read 1200.0 as the whole number 1200: some languages write numbers so (RFC 8259, 6)."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _string(format: str, most: int | None, least: int | None = None, **schema: Any) -> Any:
    return Field(min_length=least, max_length=most, json_schema_extra={"format": format, **schema})


_NO = r"\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u202a-\u202e\ufffe\uffff"
_BLANK = r"\s\u00ad\u034f\u115f\u1160\u200b-\u200f\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0"
_PLAIN, _FILLED = {"pattern": f"^[^{_NO}]*$"}, {"pattern": rf"^[^{_NO}]*[^{_BLANK}{_NO}][^{_NO}]*$"}
_line, _text, _html = (
    _string("text", 300, 1, **_FILLED),
    _string("text", 10_000, 1, **_FILLED),
    _string("inline-html", None, 1),
)
_html_most = _most(HTML_LIMIT, markup.length)

# A type with a name is one component of the description, however many fields have it.
Line = TypeAliasType("Line", Annotated[str, _line, checked(plaintext.plain), checked(plaintext.visible), _most(300)])
Text = TypeAliasType("Text", Annotated[str, _text, checked(plaintext.plain), checked(plaintext.visible), _most(10_000)])
Html = TypeAliasType("Html", Annotated[str, _html, _html_most, checked(markup.inline), _html_most])
Link = TypeAliasType("Link", Annotated[str, _string("iri", 2_000), checked(markup.link), _most(2_000)])
Instant = TypeAliasType("Instant", Annotated[str, _string("date-time", 40), checked(instant_of)])
Alt = Annotated[str, _string("text", 2_000, **_PLAIN), checked(plaintext.plain), _most(2_000)]
Source = Annotated[str, _string("iri-reference", 2_000), checked(markup.source), _most(2_000)]
Zone = Annotated[str, _string("time-zone", 64), checked(_zone)]
Language = Annotated[str, _string("language-tag", 35), checked(_language)]
Body = Annotated[str, _string("markdown", BODY_LIMIT)]
Pixels = Annotated[int, Field(ge=1, le=20_000), BeforeValidator(_whole)]


class Model(BaseModel):
    """A model that refuses unknown fields, and does not convert values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Paragraph(Model):
    type: Literal["paragraph"]
    html: Html


class Heading(Model):
    type: Literal["heading"]
    text: Line


def _item_kind(value: Any) -> str:
    return ITEM if isinstance(value, dict | Model) else TEXT


ITEM, TEXT = "(item)", "(text)"  # the tags of a list's items; brackets tell them from the names of fields
ItemText = Annotated[Html, Tag(TEXT)]
Start = Annotated[int, Field(ge=0, le=999_999_999), BeforeValidator(_whole)]


class ListFields(Model):
    """The fields of a list at any depth; `start` is the number of its first item, 1 where there is none."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"properties": {"start": {"type": "null"}}},
                {"required": ["ordered"], "properties": {"ordered": {"const": True}}},
            ]
        }
    )

    ordered: bool = False
    start: Start | None = None

    @model_validator(mode="after")
    def _numbered(self) -> Self:
        if self.start is not None and not self.ordered:
            context = {"expected": "no start, as the list is not ordered", "got": str(self.start), "field": "start"}
            raise PydanticCustomError("unordered", "{expected}", context)
        return self


class InnerList(ListFields):
    """A list in an item of a list in an item: it goes no deeper."""

    items: Annotated[list[Html], Field(min_length=1, max_length=200)]


class InnerItem(Model):
    html: Html
    list: InnerList


class MiddleList(ListFields):
    """A list in an item."""

    items: Annotated[
        list[Annotated[ItemText | Annotated[InnerItem, Tag(ITEM)], Discriminator(_item_kind)]],
        Field(min_length=1, max_length=200),
    ]


class ListItem(Model):
    """An item that has a list behind its text. An item without one is a string."""

    html: Html
    list: MiddleList


class List(ListFields):
    type: Literal["list"]
    items: Annotated[
        list[Annotated[ItemText | Annotated[ListItem, Tag(ITEM)], Discriminator(_item_kind)]],
        Field(min_length=1, max_length=200),
    ]


COLUMN_LIMIT, ROW_LIMIT = 12, 200


def _cell(html: str) -> str:
    return markup.inline(html) if html.strip() else ""


Cell = TypeAliasType("Cell", Annotated[str, _string("inline-html", None), _html_most, checked(_cell), _html_most])
Cells = Annotated[list[Cell], Field(min_length=1, max_length=COLUMN_LIMIT)]


class Table(Model):
    """A table; `align` has an alignment or null for each column of the head, and is all null where it is left out."""

    type: Literal["table"]
    head: Cells
    align: Annotated[list[Literal["left", "center", "right"] | None], Field(max_length=COLUMN_LIMIT)] = []
    rows: Annotated[list[Cells], Field(max_length=ROW_LIMIT)]

    @model_validator(mode="after")
    def _even(self) -> Self:
        columns = len(self.head)
        if not self.align:
            self.align.extend([None] * columns)
        lengths = {"align": len(self.align), **{f"rows.{n}": len(row) for n, row in enumerate(self.rows)}}
        for name, length in lengths.items():
            if length != columns:
                context = {"expected": f"{columns} cells, as the head has", "got": str(length), "field": name}
                raise PydanticCustomError("uneven", "{expected}", context)
        if not any(cell for row in (self.head, *self.rows) for cell in row):
            context = {"expected": "text that shows something", "got": "a table of empty cells", "field": "rows"}
            raise PydanticCustomError("blank", "{expected}", context)
        return self


class Break(Model):
    """A break between two parts of a text, shown as a line."""

    type: Literal["break"]


class Quote(Model):
    type: Literal["quote"]
    html: Html
    cite: Line | None = None


class Image(Model):
    """A picture. Its size is needed so that the page does not jump when it loads, alt for readers who cannot see it."""

    type: Literal["image"]
    src: Source
    width: Pixels
    height: Pixels
    alt: Alt
    caption: Text
    credit: Line


class SocialPost(Model):
    """A post quoted as text, so that it outlives the original, and pages load nothing from other sites."""

    type: Literal["social_post"]
    platform: Line
    author_name: Line
    handle: Line | None = None
    text: Text
    url: Link | None = None
    posted_at: Instant | None = None


class Embed(Model):
    """A resource of another site, shown as a link."""

    type: Literal["embed"]
    url: Link
    title: Line
    html: Html | None = None


Block = Annotated[
    Paragraph | Heading | List | Table | Break | Quote | Image | SocialPost | Embed,
    Field(discriminator="type"),
]
BLOCK_TYPES = frozenset(
    get_args(kind.model_fields["type"].annotation)[0]
    for kind in (Paragraph, Heading, List, Table, Break, Quote, Image, SocialPost, Embed)
)  # a later version may have stored more
PIECE_LIMIT, MARK_LIMIT = 3_000, 6_000  # texts in the blocks of one entry or page, and characters of HTML in them
_HTML_MARKS = ("<", ">", "&", "\xa0")  # none of them becomes more when HTML is cleaned


def _check_work(blocks: Any) -> Any:
    """Returns the blocks. Raises where they are more work than one entry or page may be."""
    texts = list(_texts(blocks))
    marks = sum(text.count(mark) for text in texts for mark in _HTML_MARKS)
    counts = ((PIECE_LIMIT, "texts in all blocks", len(texts)), (MARK_LIMIT, "of <, > and & in all blocks", marks))
    for limit, name, count in counts:
        if count > limit:
            raise fault(plaintext.Unsafe(f"at most {limit} {name}", str(count)))
    return blocks


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value, and in a model once it is validated: what is stored has to be valid as well."""
    if isinstance(value, str):
        yield value
        return
    fields = vars(value) if isinstance(value, Model) else value
    for inner in fields.values() if isinstance(fields, dict) else fields if isinstance(fields, list) else ():
        yield from _texts(inner)


Blocks = Annotated[list[Block], Field(max_length=200), BeforeValidator(_check_work), AfterValidator(_check_work)]


class Byline(Model):
    name: Line
    org: Line | None = None
    role: Line | None = None


class Flags(Model):
    key: bool = False
    pinned: bool = False
    breaking: bool = False


class Label(Model):
    label: Line
    url: Link | None = None


class Coverage(Model):
    label: Line
    url: Link
