"""What entries and pages are made of: texts, links, instants, blocks; each as it may be sent, and is stored. Pure.

What a JSON schema cannot say of a string has a `format` of its own: `text`, `inline-html`, `markdown`, `time-zone`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import resources
from typing import Annotated, Any, Literal, get_args

from babel import Locale, UnknownLocaleError
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from ..model import instant
from . import markup

BODY_LIMIT, HTML_LIMIT = 50_000, 20_000  # characters


def fault(error: markup.Unsafe) -> PydanticCustomError:
    return PydanticCustomError("unsafe", "{expected}", {"expected": error.expected, "got": error.got})


def checked(check: Any) -> AfterValidator:
    """A check of ours as pydantic's: its refusal keeps what was expected and what came."""

    def run(value: str) -> str:
        try:
            return check(value)  # type: ignore[no-any-return]
        except markup.Unsafe as error:
            raise fault(error) from None

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


def _whole(value: Any) -> Any:
    """1200.0 is the whole number 1200 to JSON (RFC 8259, 6: some languages write it so)."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _string(format: str, most: int | None, least: int | None = None, **schema: Any) -> Any:
    return Field(min_length=least, max_length=most, json_schema_extra={"format": format, **schema})


_NO = r"\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069\ufffe\uffff"
_PLAIN, _FILLED = {"pattern": f"^[^{_NO}]*$"}, {"pattern": rf"^[^{_NO}]*[^\s{_NO}][^{_NO}]*$"}
_line, _text, _html = (
    _string("text", 300, 1, **_FILLED),
    _string("text", 10_000, 1, **_FILLED),
    _string("inline-html", None, 1),
)
_html_most = _most(HTML_LIMIT, markup.length)

# Types with a name are one component of the description each, however often they are used.
Line = TypeAliasType("Line", Annotated[str, _line, checked(markup.plain), checked(_filled), _most(300)])
Text = TypeAliasType("Text", Annotated[str, _text, checked(markup.plain), checked(_filled), _most(10_000)])
Html = TypeAliasType("Html", Annotated[str, _html, _html_most, checked(markup.inline), _html_most])
Link = TypeAliasType("Link", Annotated[str, _string("iri", 2_000), checked(markup.link), _most(2_000)])
Instant = TypeAliasType("Instant", Annotated[str, _string("date-time", 40), checked(instant_of)])
Alt = Annotated[str, _string("text", 2_000, **_PLAIN), checked(markup.plain), _most(2_000)]
Source = Annotated[str, _string("iri-reference", 2_000), checked(markup.source), _most(2_000)]
Zone = Annotated[str, _string("time-zone", 64), checked(_zone)]
Language = Annotated[str, _string("language-tag", 35), checked(_language)]
Body = Annotated[str, _string("markdown", BODY_LIMIT)]
Pixels = Annotated[int, Field(ge=1, le=20_000), BeforeValidator(_whole)]


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
BLOCK_TYPES = frozenset(
    get_args(kind.model_fields["type"].annotation)[0]
    for kind in (Paragraph, Heading, List, Quote, Image, SocialPost, Embed)
)  # a later version may have stored more
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
