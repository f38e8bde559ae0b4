"""Where the parts meet: the objects, the routes, the lifespan."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from . import archive, gate, health, metrics, openapi, pages, publish, sockets, sse
from .admission import Admission
from .errors import HEADERS, Fault, NotAllowed, NotFound, Refused, Unavailable, answer
from .frames import dumps
from .health import Health
from .hub import Hub
from .keys import Keys
from .log import Log
from .receipts import Receipts
from .settings import Settings
from .store import Store, StoreError
from .tokens import Tokens

logger = logging.getLogger(__name__)


class Stream(HTTPEndpoint):
    get = staticmethod(pages.page)
    put = staticmethod(publish.put_page)
    patch = staticmethod(publish.patch_page)


class Entries(HTTPEndpoint):
    get = staticmethod(pages.entries)
    post = staticmethod(publish.publish_entry)


class Entry(HTTPEndpoint):
    get = staticmethod(pages.entry)
    put = staticmethod(publish.put_entry)
    patch = staticmethod(publish.patch_entry)
    delete = staticmethod(publish.withdraw_entry)


class Delivery(HTTPEndpoint):
    get = staticmethod(publish.delivery)


class FeedAtom(HTTPEndpoint):
    get = staticmethod(pages.feed_atom)


class FeedJson(HTTPEndpoint):
    get = staticmethod(pages.feed_json)


class Export(HTTPEndpoint):
    get = staticmethod(archive.export_stream)


class Restore(HTTPEndpoint):
    post = staticmethod(archive.restore_stream)


class Events(HTTPEndpoint):
    get = staticmethod(pages.events)


class Sse(HTTPEndpoint):
    get = staticmethod(sse.follow)


class End(HTTPEndpoint):
    post = staticmethod(publish.end_stream)


class Socket(HTTPEndpoint):
    get = staticmethod(sockets.upgrade_required)


# Each route that shows a stream names it `stream`: the gate before private ones goes by that.
# The name is taken as a path, slashes and all: a bad one is refused by name, not as an unknown address. Whatever stands
# behind it is an endpoint: a route for some methods would leave the others to a stream of that longer name.
ROUTES: list[BaseRoute] = [
    WebSocketRoute("/streams/{stream:path}/ws", sockets.follow),  # the first: nothing comes in such storms
    Route("/", pages.index),
    Route("/livez", health.livez),
    Route("/readyz", health.readyz),
    Route("/metrics", health.exposed),
    Route("/openapi.json", pages.openapi),
    Route("/streams/{stream:path}/entries", Entries),
    Route("/streams/{stream:path}/entries/{id}", Entry),
    Route("/streams/{stream:path}/entries/{id}/delivery", Delivery),
    Route("/streams/{stream:path}/feed.atom", FeedAtom),
    Route("/streams/{stream:path}/feed.json", FeedJson),
    Route("/streams/{stream:path}/export", Export),
    Route("/streams/{stream:path}/restore", Restore),
    Route("/streams/{stream:path}/end", End),
    Route("/streams/{stream:path}/events", Events),
    Route("/streams/{stream:path}/sse", Sse),
    Route("/streams/{stream:path}/ws", Socket),
    Route("/streams/{stream:path}", Stream),
]

KEYED = frozenset({Delivery, Export})  # a GET that asks for a publish key is not for readers


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


def create_app(settings: Settings) -> Starlette:
    """The ASGI application of one worker. `settings.redis` and `settings.key` are the ones to use."""
    store = Store(settings.redis, partitions=settings.partitions, replicas=settings.replicas)
    log = Log.of(store, settings)
    hub = Hub(log, settings)
    receipts = Receipts(store, hub)
    checks = Health(store, hub, receipts)
    tokens = Tokens.of(settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            await store.check()
        except StoreError as error:  # not ready, and not dead: the supervisor saw the store when it started
            logger.warning("the store does not answer yet: %s", error)
        tasks = [asyncio.create_task(part.run(), name=type(part).__name__) for part in (store, hub, receipts, checks)]
        for task in tasks:
            task.add_done_callback(_stop_if_failed)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await store.close()

    app = App(
        routes=[
            *gate.gated(ROUTES, tokens, but=KEYED),
            WebSocketRoute("/{path:path}", sockets.nowhere),
            Mount("/static", StaticFiles(directory=static_folder())),
        ],
        lifespan=lifespan,
        exception_handlers={Refused: _refused, HTTPException: _http, StoreError: _store, Exception: _bug},
    )
    app.router.redirect_slashes = False
    app.state.settings, app.state.log, app.state.hub, app.state.health = settings, log, hub, checks
    app.state.openapi = dumps(openapi.document(pages.VERSION, settings)) + "\n"
    app.state.keys, app.state.receipts = Keys(settings.key, store), receipts
    app.state.tokens, app.state.admission = tokens, Admission(settings.admit)
    return app


def static_folder() -> Path:
    """`static/`: beside the package in a checkout, inside it when installed."""
    inside = Path(__file__).parent / "static"
    return inside if inside.is_dir() else inside.parent.parent / "static"


def _stop_if_failed(task: asyncio.Task[None]) -> None:
    """A worker without its tails would look alive and deliver nothing: it stops, and is started anew."""
    if not task.cancelled() and task.exception():
        logger.critical("%s failed; this worker stops", task.get_name(), exc_info=task.exception())
        signal.raise_signal(signal.SIGTERM)


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
