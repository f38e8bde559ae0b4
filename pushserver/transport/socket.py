"""A socket reader is a WebSocket of pushserver's own server, written to without ASGI.

The handshake is an ordinary request. Once it is accepted, a `SocketReader` takes the bare transport over: it has no
task, queue, scope, parser or timer, and a frame costs one write of bytes that all readers share. On any other ASGI
server `asgi.WebSocketReader` sends the same frames.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from itertools import chain
from typing import Any

from starlette.websockets import WebSocket

from .. import metrics
from ..access.addresses import AddressPlace
from ..access.token_gate import permit
from ..live.hub import Hub, Kind
from ..live.reader import Reader, ReaderState
from ..live.stream import LiveStream
from ..model import Cursor
from ..stretch import STRETCH
from ..wire.codes import Close
from ..wire.frames import Batch, Coding, Format, Notice
from ..wire.websocket import DEFLATE, ClientFrames, accepts_deflate, close_message
from .asgi import CLOSE_LIMIT, DETACH, extension, kind_of, selected
from .door import PLACE, leave

NO_PIECES: Iterator[bytes] = iter(())
NO_FILE = -1  # the descriptor after the connection was lost; the kernel may give the old number to another connection


class SocketReader(Reader, asyncio.Protocol):
    """SocketReader is a reader on a bare transport.

    It writes to the socket past the transport: while the kernel takes everything, asking the transport would cost as
    much as the rest of a delivery. What the kernel does not take goes to the transport, and the reader is PAUSED until
    that has been sent. A batch of more than one piece waits in `_rest`; each piece is made when its turn comes. The
    reader has a timer only while it is being closed, or has a token. From `until` on, in seconds since 1970, nothing is
    sent.
    """

    __slots__ = ("_address", "_client", "_file", "_hub", "_place", "_rest", "_stream", "_timer", "_transport", "_until")

    _transport: asyncio.Transport

    def __init__(
        self,
        hub: Hub,
        stream: LiveStream,
        format: Format,
        coding: Coding = Coding.MESSAGE,
        *,
        until: float | None = None,
        place: AddressPlace | None = None,
    ) -> None:
        super().__init__(format, coding)
        self._address = ""  # that a believed proxy names; empty for the peer's own
        self._hub = hub
        self._stream = stream
        self._place = place
        self._until = until
        self._rest = NO_PIECES
        self._client: ClientFrames | None = None  # only while a frame of the client's is incomplete
        self._timer: asyncio.TimerHandle | None = None

    @property
    def kind(self) -> Kind:
        """Its kind among readers: one with a token reads a private stream."""
        return kind_of(self.transport, is_private=self._until is not None)

    @property
    def address(self) -> str:
        return self._address or _peer(self._transport)

    def note_address(self, client: tuple[str, int] | None) -> None:
        """Note the client's address, if it is not that of the connection."""
        if client is not None and client[0] != _peer(self._transport):
            self._address = client[0]

    @property
    def waiting(self) -> int:
        return self._transport.get_write_buffer_size()

    # --- called by the fanout

    def write(self, batch: Batch) -> None:
        if self._until is not None and time.time() >= self._until:
            return
        first, is_whole = batch.first()
        self._send(first)
        if not is_whole:
            self._rest = batch.rest()
            self.state = ReaderState.PAUSED
            if self._write_rest():
                self.state = ReaderState.OPEN

    def close(self, code: Close, farewell: Notice | None = None) -> None:
        """Send the last frame after what is being sent; cut off a reader that takes nothing any more.

        A reader with a token that is behind is cut off too: the rest could reach it after the token has expired.
        """
        self.state = ReaderState.CLOSED
        if code is Close.TOO_SLOW or (self._until is not None and self._is_behind()):
            self._transport.abort()
            return
        last = farewell.encoded(self.format, self.coding) if farewell else b""
        self._rest = chain(self._rest, [last + close_message(code)])
        self._write_rest()
        self._end_soon()

    # --- called by the transport

    def connection_made(self, transport: Any) -> None:
        assert transport.get_extra_info("sslcontext") is None, "over TLS the socket carries other bytes than these"
        self._transport = transport
        transport.set_write_buffer_limits(high=0)  # it pauses while it has anything to send
        self._file = transport.get_extra_info("socket").fileno()
        if self._until is not None:
            left = self._until - time.time()
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(left, self._stream.fanout.drop, self, Close.TOKEN_EXPIRED)

    def connection_lost(self, exc: Exception | None) -> None:
        self._count_gone()
        self.state = ReaderState.CLOSED
        self._file = NO_FILE
        self._rest = NO_PIECES
        leave(self._place)
        if self._timer is not None:
            self._timer.cancel()
        try:
            self._stream.fanout.leave(self)
        finally:
            self._hub.leave(self._stream, self.kind)

    def pause_writing(self) -> None:
        if self.state is ReaderState.OPEN:
            self.state = ReaderState.PAUSED

    def resume_writing(self) -> None:
        self.stalled = 0
        if not self._transport.is_reading():
            self._transport.resume_reading()
        if self._write_rest():
            self._stream.fanout.resume(self)

    def data_received(self, data: bytes) -> None:
        client = self._client or ClientFrames(deflated=self.coding is Coding.DEFLATED)
        client.receive(data)
        self._client = None if client.is_between_frames() else client
        if client.close_received:
            self._client_closed(client.reply)
            return
        if client.code is Close.FLOOD or (client.reply and self.state is ReaderState.PAUSED):
            self._transport.pause_reading()  # else a client that pings and reads no pong fills the memory with pongs
        if self.state is ReaderState.CLOSED:
            return  # the server has sent its close frame, and waits for the client's alone
        if client.code is not None:
            self._stream.fanout.drop(self, client.code)
            if self._rest is NO_PIECES:  # a client that breaks the protocol may never send its close frame (7.1.7)
                self._transport.write_eof()
        elif client.reply and self.state is ReaderState.OPEN:
            self._transport.write(client.reply)
        elif client.reply:
            self._rest = chain([client.reply], self._rest)  # between whole frames: both sides of it are whole pieces

    # --- writing

    def _send(self, data: bytes) -> bool:
        """Write to the socket, where nothing waits to be sent. Returns whether the kernel took everything.

        The descriptor is this connection's until `connection_lost`, which is called before it is closed.
        """
        try:
            sent = os.write(self._file, data)
        except BlockingIOError:
            sent = 0
        except OSError:  # the connection is lost; `connection_lost` was called or is about to be
            return False
        if sent == len(data):
            return True
        self._transport.write(memoryview(data)[sent:])
        return not self._transport.get_write_buffer_size()  # the kernel may have taken the rest since

    def _write_rest(self) -> bool:
        """Write the pieces that wait, while the kernel takes them. Returns whether none waits any more.

        To make a piece takes time. After STRETCH the rest waits for the next turn of the loop.
        """
        if self._transport.get_write_buffer_size():
            return False
        loop = asyncio.get_running_loop()
        over = loop.time() + STRETCH
        while self.state is ReaderState.CLOSED or self._until is None or time.time() < self._until:
            piece = next(self._rest, None)
            if piece is None:
                self._rest = NO_PIECES
                return True
            if not self._send(piece):
                return False
            if loop.time() >= over:
                loop.call_soon(self._go_on)
                return False
        return False

    def _go_on(self) -> None:
        """Write more of the pieces that wait, unless the connection was lost meanwhile."""
        if self._file != NO_FILE and self._write_rest():
            self._stream.fanout.resume(self)

    def _is_behind(self) -> bool:
        return self._rest is not NO_PIECES or self._transport.get_write_buffer_size() > 0

    # --- closing

    def _client_closed(self, echo: bytes) -> None:
        """End after the client's close frame; echo it if the server has not sent its own."""
        if self.state is not ReaderState.CLOSED:
            self._count_gone()
            self.state = ReaderState.CLOSED
            self._rest = NO_PIECES
            self._stream.fanout.leave(self)
            self._transport.write(echo)
        self._transport.close()
        self._end_soon()

    def _count_gone(self) -> None:
        """Count a reader that leaves by itself; those that the server closes are counted there."""
        if self.state is not ReaderState.CLOSED:
            metrics.CLOSED.inc("client")

    def _end_soon(self) -> None:
        """Cut the connection after CLOSE_LIMIT.

        Without it a client that reads nothing would keep its place: no sweep visits a closed reader.
        """
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(CLOSE_LIMIT, self._transport.abort)


