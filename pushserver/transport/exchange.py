"""An exchange is one HTTP request on its way through the ASGI application, and the answer that it sends."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE, STATUS_LINE

from ..errors import Refused, Unavailable
from ..logs import ACCESS, REQUEST, RequestMark
from .outlet import Outlet

logger = logging.getLogger(__name__)
access = logging.getLogger(ACCESS)

FAILED = b"The server failed on this request.\n"
KEY = re.compile(rb'"?[\x21\x23-\x5b\x5d-\x7e]{1,200}"?')  # an idempotency key that may be repeated in an answer


class PreparedAnswer(NamedTuple):
    """PreparedAnswer is the bytes of an answer: its head without the empty line that ends it, and its whole body."""

    status: int
    head: bytes
    body: bytes


# Whether a request is answered from memory. The function that it is called with gets the answer in another turn of the
# event loop, or None where the application has to answer after all.
Prepare = Callable[[Any, Callable[[PreparedAnswer | None], None]], bool]


def prepared_head(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The head of a PreparedAnswer. Its fields name the length of the body, and not the connection."""
    return bytes(STATUS_LINE[status]) + _encoded(tuple(headers)).lines


class Exchange:
    """Exchange runs the application on one request, and writes its messages to the connection's outlet.

    `keep_alive` says whether the connection may carry another request after it. `more_body` says whether a part of the
    request's body is yet to come. The protocol adds to `body` what has come and the application has not received.
    """

    def __init__(
        self,
        scope: Any,
        app: ASGIApp,
        outlet: Outlet,
        *,
        default_headers: list[tuple[bytes, bytes]],
        keep_alive: bool,
        expects_continue: bool,
        read_on: Callable[[], None],
        complete: Callable[[], None],
    ) -> None:
        self.keep_alive = keep_alive
        self.body = bytearray()
        self.more_body = True
        self.is_started = False
        self.is_complete = False  # the application has sent everything
        self.is_disconnected = False
        self.scope = scope
        self.app = app
        self._outlet = outlet
        self._default_headers = default_headers
        self._expects_continue = expects_continue
        self._read_on = read_on
        self._complete = complete
        self._has_changed = False  # more of the body has come, or nothing will
        self._change: asyncio.Event | None = None  # the same, once it is awaited: few applications do
        client = scope.get("client")
        self._mark = RequestMark(self.header(b"x-request-id"), client[0] if client else "")
        self._began = time.monotonic()
        self._status = 0
        self._head = b""  # it goes out with the first part of the body
        self._has_body = True
        self._is_chunked = False
        self._left: int | None = None  # bytes of the declared length that are yet to be sent

    # --- called by the protocol

    async def run(self) -> None:
        """Call the application; where it fails, answer 500 or cut an answer that has begun."""
        REQUEST.set(self._mark)
        try:
            await self.app(self.scope, self.receive, self.send)
        except Exception:
            logger.exception("the application failed on a request")
        finally:
            if not self.is_complete and not self.is_disconnected:
                self._fail()

    def reply(self, answer: PreparedAnswer) -> None:
        """Send an answer that is ready, in place of calling the application."""
        self._status = answer.status
        parts = [answer.head, _encoded(tuple(self._default_headers)).lines, self._mark.line()]
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        parts.append(b"\r\n")
        self.is_started = True
        self._outlet.write(b"".join(parts), *([answer.body] if answer.body and self.scope["method"] != "HEAD" else []))
        self._end()

    def wake(self) -> None:
        """Let the application receive: more of the body has come, or its end."""
        self._has_changed = True
        if self._change is not None:
            self._change.set()

    def disconnect(self) -> None:
        """Send nothing more; the application receives a disconnect."""
        self.is_disconnected = True
        self.body.clear()
        self.wake()

    def header(self, name: bytes) -> bytes:
        """A header of the request, empty where it has none."""
        for key, value in self.scope.get("headers", ()):
            if key == name:
                return bytes(value)
        return b""

    def stopped(self) -> Refused:
        """The refusal of a request that did not end before its worker; it names the idempotency key that it has."""
        key = self.header(b"idempotency-key")
        name = key.decode("latin-1") if KEY.fullmatch(key) else ""
        again = f"the same Idempotency-Key, {name}" if name else "the same Idempotency-Key, if it has one"
        detail = f"The server stopped before this request ended. Outcome unknown; retry with {again}."
        refused = Unavailable(detail, key=name)
        refused.headers["Connection"] = "close"
        return refused

    # --- called by the application (ASGI)

    async def receive(self) -> Any:
        """Receive the next part of the body, or the disconnect."""
        if self._expects_continue and not self.is_started and not self.is_disconnected:
            self._expects_continue = False
            self._outlet.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self.is_disconnected and not self.is_complete:
            await self._changed()
        if self.is_disconnected or self.is_complete:
            return {"type": "http.disconnect"}
        body, self.body = bytes(self.body), bytearray()
        more_body = self.more_body
        self._read_on()
        return {"type": "http.request", "body": body, "more_body": more_body}

    async def _changed(self) -> None:
        if self._change is None:
            self._change = asyncio.Event()
            if self._has_changed:
                self._change.set()
        await self._change.wait()
        self._change.clear()

    async def send(self, message: Any) -> None:
        """Send the head or a part of the body. Returns when the kernel has taken a part, at once after the last one."""
        if self.is_disconnected:
            return
        if message["type"] == "http.response.start" and not self.is_started:
            self._start(message["status"], message.get("headers", ()))
        elif message["type"] == "http.response.body" and self.is_started and not self.is_complete:
            is_last = not message.get("more_body", False)
            self._write(message.get("body", b""), is_last=is_last)
            if is_last:
                self._end()
            else:
                await self._outlet.taken()
        else:
            raise RuntimeError(f"the application sent {message['type']} out of order")

    # --- the bytes of the answer

    def _start(self, status: int, headers: Any) -> None:
        encoded = _encoded((*self._default_headers, *headers))
        self.is_started = True
        if self.more_body or encoded.connection == b"close":
            self.keep_alive = False  # else what is left of the body would be taken for the next request
        self._status = status
        parts = [STATUS_LINE[status], encoded.lines, self._mark.line()]
        if not self.keep_alive and encoded.connection is None:
            parts.append(b"connection: close\r\n")
        self._has_body = self.scope["method"] != "HEAD" and status not in (204, 304)
        if self._has_body and encoded.length is not None:
            self._left = encoded.length
        elif self._has_body and self.scope["http_version"] != "1.0":  # to which chunks would be part of the body
            self._is_chunked = True
            parts.append(b"transfer-encoding: chunked\r\n")
        self._head = b"".join([*parts, b"\r\n"])

    def _write(self, body: bytes, *, is_last: bool) -> None:
        parts = [self._head, *self._framed(body, is_last=is_last)]
        self._head = b""
        if any(parts):
            self._outlet.write(*filter(None, parts))

    def _framed(self, body: bytes, *, is_last: bool) -> list[bytes]:
        """A part of the body as it goes on the wire; the body itself is not copied."""
        if not self._has_body:
            return []
        if self._is_chunked:
            chunk = [b"%x\r\n" % len(body), body, b"\r\n"] if body else []
            return [*chunk, b"0\r\n\r\n"] if is_last else chunk
        if self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (is_last and self._left):
                raise RuntimeError(f"the body and its Content-Length differ by {abs(self._left)} bytes")
        return [body]

    def _end(self) -> None:
        self.is_complete = True
        self.wake()
        log_access(self.scope, self._status, self._began)
        self._complete()

    def _fail(self) -> None:
        if self.is_started:
            self._outlet.cut("failed")
            return
        self.keep_alive = False
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(FAILED))]
        self._start(500, headers)
        self._write(FAILED, is_last=True)
        self._end()


def log_access(scope: Any, status: int, began: float) -> None:
    """Log a request that has its answer, if the settings ask for that. A query may have a token in it: it is left out.

    `began` is the instant of its head, on the monotonic clock.
    """
    if access.isEnabledFor(logging.INFO):
        took = 1_000 * (time.monotonic() - began)
        access.info("%s %s %d %.1f ms", scope.get("method", "GET"), scope.get("path", ""), status, took)


class _Encoded(NamedTuple):
    """Header fields as lines, and the values of two of them."""

    lines: bytes
    connection: bytes | None
    length: int | None


@lru_cache(maxsize=1024)  # the answers of a page load have the same fields until the next event
def _encoded(headers: tuple[tuple[bytes, bytes], ...]) -> _Encoded:
    """Raises RuntimeError for a field that would begin another one, or end the head."""
    fields = [(name.lower(), value) for name, value in headers]
    if any(HEADER_RE.search(name) or HEADER_VALUE_RE.search(value) for name, value in fields):
        raise RuntimeError("a header has characters that no header may have")
    by_name = dict(fields)
    length = by_name.get(b"content-length")
    lines = b"".join(b"%b: %b\r\n" % field for field in fields)
    return _Encoded(lines, by_name.get(b"connection"), None if length is None else int(length))
