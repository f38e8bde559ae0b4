"""The server's side of a connection: uvicorn's HTTP protocol with our limits, and the handshake of a WebSocket.

A connection begins as HTTP. A request for a WebSocket is an ordinary one to the application, until it is accepted; then
a protocol of the application's takes the transport over, and nothing of this module is left.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import sys
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.protocols.utils import ClientDisconnected
from websockets.utils import accept_key

from .asgi import ABORT, DETACH

logger = logging.getLogger(__name__)

HEAD_BYTES = 65_536  # of a request's line and headers
HEAD_TIME = 10.0  # seconds for them to come
EARLY_BYTES = 4_096  # that may come behind the request for a WebSocket before it is answered


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's, which cuts a connection whose request's head has no end: by itself it knows no limit.

    The application may cut it too, when a reader takes no more of an answer that goes on.
    """

    _head_bytes: int | None = 0  # that came of the head so far; None between its end and the next one's beginning
    _head_timer: asyncio.TimerHandle | None = None
    _chunk = b""  # that is being read

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_TIME, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._chunk = data
        super().data_received(data)
        self._chunk = b""
        if self._head_bytes is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = 0
        if self._head_timer is None:  # else it is the first request, and the time runs since the connection was made
            self._head_timer = self.loop.call_later(HEAD_TIME, self.transport.abort)

    def on_headers_complete(self) -> None:
        self._end_head()
        scope: Any = self.scope
        scope["extensions"] = {ABORT: self.transport.abort}
        super().on_headers_complete()

    def _end_head(self) -> None:
        self._head_bytes = None
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection to a handshake, and leave nothing behind: the parser and this refer to each other."""
        self.connections.discard(self)
        upgrade = sys.exception()  # the parser's, which says where it stopped; uvicorn calls this where it caught it
        assert isinstance(upgrade, httptools.HttpParserUpgrade), upgrade
        Handshake(self, self._chunk[upgrade.args[0] :]).begin()
        self.parser = None  # type: ignore[assignment]


class Handshake(asyncio.Protocol):
    """A request for a WebSocket (RFC 6455, 4.2): to ASGI, a connection to refuse, or to accept and detach."""

    def __init__(self, http: HttpProtocol, early: bytes) -> None:
        self._http = http
        self._transport = http.transport
        self._key = ""
        self._asked = False
        self._answer: list[bytes] = []  # a refusal, as far as the application has told it
        self._state: Literal["open", "accepted", "over"] = "open"
        self._early = early  # that came before the answer went

    def begin(self) -> None:
        """Ask the application, if it is a request for a WebSocket as it should be."""
        self._transport.set_protocol(self)
        self._http.connections.add(self)  # type: ignore[arg-type]
        fault = self._check()
        if fault:
            self._refuse(*fault)
            return
        task = self._http.loop.create_task(self._run(self._scope()))
        self._http.tasks.add(task)
        task.add_done_callback(self._http.tasks.discard)

    # --- the transport's side

    def connection_lost(self, exc: Exception | None) -> None:
        self._state = "over"
        self._http.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._early += data
        if len(self._early) > EARLY_BYTES:
            self._transport.abort()

    def shutdown(self) -> None:
        """uvicorn's call, when the server stops."""
        self._transport.close()

    # --- the application's side

    def _scope(self) -> dict[str, Any]:
        scope: dict[str, Any] = dict(self._http.scope)
        url = httptools.parse_url(self._http.url)
        raw_path = self._http.root_path.encode() + url.path
        offered = [value for name, value in scope["headers"] if name == b"sec-websocket-protocol"]
        scope |= {
            "type": "websocket",
            "scheme": "wss" if scope["scheme"] == "https" else "ws",
            "path": unquote(raw_path.decode("ascii")),
            "raw_path": raw_path,
            "query_string": url.query or b"",
            "subprotocols": [name.strip() for value in offered for name in value.decode("latin-1").split(",")],
            "extensions": {"websocket.http.response": {}, ABORT: self._transport.abort, DETACH: self._detach},
        }
        return scope

    async def _run(self, scope: dict[str, Any]) -> None:
        try:
            await self._http.app(scope, self._receive, self._send)
        except ClientDisconnected:
            pass
        except Exception:
            logger.exception("the application failed on a request for a WebSocket")
        finally:
            del scope
            if self._state != "over":  # it ended without an answer, or was accepted and left alone
                self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "The server failed on this request.\n")

    async def _receive(self) -> Any:
        if self._asked:
            raise RuntimeError("a WebSocket is detached once it is accepted: nothing is received here")
        self._asked = True
        return {"type": "websocket.connect"}

    async def _send(self, message: Any) -> None:
        if self._transport.is_closing():
            raise ClientDisconnected
        match message["type"]:
            case "websocket.accept":
                self._accept(message)
            case "websocket.http.response.start":
                self._answer = [*_head(message["status"], message["headers"]), b"connection: close\r\n\r\n"]
            case "websocket.http.response.body":
                self._answer.append(message.get("body", b""))
                if not message.get("more_body", False):
                    self._end(b"".join(self._answer))
            case "websocket.close":
                self._refuse(HTTPStatus.FORBIDDEN, "")
            case other:
                raise RuntimeError(f"expected an answer to the handshake, got {other}")

    def _accept(self, message: dict[str, Any]) -> None:
        headers = [
            (b"upgrade", b"websocket"),
            (b"connection", b"Upgrade"),
            (b"sec-websocket-accept", accept_key(self._key).encode()),
            *message.get("headers", ()),
        ]
        if message.get("subprotocol"):
            headers.append((b"sec-websocket-protocol", message["subprotocol"].encode()))
        self._transport.write(b"".join([*_head(101, headers), b"\r\n"]))
        self._state = "accepted"

    def _detach(self, protocol: asyncio.Protocol) -> None:
        """Give the connection to a protocol, which was accepted: from now on it is none of the server's."""
        assert self._state == "accepted", "a connection is detached once, after it was accepted"
        self._state = "over"
        self._http.connections.discard(self)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        if self._early:
            protocol.data_received(self._early)

    # --- what is checked before

    def _check(self) -> tuple[HTTPStatus, str] | None:
        """The status and text of a refusal, None where the handshake is valid (RFC 6455, 4.2.1)."""
        http = self._http
        headers: dict[bytes, list[bytes]] = {}
        for name, value in http.headers:
            if name.startswith(b"sec-websocket-"):
                headers.setdefault(name, []).append(value)
        if http.scope["method"] != "GET":
            return HTTPStatus.METHOD_NOT_ALLOWED, f"Expected GET, got {http.scope['method']}.\n"
        if http.scope["http_version"] != "1.1":
            return HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, f"Expected HTTP/1.1, got {http.scope['http_version']}.\n"
        if headers.get(b"sec-websocket-version") != [b"13"]:
            return HTTPStatus.UPGRADE_REQUIRED, "Expected one Sec-WebSocket-Version, 13.\n"
        keys = headers.get(b"sec-websocket-key", [])
        if len(keys) != 1 or not _is_key(keys[0]):
            return HTTPStatus.BAD_REQUEST, "Expected one Sec-WebSocket-Key, 16 bytes in base64.\n"
        self._key = keys[0].decode()
        return None

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        """An answer that is not the application's; nothing where it is too late for one."""
        if self._state == "accepted":
            self._end(b"")
            return
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(text)).encode()),
            (b"sec-websocket-version", b"13"),
        ]
        self._end(b"".join([*_head(status, headers), b"connection: close\r\n\r\n", text.encode()]))

    def _end(self, last: bytes) -> None:
        self._state = "over"
        self._transport.write(last)
        self._transport.close()


def _head(status: int, headers: list[tuple[bytes, bytes]]) -> list[bytes]:
    return [STATUS_LINE[status], *(b"%b: %b\r\n" % pair for pair in headers)]


def _is_key(value: bytes) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == 16
    except binascii.Error:
        return False