async def detach(
    websocket: WebSocket,
    hub: Hub,
    stream: LiveStream,
    format: Format,
    cursor: Cursor | None,
    *,
    deflate: bool,
    outdated: bool = False,
) -> None:
    """Accept a WebSocket whose reader has a place in the stream, give the connection to the reader, and let it join."""
    reading = permit(websocket)
    kind = kind_of("websocket", is_private=reading is not None)
    coding, headers = Coding.MESSAGE, []
    offers = websocket.headers.get("sec-websocket-extensions")
    if offers and deflate and accepts_deflate(offers):
        coding, headers = Coding.DEFLATED, [(b"sec-websocket-extensions", DEFLATE.encode())]
    try:
        await websocket.accept(selected(websocket), headers)
        until, place = reading.until if reading else None, extension(websocket, PLACE)
        reader = SocketReader(hub, stream, format, coding, until=until, place=place)
        extension(websocket, DETACH)(reader)
        websocket.scope["extensions"].pop(PLACE, None)  # the reader leaves it now
    except BaseException:
        hub.leave(stream, kind)
        raise
    reader.note_address(websocket.client)
    metrics.OPENED.inc(*kind)
    try:
        await hub.arrivals.welcome(stream, reader, cursor, outdated=outdated)
    except BaseException:
        metrics.CLOSED.inc("internal")
        reader.close(Close.RESTART)
        raise


def _peer(transport: asyncio.Transport) -> str:
    """The address at the other end of a connection; that of a unix socket has none."""
    name = transport.get_extra_info("peername")
    return str(name[0]) if isinstance(name, tuple) else ""
