"""A worker in a thread of the test's process: it is ready in a tenth of the time that a server of its own takes."""

from __future__ import annotations

import io
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from typing import Any, Literal

import httpx2
import uvicorn

from pushserver import logs
from pushserver.cli.serve import serve
from pushserver.server.files import file_limit, last_file
from pushserver.server.listener import address_of, listen
from pushserver.settings import Settings
from pushserver.store.folder import SOCKET, reachable, socket_url
from pushserver.transport.door import Door
from pushserver.transport.http import HttpProtocol
from pushserver.transport.outlet import Unread
from pushserver.web.app import create_app

from .server import LIMIT, STOP_LIMIT, Running, Served

Serve = Callable[..., "Worker"]
Loop = Literal["uvloop", "asyncio"]


class Worker(Served):
    """A Worker has the store and the key of a server that runs, and settings of its own."""

    def __init__(self, url: str, beside: Running, written: io.StringIO) -> None:
        self.url = url
        self.data = beside.data
        self.http = httpx2.Client(base_url=url, timeout=LIMIT)
        self._written = written

    @property
    def log(self) -> str:
        return self._written.getvalue()


class Server(uvicorn.Server):
    """uvicorn's, which says that it serves."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.serves = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.serves.set()


@contextmanager
def working(beside: Running, *arguments: str, loop: Loop = "uvloop") -> Iterator[Worker]:
    """Run a worker with these arguments of `pushserver serve`, without a supervisor."""
    parsed = serve.make_context("serve", list(arguments)).params
    settings = Settings(**{field.name: parsed[field.name] for field in fields(Settings)})
    with reachable(beside.data.absolute() / SOCKET) as path, _logged(settings) as written:
        with _serving(replace(settings, redis=socket_url(path), key=beside.key), loop) as url:
            worker = Worker(url, beside, written)
            try:
                yield worker
            finally:
                worker.http.close()


@contextmanager
def _serving(settings: Settings, loop: Loop) -> Iterator[str]:
    app = create_app(settings)
    http: Any = partial(
        HttpProtocol,
        door=Door(app.addresses, last_file=last_file(file_limit())),
        unread=Unread(settings.unread_bytes),
        prepare=app.prepare,
    )
    config = uvicorn.Config(
        app,
        loop=loop,
        http=http,
        log_config=None,
        access_log=False,
        server_header=False,
        forwarded_allow_ips=settings.forwarded,
        timeout_graceful_shutdown=1,
    )
    server = Server(config)
    listener = listen(address_of(settings.host, 0), settings.patience)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        assert server.serves.wait(LIMIT)
        assert server.started, "the worker did not start"
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(STOP_LIMIT)
        listener.close()
        assert not thread.is_alive()


@contextmanager
def _logged(settings: Settings) -> Iterator[io.StringIO]:
    """What the server's own loggers write meanwhile."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logs.Formatter())
    if not settings.access_log:
        handler.addFilter(lambda record: record.name != logs.ACCESS)
    logger = logging.getLogger("pushserver")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(settings.log_level.upper())
    try:
        yield written
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
