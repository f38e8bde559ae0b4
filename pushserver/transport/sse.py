"""Server-Sent Events out (WHATWG HTML, 9.2): the frames of a stream to whoever cannot have a WebSocket.

Each frame is one event without a type, its data the frame's JSON, its id the cursor that a reader comes back with. What
was lost is told by a frame, as everywhere: an EventSource cannot read headers or close codes.
"""

from __future__ import annotations

import random

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..access.gate import permit
from ..live.hub import Hub
from ..model import Cursor, check_stream
from ..wire.codes import Close
from ..wire.frames import Coding, Format, Told
from .asgi import AsgiReader, abort_of, attend, check_origin, format_of

RETRY_LEAST_MS, RETRY_MOST_MS = 1_000, 5_000  # after which a browser comes back by itself; each is told its own
HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",  # nginx would keep events until it has a bufferful
}


class SseReader(AsgiReader):
    """A reader on an HTTP answer that does not end. `transmit` is set before it runs."""

    __slots__ = ("transmit",)

    transmit: Send

    async def _send(self, frame: Told) -> None:
        await self._body(frame.wire(self.format, self.coding))

    async def _end(self, code: Close) -> None:
        await self.transmit({"type": "http.response.body", "body": b""})

    async def run(self) -> None:
        await self._body(f"retry: {random.randint(RETRY_LEAST_MS, RETRY_MOST_MS)}\n\n".encode())
        await super().run()

    async def _body(self, part: bytes) -> None:
        await self.transmit({"type": "http.response.body", "body": part, "more_body": True})


async def follow(request: Request) -> Response:
    """`GET /streams/{stream}/sse?cursor=&format=`. `Last-Event-ID`, which a browser sends when it comes back, wins."""
    origin = check_origin(request)
    headers = {**HEADERS, **({"Access-Control-Allow-Origin": origin, "Vary": "Origin"} if origin else {})}
    cursor = Cursor.parse(request.headers.get("last-event-id") or request.query_params.get("cursor", ""))
    return Events(request, check_stream(request.path_params["stream"]), format_of(request), cursor, headers)


class Events(Response):
    """The answer that goes on. What is refused before its first byte is answered as any request is."""

    def __init__(
        self, request: Request, stream: str, format: Format, cursor: Cursor | None, headers: dict[str, str]
    ) -> None:
        super().__init__(headers=headers)
        self._given = headers
        self._request = request
        self._stream = stream
        self._format = format
        self._cursor = cursor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hub: Hub = self._request.app.state.hub
        async with hub.follow(self._stream) as channel:
            if channel.page["state"] == "ended" and self._cursor == channel.feed.head:
                await Response(status_code=204)(scope, receive, send)  # an EventSource stops coming back
                return
            if self._request.method == "HEAD":  # why a connection failed, from one who was not told
                await Response(headers=self._given)(scope, receive, send)
                return
            headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            reading = permit(self._request)
            until = reading.until if reading else None
            abort = abort_of(self._request)
            reader = SseReader(self._format, channel.feed, abort, coding=Coding.EVENT, until=until)
            reader.transmit = send
            await attend(hub, channel, reader, self._cursor, _gone(receive))


async def _gone(receive: Receive) -> None:
    """Wait until the reader has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
