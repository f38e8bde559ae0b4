"""A worker's application: its parts are made here, and each handler is given those that it needs."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import anyio
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, WebSocketRoute

from ..access.addresses import Addresses, AddressLimits, Proxies
from ..access.keys import Keys
from ..access.keystore import KeyStore
from ..access.origins import Origins
from ..access.rates import RateLimit
from ..access.tokens import Tokens
from ..live.hub import Hub
from ..live.options import HubOptions
from ..live.receipts import Receipts
from ..live.stream_expiry import Expiry
from ..page import render
from ..page.masthead import Masthead
from ..settings import Settings
from ..store.condition import StoreCondition
from ..store.deletion import Deletions
from ..store.log import Log
from ..store.store import Store, StoreError
from ..surfaces.cache import SurfaceCache
from .archive_routes import ArchiveRoutes
from .cache_control import cache_control
from .desk_routes import DeskRoutes
from .echo_routes import EchoRoutes
from .health import Health, HealthRoutes
from .measures import Measures
from .middleware import App
from .publishing_routes import PublishingRoutes
from .reading_routes import VERSION, ReadingRoutes
from .routes import Handler, make_routes
from .static_files import StaticFiles, StaticSet, no_such_file
from .subscribe import SubscribeRoutes, unknown_websocket

if TYPE_CHECKING:
    from .purge import Purger

logger = logging.getLogger(__name__)


class Part(Protocol):
    """A part of a worker with work of its own, which never ends."""

    async def run(self) -> None: ...


def create_app(settings: Settings, condition: StoreCondition | None = None, *, last_file: int | None = None) -> App:
    """The ASGI application of one worker. `settings.redis` and `settings.key` are set. Raises ValueError, OSError.

    `condition` is that of an embedded store, as its supervisor notes it. From descriptor `last_file` on the worker has
    no file for another connection.
    """
    render.prepare()
    store = Store(settings.redis, partitions=settings.partitions, replicas=settings.replicas, condition=condition)
    log = Log.of(store, settings)
    hub = Hub(log, HubOptions.of(settings))
    receipts = Receipts(store, hub)
    health = Health(
        log,
        hub,
        receipts,
        stale_pages=settings.stale_pages,
        slow_store=settings.slow_store,
        last_file=last_file,
    )
    tokens = Tokens.of(settings)
    origins = Origins(settings.origins, settings.public_url)
    cached = cache_control(settings.cache)
    static = StaticSet(static_folder(), settings.public_url, cache_control=cached)
    masthead = Masthead(settings.site_name, settings.site_logo, settings.site_handle)
    site = static.site._replace(masthead=masthead)
    reading = ReadingRoutes(
        log,
        tokens,
        site,
        cache_control=cached,
        page_entries=settings.page_entries,
        replay_events=settings.replay_events,
        replay_bytes=settings.replay_bytes,
    )
    surfaces = SurfaceCache(
        log,
        hub,
        page_entries=settings.page_entries,
        limit_bytes=settings.page_bytes,
        stale_pages=settings.stale_pages,
        site=site,
        version=VERSION,
    )
    admission = RateLimit(settings.admit)
    subscribing = SubscribeRoutes(
        hub, admission=admission, origins=origins, deflate=settings.deflate, build=static.site.build
    )
    keys = Keys(settings.key, KeyStore(store))
    purger = _purger(settings, tokens)
    purge = purger.purge if purger else lambda stream, entry_id: None
    publishing = PublishingRoutes(log, keys, receipts, purge=purge, body_limit=settings.body_limit)
    deletions = Deletions(log, gone=settings.gone)
    desk = DeskRoutes(log, keys, receipts, deletions=deletions, purge=purge)
    echo = EchoRoutes(keys, worker=receipts.name)
    handlers = _handlers(reading, publishing, ArchiveRoutes(log, keys), desk, subscribing, HealthRoutes(health), echo)
    routes: list[BaseRoute] = [
        *make_routes(handlers, {"follow": subscribing.websocket}, tokens, prefix=urlsplit(settings.public_url).path),
        WebSocketRoute("/{path:path}", unknown_websocket),
        Mount("/static", StaticFiles(no_such_file, static)),
    ]
    expiry = Expiry(deletions, receipts, partitions=settings.partitions, after=settings.expire_ended)
    others: list[Part] = [*([purger] if purger else []), *([expiry] if settings.expire_ended else [])]
    lifespan = _lifespan(store, health, store, hub, receipts, health, *others)
    addresses = Addresses(AddressLimits.of(settings), Proxies(settings.forwarded))
    app = App(
        routes,
        hub=hub,
        addresses=addresses,
        origins=origins,
        surfaces=surfaces,
        cache_control=cached,
        tokens=tokens,
        static=static,
        lifespan=lifespan,
    )
    app.measures = Measures(hub, health, surfaces)
    return app


def _handlers(
    reading: ReadingRoutes,
    publishing: PublishingRoutes,
    archive: ArchiveRoutes,
    desk: DeskRoutes,
    subscribing: SubscribeRoutes,
    health: HealthRoutes,
    echo: EchoRoutes,
) -> dict[str, Handler]:
    """The handlers of HTTP requests by the name of their operation."""
    return {
        "listStreams": reading.index,
        "isAlive": health.livez,
        "isReady": health.readyz,
        "isReadable": health.readyz_read,
        "describe": reading.openapi,
        "showPage": reading.page,
        "putPage": publishing.put_page,
        "patchPage": publishing.patch_page,
        "endStream": publishing.end_stream,
        "listEntries": reading.entries,
        "publishEntry": publishing.publish_entry,
        "showEntry": reading.entry,
        "putEntry": publishing.put_entry,
        "correctEntry": publishing.patch_entry,
        "withdrawEntry": publishing.withdraw_entry,
        "showDelivery": publishing.delivery,
        "echoRequest": echo.echo,
        "atomFeed": reading.feed_atom,
        "jsonFeed": reading.feed_json,
        "listStreamsForKeys": desk.list_streams,
        "deleteStream": desk.delete_stream,
        "eraseEntry": desk.erase_entry,
        "showHistory": desk.show_history,
        "exportStream": archive.export_stream,
        "restoreStream": archive.restore_stream,
        "listEvents": reading.events,
        "followEvents": subscribing.sse,
    }


def _purger(settings: Settings, tokens: Tokens) -> Purger | None:
    """The purger of caches; None where there are none. Without it a worker need not load an HTTP client."""
    if not settings.purge:
        return None
    from .purge import Purger  # noqa: PLC0415 - see above

    return Purger(settings.purge, host=urlsplit(settings.public_url).netloc, is_private=tokens.is_private)


def _lifespan(store: Store, health: Health, *parts: Part) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    """The lifespan of an application: its parts run in it, and the store is closed after them.

    It begins when the worker is ready, so that a worker that replaces another one takes over without a gap.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        anyio.get_cancelled_exc_class()  # loads what streamed answers need: the first one would hold up everyone
        answers = True
        try:
            await store.check()
        except StoreError as error:  # not ready, and not dead: the supervisor saw the store when it started
            answers = False
            logger.warning("the store does not answer yet: %s", error)
        tasks = [asyncio.create_task(part.run(), name=type(part).__name__) for part in parts]
        for task in tasks:
            task.add_done_callback(_stop_if_failed)
        try:
            if answers:
                await health.wait_until_ready()
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await store.close()

    return lifespan


def static_folder() -> Path:
    """`static/`: beside the package in a checkout, inside it when installed."""
    inside = Path(__file__).parents[1] / "static"
    return inside if inside.is_dir() else inside.parent.parent / "static"


def _stop_if_failed(task: asyncio.Task[None]) -> None:
    """Stop the worker, which the supervisor starts anew: without its tails it would look alive and deliver nothing."""
    if not task.cancelled() and task.exception():
        logger.critical(
            "task %s failed; this worker stops, and the supervisor starts another",
            task.get_name(),
            exc_info=task.exception(),
        )
        signal.raise_signal(signal.SIGTERM)
