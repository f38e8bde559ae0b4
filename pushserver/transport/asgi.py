"""An ASGI reader receives its frames from a task, on any ASGI server: the common part of WebSocket and SSE.

It has one batch at most. While the task sends that batch the reader is paused, and the fanout passes it by; then the
fanout writes everything that came meanwhile, in one batch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket, WebSocketDisconnect

from .. import metrics
from ..access.token_gate import PROTOCOL, permit
from ..errors import Fault, Invalid, shorten
from ..live.fanout import Fanout
from ..live.hub import Hub, Kind
from ..live.reader import Reader, ReaderState
from ..live.stream import LiveStream
from ..model import Cursor
from ..stretch import Stretch
from ..wire.codes import Close
from ..wire.frames import Batch, Coding, Format, Frame, Notice

CLOSE_LIMIT = 10.0  # seconds for a reader to take what is being sent, and the last frame
EMPTY = Batch((), Format.JSON)
# Scope extensions that pushserver's own HTTP protocol offers:
ABORT = "pushserver.abort"  # a function that cuts the connection, whatever waits to be sent
DETACH = "pushserver.detach"  # a function that gives the transport of an accepted WebSocket to a protocol


class AsgiReader(Reader):
    """AsgiReader is a reader whose frames a task sends. A transport subclasses it with `_send` and `_end`.

    `abort` cuts the connection. From `until` on, in seconds since 1970, nothing is sent.
    """

    __slots__ = (
        "_abort",
        "_address",
        "_batch",
        "_code",
        "_fanout",
        "_farewell",
        "_sending",
        "_timer",
        "_wake",
        "until",
    )

    def __init__(
        self,
        format: Format,
        fanout: Fanout,
        abort: Callable[[], object],
        *,
        coding: Coding = Coding.MESSAGE,
        until: float | None = None,
        address: str = "",
    ) -> None:
        super().__init__(format, coding)
        self.until = until
        self._address = address
        self._fanout = fanout
        self._abort = abort
        self._batch = EMPTY
        self._sending = False
        self._code = Close.RESTART
        self._farewell: Notice | None = None
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def address(self) -> str:
        return self._address

    async def _send(self, frame: Frame) -> None:
        raise NotImplementedError

    async def _end(self, code: Close) -> None:
        raise NotImplementedError

    def write(self, batch: Batch) -> None:
        if self.state is ReaderState.CLOSED:  # its token expired before it joined; opening it again would hang the task
            return
        self._batch = batch
        self.state = ReaderState.PAUSED
        self._wake.set()

    def close(self, code: Close, farewell: Notice | None = None) -> None:
        """Send the last frame after what is being sent; cut off a reader that takes nothing any more.

        A reader whose token expires during a batch is cut off too: the rest would reach it after the expiry.
        """
        self.state = ReaderState.CLOSED
        if code is Close.TOO_SLOW or (code is Close.TOKEN_EXPIRED and self._sending):
            self._abort()
        else:
            self._code, self._farewell = code, farewell
            self._wake.set()
            # Without a limit a client that reads nothing would keep its place: no sweep visits a closed reader.
            self._timer = asyncio.get_running_loop().call_later(CLOSE_LIMIT, self._abort)

    def release(self) -> None:
        """End the time limit: the answer is over, and its connection may be in use for another one."""
        if self._timer is not None:
            self._timer.cancel()

    async def run(self) -> None:
        """Send batch after batch until the reader is closed."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._batch = self._batch, EMPTY
            self._sending = True
            stretch = Stretch()  # a client that takes all at once would keep everyone waiting for the whole batch
            for frame in batch.frames:
                if self.until is not None and time.time() >= self.until:
                    break
                await self._send(frame)
                self.stalled = 0
                await stretch.rest()
            self._sending = False
            if self.state is ReaderState.CLOSED:
                break
            self._fanout.resume(self)
        if self._farewell is not None:
            await self._send(self._farewell)
        await self._end(self._code)


