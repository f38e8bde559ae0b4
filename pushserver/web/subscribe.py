"""The routes of subscribers, which stay connected: a stream over WebSocket, and as Server-Sent Events.

A subscriber takes a place in the rate of admission last: after the gate, its origin, and the stream's existence. Else
requests that are refused anyway would use up the places of readers.
"""

from __future__ import annotations

import math
import time

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from .. import metrics
from ..access.origins import Origins
from ..access.rates import RateLimit
from ..access.token_gate import permit
from ..errors import NotFound, Refused, Unavailable, shorten
from ..live.hub import Hub
from ..model import Cursor, check_stream
from ..refusal_response import answer
from ..store.store import StoreError
from ..transport.asgi import (
    DETACH,
    abort_of,
    attend,
    attend_socket,
    client_address,
    extension,
    format_of,
    kind_of,
)
from ..transport.socket import detach
from ..transport.sse import SseReader
from ..wire.frames import Coding, Format

SSE_HEADERS = {
    "Content-Type": "text/event-stream",  # always UTF-8; some clients compare the whole value with this one
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",  # nginx would keep events until it has a bufferful
}


class SubscribeRoutes:
    """Handlers of requests that subscribe to a stream of the hub. `deflate` lets WebSocket messages be compressed.

    A page names the build that made it: one that is not `build` is loaded anew.
    """

    def __init__(self, hub: Hub, *, admission: RateLimit, origins: Origins, deflate: bool, build: str = "") -> None:
        self._hub = hub
        self._admission = admission
        self._origins = origins
        self._deflate = deflate
        self._build = build

    async def websocket(self, websocket: WebSocket) -> None:
        """`GET /streams/{stream}/ws?cursor=&format=`. A handshake is refused with an HTTP status."""
        try:
            self._origins.check(websocket)
            name, format = check_stream(websocket.path_params["stream"]), format_of(websocket)
            await self._admit(name)
            kind = kind_of("websocket", is_private=permit(websocket) is not None)
            stream = await self._hub.enter(name, kind)
        except Refused as refused:
            await websocket.send_denial_response(answer(refused))
            return
        except StoreError:
            await websocket.send_denial_response(answer(Unavailable("The store does not answer; retry later.")))
            return
        # A cursor that is not valid gets the snapshot: a reader whose stored cursor is broken could not mend an error.
        cursor = Cursor.parse(websocket.query_params.get("cursor", ""))
        outdated = self._is_outdated(websocket)
        if extension(websocket, DETACH) is None:
            await attend_socket(websocket, self._hub, stream, format, cursor, outdated=outdated)
        else:
            await detach(websocket, self._hub, stream, format, cursor, deflate=self._deflate, outdated=outdated)

    async def sse(self, request: Request) -> Response:
        """`GET /streams/{stream}/sse?cursor=&format=`."""
        self._origins.check(request)
        cursor = Cursor.parse(_last_event_id(request))
        stream, format = check_stream(request.path_params["stream"]), format_of(request)
        await self._admit(stream)
        return EventStream(request, self._hub, stream, format, cursor, outdated=self._is_outdated(request))

    def _is_outdated(self, connection: HTTPConnection) -> bool:
        """Whether another build made the page of this reader. Programs, and pages of before, name no build."""
        return connection.query_params.get("build", self._build) != self._build

    async def _admit(self, stream: str) -> None:
        """Take a place for a reader of a stream. Raises NotFound, Unavailable where none is free, StoreError."""
        await self._hub.look_up(stream)
        wait = self._admission.wait(time.monotonic())
        if wait:
            metrics.PUT_OFF.inc()
            raise Unavailable("Too many readers arrive at once; retry later.", retry_after=math.ceil(wait))


class EventStream(Response):
    """EventStream is a response that goes on while its reader stays. Before the first byte it raises as a handler."""

    def __init__(
        self,
        request: Request,
        hub: Hub,
        stream: str,
        format: Format,
        cursor: Cursor | None,
        *,
        outdated: bool = False,
    ) -> None:
        super().__init__(headers=SSE_HEADERS)
        self._request = request
        self._hub = hub
        self._stream = stream
        self._format = format
        self._cursor = cursor
        self._outdated = outdated

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reading = permit(self._request)
        async with self._hub.follow(self._stream, kind_of("sse", is_private=reading is not None)) as stream:
            if stream.page["state"] == "ended" and self._cursor == stream.ring.head:
                await Response(status_code=204)(scope, receive, send)  # an EventSource stops reconnecting
                return
            if self._request.method == "HEAD":  # a client that failed to connect asks for the reason
                await Response(headers=SSE_HEADERS)(scope, receive, send)
                return
            headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            until = reading.until if reading else None
            abort, address = abort_of(self._request), client_address(self._request)
            reader = SseReader(self._format, stream.fanout, abort, coding=Coding.EVENT, until=until, address=address)
            reader.transmit = send
            await attend(self._hub, stream, reader, self._cursor, _gone(receive), outdated=self._outdated)


def _last_event_id(request: Request) -> str:
    """The cursor of the last event that a client has.

    A browser sends it as a header when it reconnects, while the address stays that of its first request. Clients that
    cannot set a header send it in the query, in one of several spellings.
    """
    spelled = (value for name, value in request.query_params.multi_items() if _is_last_event_id(name))
    in_query = next(spelled, "") or request.query_params.get("cursor", "")
    return request.headers.get("last-event-id") or in_query


def _is_last_event_id(name: str) -> bool:
    return name.replace("-", "").lower() == "lasteventid"


async def _gone(receive: Receive) -> None:
    """Wait until the reader has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unknown_websocket(websocket: WebSocket) -> None:
    """Refuse a handshake at an address that has no WebSocket."""
    await websocket.send_denial_response(answer(NotFound(f"No WebSocket at {shorten(websocket.url.path)}.")))
