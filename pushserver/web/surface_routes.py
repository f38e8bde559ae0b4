"""Reads of the surfaces of a stream are answered from the cache of finished bytes, before any routing.

A page load is the most frequent request of a big day. What is said here of one request is said of a hundred thousand: a
list of headers that is ready, one write of bytes that are ready.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from starlette.types import ASGIApp, Receive, Scope, Send

from ..access.tokens import Tokens
from ..errors import Refused, Unavailable
from ..problems import HEADERS
from ..surfaces.cache import Copy, SurfaceCache
from ..surfaces.codings import ContentCoding, accepted
from ..surfaces.surface import MEDIA_TYPES, Surface
from ..transport.exchange import PreparedAnswer, prepared_head
from .conditions import is_current
from .reading_routes import PAGE_HEADERS, least_n

_PATH = re.compile(r"/streams/([a-z0-9][a-z0-9-]{0,63})(?:/(entries|feed\.atom|feed\.json))?")
_SURFACES: dict[str | None, Surface] = {None: Surface.PAGE, **{surface.value: surface for surface in Surface}}
_SLICE = re.compile(rb"(?:^|&)(?:before|limit)=")  # any other parameter, such as utm_source, changes nothing
_N = re.compile(rb"(?:^|&)n=([^&]*)")
ADDRESS_BYTES = 384  # of an address that is remembered; a longer one is read anew by the application
HEADS = 4_096  # addresses that are remembered, and heads of answers


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
        vary = ", ".join(["Accept-Encoding", *((granted or {}).get("Vary", "").split())])
        fixed = {**(granted or {}), "Vary": vary, "Cache-Control": cache_control}
        self._fixed = {
            surface: encoded({**HEADERS, **(PAGE_HEADERS if surface is Surface.PAGE else {}), **fixed})
            for surface in Surface
        }
        self._head = lru_cache(HEADS)(self._prepared_head)

    def prepare(self, scope: Scope, fields: Mapping[bytes, bytes], reply: Reply) -> bool:
        """Have a read answered without a task, if its bytes are in memory; `transport/http.py` says how.

        All else, a refusal and a condition that few send, is for the application.
        """
        path, query = scope["path"], scope["query_string"]
        asked = _read_of(path, query) if len(path) + len(query) <= ADDRESS_BYTES else None
        if asked is None or b"if-match" in fields or self._tokens.is_private(asked[0]):
            return False
        stream, surface = asked

        def answer(copy: Copy | None) -> None:
            if copy is None:
                reply(None)
            elif b"if-none-match" in fields and has_current_copy(fields, copy.etag):
                reply(PreparedAnswer(304, self._head(stream, surface, copy.etag, copy.coding, None), b""))
            else:
                head = self._head(stream, surface, copy.etag, copy.coding, len(copy.body))
                reply(PreparedAnswer(200, head, copy.body))

        return self._cache.read_soon(stream, surface, accepted(fields.get(b"accept-encoding", b"")), answer)

    def _prepared_head(
        self, stream: str, surface: Surface, etag: str, coding: ContentCoding, length: int | None
    ) -> bytes:
        """The head of a prepared answer, of a 304 where the length is None."""
        headers = _headers(stream, surface, etag, coding, length, None, self._fixed[surface])
        return prepared_head(304 if length is None else 200, headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = self._asked(scope)
        if asked is None:
            await self._app(scope, receive, send)
            return
        (stream, surface), fields = asked, fields_of(scope["headers"])
        try:
            least = _least_n(scope["query_string"])
            copy = await self._cache.read(stream, surface, accepted(fields.get(b"accept-encoding", b"")))
            if copy.stale_since and copy.head.n < least:
                raise Unavailable(f"The store does not answer, and event {least} is in no memory here; retry later.")
            unchanged = has_current_copy(fields, copy.etag)
        except Refused as refused:
            await self._refuse(refused)(scope, receive, send)
            return
        status = 304 if unchanged else 200
        length = None if unchanged else len(copy.body)
        headers = _headers(stream, surface, copy.etag, copy.coding, length, copy.stale_since, self._fixed[surface])
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if unchanged else copy.body})

    def _asked(self, scope: Scope) -> tuple[str, Surface] | None:
        """The stream and the surface that a request asks for, None for any other request."""
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            return None
        match = _PATH.fullmatch(scope["path"])
        if match is None or _SLICE.search(scope["query_string"]) or self._tokens.is_private(match[1]):
            return None
        return match[1], _SURFACES[match[2]]


def _least_n(query: bytes) -> int:
    match = _N.search(query)
    return least_n(match[1].decode("latin-1")) if match else 0


@lru_cache(HEADS)
def _read_of(path: str, query: bytes) -> tuple[str, Surface] | None:
    """The stream and the surface that are read, None for any other address, and for an `n` that is refused."""
    match = _PATH.fullmatch(path)
    if match is None or _SLICE.search(query):
        return None
    try:
        _least_n(query)
    except Refused:
        return None
    return match[1], _SURFACES[match[2]]


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
