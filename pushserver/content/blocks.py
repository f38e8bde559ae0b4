"""Blocks are what the body of an entry consists of. A block is validated, and stored cleaned. Pure.

A type more needs its HTML in `page/templates/parts.html`, its words in `page/edition` and its text in `cli/publish`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

from . import plaintext
from .fields import Alt, Cell, Html, Instant, Line, Link, Model, Number, Pixels, Source, Text, fault


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
    start: Number | None = None

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


Cells = Annotated[list[Cell], Field(min_length=1, max_length=COLUMN_LIMIT)]


class Table(Model):
    """A table; `align` has an alignment or null for each column of the head, and is all null where it is left out."""

    type: Literal["table"]
    head: Cells
    align: list[Literal["left", "center", "right"] | None] = Field([], max_length=COLUMN_LIMIT)
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
