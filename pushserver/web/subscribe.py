"""The routes of readers that stay: a stream over WebSocket."""

from __future__ import annotations

from starlette.websockets import WebSocket

from ..errors import NotFound, Refused, Unavailable, shorten
from ..live.hub import Hub
from ..model import Cursor, check_stream
from ..problems import answer
from ..store.store import StoreError
from ..transport.asgi import DETACH, attend_socket, check_origin, extension, format_of
from ..transport.socket import detach


async def follow(websocket: WebSocket) -> None:
    """`GET /streams/{stream}/ws?cursor=&format=json|html`. A refused handshake is answered with an HTTP status."""
    hub: Hub = websocket.app.state.hub
    try:
        check_origin(websocket)
        stream, format = check_stream(websocket.path_params["stream"]), format_of(websocket)
        channel = await hub.enter(stream)
    except Refused as refused:
        await websocket.send_denial_response(answer(refused))
        return
    except StoreError:
        await websocket.send_denial_response(answer(Unavailable("The store does not answer.")))
        return
    # A cursor that cannot be read is a reader's bad luck, not an error it could mend: it gets the snapshot.
    cursor = Cursor.parse(websocket.query_params.get("cursor", ""))
    follow_on = attend_socket if extension(websocket, DETACH) is None else detach
    await follow_on(websocket, hub, channel, format, cursor)


async def nowhere(websocket: WebSocket) -> None:
    """Every other address, asked for as a WebSocket."""
    await websocket.send_denial_response(answer(NotFound(f"There is nothing at {shorten(websocket.url.path)}.")))
