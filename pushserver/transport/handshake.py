"""The handshake of a WebSocket (RFC 6455, 4.2) is an HTTP request that the application accepts or refuses.

Once it is accepted, a protocol of the application takes the transport over, and no object of this module is left.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from functools import partial
from http import HTTPStatus
from time import monotonic
from typing import Any, Literal

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.protocols.utils import ClientDisconnected
from websockets.utils import accept_key

from .. import metrics
from ..access.addresses import AddressPlace
from ..logs import REQUEST, RequestMark
from .asgi import ABORT, DETACH
from .connection import Connection
from .deadline import Deadline
from .door import PLACE, leave
from .exchange import log_access

logger = logging.getLogger(__name__)

EARLY_BYTES = 4_096  # that a client may send behind its request for a WebSocket, before the answer


class Handshake(asyncio.Protocol, Connection):
    """Handshake is one request for a WebSocket, which the application refuses, or accepts and detaches.

    The application has `time` seconds to do so, and the client `close_time` seconds to take a refusal.
    """

    def __init__(
        self, http: HttpToolsProtocol, early: bytes, place: AddressPlace | None, time: float, close_time: float
    ) -> None:
        self._http = http
        self._place = place
        self._transport = http.transport
        self._time = time
        self._close_time = close_time
        self._deadline = Deadline()
        self._key = ""
        self._connect_received = False
        self._answer: list[bytes] = []  # the parts of a refusal that the application has sent
        self._state: Literal["open", "accepted", "over"] = "open"
        client = http.scope.get("client")
        sent = next((value for name, value in http.headers if name == b"x-request-id"), b"")
        self._mark = RequestMark(sent, client[0] if client else "")
        self._began = monotonic()
        self._early = early  # bytes that the client sent before the answer

    def begin(self) -> None:
        """Refuse a malformed request; else call the application."""
        self._transport.set_protocol(self)
        self._http.connections.add(self)  # type: ignore[arg-type]
        if len(self._early) > EARLY_BYTES:
            self._transport.abort()
            return
        fault = self._check()
        if fault:
            self._refuse(*fault)
            return
        self._deadline.set(self._time, self._end_wait)
        task = self._http.loop.create_task(self._run(self._scope()))
        self._http.tasks.add(task)
        task.add_done_callback(self._http.tasks.discard)

    # --- called by the transport

    def connection_lost(self, exc: Exception | None) -> None:
        leave(self._place)
        self._state = "over"
        self._deadline.close()
        self._http.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._early += data
        if len(self._early) > EARLY_BYTES:
            self._transport.abort()

    def shutdown(self) -> None:
        """Close; uvicorn calls this when the server stops."""
        self._transport.close()

    # --- called by the worker that stops, while the handshake is under way

    def retire(self) -> None:
        pass  # its answer is the last one anyway

    def is_busy(self) -> bool:
        return True

    def give_up(self) -> None:
        if self._state != "over":
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "The server stops; retry.\n")

    def cut(self, reason: str) -> None:
        metrics.CUT.inc(reason)
        self._transport.abort()

    # --- called by the application

    def _scope(self) -> dict[str, Any]:
        scope: dict[str, Any] = dict(self._http.scope)
        offered = [value for name, value in scope["headers"] if name == b"sec-websocket-protocol"]
        scope |= {
            "type": "websocket",
            "scheme": "wss" if scope["scheme"] == "https" else "ws",
            "subprotocols": [name.strip() for value in offered for name in value.decode("latin-1").split(",")],
            "extensions": {
                "websocket.http.response": {},
                ABORT: self._transport.abort,
                DETACH: self._detach,
                PLACE: self._place,
            },
        }
        return scope

    async def _run(self, scope: dict[str, Any]) -> None:
        REQUEST.set(self._mark)
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
                head = self._head(message["status"], message["headers"])
                self._answer = [*head, b"connection: close\r\n\r\n"]
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
        self._transport.write(b"".join([*self._head(101, headers), b"\r\n"]))
        self._state = "accepted"

    def _detach(self, protocol: asyncio.Protocol) -> None:
        """Give an accepted connection to a protocol. uvicorn no longer counts it among its connections."""
        assert self._state == "accepted", "a connection is detached once, after it was accepted"
        self._state = "over"
        self._deadline.close()
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
        self._end(b"".join([*self._head(status, headers), b"connection: close\r\n\r\n", text.encode()]))

    def _head(self, status: int, headers: list[tuple[bytes, bytes]]) -> list[bytes]:
        """The head of the answer without its end; the request is logged now, if requests are."""
        log_access(self._http.scope, status, self._began)
        return [*_lines(status, headers), b"x-request-id: %b\r\n" % self._mark.id.encode()]

    def _end(self, last: bytes) -> None:
        self._state = "over"
        # Without a limit a client that reads nothing would keep the connection: to close waits for what is to be sent.
        self._deadline.set(self._close_time, partial(self.cut, "unread"))
        self._transport.write(last)
        self._transport.close()

    def _end_wait(self) -> None:
        self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "The server did not answer in time; retry later.\n")


def _lines(status: int, headers: list[tuple[bytes, bytes]]) -> list[bytes]:
    return [STATUS_LINE[status], *(b"%b: %b\r\n" % pair for pair in headers)]


def _is_key(value: bytes) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == 16
    except binascii.Error:
        return False
