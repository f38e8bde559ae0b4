"""Reads of the surfaces of a stream are answered from the cache of finished bytes, before any routing.

A page load is the most frequent request of a big day. What is said here of one request is said of a hundred thousand: a
list of headers that is ready, one write of bytes that are ready.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from starlette.types import ASGIApp, Receive, Scope, Send

from ..access.tokens import Tokens
from ..errors import NotFound, Refused, Unavailable
from ..model import ID
from ..refusal_response import HEADERS
from ..surfaces.cache import SurfaceCache
from ..surfaces.codings import ContentCoding, accepted
from ..surfaces.shelf import Copy
from ..surfaces.surface import MEDIA_TYPES, Surface, place_of
from ..transport.exchange import PreparedAnswer, prepared_head
from .conditions import accepts_html, is_current
from .reading_routes import PAGE_HEADERS, least_n

_PATH = re.compile(
    rf"/streams/([a-z0-9][a-z0-9-]{{0,63}})(?:/(?:(entries|feed\.atom|feed\.json)|entries/({ID.pattern})))?"
)
_SURFACES: dict[str | None, Surface] = {None: Surface.PAGE, **{surface.value: surface for surface in Surface}}
_SLICE = re.compile(rb"(?:^|&)(before|limit)=([^&]*)")  # any other parameter, such as utm_source, changes nothing
_SLICED = (Surface.PAGE, Surface.ENTRIES)
_N = re.compile(rb"(?:^|&)n=([^&]*)")
ADDRESS_BYTES = 384  # of an address that is remembered; a longer one is read anew by the application
HEADS = 4_096  # addresses that are remembered, and heads of answers


class Asked(NamedTuple):
    """Asked is what a request reads. `excerpt` is the id of an entry, the `before` of a slice, "" for the newest."""

    stream: str
    surface: Surface
    excerpt: str


Fields = tuple[tuple[bytes, bytes], ...]
Reply = Callable[[PreparedAnswer | None], None]


class SurfaceRoutes:
    """SurfaceRoutes is ASGI middleware that answers reads of surfaces, and passes every other request on.

    A private stream is passed on, as its gate comes first and no cache has it. `refuse` makes the application that
    answers a refusal; `granted` are the header fields that the answer has for pages of other origins.
    """

    def __init__(
        self,
        app: ASGIApp,
        cache: SurfaceCache,
        cache_control: str,
        tokens: Tokens,
        *,
        refuse: Callable[[Refused], ASGIApp],
        granted: Mapping[str, str] | None = None,
    ) -> None:
        self._app = app
        self._cache = cache
        self._tokens = tokens
        self._refuse = refuse
        fixed = {**(granted or {}), "Cache-Control": cache_control}
        self._fixed = {surface: _fixed(surface, fixed) for surface in Surface}
        self._head = lru_cache(HEADS)(self._prepared_head)

    def prepare(self, scope: Scope, fields: Mapping[bytes, bytes], reply: Reply) -> bool:
        """Have a read answered without a task, if its bytes are in memory; `transport/http.py` says how.

        All else, a refusal and a condition that few send, is for the application.
        """
        path, query = scope["path"], scope["query_string"]
        asked = _read_of(path, query) if len(path) + len(query) <= ADDRESS_BYTES else None
        if asked is None or b"if-match" in fields or not self._has(asked, fields):
            return False
        stream, surface, excerpt = asked

        def answer(copy: Copy | None) -> None:
            if copy is None:
                reply(None)
            elif b"if-none-match" in fields and has_current_copy(fields, copy.etag):
                reply(PreparedAnswer(304, self._head(stream, surface, copy.etag, copy.coding, None), b""))
            else:
                head = self._head(stream, surface, copy.etag, copy.coding, len(copy.body))
                reply(PreparedAnswer(200, head, copy.body))

        coding = accepted(fields.get(b"accept-encoding", b""))
        return self._cache.read_soon(stream, surface, coding, answer, excerpt)

    def _prepared_head(
        self, stream: str, surface: Surface, etag: str, coding: ContentCoding, length: int | None
    ) -> bytes:
        """The head of a prepared answer, of a 304 where the length is None."""
        headers = _headers(stream, surface, etag, coding, length, None, self._fixed[surface])
        return prepared_head(304 if length is None else 200, headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fields = fields_of(scope["headers"]) if scope["type"] == "http" else {}
        asked = self._asked(scope, fields)
        if asked is None:
            await self._app(scope, receive, send)
            return
        stream, surface, excerpt = asked
        try:
            least = _least_n(scope["query_string"])
            copy = await self._cache.read(stream, surface, accepted(fields.get(b"accept-encoding", b"")), excerpt)
            if copy.stale_since and copy.head.n < least:
                says = f"this worker's copy is older than event {least}, which the address asks for (?n=)"
                raise Unavailable(f"The store does not answer, and {says}; retry later.")
            unchanged = has_current_copy(fields, copy.etag)
        except Refused as refused:
            # An entry that was withdrawn has a page, too, which is in no cache.
            is_for_app = surface is Surface.ENTRY and isinstance(refused, NotFound)
            await (self._app if is_for_app else self._refuse(refused))(scope, receive, send)
            return
        status = 304 if unchanged else 200
        length = None if unchanged else len(copy.body)
        headers = _headers(stream, surface, copy.etag, copy.coding, length, copy.stale_since, self._fixed[surface])
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if unchanged else copy.body})

    def _asked(self, scope: Scope, fields: Mapping[bytes, bytes]) -> Asked | None:
        """Return what a request reads from the cache, None for any other request."""
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            return None
        asked = _asked_of(scope["path"], scope["query_string"])
        return asked if asked and self._has(asked, fields) else None

    def _has(self, asked: Asked, fields: Mapping[bytes, bytes]) -> bool:
        """Whether the cache may answer: not for a private stream, and not for an entry as JSON."""
        if asked.surface is Surface.ENTRY and not accepts_html(fields.get(b"accept", b"").decode("latin-1")):
            return False
        return not self._tokens.is_private(asked.stream)


def _fixed(surface: Surface, fixed: Mapping[str, str]) -> Fields:
    """The header fields that every answer with this surface has."""
    vary = [*(["Accept"] if surface is Surface.ENTRY else []), "Accept-Encoding", *fixed.get("Vary", "").split()]
    page = PAGE_HEADERS if surface in (Surface.PAGE, Surface.ENTRY) else {}
    return encoded({**HEADERS, **page, **fixed, "Vary": ", ".join(vary)})


def _least_n(query: bytes) -> int:
    match = _N.search(query)
    return least_n(match[1].decode("latin-1")) if match else 0


def _asked_of(path: str, query: bytes) -> Asked | None:
    """Return what an address reads from the cache: None for other addresses, and for slices with `limit`."""
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    stream, name, id = match.groups()
    if id:
        return Asked(stream, Surface.ENTRY, id)
    asked = Asked(stream, _SURFACES[name], "")
    match _SLICE.findall(query):
        case []:
            return asked
        case [(b"before", place)] if asked.surface in _SLICED and place_of(place.decode("latin-1")):
            return asked._replace(excerpt=place.decode())
        case _:
            return None


@lru_cache(HEADS)
def _read_of(path: str, query: bytes) -> Asked | None:
    """The same; None, too, for an `n` that is refused."""
    try:
        _least_n(query)
    except Refused:
        return None
    return _asked_of(path, query)


def fields_of(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The header fields, each as one line (RFC 9110, 5.3)."""
    fields: dict[bytes, bytes] = {}
    for name, value in headers:
        fields[name] = fields[name] + b", " + value if name in fields else value
    return fields


