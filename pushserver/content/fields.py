"""Fields of blocks, entries and pages: texts, links, instants. A value is validated, and stored cleaned. Pure.

Strings that a JSON schema cannot describe have a `format` of their own: `text`, `inline-html`, `markdown`, `time-zone`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import resources
from typing import Annotated, Any

from babel import Locale, UnknownLocaleError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
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


def _cell(html: str) -> str:
    return markup.inline(html) if html.strip() else ""


# A type with a name is one component of the description, however many fields have it.
Line = TypeAliasType("Line", Annotated[str, _line, checked(plaintext.plain), checked(plaintext.visible), _most(300)])
Text = TypeAliasType("Text", Annotated[str, _text, checked(plaintext.plain), checked(plaintext.visible), _most(10_000)])
Html = TypeAliasType("Html", Annotated[str, _html, _html_most, checked(markup.inline), _html_most])
Cell = TypeAliasType("Cell", Annotated[str, _string("inline-html", None), _html_most, checked(_cell), _html_most])
Link = TypeAliasType("Link", Annotated[str, _string("iri", 2_000), checked(markup.link), _most(2_000)])
Instant = TypeAliasType("Instant", Annotated[str, _string("date-time", 40), checked(instant_of)])
Alt = Annotated[str, _string("text", 2_000, **_PLAIN), checked(plaintext.plain), _most(2_000)]
Source = Annotated[str, _string("iri-reference", 2_000), checked(markup.source), _most(2_000)]
Zone = Annotated[str, _string("time-zone", 64), checked(_zone)]
Language = Annotated[str, _string("language-tag", 35), checked(_language)]
Body = Annotated[str, _string("markdown", BODY_LIMIT)]
Pixels = Annotated[int, Field(ge=1, le=20_000), BeforeValidator(_whole)]
Number = Annotated[int, Field(ge=0, le=999_999_999), BeforeValidator(_whole)]


class Model(BaseModel):
    """A model that refuses unknown fields, and does not convert values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


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
