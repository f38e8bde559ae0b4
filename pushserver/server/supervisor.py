"""The processes: one supervisor, which owns the embedded store and the port, and the workers it starts.

    supervisor --- valkey (embedded)
        |--------- worker 1 .. N   uvicorn on the inherited socket; where they are many, each on one of its own

A worker that ends is started again; one that cannot start ends the server. A worker whose supervisor is gone leaves by
itself: it holds the reading end of a pipe that only the supervisor has open for writing. Stopping goes the other way
round: workers drain, then the store.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE

from .. import metrics
from ..access import keyfile
from ..access.tokens import Tokens
from ..settings import Settings, environment, shown, without_password
from ..store.embedded import CannotStart, embedded
from ..store.store import Store, StoreError, StoreUnfit
from ..transport.handshake import HttpProtocol
from ..web.app import create_app

logger = logging.getLogger(__name__)

BACKLOG = 2048
SEND_BUFFER = 131_072  # bytes that the kernel keeps for one reader
UNACKNOWLEDGED = 5.0  # seconds more than a reader may take nothing for, after which the kernel gives a peer up
RESTART_DELAY = 1.0  # seconds before a worker that ended is started again
# Between two collections of cycles: objects that are new and alive; of these collections before one of a larger part,
# and before one of all. A reader makes no cycle, so there is next to nothing to find, and a storm makes many objects.
COLLECT_AFTER = (20_000, 50, 20)
GRACE = 10.0  # seconds, beyond the drain, after which a worker that should have stopped is killed


# --- the supervisor


async def serve(settings: Settings, started: Callable[[Settings, str], Coroutine[Any, Any, None]]) -> int:
    """Run the server until a signal ends it; the exit status. `started` runs beside the workers."""
    _raise_file_limit()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    _check_tokens(settings)
    if settings.replicas and not settings.redis:
        raise CannotStart("the embedded store has no replicas; --replicas is for a store of your own, see --redis")
    async with AsyncExitStack() as stack:
        os.environ[metrics.FOLDER] = stack.enter_context(TemporaryDirectory(prefix="pushserver-"))
        data = Path(settings.data)
        listener = _listen((settings.host, settings.port), settings.patience)
        if settings.workers > 1:
            listener = _reserve(listener)
        stack.enter_context(listener)
        settings = dataclasses.replace(
            settings,
            redis=settings.redis or await stack.enter_async_context(embedded(data)),
            key=settings.key or _local_key(data),
            port=listener.getsockname()[1],
        )
        logger.info("settings: %s", shown(settings))
        await _check_store(settings)
        workers = Workers(settings, listener, stop)
        await stack.enter_async_context(workers.running())
        hello = asyncio.create_task(started(settings, _url(settings)))
        await stop.wait()
        hello.cancel()
        await asyncio.gather(hello, return_exceptions=True)
        logger.info("stopping")
    return workers.status


def _check_tokens(settings: Settings) -> None:
    """Refuse private streams that nobody could read, or everybody. Raises CannotStart."""
    try:
        Tokens.of(settings)
    except (ValueError, OSError) as error:
        raise CannotStart(str(error)) from error


def _local_key(data: Path) -> str:
    try:
        return keyfile.make_local_key(data)
    except ValueError as error:
        raise CannotStart(str(error)) from None


async def _check_store(settings: Settings) -> None:
    """Refuse a store that is not there, or not one to rely on, before any worker would. Raises CannotStart."""
    try:
        store = Store(settings.redis, partitions=settings.partitions, replicas=settings.replicas)
        try:
            await store.check()
        finally:
            await store.close()
    except (StoreError, StoreUnfit, ValueError, OSError) as error:
        raise CannotStart(f"the store at {without_password(settings.redis)}: {error}") from error


class Workers:
    """The worker processes of a supervisor."""

    def __init__(self, settings: Settings, listener: socket.socket, stop: asyncio.Event) -> None:
        self.status = 0
        self._settings = settings
        self._listener = listener
        self._stop = stop

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep them running; at the end, drain and stop them all."""
        lifeline, ours = os.pipe()
        try:
            async with asyncio.TaskGroup() as tasks:
                keepers = [tasks.create_task(self._keep(lifeline)) for _ in range(self._settings.workers)]
                yield
                for keeper in keepers:
                    keeper.cancel()
        finally:
            os.close(lifeline)
            os.close(ours)

    async def _keep(self, lifeline: int) -> None:
        """Start a worker again whenever it ends; drain and stop it when cancelled."""
        while True:
            process = await self._start(lifeline)
            try:
                status = await process.wait()
            except asyncio.CancelledError:
                await self._end(process)
                raise
            if status == STARTUP_FAILURE:
                logger.error("a worker could not start; stopping")
                self.status = STARTUP_FAILURE
                self._stop.set()
                return
            metrics.forget(process.pid, os.environ[metrics.FOLDER])
            logger.error("worker %s ended with status %s; starting another", process.pid, status)
            await asyncio.sleep(RESTART_DELAY)

    async def _start(self, lifeline: int) -> asyncio.subprocess.Process:
        listener = self._listener.fileno()
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "pushserver", "worker", str(listener), str(lifeline)),
            env={**os.environ, **environment(self._settings)},
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=[listener, lifeline],
            # Ctrl-C in a terminal goes to the supervisor alone, which stops the workers in order.
            start_new_session=True,
        )

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(self._settings.drain + GRACE):
                    await process.wait()
            except TimeoutError:
                logger.error("worker %s does not stop; killing it", process.pid)
                process.kill()
                await process.wait()


def _raise_file_limit() -> None:
    """Each reader is a file to the kernel: take as many as are to be had, for the workers too."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _listen(address: Any, patience: float, *, shared: bool = False) -> socket.socket:
    """Listen on an address, which others may listen on that share it too. Raises OSError where it is taken."""
    listener = socket.create_server(address, family=_family(address), backlog=BACKLOG, reuse_port=shared)
    listener.setblocking(False)
    # What a connection is made of, it has from the listener. The kernel would hold megabytes for who takes nothing, and
    # wait a quarter of an hour for who is gone without a word.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, SEND_BUFFER // 2)
    unacknowledged = patience + UNACKNOWLEDGED
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(unacknowledged * 1000))
    return listener


def _reserve(listener: socket.socket) -> socket.socket:
    """Keep a listener's address, of which it was seen that it was free, for workers that listen there each by itself.

    On one socket whoever wakes first takes what it finds: of 1,000 connections at once one worker of two had 800. With
    a socket each the kernel deals them out. A worker listens when it is ready, and what has ended gets none.
    """
    with listener:
        address = listener.getsockname()
    held = socket.socket(_family(address))
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if held.family == socket.AF_INET6:
        held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    held.bind(address)
    return held


def _family(address: Any) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


def _url(settings: Settings) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host and '[' not in host else host}:{settings.port}"


# --- a worker


def work(settings: Settings, listener: int, lifeline: int) -> None:
    """Serve on an inherited socket, or its address, until told to stop or until the supervisor is gone."""
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=HttpProtocol,
        ws="websockets-sansio",  # never made: our HTTP protocol has its own handshake
        log_config=None,
        access_log=False,
        server_header=False,
        forwarded_allow_ips=settings.forwarded,
        backlog=BACKLOG,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=5,
    )
    server = Server(config, drain=app.state.hub.drain, lifeline=lifeline)
    inherited = socket.socket(fileno=listener)
    if settings.workers > 1:
        try:
            inherited = _listen(inherited.getsockname(), settings.patience, shared=True)
        except OSError as error:
            logger.error("a worker cannot listen: %s", error)
            sys.exit(STARTUP_FAILURE)
    server.run(sockets=[inherited])


def spare_collector() -> None:
    """Let the collector of cycles look seldom at what readers and events are made of, and at the program never."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


class Server(uvicorn.Server):
    """uvicorn's, which drains before it shuts down: by itself it would close every reader without a word."""

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
        """Nothing is ever written to the lifeline: it is readable when its other end is gone."""
        asyncio.get_running_loop().remove_reader(self._lifeline)
        logger.error("the supervisor is gone; this worker stops")
        self.should_exit = True
