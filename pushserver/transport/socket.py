"""WebSocket out: a stream's frames to one browser.

The handshake is an ordinary request. Once it is accepted, a `SocketReader` takes the bare transport over, where the
server offers it: no task, queue, scope, parser or timer is left of it, and a frame costs one write of bytes that all
share. Under any other ASGI server the adapter sends the same frames.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from itertools import chain
from typing import Any

from starlette.websockets import WebSocket

from ..access.gate import permit
from ..live.fanout import Reader, State
from ..live.hub import Hub
from ..live.stream import Channel
from ..model import Cursor
from ..wire.codes import Close
from ..wire.frames import Batch, Coding, Format, Notice, close_message
from ..wire.websocket import DEFLATE, Hearing, agrees_to_deflate
from .asgi import CLOSE_LIMIT, DETACH, extension, selected

NOTHING: Iterator[bytes] = iter(())
CLOSED = -1  # in place of a file that is none of this reader's any more


class SocketReader(Reader, asyncio.Protocol):
    """A reader on a bare transport: what it has not had yet is written at once, what it says is heard and judged.

    What it is given goes to its socket past the transport, which is asked for nothing while the kernel takes all: to
    touch it costs as much as the feed does. What the kernel does not take is the transport's to write, and the reader
    is PAUSED until it has. A batch of more than a piece waits in `_rest`, and is made of frames as they are when their
    turn comes. It has one timer while it is being closed, or has a token.
    """

    __slots__ = ("_channel", "_file", "_hearing", "_hub", "_rest", "_timer", "_transport", "_until")

    _transport: asyncio.Transport

    def __init__(
        self, hub: Hub, channel: Channel, format: Format, coding: Coding = Coding.MESSAGE, *, until: float | None = None
    ) -> None:
        super().__init__(format, coding)
        self._hub = hub
        self._channel = channel
        self._until = until  # seconds since 1970; from then on nothing is sent
        self._rest = NOTHING
        self._hearing: Hearing | None = None
        self._timer: asyncio.TimerHandle | None = None

    # --- what the feed does

    def write(self, batch: Batch) -> None:
        if self._until is not None and time.time() >= self._until:
            return
        first, is_whole = batch.first()
        self._send(first)
        if not is_whole:
            self._rest = batch.rest()
            self.state = State.PAUSED
            if self._write_rest():
                self.state = State.OPEN

    def close(self, code: Close, farewell: Notice | None = None) -> None:
        """Say farewell after what is being sent; a reader that takes nothing any more is cut off.

        So is one with a token that is in the middle: what it has not taken could reach it when the token has expired.
        """
        self.state = State.CLOSED
        if code is Close.TOO_SLOW or (self._until is not None and self._is_behind()):
            self._transport.abort()
            return
        last = farewell.wire(self.format, self.coding) if farewell else b""
        self._rest = chain(self._rest, [last + close_message(code)])
        self._write_rest()
        self._end_soon()

    # --- what the transport does

    def connection_made(self, transport: Any) -> None:
        assert transport.get_extra_info("sslcontext") is None, "over TLS what is written is not what is sent"
        self._transport = transport
        transport.set_write_buffer_limits(high=0)  # it pauses when it keeps anything, and resumes when it does not
        self._file = transport.get_extra_info("socket").fileno()
        if self._until is not None:
            left = self._until - time.time()
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(left, self._channel.feed.drop, self, Close.TOKEN_EXPIRED)

    def connection_lost(self, exc: Exception | None) -> None:
        self.state = State.CLOSED
        self._file = CLOSED
        self._rest = NOTHING
        if self._timer is not None:
            self._timer.cancel()
        try:
            self._channel.feed.leave(self)
        finally:
            self._hub.leave(self._channel)

    def pause_writing(self) -> None:
        if self.state is State.OPEN:
            self.state = State.PAUSED

    def resume_writing(self) -> None:
        self.stalled = 0
        if not self._transport.is_reading():
            self._transport.resume_reading()
        if self._write_rest():
            self._channel.feed.resume(self)

    def data_received(self, data: bytes) -> None:
        hearing = self._hearing or Hearing(deflated=self.coding is Coding.DEFLATED)
        hearing.hear(data)
        self._hearing = None if hearing.is_over() else hearing
        if hearing.has_closed:
            self._part(hearing.answer)
            return
        if hearing.code is Close.FLOOD or (hearing.answer and self.state is State.PAUSED):
            self._transport.pause_reading()  # who says more than anybody has to, or pings and reads no pong
        if self.state is State.CLOSED:
            return  # until its close frame comes, nothing that it says matters
        if hearing.code is not None:
            self._channel.feed.drop(self, hearing.code)
            if self._rest is NOTHING:  # its close frame may never be understood: it is not waited for (7.1.7)
                self._transport.write_eof()
        elif hearing.answer and self.state is State.OPEN:
            self._transport.write(hearing.answer)
        elif hearing.answer:
            self._rest = chain([hearing.answer], self._rest)  # behind whole frames, and before whole frames

    # --- its own

    def _send(self, data: bytes) -> bool:
        """Write, where nothing waits to be written; whether nothing does afterwards.

        The socket is this reader's until `connection_lost`, which is told before it is closed.
        """
        try:
            sent = os.write(self._file, data)
        except BlockingIOError:
            sent = 0
        except OSError:  # it is lost, which `connection_lost` is about to be told, or was
            return False
        if sent == len(data):
            return True
        self._transport.write(memoryview(data)[sent:])
        return not self._transport.get_write_buffer_size()  # what the kernel did not take then, it may have taken since

    def _write_rest(self) -> bool:
        """Write what waits, as long as the kernel takes it; whether nothing waits any more."""
        if self._transport.get_write_buffer_size():
            return False
        while self.state is State.CLOSED or self._until is None or time.time() < self._until:
            piece = next(self._rest, None)
            if piece is None:
                self._rest = NOTHING
                return True
            if not self._send(piece):
                return False
        return False

    def _is_behind(self) -> bool:
        return self._rest is not NOTHING or self._transport.get_write_buffer_size() > 0

    def _part(self, echo: bytes) -> None:
        """Its close frame came: the last thing to do is to echo it, if it was the first."""
        if self.state is not State.CLOSED:
            self.state = State.CLOSED
            self._rest = NOTHING
            self._channel.feed.leave(self)
            self._transport.write(echo)
        self._transport.close()
        self._end_soon()

    def _end_soon(self) -> None:
        """Whoever reads nothing would be waited for without end: the feed has let go of it and looks at it no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(CLOSE_LIMIT, self._transport.abort)


async def detach(
    websocket: WebSocket, hub: Hub, channel: Channel, format: Format, cursor: Cursor | None, *, deflate: bool
) -> None:
    """Accept a reader, give it the connection, and let it join."""
    reading = permit(websocket)
    coding, headers = Coding.MESSAGE, []
    offers = websocket.headers.get("sec-websocket-extensions")
    if offers and deflate and agrees_to_deflate(offers):
        coding, headers = Coding.DEFLATED, [(b"sec-websocket-extensions", DEFLATE.encode())]
    try:
        await websocket.accept(selected(websocket), headers)
        reader = SocketReader(hub, channel, format, coding, until=reading.until if reading else None)
        extension(websocket, DETACH)(reader)
    except BaseException:
        hub.leave(channel)
        raise
    try:
        await hub.welcome(channel, reader, cursor)
    except BaseException:
        reader.close(Close.RESTART)
        raise
