"""A peer: Starlette on uvicorn, and a loop that sends to one reader after the other. It stores nothing."""

from collections import defaultdict

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

groups: dict[str, set[WebSocket]] = defaultdict(set)


async def read(websocket: WebSocket) -> None:
    readers = groups[websocket.path_params["group"]]
    await websocket.accept()
    readers.add(websocket)
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        readers.discard(websocket)


async def publish(request: Request) -> Response:
    text = (await request.body()).decode()
    for websocket in tuple(groups[request.path_params["group"]]):
        await websocket.send_text(text)
    return Response()


async def live(request: Request) -> Response:
    return Response()


app = Starlette(
    routes=[
        WebSocketRoute("/ws/{group}", read),
        Route("/pub/{group}", publish, methods=["POST"]),
        Route("/livez", live),
    ]
)