def has_current_copy(fields: Mapping[bytes, bytes], etag: str) -> bool:
    """Whether a request with these header fields has a current copy. Raises PreconditionFailed as `is_current` does."""
    if b"if-match" not in fields and b"if-none-match" not in fields:
        return False
    match, none_match = (
        fields[name].decode("latin-1") if name in fields else None for name in (b"if-match", b"if-none-match")
    )
    return is_current(match, none_match, etag)


def encoded(fields: Mapping[str, str]) -> Fields:
    """Header fields as ASGI has them."""
    return tuple((name.lower().encode(), value.encode()) for name, value in fields.items())


@lru_cache(HEADS)
def _headers(
    stream: str,
    surface: Surface,
    etag: str,
    coding: ContentCoding,
    length: int | None,
    stale_since: str | None,
    fixed: Fields,
) -> list[tuple[bytes, bytes]]:
    """The header fields of an answer; `length` is None for one without a body."""
    headers = [*fixed, (b"surrogate-key", stream.encode()), (b"etag", etag.encode())]
    if stale_since:
        headers.append((b"pushserver-stale-since", stale_since.encode()))
    if length is None:
        return headers
    if coding is not ContentCoding.IDENTITY:
        headers.append((b"content-encoding", coding.value.encode()))
    return [*headers, (b"content-type", MEDIA_TYPES[surface].encode()), (b"content-length", str(length).encode())]
