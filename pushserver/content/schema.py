"""What publishers may send: entries and pages, and what they become. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from ..errors import Fault, Invalid
from ..model import instant
from . import markup
from .fields import (
    BODY_LIMIT,
    Blocks,
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
from .validation import M, read

# --- what comes in


class CorrectionIn(Model):
    """What kind of change a new revision is: minor is silent, update is stamped, correction is noted and announced."""

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
    """What an entry has when it is sent, and when it is stored."""

    headline: Line | None = None
    blocks: Blocks = Field([])
    bylines: list[Byline] = Field([], max_length=20)
    tags: list[Line] = Field([], max_length=50)
    flags: Flags = Flags()
    published_at: Instant | None = None
    sort_at: Instant | None = None


class EntryIn(EntryFields):
    """An entry as a publisher sends it: a headline, or a body in Markdown, or blocks, or a headline and either."""

    # What `_body_to_blocks` and `_something` see to.
    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["headline"], "properties": {"headline": {"type": "string"}}},
                {"required": ["body"], "properties": {"body": {"type": "string", "pattern": r"\S"}}},
                {"required": ["blocks"], "properties": {"blocks": {"minItems": 1}}},
            ],
            "not": {
                "required": ["body", "blocks"],
                "properties": {"body": {"type": "string"}, "blocks": {"minItems": 1}},
            },
        }
    )

    body: Body | None = None
    correction: CorrectionIn | None = None

    @model_validator(mode="before")
    @classmethod
    def _body_to_blocks(cls, value: Any) -> Any:
        body = value.get("body") if isinstance(value, dict) else None
        if not isinstance(body, str):
            return value
        if len(body) > BODY_LIMIT:
            expected = f"at most {BODY_LIMIT} characters"
            raise PydanticCustomError("long", "{expected}", {"expected": expected, "got": body, "field": "body"})
        if value.get("blocks"):
            raise PydanticCustomError("both", "{expected}", {"expected": "either body or blocks", "got": "both"})
        try:
            return {**value, "body": None, "blocks": markup.blocks(markup.plain(body))}
        except markup.Unsafe as error:
            raise PydanticCustomError("unsafe", "{expected}", {**fault(error).context, "field": "body"}) from None  # type: ignore[dict-item]

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.headline and not self.blocks:
            raise PydanticCustomError(
                "empty", "{expected}", {"expected": "a headline, a body or blocks", "got": "an empty entry"}
            )
        return self


class NewEntryIn(EntryIn):
    """An entry that is published for the first time: there is nothing to correct."""

    correction: Annotated[None, Field(exclude=True)] = None


class PublishIn(Model):
    """How an entry is published: with `dry_run`, it is not."""

    dry_run: Literal["0", "1"] = "0"


class WithdrawalIn(Model):
    """Why an entry is withdrawn; a legal reason leaves no headline behind."""

    reason: Literal["error", "legal", "duplicate", "moved"] = "error"
    note: Line | None = None


class DeliveryIn(BaseModel):
    """Which event's receipt is asked for, and for how many seconds the answer may wait for all workers to have it."""

    model_config = ConfigDict(extra="forbid", frozen=True)  # not strict: a query is text

    n: Annotated[int, Field(ge=1)] | None = None
    wait: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 0.0


class EndIn(Model):
    """Where the coverage goes on, if it does."""

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
    dir: Literal["ltr", "rtl"] = "ltr"
    state: Literal["live", "paused"] = "live"
    coverage_start: Instant | None = None
    coverage_end: Instant | None = None
    previous: list[Coverage] = Field([], max_length=20)
    next: Coverage | None = None
    topics: list[Label] = Field([], max_length=50)
    updated_at: Instant | None = None


# --- what it becomes


