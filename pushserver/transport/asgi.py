"""A reader on any ASGI server: what WebSocket and Server-Sent Events have in common.

The reader holds one batch at most. While it is being sent the reader is paused, and the feed passes it by; when
it is sent the feed writes all that came meanwhile, in one batch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..access.gate import PROTOCOL, permit
from ..errors import Fault, Invalid, shorten
from ..live.fanout import Feed, Reader, State
from ..live.hub import Hub
from ..live.stream import Channel
from ..model import Cursor
from ..wire.codes import Close
from ..wire.frames import Batch, Coding, Format, Notice, Told

CLOSE_LIMIT = 10.0  # seconds for a reader to take what is being sent and the farewell
NOTHING = Batch((), Format.JSON)
# Scope extensions of our server:
ABORT = "pushserver.abort"  # a function that cuts the connection, whatever waits to be sent
DETACH = "pushserver.detach"  # a function that gives a WebSocket's transport to a protocol, once it is accepted


class AsgiReader(Reader):
    """A reader whose frames a task sends. A transport subclasses it with `_send` and `_end`."""

    __slots__ = ("_abort", "_batch", "_code", "_farewell", "_feed", "_sending", "_timer", "_until", "_wake")

    def __init__(
        self,
        format: Format,
        feed: Feed,
        abort: Callable[[], object],
        *,
        coding: Coding = Coding.MESSAGE,
        until: float | None = None,
    ) -> None:
        super().__init__(format, coding)
        self._feed = feed
        self._abort = abort
        self._until = until  # seconds since 1970; from then on nothing is sent
        self._batch = NOTHING
        self._sending = False
        self._code = Close.RESTART
        self._farewell: Notice | None = None
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    async def _send(self, frame: Told) -> None:
        raise NotImplementedError

    async def _end(self, code: Close) -> None:
        raise NotImplementedError

    def write(self, batch: Batch) -> None:
        if self.state is State.CLOSED:  # its token expired before it had joined
            return
        self._batch = batch
        self.state = State.PAUSED
        self._wake.set()

    def close(self, code: Close, farewell: Notice | None = None) -> None:
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
            self._timer = asyncio.get_running_loop().call_later(CLOSE_LIMIT, self._abort)

    def release(self) -> None:
        """The answer has ended: what its connection is used for next is not to be cut off."""
        if self._timer is not None:
            self._timer.cancel()

    async def run(self) -> None:
        """Send batch after batch until the reader is closed."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._batch = self._batch, NOTHING
            self._sending = True
            for frame in batch.frames:
                if self._until is not None and time.time() >= self._until:
                    break
                await self._send(frame)
                self.stalled = 0
            self._sending = False
            if self.state is State.CLOSED:
                break
            self._feed.resume(self)
        if self._farewell is not None:
            await self._send(self._farewell)
        await self._end(self._code)


class WebSocketReader(AsgiReader):
    """A reader on a WebSocket whose messages the server frames. `websocket` is set before it runs."""

    __slots__ = ("websocket",)

    websocket: WebSocket

    async def _send(self, frame: Told) -> None:
        await self.websocket.send_text(frame.text(self.format))

    async def _end(self, code: Close) -> None:
        await self.websocket.close(code)

    async def run(self) -> None:
        try:
            await super().run()
        except WebSocketDisconnect:
            pass  # `_gone` hears of it too, and ends the connection


async def attend_socket(
    websocket: WebSocket, hub: Hub, channel: Channel, format: Format, cursor: Cursor | None
) -> None:
    """Accept a reader, which has a place in the channel, and send to it until it has gone."""
    reading = permit(websocket)
    try:
        await websocket.accept(selected(websocket))
        until = reading.until if reading else None
        reader = WebSocketReader(format, channel.feed, abort_of(websocket), until=until)
        reader.websocket = websocket
        await attend(hub, channel, reader, cursor, _gone(websocket, channel.feed, reader))
    finally:
        hub.leave(channel)


def selected(websocket: WebSocket) -> str | None:
    """Of the subprotocols that a client offers this alone is selected: the answer does not repeat a token."""
    return PROTOCOL if PROTOCOL in websocket.scope.get("subprotocols", ()) else None


async def _gone(websocket: WebSocket, feed: Feed, reader: Reader) -> None:
    """Wait until the reader has gone. It has nothing to say: a message ends the connection."""
    while (await websocket.receive())["type"] != "websocket.disconnect":
        feed.drop(reader, Close.BAD_MESSAGE)


async def attend(hub: Hub, channel: Channel, reader: AsgiReader, cursor: Cursor | None, gone: Awaitable[None]) -> None:
    """Let a reader join and send to it, until it is gone or was closed."""
    feed = channel.feed
    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(reader.run())
        expiry = _expire(feed, reader)
        try:
            await hub.welcome(channel, reader, cursor)
            await gone
        finally:
            feed.leave(reader)
            reader.release()
            sending.cancel()
            if expiry:
                expiry.cancel()


def _expire(feed: Feed, reader: AsgiReader) -> asyncio.TimerHandle | None:
    """Close the reader at the end of its token, if it has one."""
    if reader._until is None:
        return None
    return asyncio.get_running_loop().call_later(reader._until - time.time(), feed.drop, reader, Close.TOKEN_EXPIRED)


def abort_of(connection: HTTPConnection) -> Callable[[], object]:
    """What cuts the connection; under a server that offers nothing, the end of its task."""
    task = asyncio.current_task()
    assert task is not None
    found: Callable[[], object] = extension(connection, ABORT) or task.cancel
    return found


def extension(connection: HTTPConnection, name: str) -> Any:
    """An extension of ASGI that the server offers, or None."""
    return (connection.scope.get("extensions") or {}).get(name)


def format_of(connection: HTTPConnection) -> Format:
    """The format that a reader asks for."""
    name = connection.query_params.get("format", "json")
    try:
        return Format(name)
    except ValueError:
        raise Invalid("There is no such format.", Fault("format", "json or html", shorten(name))) from None
