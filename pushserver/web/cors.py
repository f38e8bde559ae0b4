"""Cross-origin requests: pages of allowed origins may read whatever readers may (Fetch Standard, 3.2).

One middleware covers all answers of a reading address, refusals too. Publishing addresses stay closed to browsers.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..access.origins import Origins, foreign
from ..refusal_response import answer
from .route_table import OPERATIONS

METHODS = ("GET", "HEAD")
ASKED = "Cache-Control, If-None-Match, Last-Event-ID"  # request headers that any page may send which may read
ASKED_BY_NAME = f"Authorization, {ASKED}"
EXPOSED = "ETag, Link, Retry-After"
MAX_AGE = 600  # seconds for which a browser need not ask again
_PUBLIC = ("/", "/openapi.json")
_READ = {operation.path for operation in OPERATIONS if operation.is_for_readers}
_CLOSED = re.compile(
    "|".join(
        re.escape(path).replace(r"\{stream\}", "[^/]*").replace(r"\{id\}", "[^/]+")
        for path in {operation.path for operation in OPERATIONS} - _READ
        if path.startswith("/streams/")
    )
)


class Cors:
    """Cors is ASGI middleware that lets pages of allowed origins read, and pages of any origin load static files.

    An origin that is named may send cookies and tokens. `*` never allows that: any page could read with them.
    """

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        method = headers.get("access-control-request-method") if scope["method"] == "OPTIONS" else scope["method"]
        granted = self.grant(scope["path"], headers.get("origin", "")) if method in METHODS else None
        if granted is None:
            await self._app(scope, receive, send)
        elif scope["method"] == "OPTIONS":
            await _preflight(granted, headers.get("origin", ""))(scope, receive, send)
        else:
            await self._app(scope, receive, _with(granted, send))

    def grant(self, path: str, origin: str) -> dict[str, str] | None:
        """The headers that let a page of this origin read; None for an address that is closed to pages of others."""
        if path.startswith("/static/"):
            return {"Access-Control-Allow-Origin": "*"}
        if not is_reading(path):
            return None
        granted = {"Vary": "Origin"} if self._origins.has_names else {}
        if self._origins.names(origin):
            named = {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true"}
            return {**granted, **named, "Access-Control-Expose-Headers": EXPOSED}
        if self._origins.allows_any:
            return {**granted, "Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": EXPOSED}
        return granted


def is_reading(path: str) -> bool:
    """Whether readers may GET an address, by the table of operations. An unknown address below a stream counts too."""
    return path in _PUBLIC or (path.startswith("/streams/") and not _CLOSED.fullmatch(path))


def _preflight(granted: dict[str, str], origin: str) -> Response:
    """The answer to the question of a browser whether a page may send a request (Fetch Standard, 4.8)."""
    if "Access-Control-Allow-Origin" not in granted:
        return answer(foreign(origin))
    asked = ASKED_BY_NAME if "Access-Control-Allow-Credentials" in granted else ASKED
    allowed = {"Access-Control-Allow-Methods": ", ".join(METHODS), "Access-Control-Allow-Headers": asked}
    return Response(None, 204, {**granted, **allowed, "Access-Control-Max-Age": str(MAX_AGE)})


def _with(granted: dict[str, str], send: Send) -> Send:
    def wrapped(message: Message) -> Awaitable[None]:  # a plain function: a coroutine would cost on each event sent
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in granted.items():
                if name == "Vary":
                    headers.add_vary_header(value)
                else:
                    headers[name] = value
        return send(message)

    return wrapped
