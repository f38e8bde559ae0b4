"""What publishers may send: entries and pages, field by field, and what they become. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import resources
from typing import Annotated, Any, Literal, Self

from babel import Locale, UnknownLocaleError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from . import markup
from .errors import Fault, Invalid
from .model import instant
from .validate import read

# --- what comes in

BODY_LIMIT, HTML_LIMIT = 50_000, 20_000  # characters


def _fault(error: markup.Unsafe) -> PydanticCustomError:
    return PydanticCustomError("unsafe", "{expected}", {"expected": error.expected, "got": error.got})


def checked(check: Any) -> AfterValidator:
    """A check of ours as pydantic's: its refusal keeps what was expected and what came."""

    def run(value: str) -> str:
        try:
            return check(value)  # type: ignore[no-any-return]
        except markup.Unsafe as error:
            raise _fault(error) from None

    return AfterValidator(run)


_FIRST, _LAST = (round(datetime(year, 1, 1, tzinfo=UTC).timestamp() * 1000) for year in (1900, 9001))


def instant_of(text: str) -> str:
    """An instant in our form, from ISO 8601 with any offset."""
    try:
        at = datetime.fromisoformat(text)
        ms = round(at.timestamp() * 1000)
        if at.tzinfo is not None and _FIRST <= ms < _LAST:
            return instant(ms)
    except (ValueError, OverflowError):
        pass
    raise markup.Unsafe("an instant with its offset, as 2023-07-11T15:53:00Z", text)


# The zones of the time zone database; a machine's own list has names that mean something else on the next one.
_ZONES = frozenset(resources.files("tzdata").joinpath("zones").read_text("utf-8").split())


def _zone(name: str) -> str:
    if name not in _ZONES:
        raise markup.Unsafe("an IANA time zone, as America/New_York", name)
    return name


def _language(tag: str) -> str:
    try:
        if re.fullmatch(r"[A-Za-z]{2,3}(-[A-Za-z]{4})?(-([A-Za-z]{2}|[0-9]{3}))?", tag):
            Locale.parse(tag, sep="-")
            return tag
    except (ValueError, UnknownLocaleError):
        pass
    raise markup.Unsafe("a language tag, as en-US", tag)


def _filled(text: str) -> str:
    if not text:
        raise markup.Unsafe("some text", "only spaces")
    return text


def _most(limit: int, length: Callable[[str], int] = len) -> AfterValidator:
    """At most so many characters, of what is stored: cleaning may make a text longer, and it must read again."""

    def within(text: str) -> str:
        if length(text) > limit:
            raise markup.Unsafe(f"at most {limit} characters", text)
        return text

    return checked(within)


_html_most = _most(HTML_LIMIT, markup.length)

Line = Annotated[str, Field(min_length=1, max_length=300), checked(markup.plain), checked(_filled), _most(300)]
Text = Annotated[str, Field(min_length=1, max_length=10_000), checked(markup.plain), checked(_filled), _most(10_000)]
Alt = Annotated[str, Field(max_length=2_000), checked(markup.plain), _most(2_000)]
Html = Annotated[str, Field(min_length=1), _html_most, checked(markup.inline), _html_most]
Link = Annotated[str, Field(max_length=2_000), checked(markup.link), _most(2_000)]
Source = Annotated[str, Field(max_length=2_000), checked(markup.source), _most(2_000)]
Instant = Annotated[str, Field(max_length=40), checked(instant_of)]
Pixels = Annotated[int, Field(ge=1, le=20_000)]


class Model(BaseModel):
    """Strict: no unknown field, no value of another type taken for the right one."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Paragraph(Model):
    type: Literal["paragraph"]
    html: Html


class Heading(Model):
    type: Literal["heading"]
    text: Line


class List(Model):
    type: Literal["list"]
    ordered: bool = False
    items: Annotated[list[Html], Field(min_length=1, max_length=200)]


class Quote(Model):
    type: Literal["quote"]
    html: Html
    cite: Line | None = None


class Image(Model):
    """A photograph. Size keeps the page from jumping, alt is for who cannot see it, credit is owed."""

    type: Literal["image"]
    src: Source
    width: Pixels
    height: Pixels
    alt: Alt
    caption: Text
    credit: Line


class SocialPost(Model):
    """A post quoted as text, so that it outlives the original and asks no third party."""

    type: Literal["social_post"]
    platform: Line
    author_name: Line
    handle: Line | None = None
    text: Text
    url: Link | None = None
    posted_at: Instant | None = None


class Embed(Model):
    """Something elsewhere, shown as a link to it."""

    type: Literal["embed"]
    url: Link
    title: Line
    html: Html | None = None


Block = Annotated[
    Paragraph | Heading | List | Quote | Image | SocialPost | Embed,
    Field(discriminator="type"),
]
Blocks = Annotated[list[Block], Field(max_length=200)]


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


class CorrectionIn(Model):
    """What kind of change a new revision is: minor is silent, update is stamped, correction is noted and announced."""

    kind: Annotated[Literal["minor", "update", "correction"], Field(alias="class")]
    note: Text | None = None

    @model_validator(mode="after")
    def _noted(self) -> Self:
        if self.kind == "correction" and not self.note:
            raise PydanticCustomError("unnoted", "{expected}", {"expected": "a note with a correction", "got": "none"})
        return self


class EntryIn(Model):
    """An entry as a publisher sends it: a headline, or a body in Markdown, or blocks, or a headline and either."""

    headline: Line | None = None
    body: Annotated[str, Field(max_length=BODY_LIMIT)] | None = None
    blocks: Blocks = []
    bylines: Annotated[list[Byline], Field(max_length=20)] = []
    tags: Annotated[list[Line], Field(max_length=50)] = []
    flags: Flags = Flags()
    published_at: Instant | None = None
    sort_at: Instant | None = None
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
            raise PydanticCustomError("unsafe", "{expected}", {**_fault(error).context, "field": "body"}) from None  # type: ignore[dict-item]

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
    background: Blocks = []
    intro: Text | None = None
    timezone: Annotated[str, Field(max_length=64), checked(_zone)] = "UTC"
    lang: Annotated[str, Field(max_length=35), checked(_language)] = "en"
    dir: Literal["ltr", "rtl"] = "ltr"
    state: Literal["live", "paused"] = "live"
    coverage_start: Instant | None = None
    coverage_end: Instant | None = None
    previous: Annotated[list[Coverage], Field(max_length=20)] = []
    next: Coverage | None = None
    topics: Annotated[list[Label], Field(max_length=50)] = []
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
    return read(EntryIn, _merged(own, patch))


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
    return read(PageIn, _merged(own, patch))


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
