"""The supervisor: the process that owns the embedded store, the listeners, and the workers that it starts.

    supervisor --- valkey (embedded)
        |--------- place 1 .. N: a listener, and a worker that accepts from it

A worker that ends is replaced. A worker whose supervisor is gone ends by itself, as its channel ends. On a stop, the
workers drain first; the store ends last.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from ..access import keyfile
from ..logs import hide_secrets
from ..settings import Settings, shown
from ..store.condition import SharedCondition, shared
from ..store.embedded import embedded
from ..store.folder import CannotStart
from ..store.store import Store
from ..values import unix_path
from . import checks
from .cluster import WorkerCluster
from .files import file_limit, most_readers, raise_file_limit
from .listener import Listeners, address_of, listen_when_free, passed
from .secret_files import with_secrets
from .signals import Signals
from .workers import Workers

logger = logging.getLogger(__name__)


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
    signals = Signals.install()
    chosen, settings = settings, with_secrets(settings)
    checks.insist(
        [
            checks.check_tokens(settings),
            *([] if settings.redis else [checks.check_folder(Path(settings.data), make=True)]),
            *checks.check_together(settings),
        ]
    )
    async with AsyncExitStack() as stack:
        condition = stack.enter_context(shared())
        data = Path(settings.data)
        listeners = await _listeners(settings, signals)
        stack.callback(listeners.close)
        cluster = WorkerCluster(clock=asyncio.get_running_loop().time)
        settings = await _monitor(stack, cluster, settings, signals)
        settings = dataclasses.replace(
            settings,
            redis=settings.redis
            or await stack.enter_async_context(embedded(data, accept_empty=accept_empty_store, condition=condition)),
            # Servers that share a store must accept the same keys: a key of one server's folder is no such key.
            key=settings.key or ("" if settings.redis else _local_key(data)),
            host=_host(listeners, settings.host),
            port=settings.port if listeners.is_unix else listeners.address[1],
            readers=most_readers(settings.readers, file_limit()),
        )
        checks.insist([checks.check_readers(chosen)])
        logger.info("settings: %s", shown(settings))
        await _check_store(settings, condition, is_shared=bool(chosen.redis or chosen.redis_file))

        def read_anew(now: Settings) -> Settings:
            checks.insist([checks.check_tokens(now)])
            anew = with_secrets(chosen)
            key = anew.key or ("" if now.key == "" else _local_key(data))
            return dataclasses.replace(now, key=key, redis=anew.redis or now.redis)

        workers = Workers(settings, listeners, condition.descriptor, signals, read_anew, cluster)
        async with workers.running():
            hello = asyncio.create_task(started(settings, _url(settings)))
            await signals.stop.wait()
            hello.cancel()
            await asyncio.gather(hello, return_exceptions=True)
            logger.info("server stopping")
    signals.ignore()
    return workers.status


async def _listeners(settings: Settings, signals: Signals) -> Listeners:
    """The server's address: of a listener that the service manager passes, or of the settings. Raises OSError."""
    listener = passed(os.environ, settings.patience)
    if listener is not None:
        logger.info(
            "listening on what the service manager passes, not on --host and --port: %s", listener.getsockname()
        )
        return Listeners(listener, settings.patience, is_passed=True)
    address = address_of(settings.host, settings.port)
    return Listeners(await listen_when_free(address, settings.patience, signals.stop), settings.patience)


def _host(listeners: Listeners, chosen: str) -> str:
    """The setting `host`, as the listeners have it."""
    if not listeners.is_passed:
        return chosen
    return f"unix:{listeners.address}" if listeners.is_unix else str(listeners.address[0])


async def _monitor(stack: AsyncExitStack, cluster: WorkerCluster, settings: Settings, signals: Signals) -> Settings:
    """Serve metrics and status, unless the settings say otherwise; the settings with the port. Raises CannotStart."""
    if settings.metrics_port < 0:
        return settings
    from .monitor import Monitor, serving  # noqa: PLC0415 - a supervisor without it needs no HTTP

    address = address_of(settings.metrics_host, settings.metrics_port)
    try:
        listener = await listen_when_free(address, settings.patience, signals.stop)
    except OSError as error:
        raise CannotStart(f"--metrics-host, --metrics-port: {error}") from error
    await stack.enter_async_context(serving(Monitor(cluster), listener))
    return dataclasses.replace(settings, metrics_port=listener.getsockname()[1])


def metrics_url(settings: Settings) -> str:
    """The URL of the operators' listener, by a host that a client on this machine can connect to."""
    return _url(dataclasses.replace(settings, host=settings.metrics_host, port=settings.metrics_port))


def _local_key(data: Path) -> str:
    """The publish key of the data folder. Raises CannotStart for a key file without a key."""
    try:
        return keyfile.make_local_key(data)
    except ValueError as error:
        raise CannotStart(str(error)) from None


async def _check_store(settings: Settings, condition: SharedCondition, *, is_shared: bool) -> None:
    """Raises CannotStart where the store does not answer, or must not be used; else each worker would fail on it."""
    try:
        store = Store(settings.redis, partitions=settings.partitions, replicas=settings.replicas, condition=condition)
    except ValueError as error:
        raise CannotStart(f"store {hide_secrets(settings.redis)}: {error}") from error
    try:
        async for finding in checks.examine_store(store, settings, writes=True, is_shared=is_shared):
            checks.insist([finding])
    finally:
        await store.close()


def _url(settings: Settings) -> str:
    """The URL of the server, by a host that a client on this machine can connect to; its setting for a unix socket."""
    if unix_path(settings.host):
        return settings.host
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host and '[' not in host else host}:{settings.port}"
