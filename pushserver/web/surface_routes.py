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
from ..errors import Refused
from ..problems import HEADERS
from ..surfaces.cache import SurfaceCache
from ..surfaces.codings import ContentCoding, accepted
from ..surfaces.surface import MEDIA_TYPES, Surface
from .conditions import if_none_match
from .reading_routes import PAGE_HEADERS

_PATH = re.compile(r"/streams/([a-z0-9][a-z0-9-]{0,63})(?:/(entries|feed\.atom|feed\.json))?")
_SLICE = re.compile(rb"(?:^|&)(?:before|limit)=")  # any other parameter, such as utm_source, changes nothing
HTML_HEADERS, OTHER_HEADERS = {**HEADERS, **PAGE_HEADERS}, {**HEADERS, "Cache-Control": "no-cache"}


Fields = tuple[tuple[bytes, bytes], ...]


class SurfaceRoutes:
    """SurfaceRoutes is ASGI middleware that answers reads of surfaces, and passes every other request on.

    A private stream is passed on, as its gate comes first and no cache has it. `refuse` makes the application that
    answers a refusal; `granted` are the header fields that the answer has for pages of other origins.
    """

    def __init__(
        self,
        app: ASGIApp,
        cache: SurfaceCache,
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
        self._varied = encoded({**(granted or {}), "Vary": vary})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = self._asked(scope)
        if asked is None:
            await self._app(scope, receive, send)
            return
        stream, surface, fields = asked
        try:
            copy = await self._cache.read(stream, surface, accepted(fields.get(b"accept-encoding", b"")))
        except Refused as refused:
            await self._refuse(refused)(scope, receive, send)
            return
        condition = fields.get(b"if-none-match")
        is_current = condition is not None and if_none_match(condition.decode("latin-1"), copy.etag)
        status = 304 if is_current else 200
        length = None if is_current else len(copy.body)
        headers = _headers(surface, copy.etag, copy.coding, length, copy.stale_since, self._varied)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if is_current else copy.body})

    def _asked(self, scope: Scope) -> tuple[str, Surface, dict[bytes, bytes]] | None:
        """The stream and the surface that a request asks for, and its header fields; None for any other request."""
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            return None
        match = _PATH.fullmatch(scope["path"])
        if match is None or _SLICE.search(scope["query_string"]) or self._tokens.is_private(match[1]):
            return None
        return match[1], Surface(match[2] or "page"), fields_of(scope["headers"])


def fields_of(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The header fields, each as one line (RFC 9110, 5.3)."""
    fields: dict[bytes, bytes] = {}
    for name, value in headers:
        fields[name] = fields[name] + b", " + value if name in fields else value
    return fields


def encoded(fields: Mapping[str, str]) -> Fields:
    """Header fields as ASGI has them."""
    return tuple((name.lower().encode(), value.encode()) for name, value in fields.items())


@lru_cache(maxsize=4096)
def _headers(
    surface: Surface, etag: str, coding: ContentCoding, length: int | None, stale_since: str | None, varied: Fields
) -> list[tuple[bytes, bytes]]:
    """The header fields of an answer; `length` is None for one without a body."""
    fixed = HTML_HEADERS if surface is Surface.PAGE else OTHER_HEADERS
    headers = [*encoded(fixed), *varied, (b"etag", etag.encode())]
    if stale_since:
        headers.append((b"pushserver-stale-since", stale_since.encode()))
    if length is None:
        return headers
    if coding is not ContentCoding.IDENTITY:
        headers.append((b"content-encoding", coding.value.encode()))
    return [*headers, (b"content-type", MEDIA_TYPES[surface].encode()), (b"content-length", str(length).encode())]