class WebSocketReader(AsgiReader):
    """WebSocketReader is a reader on a WebSocket of an ASGI server, which does the framing.

    `websocket` is set before `run`.
    """

    __slots__ = ("websocket",)

    websocket: WebSocket

    async def _send(self, frame: Frame) -> None:
        await self.websocket.send_text(frame.text(self.format))

    async def _end(self, code: Close) -> None:
        await self.websocket.close(code)

    async def run(self) -> None:
        try:
            await super().run()
        except WebSocketDisconnect:
            pass  # `_until_gone` receives the disconnect too, and ends the connection


async def attend_socket(
    websocket: WebSocket,
    hub: Hub,
    stream: LiveStream,
    format: Format,
    cursor: Cursor | None,
    *,
    outdated: bool = False,
) -> None:
    """Accept a WebSocket whose reader has a place in the stream, and send to it until it has gone."""
    reading = permit(websocket)
    kind = kind_of("websocket", is_private=reading is not None)
    try:
        await websocket.accept(selected(websocket))
        until = reading.until if reading else None
        abort, address = abort_of(websocket), client_address(websocket)
        reader = WebSocketReader(format, stream.fanout, abort, until=until, address=address)
        reader.websocket = websocket
        await attend(hub, stream, reader, cursor, _until_gone(websocket, stream.fanout, reader), outdated=outdated)
    finally:
        hub.leave(stream, kind)


def selected(websocket: WebSocket) -> str | None:
    """The subprotocol to select: PROTOCOL if it is offered, never one that has a token in it."""
    return PROTOCOL if PROTOCOL in websocket.scope.get("subprotocols", ()) else None


async def _until_gone(websocket: WebSocket, fanout: Fanout, reader: Reader) -> None:
    """Wait until the client has disconnected. Readers send no messages: one closes the connection."""
    while (await websocket.receive())["type"] != "websocket.disconnect":
        fanout.drop(reader, Close.BAD_MESSAGE)


async def attend(
    hub: Hub,
    stream: LiveStream,
    reader: AsgiReader,
    cursor: Cursor | None,
    gone: Awaitable[None],
    *,
    outdated: bool = False,
) -> None:
    """Let a reader join and send to it, until it is gone or was closed."""
    fanout = stream.fanout
    metrics.OPENED.inc(*kind_of(reader.transport, is_private=reader.until is not None))
    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(reader.run())
        expiry = _expire(fanout, reader)
        try:
            await hub.arrivals.welcome(stream, reader, cursor, outdated=outdated)
            await gone
        finally:
            if reader.state is not ReaderState.CLOSED:
                metrics.CLOSED.inc("client")
            fanout.leave(reader)
            reader.release()
            sending.cancel()
            if expiry:
                expiry.cancel()


def _expire(fanout: Fanout, reader: AsgiReader) -> asyncio.TimerHandle | None:
    """Close the reader at the end of its token, if it has one."""
    if reader.until is None:
        return None
    return asyncio.get_running_loop().call_later(reader.until - time.time(), fanout.drop, reader, Close.TOKEN_EXPIRED)


def abort_of(connection: HTTPConnection) -> Callable[[], object]:
    """The function that cuts a connection; on a server without the extension it cancels the current task."""
    task = asyncio.current_task()
    assert task is not None
    abort: Callable[[], object] = extension(connection, ABORT) or task.cancel
    return abort


def kind_of(transport: str, *, is_private: bool) -> Kind:
    """The kind of a reader, by its transport and its stream."""
    return transport, "private" if is_private else "public"


def client_address(connection: HTTPConnection) -> str:
    """The address of a client, as a believed proxy names it; empty where it is not known."""
    return connection.client.host if connection.client else ""


def extension(connection: HTTPConnection, name: str) -> Any:
    """An ASGI extension that the server offers, or None."""
    return (connection.scope.get("extensions") or {}).get(name)


def format_of(connection: HTTPConnection) -> Format:
    """The format that a reader asks for. Raises Invalid."""
    name = connection.query_params.get("format", "json")
    try:
        return Format(name)
    except ValueError:
        raise Invalid("There is no such format.", Fault("format", "json or html", shorten(name))) from None
