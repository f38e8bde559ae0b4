"""A refusal is a page for people, a frame for an EventSource, and problem+json for programs.

Refusals come from handlers, gates, the router and the admission. One middleware around all of them rewrites what a
browser would show as bare JSON, and what an EventSource would take for the end.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Awaitable, Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..page import render
from ..page.site import Site
from ..page.words import preferred
from ..transport.sse import MAX_RETRY_MS, MIN_RETRY_MS
from ..wire.frames import Coding, Format, bye
from .conditions import prefers_html
from .reading_routes import PAGE_HEADERS
from .subscribe import SSE_HEADERS

REASONS = {429: "too-many", 503: "unavailable"}  # of the `bye` to an EventSource that is to come later, by status
_PROBLEM = "application/problem+json"
_OF_THE_BODY = ("content-type", "content-length", "content-security-policy")
_EVENTS = re.compile(r"/streams/[^/]*/sse")


class Refusals:
    """Refusals is ASGI middleware that rewrites the refusals of GET and HEAD for browsers and for EventSource."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app = app
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            send = _Rewriter(self._site, scope, receive, send)
        await self._app(scope, receive, send)


class _Rewriter:
    """_Rewriter is the `send` of one request: it holds a refusal until it is whole, and passes on anything else."""

    def __init__(self, site: Site, scope: Scope, receive: Receive, send: Send) -> None:
        self._site = site
        self._scope = scope
        self._receive = receive
        self._send = send
        self._start: Message | None = None  # of a refusal
        self._body = b""

    def __call__(self, message: Message) -> Awaitable[None]:  # no coroutine: it would cost on each event sent
        is_refusal = message["type"] == "http.response.start" and message["status"] >= 400
        return self._hold(message) if is_refusal or self._start is not None else self._send(message)

    async def _hold(self, message: Message) -> None:
        if self._start is None:
            self._start = message
            return
        self._body += message.get("body", b"")
        if not message.get("more_body", False):
            await self._finish(self._start)

    async def _finish(self, start: Message) -> None:
        response = self._rewritten(start)
        if response is not None:
            await response(self._scope, self._receive, self._send)
            return
        await self._send(start)
        await self._send({"type": "http.response.body", "body": self._body})

    def _rewritten(self, start: Message) -> Response | None:
        """The response in place of a refusal, None where that stays as it is."""
        headers = MutableHeaders(scope=start)
        if headers.get("content-type") != _PROBLEM:  # a page already, or the report of a probe
            return None
        if _EVENTS.fullmatch(self._scope["path"]):
            is_later = self._scope["method"] == "GET" and start["status"] in REASONS
            return _come_later(start["status"], headers) if is_later else None
        headers.add_vary_header("Accept")
        asked = Headers(scope=self._scope)
        if not prefers_html(asked):
            return None
        problem = json.loads(self._body)
        headers.add_vary_header("Accept-Language")
        lang, depth = preferred(asked.get("accept-language", "")), _depth(self._scope)
        html = render.refusal_page(problem["status"], problem["detail"], lang, depth=depth, site=self._site)
        return HTMLResponse(html, start["status"], _merged(PAGE_HEADERS, _kept(headers)))


def _come_later(status: int, headers: Headers) -> Response:
    """A stream of one `bye`, after which an EventSource reconnects. After any other status it never would.

    The block has no id: the cursor of the client stays the one that it has.
    """
    text = headers.get("retry-after", "1")
    seconds = int(text) if text.isdecimal() else 1
    retry_ms = (seconds - 1) * 1_000 + random.randint(MIN_RETRY_MS, MAX_RETRY_MS)
    frame = bye(REASONS[status], retry_ms).encoded(Format.JSON, Coding.EVENT)
    return Response(b"retry: %d\n%b" % (retry_ms, frame), headers=_merged(_kept(headers), SSE_HEADERS))


def _merged(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, str]:
    """Both sets of headers, each name once, and where both have it with the value of the second."""
    return {name.lower(): value for headers in (first, second) for name, value in headers.items()}


def _depth(scope: Scope) -> int:
    """The number of folders that the address of a request is down. An escaped slash begins none."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    return max(path.count(b"/") - 1, 0)


def _kept(headers: Headers) -> dict[str, str]:
    """The headers of a refusal that do not describe its body."""
    return {name: value for name, value in headers.items() if name not in _OF_THE_BODY}
