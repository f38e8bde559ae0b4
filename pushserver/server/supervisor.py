"""The supervisor: the process that owns the embedded store and the port, and the workers that it starts.

    supervisor --- valkey (embedded)
        |--------- worker 1 .. N   uvicorn on the inherited socket, or, where there are several, each on its own

A worker that ends is started again; a worker that cannot start ends the server. A worker whose supervisor is gone ends
by itself: it has the reading end of a pipe, the lifeline, whose writing end only the supervisor has. On a stop, the
workers drain first; the store ends last.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from uvicorn.config import STARTUP_FAILURE

from .. import metrics, model, processes
from ..access import keyfile
from ..access.keystore import KeyStore
from ..access.tokens import Tokens
from ..logs import hide_secrets
from ..settings import Settings, shown, worker_environment
from ..store.condition import SharedCondition, shared
from ..store.embedded import embedded
from ..store.folder import CannotStart
from ..store.store import Store, StoreError, StoreUnfit
from ..values import NEW_KEY
from .files import file_limit, files_for, most_readers, raise_file_limit
from .listener import listen_when_free, reserve

logger = logging.getLogger(__name__)

WORKER_RESTART_DELAY = 1.0  # seconds before a worker that ended is started again
NO_SHARED_KEY = (
    f"expected PUSHSERVER_KEY, the same on every server of the store (`{NEW_KEY}` makes one), "
    "or a key in the store (`pushserver keys create NAME --redis URL` makes one), got none"
)
KILL_AFTER = 10.0  # seconds, beyond the drain, after which a worker that does not stop is killed


async def serve(
    settings: Settings,
    started: Callable[[Settings, str], Coroutine[Any, Any, None]],
    *,
    accept_empty_store: bool = False,
) -> int:
    """Run the server until a signal ends it; return its exit status. Raises CannotStart, OSError.

    `started` runs beside the workers, with the settings in use and the URL of the server.
    """
    raise_file_limit()
    stop = asyncio.Event()
    _stop_on_signals(stop)
    _check_tokens(settings)
    if not settings.redis:
        _make_folder(Path(settings.data))
    if settings.replicas and not settings.redis:
        raise CannotStart(
            "expected --redis with --replicas, since the embedded store has no replicas, got --replicas alone"
        )
    async with AsyncExitStack() as stack:
        os.environ[metrics.FOLDER] = stack.enter_context(TemporaryDirectory(prefix="pushserver-"))
        condition = stack.enter_context(shared())
        data = Path(settings.data)
        listener = await listen_when_free((settings.host, settings.port), settings.patience, stop)
        if settings.workers > 1:
            listener = reserve(listener)
        stack.enter_context(listener)
        settings = dataclasses.replace(
            settings,
            redis=settings.redis
            or await stack.enter_async_context(embedded(data, accept_empty=accept_empty_store, condition=condition)),
            # Servers that share a store must accept the same keys: a key of one server's folder is no such key.
            key=settings.key or ("" if settings.redis else _local_key(data)),
            port=listener.getsockname()[1],
            readers=_readers(settings),
        )
        logger.info("settings: %s", shown(settings))
        await _check_store(settings, condition)
        workers = Workers(settings, listener, condition, stop)
        await stack.enter_async_context(workers.running())
        hello = asyncio.create_task(started(settings, _url(settings)))
        await stop.wait()
        hello.cancel()
        await asyncio.gather(hello, return_exceptions=True)
        logger.info("server stopping")
    return workers.status


def _readers(settings: Settings) -> int:
    """The number of readers per worker that the limit of open files allows."""
    limit = file_limit()
    readers = most_readers(settings.readers, limit)
    if limit is not None and readers < settings.readers:
        logger.warning(
            "a worker accepts %d readers, not %d: it may open %d files, of which %d are for others than readers;"
            " raise the hard limit to %d (ulimit -Hn, LimitNOFILE=), or set --readers %d",
            *(readers, settings.readers, limit, limit - readers, files_for(settings.readers), readers),
        )
    return readers


def _stop_on_signals(stop: asyncio.Event) -> None:
    """Stop on the usual signals. Those that the terminal sends stay ignored where they were: `nohup` is to work."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, stop.set)