def entry(entry_in: EntryIn, *, stream: str, id: str, at: int, held: dict[str, Any] | None = None) -> dict[str, Any]:
    """The entry that a publisher's input becomes at the instant `at`, in milliseconds; `held` is its last revision."""
    published_at = held["published_at"] if held else entry_in.published_at or instant(at)
    if entry_in.published_at not in (None, published_at):
        fault = Fault("published_at", f"{published_at}, as it was published", str(entry_in.published_at))
        raise Invalid("When an entry was published does not change; sort_at moves it.", fault)
    kept = made(entry_in, id=id, rev=held["rev"] + 1 if held else 1, published_at=published_at)
    stamps = _stamps(entry_in.correction, kept, held, at) if held else {}
    return {**kept, **stamps, "url": entry_url(stream, id)}


def entry_url(stream: str, id: str) -> str:
    return f"/streams/{stream}/entries/{id}"


def made(entry_in: EntryIn, *, id: str, rev: int, published_at: str) -> dict[str, Any]:
    """A stored entry, but for its stamps and address."""
    return {
        "id": id,
        "rev": rev,
        **({"headline": entry_in.headline} if entry_in.headline else {}),
        "blocks": [block.model_dump(exclude_none=True) for block in entry_in.blocks],
        "bylines": [byline.model_dump(exclude_none=True) for byline in entry_in.bylines],
        "tags": entry_in.tags,
        "flags": entry_in.flags.model_dump(exclude_defaults=True),
        "published_at": published_at,
        "sort_at": entry_in.sort_at or published_at,
    }


_CONTENT = ("headline", "blocks", "bylines")


def _stamps(correction: CorrectionIn | None, made: dict[str, Any], held: dict[str, Any], at: int) -> dict[str, Any]:
    """When a revised entry says it was touched, and its last correction. Only a change of content is worth a stamp."""
    kept: dict[str, Any] = {name: held[name] for name in ("updated_at", "correction") if name in held}
    kind = correction.kind if correction else "update"
    changed = any(made.get(name) != held.get(name) for name in _CONTENT)
    if kind != "minor" and (changed or kind == "correction"):
        kept["updated_at"] = instant(at)
    if correction and kind == "correction":
        kept["correction"] = {"class": kind, "note": correction.note, "at": instant(at)}
    return kept


def shown_at(entry: dict[str, Any], at: int) -> str:
    """The newest instant that the page shows because of an entry that is stored at `at`, in milliseconds."""
    return min(str(entry.get("updated_at") or entry["published_at"]), instant(at))


def patch_entry(held: dict[str, Any], patch: Any) -> EntryIn:
    """The input that a merge patch makes of an entry: what a publisher may send can be patched, and nothing else."""
    own = {name: held[name] for name in EntryIn.model_fields if name in held and name != "correction"}
    if isinstance(patch, dict) and patch.get("body") is not None:
        own.pop("blocks", None)
    return _patched(EntryIn, own, patch)


def page(page_in: PageIn, *, at: int, held: dict[str, Any] | None = None) -> dict[str, Any]:
    """The page that a publisher's input becomes at the instant `at`, in milliseconds; `held` is its last revision."""
    fields = page_in.model_dump(exclude_none=True)
    if held and held["state"] == "ended" and "state" not in page_in.model_fields_set:
        fields["state"] = "ended"  # an ended page can be mended; only who says so makes it live again
    return {"rev": held["rev"] + 1 if held else 1, **fields, "updated_at": page_in.updated_at or instant(at)}


def patch_page(held: dict[str, Any], patch: Any) -> PageIn:
    """The input that a merge patch makes of a page."""
    own = {name: held[name] for name in PageIn.model_fields if name in held and name != "updated_at"}
    if own.get("state") == "ended":
        del own["state"]
    return _patched(PageIn, own, patch)


def _patched(kind: type[M], own: dict[str, Any], patch: Any) -> M:
    merged = _merged(own, patch)
    if isinstance(patch, dict):  # a null takes away nothing that is not known: a misspelt name is told
        merged |= {name: None for name in patch if name not in kind.model_fields}
    return read(kind, merged)


def _merged(target: Any, patch: Any) -> Any:
    """RFC 7396, section 2: null takes a member away, an object is merged, anything else replaces."""
    if not isinstance(patch, dict):
        return patch
    kept = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            kept.pop(name, None)
        else:
            kept[name] = _merged(kept.get(name), value)
    return kept
