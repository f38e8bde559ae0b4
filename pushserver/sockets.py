"""WebSocket out: a stream's frames to one browser, through the ASGI server's own sends.

The reader holds one batch at most. While it is being sent the reader is paused, and the feed passes it by; when
it is sent the feed writes all that came meanwhile, in one batch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from . import frames
from .errors import Close, Fault, Forbidden, Invalid, Refused, Unavailable, UpgradeRequired, answer, shorten
from .feed import Feed, Reader, State
from .frames import Batch, Format
from .gate import PROTOCOL, Permit, permit
from .hub import RETRY_MS, Channel, Hub
from .model import Cursor, check_stream
from .store import StoreError

CLOSE_LIMIT = 10.0  # seconds for a reader to take what is being sent and the farewell
NOTHING = Batch((), Format.JSON)
ABORT = "pushserver.abort"  # scope extension: a function that cuts the connection, whatever waits to be sent


class SocketReader(Reader):
    """A reader on a WebSocket of any ASGI server."""

    __slots__ = ("_abort", "_batch", "_code", "_farewell", "_feed", "_sending", "_until", "_wake")

    def __init__(self, format: Format, feed: Feed, abort: Callable[[], object], *, until: float | None = None) -> None:
        super().__init__(format)
        self._feed = feed
        self._abort = abort
        self._until = until  # seconds since 1970; from then on nothing is sent
        self._batch = NOTHING
        self._sending = False
        self._code = Close.RESTART
        self._farewell: str | None = None
        self._wake = asyncio.Event()

    def write(self, batch: Batch) -> None:
        if self.state is State.CLOSED:  # its token expired before it had joined
            return
        self._batch = batch
        self.state = State.PAUSED
        self._wake.set()

    def close(self, code: Close, farewell: str | None = None) -> None:
        """Say farewell after what is being sent; a reader that takes nothing any more is cut off.

        So is one whose token expires in the middle: what it has not taken by then would reach it later.
        """
        self.state = State.CLOSED
        if code is Close.TOO_SLOW or (code is Close.TOKEN_EXPIRED and self._sending):
            self._abort()
        else:
            self._code, self._farewell = code, farewell
            self._wake.set()
            # Whoever reads nothing would be waited for without end: the feed has let go of it and looks at it no more.
            asyncio.get_running_loop().call_later(CLOSE_LIMIT, self._abort)

    async def send(self, websocket: WebSocket) -> None:
        """Send batch after batch until the reader is closed or gone."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                batch, self._batch = self._batch, NOTHING
                self._sending = True
                for text in batch:
                    if self._until is not None and time.time() >= self._until:
                        break
                    await websocket.send_text(text)
                    self.stalled = 0
                self._sending = False
                if self.state is State.CLOSED:
                    break
                self._feed.resume(self)
            if self._farewell is not None:
                await websocket.send_text(self._farewell)
            await websocket.close(self._code)
        except WebSocketDisconnect:
            pass  # `_receive` hears of it too, and ends the connection


async def follow(websocket: WebSocket) -> None:
    """`GET /streams/{stream}/ws?cursor=&format=json|html`. A refused handshake is answered with an HTTP status."""
    hub: Hub = websocket.app.state.hub
    try:
        reading = permit(websocket)
        _check_origin(websocket, reading)
        stream = check_stream(websocket.path_params["stream"])
        format = _format(websocket.query_params.get("format", "json"))
        async with hub.follow(stream) as channel:
            # Of what a client offers this alone is selected: the answer does not repeat a token.
            await websocket.accept(PROTOCOL if PROTOCOL in websocket.scope.get("subprotocols", []) else None)
            await _serve(websocket, hub, channel, format, reading)
    except Refused as refused:
        await websocket.send_denial_response(answer(refused))
    except StoreError:
        await websocket.send_denial_response(answer(Unavailable("The store does not answer.")))


async def upgrade_required(request: Request) -> Response:
    """The same address without an upgrade."""
    raise UpgradeRequired("Open this address as a WebSocket.", Fault("Upgrade", "websocket", "none"))


async def _serve(websocket: WebSocket, hub: Hub, channel: Channel, format: Format, reading: Permit | None) -> None:
    task = asyncio.current_task()
    assert task is not None
    until = reading.until if reading else None
    abort = websocket.scope.get("extensions", {}).get(ABORT, task.cancel)
    reader = SocketReader(format, channel.feed, abort, until=until)
    # A cursor that cannot be read is a reader's bad luck, not an error it could mend: it gets the snapshot.
    cursor = Cursor.parse(websocket.query_params.get("cursor", ""))
    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(reader.send(websocket))
        expiry = _expire(channel.feed, reader, until) if until else None
        try:
            try:
                await hub.join(channel, reader, cursor)
            except (Unavailable, StoreError):
                reader.close(Close.OVERLOADED, frames.bye("store", RETRY_MS))
            await _receive(websocket, channel.feed, reader)
        finally:
            channel.feed.leave(reader)
            sending.cancel()
            if expiry:
                expiry.cancel()


def _expire(feed: Feed, reader: Reader, until: float) -> asyncio.TimerHandle:
    """Close the reader at the end of its token."""
    return asyncio.get_running_loop().call_later(until - time.time(), feed.drop, reader, Close.TOKEN_EXPIRED)


async def _receive(websocket: WebSocket, feed: Feed, reader: Reader) -> None:
    """Wait until the reader has gone. It has nothing to say: a message ends the connection."""
    while (await websocket.receive())["type"] != "websocket.disconnect":
        feed.drop(reader, Close.BAD_MESSAGE)


def _format(name: str) -> Format:
    try:
        return Format(name)
    except ValueError:
        raise Invalid("There is no such format.", Fault("format", "json or html", shorten(name))) from None


def _check_origin(websocket: WebSocket, reading: Permit | None) -> None:
    """A browser says which page opens the socket: the server's own, or one that was allowed. Others send no Origin.

    `*` is for public streams and tokens that a page has: a cookie would let any page read as its visitor.
    """
    origin = websocket.headers.get("origin")
    allowed = {part.strip() for part in websocket.app.state.settings.origins.split(",")}
    if reading and reading.by_cookie:
        allowed.discard("*")
    if origin is None or "*" in allowed or origin in allowed:
        return
    if urlsplit(origin).netloc != websocket.headers.get("host"):
        raise Forbidden(
            "This page may not read here; PUSHSERVER_ORIGINS allows it.",
            Fault("Origin", "an allowed origin", shorten(origin)),
        )