def _make_folder(data: Path) -> None:
    """Make the data folder where there is none. Raises CannotStart where it cannot be used."""
    expected = f"--data (PUSHSERVER_DATA): expected a folder that this user can make and write, got {data}"
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise CannotStart(f"{expected}: {error.strerror}") from None
    if not os.access(data, os.W_OK | os.X_OK):
        raise CannotStart(f"{expected}: it is not writable")


def _check_tokens(settings: Settings) -> None:
    """Raises CannotStart where the settings of private streams would let nobody read them, or everybody."""
    try:
        Tokens.of(settings)
    except (ValueError, OSError) as error:
        raise CannotStart(str(error)) from error


def _local_key(data: Path) -> str:
    """The publish key of the data folder. Raises CannotStart for a key file without a key."""
    try:
        return keyfile.make_local_key(data)
    except ValueError as error:
        raise CannotStart(str(error)) from None


async def _check_store(settings: Settings, condition: SharedCondition) -> None:
    """Raises CannotStart where the store does not answer, or must not be used; else each worker would fail on it."""
    try:
        store = Store(settings.redis, partitions=settings.partitions, replicas=settings.replicas, condition=condition)
        try:
            await store.check()
            if not settings.key and not await KeyStore(store).has_key(model.instant(model.now())):
                raise CannotStart(NO_SHARED_KEY)
        finally:
            await store.close()
    except (StoreError, StoreUnfit, ValueError, OSError) as error:
        raise CannotStart(f"store {hide_secrets(settings.redis)}: {error}") from error


class Workers:
    """Workers is the worker processes of a supervisor. `status` is the exit status that they leave the server."""

    def __init__(
        self, settings: Settings, listener: socket.socket, condition: SharedCondition, stop: asyncio.Event
    ) -> None:
        self.status = 0
        self._settings = settings
        self._listener = listener
        self._condition = condition
        self._stop = stop

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the workers; at the end, drain and stop them all."""
        lifeline, writing_end = os.pipe()
        try:
            async with asyncio.TaskGroup() as tasks:
                keepers = [tasks.create_task(self._keep(lifeline)) for _ in range(self._settings.workers)]
                yield
                for keeper in keepers:
                    keeper.cancel()
        finally:
            os.close(lifeline)
            os.close(writing_end)

    async def _keep(self, lifeline: int) -> None:
        """Start a worker again whenever it ends; drain and stop it when cancelled."""
        while True:
            process = await self._start(lifeline)
            try:
                status = await process.wait()
            except asyncio.CancelledError:
                if await processes.stop(process, self._settings.drain + KILL_AFTER):
                    logger.error("worker %s did not stop in time and was killed", process.pid)
                raise
            if status == STARTUP_FAILURE:
                logger.error("worker %s could not start; stopping the server", process.pid)
                self.status = STARTUP_FAILURE
                self._stop.set()
                return
            metrics.forget(process.pid, os.environ[metrics.FOLDER])
            logger.error("worker %s ended with status %s; starting another", process.pid, status)
            await asyncio.sleep(WORKER_RESTART_DELAY)

    async def _start(self, lifeline: int) -> asyncio.subprocess.Process:
        listener, condition = self._listener.fileno(), self._condition.descriptor
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "pushserver", "worker", str(listener), str(lifeline), str(condition)),
            env=worker_environment(self._settings),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=[listener, lifeline, condition],
            # Ctrl-C in a terminal must reach the supervisor alone: workers that it stopped at once would not drain.
            start_new_session=True,
        )


def _url(settings: Settings) -> str:
    """The URL of the server, by a host that a client on this machine can connect to."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host and '[' not in host else host}:{settings.port}"
