"""Where the parts meet: the objects, the routes, the lifespan."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from ..access import gate
from ..access.keys import Keys
from ..access.keystore import KeyStore
from ..access.rates import RateLimit
from ..access.tokens import Tokens
from ..codec import dumps
from ..live.hub import Hub
from ..live.receipts import Receipts
from ..settings import Settings
from ..store.log import Log
from ..store.store import Store, StoreError
from ..transport import sse
from . import archive_routes, health, publishing_routes, reading_routes, subscribe
from .health import Health
from .middleware import HANDLERS, App
from .openapi import document

logger = logging.getLogger(__name__)


class Stream(HTTPEndpoint):
    get = staticmethod(reading_routes.page)
    put = staticmethod(publishing_routes.put_page)
    patch = staticmethod(publishing_routes.patch_page)


class Entries(HTTPEndpoint):
    get = staticmethod(reading_routes.entries)
    post = staticmethod(publishing_routes.publish_entry)


class Entry(HTTPEndpoint):
    get = staticmethod(reading_routes.entry)
    put = staticmethod(publishing_routes.put_entry)
    patch = staticmethod(publishing_routes.patch_entry)
    delete = staticmethod(publishing_routes.withdraw_entry)


class Delivery(HTTPEndpoint):
    get = staticmethod(publishing_routes.delivery)


class FeedAtom(HTTPEndpoint):
    get = staticmethod(reading_routes.feed_atom)


class FeedJson(HTTPEndpoint):
    get = staticmethod(reading_routes.feed_json)


class Export(HTTPEndpoint):
    get = staticmethod(archive_routes.export_stream)


class Restore(HTTPEndpoint):
    post = staticmethod(archive_routes.restore_stream)


class Events(HTTPEndpoint):
    get = staticmethod(reading_routes.events)


class Sse(HTTPEndpoint):
    get = staticmethod(sse.follow)


class End(HTTPEndpoint):
    post = staticmethod(publishing_routes.end_stream)


class Socket(HTTPEndpoint):
    get = staticmethod(subscribe.upgrade_required)


# Each route that shows a stream names it `stream`: the gate before private ones goes by that.
# The name is taken as a path, slashes and all: a bad one is refused by name, not as an unknown address. Whatever stands
# behind it is an endpoint: a route for some methods would leave the others to a stream of that longer name.
ROUTES: list[BaseRoute] = [
    WebSocketRoute("/streams/{stream:path}/ws", subscribe.follow),  # the first: nothing comes in such storms
    Route("/", reading_routes.index),
    Route("/livez", health.livez),
    Route("/readyz", health.readyz),
    Route("/metrics", health.exposed),
    Route("/openapi.json", reading_routes.openapi),
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
            WebSocketRoute("/{path:path}", subscribe.nowhere),
            Mount("/static", StaticFiles(directory=static_folder())),
        ],
        lifespan=lifespan,
        exception_handlers=HANDLERS,
    )
    app.router.redirect_slashes = False
    app.state.settings, app.state.log, app.state.hub, app.state.health = settings, log, hub, checks
    app.state.openapi = dumps(document.document(reading_routes.VERSION, settings)) + "\n"
    app.state.keys, app.state.receipts = Keys(settings.key, KeyStore(store)), receipts
    app.state.tokens, app.state.admission = tokens, RateLimit(settings.admit)
    return app


def static_folder() -> Path:
    """`static/`: beside the package in a checkout, inside it when installed."""
    inside = Path(__file__).parents[1] / "static"
    return inside if inside.is_dir() else inside.parent.parent / "static"


def _stop_if_failed(task: asyncio.Task[None]) -> None:
    """A worker without its tails would look alive and deliver nothing: it stops, and is started anew."""
    if not task.cancelled() and task.exception():
        logger.critical("%s failed; this worker stops", task.get_name(), exc_info=task.exception())
        signal.raise_signal(signal.SIGTERM)
