"""The application around the routes: headers of every response, admission of readers, a response to every exception."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Sequence
from functools import lru_cache

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import Lifespan, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from .. import metrics
from ..access.rates import RateLimit
from ..errors import Fault, NotAllowed, NotFound, Refused, Unavailable, shorten
from ..live.hub import Hub
from ..problems import HEADERS, answer
from ..store.store import StoreError

logger = logging.getLogger(__name__)


class App(Starlette):
    """App is the ASGI application of a worker: it defers readers who come too fast, and completes response headers.

    Both happen before Starlette's own middleware, so that they cost least in a storm, and cover the answer to a bug.
    `hub` is for the server, which drains it before it stops.
    """

    def __init__(
        self, routes: Sequence[BaseRoute], *, hub: Hub, admission: RateLimit, lifespan: Lifespan[Starlette]
    ) -> None:
        super().__init__(routes=routes, lifespan=lifespan, exception_handlers=EXCEPTION_HANDLERS)
        self.router.redirect_slashes = False
        self.hub = hub
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            send = _with_headers(send)
        wait = self._admission.wait(time.monotonic()) if _subscribes(scope) else 0.0
        if wait:
            await _put_off(wait, scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def _subscribes(scope: Scope) -> bool:
    kind: str = scope["type"]
    return kind == "websocket" or (kind == "http" and str(scope["path"]).endswith("/sse"))


async def _put_off(wait: float, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 503 with the seconds after which to come back."""
    metrics.PUT_OFF.inc()
    response = _later(math.ceil(wait))
    if scope["type"] == "websocket":
        await WebSocket(scope, receive, send).send_denial_response(response)
    else:
        await response(scope, receive, send)


@lru_cache(maxsize=64)
def _later(seconds: int) -> Response:
    return answer(Unavailable("Too many readers arrive at once; retry later.", retry_after=seconds))


def _with_headers(send: Send) -> Send:
    def wrapped(message: Message) -> Awaitable[None]:  # a plain function: a coroutine would cost on each event sent
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        return send(message)

    return wrapped


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return answer(error)


async def _http(request: Request, error: Exception) -> Response:
    """Answer what the router refuses: an unknown address or method."""
    assert isinstance(error, HTTPException)
    path, method = shorten(request.scope["path"]), shorten(request.method)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        fault = Fault("method", allowed, method)
        return answer(NotAllowed(f"{path} does not allow the method {method}.", fault, headers={"Allow": allowed}))
    return answer(NotFound(f"There is no resource at {path}."))


async def _store(request: Request, error: Exception) -> Response:
    logger.warning("%s %s: the store does not answer: %s", request.method, request.scope["path"], error)
    return answer(Unavailable("The store does not answer; retry later."))


async def _gone(request: Request, error: Exception) -> Response:
    """Let go of a publisher that went in the middle of its body: nothing was stored, and nobody reads the answer."""
    logger.info("a client disconnected before the end of its %s request", shorten(request.method))
    return Response(status_code=400)


async def _bug(request: Request, error: Exception) -> Response:
    """Answer an unexpected exception, whose traceback is logged: Starlette raises it again after this answer."""
    # uvicorn closes the connection after this answer; without the header a client would send its next request into it.
    refused = Refused("The server failed on this request; its log has the reason.", headers={"Connection": "close"})
    refused.status, refused.title, refused.kind = 500, "Server error", "server-error"
    return answer(refused)


EXCEPTION_HANDLERS = {
    Refused: _refused,
    HTTPException: _http,
    StoreError: _store,
    ClientDisconnect: _gone,
    Exception: _bug,
}
