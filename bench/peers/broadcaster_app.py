"""A peer: broadcaster, as its README has it: a queue and a task for each reader, over Redis. It stores nothing."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

from broadcaster import Broadcast
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

broadcast = Broadcast(os.environ["STORE"])


async def read(websocket: WebSocket) -> None:
    async with broadcast.subscribe(channel=websocket.path_params["group"]) as subscriber:
        await websocket.accept()

        async def send() -> None:
            async for event in subscriber:
                await websocket.send_text(event.message)

        sending = asyncio.create_task(send())
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                await websocket.receive_text()
        sending.cancel()


async def publish(request: Request) -> Response:
    await broadcast.publish(request.path_params["group"], (await request.body()).decode())
    return Response()


async def live(request: Request) -> Response:
    return Response()


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    await broadcast.connect()
    yield
    await broadcast.disconnect()


app = Starlette(
    lifespan=lifespan,
    routes=[
        WebSocketRoute("/ws/{group}", read),
        Route("/pub/{group}", publish, methods=["POST"]),
        Route("/livez", live),
    ],
)
