"""Headers that choose an answer: `If-Match`, `If-None-Match` (RFC 9110, 13.1) and `Accept` (RFC 9110, 12.5.1).

A client that names the ETag of its copy gets 304 while the copy is current.
"""

from __future__ import annotations

import re
from functools import lru_cache

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from ..errors import Fault, PreconditionFailed, shorten

_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'  # RFC 9110, 8.8.3; a comma may be part of a tag
# Possessive: with backtracking, 30,000 commas before an error cost 50 seconds.
_LIST = re.compile(rf"[ \t,]*+(?:{_TAG}[ \t]*+(?:,[ \t,]*+|$))++")


def if_none_match(field: str, etag: str) -> bool:
    """Whether `If-None-Match` names this ETag, by weak comparison, or is `*`. A field that is not valid names none.

    A field of more than one line is passed as one, joined by commas (RFC 9110, 5.3).
    """
    if field == etag or field.strip(" \t") == "*":
        return True
    # A search for the text would take "v1.2" for a part of "v1.23", and answer 304 to a client with an old copy.
    return bool(_LIST.fullmatch(field)) and _opaque(etag) in map(_opaque, re.findall(_TAG, field))


def if_match(field: str, etag: str) -> bool:
    """Whether `If-Match` names this ETag, by strong comparison, or is `*`. A field that is not valid names none."""
    if field.strip(" \t") == "*":
        return True
    return bool(_LIST.fullmatch(field)) and not etag.startswith("W/") and etag in re.findall(_TAG, field)


def is_current(match: str | None, none_match: str | None, etag: str) -> bool:
    """Whether a GET is answered 304, from its `If-Match` and `If-None-Match`, None where they are missing.

    Raises PreconditionFailed where `If-Match` names other tags alone; it is looked at first (RFC 9110, 13.2.2).
    """
    if match is not None and not if_match(match, etag):
        fault = Fault("If-Match", etag, shorten(match))
        raise PreconditionFailed("The answer has another ETag than If-Match names.", fault)
    return none_match is not None and if_none_match(none_match, etag)


def _opaque(tag: str) -> str:
    """The part of a tag that weak comparison looks at."""
    return tag.removeprefix("W/")


def not_modified(request: Request, headers: dict[str, str]) -> Response | None:
    """The 304 response to a request whose `If-None-Match` names the `ETag` among these headers; None for any other.

    Raises PreconditionFailed as `is_current` does.
    """
    match, none_match = (
        ", ".join(lines) if (lines := request.headers.getlist(name)) else None for name in ("if-match", "if-none-match")
    )
    return Response(status_code=304, headers=headers) if is_current(match, none_match, headers["ETag"]) else None


_QUALITY = re.compile(r"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")  # RFC 9110, 12.4.2


def prefers_html(headers: Headers) -> bool:
    """Whether `Accept` asks for HTML, as browsers do, and for JSON no more than for HTML. `*/*` asks for neither."""
    return accepts_html(",".join(headers.getlist("accept")))


@lru_cache(maxsize=256)
def accepts_html(field: str) -> bool:
    """Whether the value of an `Accept` field prefers HTML to JSON, as `prefers_html` has it."""
    ranges = dict(map(_range, field.split(",")))
    html = ranges.get("text/html", ranges.get("text/*", 0.0))
    json = ranges.get("application/json", ranges.get("application/*", ranges.get("*/*", 0.0)))
    return html > 0 and html >= json


def _range(text: str) -> tuple[str, float]:
    """A media range and its quality, 1 where none stands there, 0 where it is not valid."""
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    quality = next((each for each in parameters if each.startswith("q=")), "q=1")
    match = _QUALITY.fullmatch(quality)
    return name, float(match[1]) if match else 0.0
