"""What an entry, a page, an event and a cursor are, and the one validator of what comes in.

Pure. An instant is a UTC string of milliseconds, `2023-07-11T15:53:00.000Z`: always 24 characters, so that
strings compare as instants do. JSON is read once, here, and refused where readers could take it for two
different things.
"""

from __future__ import annotations

import json
import re
import secrets
import time
import zoneinfo
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple, NoReturn, Self, TypeVar
from zlib import crc32

from babel import Locale
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from . import markup
from .errors import Fault, Invalid, Malformed, shorten

STREAM = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
DEPTH_LIMIT = 32
PINNED = 2**52  # above every instant in milliseconds, and with one added still exact in a double


# --- instants and names


def instant(ms: int) -> str:
    """Milliseconds since 1970 as an instant."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}Z"


def milliseconds(at: str) -> int:
    """An instant as milliseconds since 1970."""
    return round(datetime.fromisoformat(at).timestamp() * 1000)


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def new_id() -> str:
    """A new entry's id: 15 characters that sort by the microsecond they were made in, 20 of the 75 bits random."""
    value = (time.time_ns() // 1_000) << 20 | secrets.randbits(20)
    return "".join("0123456789abcdefghjkmnpqrstvwxyz"[value >> shift & 31] for shift in range(70, -1, -5))


def check_stream(name: str) -> str:
    """A stream's name, or a refusal that says what one is."""
    if not STREAM.fullmatch(name):
        raise Invalid(
            "That is not the name of a stream.",
            Fault("stream", "1 to 64 characters of a-z, 0-9 and -, not beginning with -", shorten(name)),
        )
    return name


def partition_of(stream: str, partitions: int) -> int:
    """Which of the hash tags a stream's keys share."""
    return crc32(stream.encode()) % partitions


# --- the log's records


class Cursor(NamedTuple):
    """One event and its identity: the nonce tells apart two events that got the same id across a failover."""

    epoch: str
    id: str
    nonce: str

    def __str__(self) -> str:
        return f"v1.{self.epoch}.{self.id}.{self.nonce}"

    @classmethod
    def parse(cls, text: str) -> Cursor | None:
        """The cursor that a reader sent, or None where it is not one."""
        found = re.fullmatch(r"v1\.([0-9a-f]{16})\.([0-9]{1,19}-[0-9]{1,19})\.([0-9a-f]{16})", text)
        return cls(*found.groups()) if found else None


class Event(NamedTuple):
    """One record of the log.

    `data` is what its frame carries beside the fields that are here, a JSON object as bytes; `shown_at` the newest
    instant that the page shows because of it.
    """

    cursor: Cursor
    prev: Cursor
    n: int
    type: str
    data: bytes
    shown_at: str


# --- what comes in


def _fault(error: markup.Unsafe) -> PydanticCustomError:
    return PydanticCustomError("unsafe", "{expected}", {"expected": error.expected, "got": error.got})


def _checked(check: Any) -> AfterValidator:
    """A check of ours as pydantic's: its refusal keeps what was expected and what came."""

    def run(value: str) -> str:
        try:
            return check(value)  # type: ignore[no-any-return]
        except markup.Unsafe as error:
            raise _fault(error) from None

    return AfterValidator(run)


def _instant(text: str) -> str:
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is not None and 1900 <= at.year <= 9000:
            return instant(round(at.timestamp() * 1000))
    except (ValueError, OverflowError):
        pass
    raise markup.Unsafe("an instant with its offset, as 2023-07-11T15:53:00Z", text)


def _zone(name: str) -> str:
    try:
        zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        raise markup.Unsafe("an IANA time zone, as America/New_York", name) from None
    return name


def _language(tag: str) -> str:
    try:
        Locale.parse(tag, sep="-")
    except (ValueError, LookupError):
        raise markup.Unsafe("a language tag, as en-US", tag) from None
    return tag


def _filled(text: str) -> str:
    if not text:
        raise markup.Unsafe("some text", "only spaces")
    return text


Line = Annotated[str, Field(min_length=1, max_length=300), _checked(markup.plain), _checked(_filled)]
Text = Annotated[str, Field(min_length=1, max_length=10_000), _checked(markup.plain), _checked(_filled)]
Alt = Annotated[str, Field(max_length=2_000), _checked(markup.plain)]
Html = Annotated[str, Field(min_length=1, max_length=20_000), _checked(markup.inline)]
Link = Annotated[str, Field(max_length=2_000), _checked(markup.link)]
Source = Annotated[str, Field(max_length=2_000), _checked(markup.source)]
Instant = Annotated[str, Field(max_length=40), _checked(_instant)]
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


class EntryIn(Model):
    """An entry as a publisher sends it: a headline, or a body in Markdown, or blocks, or a headline and either."""

    headline: Line | None = None
    body: Annotated[str, Field(max_length=50_000)] | None = None
    blocks: Blocks = []
    bylines: Annotated[list[Byline], Field(max_length=20)] = []
    tags: Annotated[list[Line], Field(max_length=50)] = []
    flags: Flags = Flags()
    published_at: Instant | None = None
    sort_at: Instant | None = None

    @model_validator(mode="before")
    @classmethod
    def _body_to_blocks(cls, value: Any) -> Any:
        body = value.get("body") if isinstance(value, dict) else None
        if not isinstance(body, str):
            return value
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


class PageIn(Model):
    """A stream's own fields as a publisher sends them."""

    headline: Line
    kicker: Line | None = None
    dek: Text | None = None
    background: Blocks = []
    intro: Text | None = None
    timezone: Annotated[str, _checked(_zone)] = "UTC"
    lang: Annotated[str, Field(max_length=35), _checked(_language)] = "en"
    dir: Literal["ltr", "rtl"] = "ltr"
    state: Literal["live", "paused"] = "live"
    coverage_start: Instant | None = None
    coverage_end: Instant | None = None
    previous: Annotated[list[Coverage], Field(max_length=20)] = []
    next: Coverage | None = None
    topics: Annotated[list[Label], Field(max_length=50)] = []
    updated_at: Instant | None = None


# --- what is stored and shown


class Entry(NamedTuple):
    """A stored entry. `json` is what the API and the frames carry."""

    id: str
    rev: int
    json: dict[str, Any]

    @property
    def shown_at(self) -> str:
        """The instant that the entry says it was last touched."""
        return str(self.json.get("updated_at") or self.json["published_at"])


def order_of(entry: dict[str, Any]) -> int:
    """A stored entry's score in the order of the page: pinned ones first, then by `sort_at`; ties go by id."""
    return milliseconds(entry["sort_at"]) + (PINNED if entry["flags"].get("pinned") else 0)


def entry(entry_in: EntryIn, *, stream: str, id: str, rev: int, at: int) -> Entry:
    """The entry that a publisher's input becomes at the instant `at`, in milliseconds."""
    fields = entry_in.model_dump(exclude_none=True, exclude_defaults=True)
    published_at = entry_in.published_at or instant(at)
    body = {
        "id": id,
        "rev": rev,
        **{name: fields[name] for name in ("headline",) if name in fields},
        "blocks": [block.model_dump(exclude_none=True) for block in entry_in.blocks],
        "bylines": fields.get("bylines", []),
        "tags": fields.get("tags", []),
        "flags": fields.get("flags", {}),
        "published_at": published_at,
        "sort_at": entry_in.sort_at or published_at,
        "url": f"/streams/{stream}#e-{id}",
    }
    return Entry(id, rev, body)


def page(page_in: PageIn, *, rev: int, at: int) -> dict[str, Any]:
    """The page that a publisher's input becomes at the instant `at`, in milliseconds."""
    fields = page_in.model_dump(exclude_none=True)
    return {"rev": rev, **fields, "updated_at": page_in.updated_at or instant(at)}


def unwritten_page(stream: str) -> dict[str, Any]:
    """The page of a stream that has entries and was given no page yet."""
    page_in = PageIn(headline=stream.replace("-", " ").capitalize())
    return {**page(page_in, rev=0, at=0)}


# --- reading input


def loads(stored: bytes) -> dict[str, Any]:
    """JSON that the store holds, and so was checked when it came."""
    value: dict[str, Any] = json.loads(stored)
    return value


def read_json(body: bytes) -> Any:
    """JSON (RFC 8259), refused where parsers differ: duplicate names, NaN, deep nesting, a byte order mark."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = f"byte 0x{body[error.start]:02x} at offset {error.start}"
        raise Malformed("The body is not UTF-8.", Fault("body", "UTF-8", byte)) from None
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise Malformed(
            "The body is nested too deep.", Fault("body", f"{DEPTH_LIMIT} levels at most", "more")
        ) from None
    except json.JSONDecodeError as error:
        got = shorten(text[error.pos : error.pos + 20]) or "the end"
        where = f"line {error.lineno} column {error.colno}"
        raise Malformed(f"The body is not JSON: {error.msg}.", Fault("body", f"JSON at {where}", got)) from None
    _check_depth(value)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Malformed("A JSON object names a member twice.", Fault(shorten(twice), "each name once", "twice"))
    return found


def _no_constant(name: str) -> NoReturn:
    raise Malformed("JSON has no such number.", Fault("body", "a finite number", name))


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEPTH_LIMIT):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise Malformed("The body is nested too deep.", Fault("body", f"{DEPTH_LIMIT} levels at most", "more"))


M = TypeVar("M", bound=Model)


def read(kind: type[M], value: Any) -> M:
    """A value as the model says it must be, or a refusal that names every field that is not."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        faults = [_fault_of(dict(problem)) for problem in error.errors(include_url=False)[:20]]
        if (
            isinstance(value, dict) and "body" in value
        ):  # the blocks were made of it, and it is what the publisher knows
            faults = [fault._replace(field=re.sub(r"^blocks\b.*", "body", fault.field)) for fault in faults]
        raise Invalid(f"{faults[0].field}: expected {faults[0].expected}, got {faults[0].got}.", *faults) from None


_KINDS = {"paragraph", "heading", "list", "quote", "image", "social_post", "embed"}


def _fault_of(problem: dict[str, Any]) -> Fault:
    """One of pydantic's findings in our words."""
    # A union's member puts its tag into the path after the index; the path is that of the JSON that came.
    path = problem["loc"]
    steps = [str(step) for at, step in enumerate(path) if not (at and step in _KINDS and isinstance(path[at - 1], int))]
    context = problem.get("ctx", {})
    if "got" in context:
        return Fault(
            ".".join([*steps, *filter(None, [context.get("field")])]) or "body",
            context["expected"],
            shorten(context["got"]),
        )
    expected = {
        "extra_forbidden": "no such field",
        "missing": "a value",
        "model_type": "a JSON object",
        "string_type": "a string",
        "list_type": "a list",
        "int_type": "a whole number",
        "bool_type": "true or false",
        "string_too_long": f"at most {context.get('max_length')} characters",
        "union_tag_not_found": "a block with its type",
        "union_tag_invalid": f"a type of {', '.join(sorted(_KINDS))}",
    }.get(problem["type"], problem["msg"].removeprefix("Input should be ").removeprefix("Value error, "))
    got = "nothing" if problem["type"] == "missing" else shorten(_seen(problem["input"]))
    return Fault(".".join(steps) or "body", expected, got)


def _seen(value: Any) -> str:
    return f"{value!r} ({type(value).__name__})" if not isinstance(value, str) else value
