"""WebSocket out: a stream's frames to one browser, through the ASGI server's own sends."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from .adapter import AsgiReader, abort_of, attend, check_origin, format_of
from .errors import Close, Fault, NotFound, Refused, Unavailable, UpgradeRequired, answer, shorten
from .feed import Feed, Reader
from .frames import Told
from .gate import PROTOCOL, permit
from .hub import Hub
from .model import Cursor, check_stream
from .store import StoreError


class SocketReader(AsgiReader):
    """A reader on a WebSocket. `websocket` is set before it runs."""

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


async def follow(websocket: WebSocket) -> None:
    """`GET /streams/{stream}/ws?cursor=&format=json|html`. A refused handshake is answered with an HTTP status."""
    hub: Hub = websocket.app.state.hub
    try:
        check_origin(websocket)
        stream, format, reading = check_stream(websocket.path_params["stream"]), format_of(websocket), permit(websocket)
        # A cursor that cannot be read is a reader's bad luck, not an error it could mend: it gets the snapshot.
        cursor = Cursor.parse(websocket.query_params.get("cursor", ""))
        async with hub.follow(stream) as channel:
            # Of what a client offers this alone is selected: the answer does not repeat a token.
            await websocket.accept(PROTOCOL if PROTOCOL in websocket.scope.get("subprotocols", []) else None)
            until = reading.until if reading else None
            reader = SocketReader(format, channel.feed, abort_of(websocket), until=until)
            reader.websocket = websocket
            await attend(hub, channel, reader, cursor, _gone(websocket, channel.feed, reader))
    except Refused as refused:
        await websocket.send_denial_response(answer(refused))
    except StoreError:
        await websocket.send_denial_response(answer(Unavailable("The store does not answer.")))


async def upgrade_required(request: Request) -> Response:
    """The same address without an upgrade."""
    raise UpgradeRequired("Open this address as a WebSocket.", Fault("Upgrade", "websocket", "none"))


async def nowhere(websocket: WebSocket) -> None:
    """Every other address, asked for as a WebSocket."""
    await websocket.send_denial_response(answer(NotFound(f"There is nothing at {shorten(websocket.url.path)}.")))


async def _gone(websocket: WebSocket, feed: Feed, reader: Reader) -> None:
    """Wait until the reader has gone. It has nothing to say: a message ends the connection."""
    while (await websocket.receive())["type"] != "websocket.disconnect":
        feed.drop(reader, Close.BAD_MESSAGE)
