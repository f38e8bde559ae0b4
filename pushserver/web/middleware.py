"""The headers of every answer, the rate at which readers are let in, and an answer for every exception."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable
from functools import lru_cache

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from .. import metrics
from ..errors import Fault, NotAllowed, NotFound, Refused, Unavailable
from ..problems import HEADERS, answer
from ..store.store import StoreError

logger = logging.getLogger(__name__)


class App(Starlette):
    """Starlette's, which before all else puts off who comes in a storm.

    It puts the headers of every answer on what has not its own; a WebSocket's frames go by.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            send = _with_headers(send)
        wait = self.state.admission.wait(time.monotonic()) if _is_reader(scope) else 0.0
        if wait:
            await _put_off(wait, scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def _is_reader(scope: Scope) -> bool:
    kind: str = scope["type"]
    return kind == "websocket" or (kind == "http" and str(scope["path"]).endswith("/sse"))


async def _put_off(wait: float, scope: Scope, receive: Receive, send: Send) -> None:
    """Tell a reader when to come back."""
    metrics.PUT_OFF.inc()
    told = _later(math.ceil(wait))
    if scope["type"] == "websocket":
        await WebSocket(scope, receive, send).send_denial_response(told)
    else:
        await told(scope, receive, send)


@lru_cache(maxsize=64)
def _later(seconds: int) -> Response:
    return answer(Unavailable("Too many readers come at once.", retry_after=seconds))


def _with_headers(send: Send) -> Send:
    def wrapped(message: Message) -> Awaitable[None]:  # no coroutine of its own: events go through here
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
    """What the router itself refuses."""
    assert isinstance(error, HTTPException)
    path, method = request.scope["path"], request.method
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return answer(
            NotAllowed(f"{path} has no {method}.", Fault("method", allowed, method), headers={"Allow": allowed})
        )
    return answer(NotFound(f"There is nothing at {path}."))


async def _store(request: Request, error: Exception) -> Response:
    logger.warning("%s %s: the store does not answer: %s", request.method, request.scope["path"], error)
    return answer(Unavailable("The store does not answer."))


async def _bug(request: Request, error: Exception) -> Response:
    """Ours: the log has the traceback, which Starlette raises on to the server after this answer."""
    # uvicorn closes the connection after this answer; a client that was not told would send its next request into it.
    refused = Refused("The server failed on this request; its log says why.", headers={"Connection": "close"})
    refused.status, refused.title, refused.kind = 500, "Server error", "server-error"
    return answer(refused)


EXCEPTION_HANDLERS = {Refused: _refused, HTTPException: _http, StoreError: _store, Exception: _bug}
