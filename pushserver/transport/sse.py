"""Server-Sent Events (WHATWG HTML, 9.2) carry a stream's frames to clients that cannot open a WebSocket.

Each frame is one event without a type: its data is the frame's JSON, its id the cursor to reconnect with. Every outcome
is a frame, also a close, because an EventSource shows a page neither headers nor close codes.
"""

from __future__ import annotations

import random

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..access.gate import permit
from ..access.origins import check_origin
from ..live.hub import Hub
from ..model import Cursor, check_stream
from ..wire.codes import Close
from ..wire.frames import Coding, Format, Frame
from .asgi import AsgiReader, abort_of, attend, format_of

MIN_RETRY_MS, MAX_RETRY_MS = 1_000, 5_000  # after which a browser reconnects; random, so that not all come at once
HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",  # nginx would hold events back until it has a bufferful
}


class SseReader(AsgiReader):
    """SseReader is a reader on an HTTP answer that stays open. `transmit` is set before `run`."""

    __slots__ = ("transmit",)

    transmit: Send

    async def _send(self, frame: Frame) -> None:
        await self._body(frame.encoded(self.format, self.coding))

    async def _end(self, code: Close) -> None:
        await self.transmit({"type": "http.response.body", "body": b""})

    async def run(self) -> None:
        await self._body(f"retry: {random.randint(MIN_RETRY_MS, MAX_RETRY_MS)}\n\n".encode())
        await super().run()

    async def _body(self, part: bytes) -> None:
        await self.transmit({"type": "http.response.body", "body": part, "more_body": True})


async def follow(request: Request) -> Response:
    """`GET /streams/{stream}/sse?cursor=&format=`. `Last-Event-ID`, which a browser sends to reconnect, wins."""
    origin = check_origin(request, request.app.state.settings.origins)
    headers = {**HEADERS, **({"Access-Control-Allow-Origin": origin, "Vary": "Origin"} if origin else {})}
    cursor = Cursor.parse(request.headers.get("last-event-id") or request.query_params.get("cursor", ""))
    return EventStream(request, check_stream(request.path_params["stream"]), format_of(request), cursor, headers)


class EventStream(Response):
    """EventStream is the answer that carries the events. Until its first byte it may be refused as any request."""

    def __init__(
        self, request: Request, stream: str, format: Format, cursor: Cursor | None, headers: dict[str, str]
    ) -> None:
        super().__init__(headers=headers)
        self._own_headers = headers
        self._request = request
        self._stream = stream
        self._format = format
        self._cursor = cursor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hub: Hub = self._request.app.state.hub
        async with hub.follow(self._stream) as stream:
            if stream.page["state"] == "ended" and self._cursor == stream.ring.head:
                await Response(status_code=204)(scope, receive, send)  # so that an EventSource stops reconnecting
                return
            if self._request.method == "HEAD":  # an EventSource shows no status: a page asks here why one failed
                await Response(headers=self._own_headers)(scope, receive, send)
                return
            headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            reading = permit(self._request)
            until = reading.until if reading else None
            abort = abort_of(self._request)
            reader = SseReader(self._format, stream.fanout, abort, coding=Coding.EVENT, until=until)
            reader.transmit = send
            await attend(hub, stream, reader, self._cursor, _until_gone(receive))


async def _until_gone(receive: Receive) -> None:
    """Wait until the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass
