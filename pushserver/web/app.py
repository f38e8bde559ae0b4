"""Where the parts meet: the objects, the routes, the lifespan."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import Mount, WebSocketRoute
from starlette.staticfiles import StaticFiles

from ..access.keys import Keys
from ..access.rates import Admission
from ..access.tokens import Tokens
from ..codec import dumps
from ..live.hub import Hub
from ..live.receipts import Receipts
from ..settings import Settings
from ..store.log import Log
from ..store.store import Store, StoreError
from ..transport import sse
from . import health, reading_routes, subscribe
from .archive_routes import ArchiveRoutes
from .health import Health
from .middleware import EXCEPTION_HANDLERS, App
from .openapi import document
from .publishing_routes import PublishingRoutes
from .routes import Handler, make_routes

logger = logging.getLogger(__name__)


def create_app(settings: Settings) -> Starlette:
    """The ASGI application of one worker. `settings.redis` and `settings.key` are the ones to use."""
    store = Store(settings.redis, partitions=settings.partitions, replicas=settings.replicas)
    log = Log.of(store, settings)
    hub = Hub(log, settings)
    receipts = Receipts(store, hub)
    checks = Health(store, hub, receipts)
    tokens = Tokens.of(settings)
    keys = Keys(settings.key, store)
    publishing = PublishingRoutes(log, keys, receipts, body_limit=settings.body_limit)
    archive = ArchiveRoutes(log, keys)
    handlers: dict[str, Handler] = {  # by the name of their operation
        "listStreams": reading_routes.index,
        "isAlive": health.livez,
        "countAll": health.exposed,
        "isReady": health.readyz,
        "describe": reading_routes.openapi,
        "showPage": reading_routes.page,
        "putPage": publishing.put_page,
        "patchPage": publishing.patch_page,
        "endStream": publishing.end_stream,
        "listEntries": reading_routes.entries,
        "publishEntry": publishing.publish_entry,
        "showEntry": reading_routes.entry,
        "putEntry": publishing.put_entry,
        "correctEntry": publishing.patch_entry,
        "withdrawEntry": publishing.withdraw_entry,
        "showDelivery": publishing.delivery,
        "atomFeed": reading_routes.feed_atom,
        "jsonFeed": reading_routes.feed_json,
        "exportStream": archive.export_stream,
        "restoreStream": archive.restore_stream,
        "listEvents": reading_routes.events,
        "followEvents": sse.follow,
    }

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
            *make_routes(handlers, {"follow": subscribe.follow}, tokens),
            WebSocketRoute("/{path:path}", subscribe.nowhere),
            Mount("/static", StaticFiles(directory=static_folder())),
        ],
        lifespan=lifespan,
        exception_handlers=EXCEPTION_HANDLERS,
    )
    app.router.redirect_slashes = False
    app.state.settings, app.state.log, app.state.hub, app.state.health = settings, log, hub, checks
    app.state.openapi = dumps(document.document(reading_routes.VERSION, settings)) + "\n"
    app.state.tokens, app.state.admission = tokens, Admission(settings.admit)
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
