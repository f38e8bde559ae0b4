"""The handshake of a WebSocket (RFC 6455, 4.2) begins as an HTTP request, on uvicorn's protocol with limits of its own.

A request for a WebSocket is an ordinary request to the application. Once it is accepted, a protocol of the application
takes the transport over, and no object of this module is left.
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

from ..access.addresses import AddressPlace
from .asgi import ABORT, DETACH
from .door import PLACE, Door, leave

logger = logging.getLogger(__name__)

HEAD_BYTES = 65_536  # the longest request line and headers
HEAD_TIME = 10.0  # seconds for a client to send them
EARLY_BYTES = 4_096  # that a client may send behind its request for a WebSocket, before the answer


class HttpProtocol(HttpToolsProtocol):
    """HttpProtocol is uvicorn's, with limits on the size of a request's head and on the time to send it.

    Without them a client could send a head that never ends. The scope extension `pushserver.abort` lets the application
    cut the connection of a reader that takes no more of its answer.
    """

    _head_bytes: int | None = 0  # of the head so far; None between the end of a head and the beginning of the next
    _head_timer: asyncio.TimerHandle | None = None
    _chunk = b""  # the bytes that the parser is reading
    place: AddressPlace | None = None  # of the connection among those of its address

    def __init__(self, *arguments: Any, door: Door, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._door = door

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_TIME, transport.abort)
        self.place = self._door.enter(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        leave(self.place)
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
        if self._head_timer is None:  # else this is the first request: its time runs since the connection was made
            self._head_timer = self.loop.call_later(HEAD_TIME, self.transport.abort)

    def on_headers_complete(self) -> None:
        self._end_head()
        scope: Any = self.scope
        scope["extensions"] = {ABORT: self.transport.abort, PLACE: self.place}
        super().on_headers_complete()

    def _end_head(self) -> None:
        self._head_bytes = None
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection to a handshake; uvicorn calls this while it handles the parser's upgrade."""
        self.connections.discard(self)
        upgrade = sys.exception()  # it says at which byte the parser stopped
        assert isinstance(upgrade, httptools.HttpParserUpgrade), upgrade
        Handshake(self, self._chunk[upgrade.args[0] :]).begin()
        self.parser = None  # type: ignore[assignment]  # the two refer to each other: a cycle for each reader


class Handshake(asyncio.Protocol):
    """Handshake is one request for a WebSocket, which the application refuses, or accepts and detaches."""

    def __init__(self, http: HttpProtocol, early: bytes) -> None:
        self._http = http
        self._transport = http.transport
        self._key = ""
        self._connect_received = False
        self._answer: list[bytes] = []  # the parts of a refusal that the application has sent
        self._state: Literal["open", "accepted", "over"] = "open"
        self._early = early  # bytes that the client sent before the answer

    def begin(self) -> None:
        """Refuse a malformed request; else call the application."""
        self._transport.set_protocol(self)
        self._http.connections.add(self)  # type: ignore[arg-type]
        fault = self._check()
        if fault:
            self._refuse(*fault)
            return
        task = self._http.loop.create_task(self._run(self._scope()))
        self._http.tasks.add(task)
        task.add_done_callback(self._http.tasks.discard)

    # --- called by the transport

    def connection_lost(self, exc: Exception | None) -> None:
        leave(self._http.place)
        self._state = "over"
        self._http.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._early += data
        if len(self._early) > EARLY_BYTES:
            self._transport.abort()

    def shutdown(self) -> None:
        """Close; uvicorn calls this when the server stops."""
        self._transport.close()

    # --- called by the application

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
            "extensions": {
                "websocket.http.response": {},
                ABORT: self._transport.abort,
                DETACH: self._detach,
                PLACE: self._http.place,
            },
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
            if self._state != "over":  # the application sent no answer, or accepted and did not detach
                self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "The server failed on this request.\n")

    async def _receive(self) -> Any:
        if self._connect_received:
            raise RuntimeError("a WebSocket is detached once it is accepted: nothing is received here")
        self._connect_received = True
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
        """Give an accepted connection to a protocol. uvicorn no longer counts it among its connections."""
        assert self._state == "accepted", "a connection is detached once, after it was accepted"
        self._state = "over"
        self._http.connections.discard(self)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        if self._early:
            protocol.data_received(self._early)

    # --- checks and refusals

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
        """Answer in place of the application; after it has accepted, close without an answer."""
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
