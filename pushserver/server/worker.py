"""A worker: uvicorn on a listening socket, until a signal stops it or its supervisor is gone."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE

from ..settings import Settings
from ..store.condition import SharedCondition
from ..transport.door import Door
from ..transport.http import HttpProtocol
from ..transport.outlet import Unread
from ..web.app import create_app
from .files import file_limit, last_file
from .listener import BACKLOG, listen

logger = logging.getLogger(__name__)

# Thresholds of the cycle collector: new objects before a collection of the youngest generation, such collections before
# one of the middle generation, and those before one of all. A reader makes no cycle, so there is next to nothing
# to collect, while a storm of readers makes many objects: the defaults (700, 10, 10) would cost time for nothing.
COLLECT_AFTER = (20_000, 50, 20)


def work(settings: Settings, listener: int, lifeline: int, condition: int) -> None:
    """Serve on an inherited socket, or on its address, until a signal stops it or the supervisor is gone.

    `listener`, `lifeline` and `condition` are file descriptors. Exits with STARTUP_FAILURE where the worker cannot
    listen.
    """
    app = create_app(settings, SharedCondition(condition))
    door = Door(app.addresses, last_file=last_file(file_limit()))
    # uvicorn calls it as it would call the class
    http: Any = partial(HttpProtocol, door=door, unread=Unread(settings.unread_bytes))
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=http,
        ws="websockets-sansio",  # never used: HttpProtocol does the handshake of a WebSocket
        log_config=None,
        access_log=False,
        server_header=False,
        forwarded_allow_ips=settings.forwarded,
        backlog=BACKLOG,
        timeout_graceful_shutdown=5,
    )
    server = Server(config, drain=app.hub.drain, lifeline=lifeline)
    inherited = socket.socket(fileno=listener)
    if settings.workers > 1:
        try:
            inherited = listen(inherited.getsockname(), settings.patience, shared=True)
        except OSError as error:
            logger.error("worker cannot listen: %s", error)
            sys.exit(STARTUP_FAILURE)
    server.run(sockets=[inherited])


def spare_collector() -> None:
    """Exclude the program's own objects from the cycle collector, and make it run seldom on all others."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


class Server(uvicorn.Server):
    """Server is uvicorn's, with a drain before the shutdown: uvicorn alone would close every reader without a frame."""

    def __init__(self, config: uvicorn.Config, *, drain: Callable[[], Awaitable[None]], lifeline: int) -> None:
        super().__init__(config)
        self._drain = drain
        self._lifeline = lifeline

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        asyncio.get_running_loop().add_reader(self._lifeline, self._orphaned)
        spare_collector()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._drain()
        await super().shutdown(sockets)

    def _orphaned(self) -> None:
        """Stop, since the supervisor is gone: the lifeline is readable once its other end is closed.

        The port is free at once, not after the drain: the next server may be starting already.
        """
        asyncio.get_running_loop().remove_reader(self._lifeline)
        for server in self.servers:
            server.close()
        logger.error("supervisor gone; stopping the worker")
        self.should_exit = True
