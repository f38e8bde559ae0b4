"""The bodies and queries that publishers may send, as pydantic models. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, PrivateAttr, model_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from . import markdown, plaintext
from .blocks import Blocks
from .fields import (
    BODY_LIMIT,
    Body,
    Byline,
    Coverage,
    Flags,
    Instant,
    Label,
    Language,
    Line,
    Model,
    Text,
    Zone,
    fault,
)


class CorrectionIn(Model):
    """A correction says how a revision changes an entry: minor is silent, update is stamped, correction is noted."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"class": {"const": "correction"}}},
            "then": {"required": ["note"], "properties": {"note": {"type": "string"}}},
        }
    )

    kind: Annotated[Literal["minor", "update", "correction"], Field(alias="class")]
    note: Text | None = None

    @model_validator(mode="after")
    def _noted(self) -> Self:
        if self.kind == "correction" and not self.note:
            raise PydanticCustomError("unnoted", "{expected}", {"expected": "a note with a correction", "got": "none"})
        return self


class EntryFields(Model):
    """The fields that an entry has both as it is sent and as it is stored."""

    headline: Line | None = None
    blocks: Blocks = Field([])
    bylines: list[Byline] = Field([], max_length=20)
    tags: list[Line] = Field([], max_length=50)
    flags: Flags = Flags()
    published_at: Instant | None = None
    sort_at: Instant | None = None


_SHOWN: JsonDict = {
    "not": {"required": ["type"], "properties": {"type": {"const": "break"}}}
}  # a block that shows something


class EntryIn(EntryFields):
    """An entry as a publisher sends it: a headline, or a body in Markdown, or blocks, or a headline and either."""

    # What `_body_to_blocks` and `_something` see to.
    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["headline"], "properties": {"headline": {"type": "string"}}},
                {"required": ["body"], "properties": {"body": {"type": "string", "pattern": r"\S"}}},
                {"required": ["blocks"], "properties": {"blocks": {"contains": _SHOWN}}},
            ],
            "not": {
                "required": ["body", "blocks"],
                "properties": {"body": {"type": "string"}, "blocks": {"minItems": 1}},
            },
        }
    )

    body: Body | None = None
    correction: CorrectionIn | None = None

    _losses: list[markdown.Loss] = PrivateAttr([])

    @property
    def losses(self) -> list[markdown.Loss]:
        """The parts of the body's Markdown that its blocks do not keep."""
        return self._losses

    @model_validator(mode="wrap")
    @classmethod
    def _body_to_blocks(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        body = value.get("body") if isinstance(value, dict) else None
        if not isinstance(body, str):
            return handler(value)
        converted = _converted(body, value.get("blocks"))
        entry = handler({**value, "body": None, "blocks": converted.blocks})
        entry._losses = converted.losses
        return entry

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.headline and all(block.type == "break" for block in self.blocks):
            raise PydanticCustomError(
                "empty", "{expected}", {"expected": "a headline, a body or blocks", "got": "an empty entry"}
            )
        return self


def _converted(body: str, blocks: Any) -> markdown.Converted:
    """A body in Markdown as blocks. Raises where it is not valid, or has blocks beside it."""
    if len(body) > BODY_LIMIT:
        expected = f"at most {BODY_LIMIT} characters"
        raise PydanticCustomError("long", "{expected}", {"expected": expected, "got": body, "field": "body"})
    if blocks:
        raise PydanticCustomError("both", "{expected}", {"expected": "either body or blocks", "got": "both"})
    try:
        return markdown.blocks(plaintext.normal(body))
    except plaintext.Unsafe as error:
        raise PydanticCustomError("unsafe", "{expected}", {**fault(error).context, "field": "body"}) from None  # type: ignore[dict-item]


class CorrectionPut(CorrectionIn):
    """A correction, or with `at` the one that is stored already."""

    at: Instant | None = None


class EntryPut(EntryIn):
    """An entry as a publisher sends it, or as the server showed it: its own fields have to be those that are stored."""

    id: str | None = None
    rev: int | None = None
    url: str | None = None
    updated_at: Instant | None = None
    correction: CorrectionPut | None = None


class NewEntryIn(EntryIn):
    """An entry that is published for the first time: there is nothing to correct."""

    correction: Annotated[None, Field(exclude=True)] = None


class PublishIn(Model):
    """The query of a publish; with `dry_run=1` nothing is stored."""

    dry_run: Literal["0", "1"] = "0"


class WithdrawalIn(Model):
    """Why an entry is withdrawn; a legal reason leaves no headline behind."""

    reason: Literal["error", "legal", "duplicate", "moved"] = "error"
    note: Line | None = None


class DeliveryIn(BaseModel):
    """The query of a receipt: the event's number, and the seconds to wait for all workers to have the event."""

    model_config = ConfigDict(extra="forbid", frozen=True)  # not strict: a query is text

    n: Annotated[int, Field(ge=1)] | None = None
    wait: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 0.0


class DeletionIn(Model):
    """The query of a deletion; with `forget=true` no mark stays, and the name is as one that never was."""

    forget: Literal["true", "false"] = "false"


class ExportIn(Model):
    """The query of an export; with `history=true` it says who made the revisions of each entry."""

    history: Literal["true", "false"] = "false"


PLACE = r"([0-9]{1,16})\.([a-z0-9][a-z0-9-]{0,63})"  # in the list of streams: when one last changed, and its name


class ListingIn(BaseModel):
    """The query of the list of streams: the place after which a part of it begins, and the most streams in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)  # not strict: a query is text

    after: Annotated[str, Field(json_schema_extra={"pattern": f"^{PLACE}$"})] | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 100


class EndIn(Model):
    """The optional body of an end: the page on which the coverage goes on."""

    next: Coverage | None = None


class PageIn(Model):
    """A stream's own fields as a publisher sends them."""

    headline: Line
    kicker: Line | None = None
    dek: Text | None = None
    background: Blocks = Field([])
    intro: Text | None = None
    timezone: Zone = "UTC"
    lang: Language = "en"
    dir: Literal["ltr", "rtl"] | None = None  # that of the language
    state: Literal["live", "paused"] = "live"
    coverage_start: Instant | None = None
    coverage_end: Instant | None = None
    previous: list[Coverage] = Field([], max_length=20)
    next: Coverage | None = None
    topics: list[Label] = Field([], max_length=50)
    updated_at: Instant | None = None


class PagePut(PageIn):
    """A page as a publisher sends it, or as the server showed it: `rev` and `ended` have to be what is stored."""

    rev: int | None = None
    state: Literal["live", "paused", "ended"] = "live"  # type: ignore[assignment]
