"""Inspection: what a start would refuse or warn of, found out without one, beside a server that runs too."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import suppress
from pathlib import Path

from .. import findings
from ..findings import Finding
from ..logs import hide_secrets
from ..settings import Settings
from ..store.condition import Condition, shared
from ..store.embedded import CONDITIONS
from ..store.folder import SOCKET, CannotStart, DataFolder, reachable, socket_url
from ..store.store import Store
from ..values import unix_path
from . import checks
from .files import raise_file_limit
from .secret_files import with_secrets

EVERY_ADDRESS = {"0.0.0.0", "::"}
PROBE_LIMIT = 2.0  # seconds for a server that runs on the address to answer /readyz
PROBE_BYTES = 4_096  # of its answer
READY = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


async def inspect(settings: Settings, *, faulty: Collection[str]) -> AsyncIterator[Finding]:
    """The findings about a server with these settings. Settings that are `faulty` have their defaults here."""
    raise_file_limit()
    try:
        settings = with_secrets(settings)
    except CannotStart as error:
        yield _refused("secret files", error)
        return
    for finding in [checks.check_tokens(settings), *checks.check_together(settings), checks.check_readers(settings)]:
        yield finding
    if not {"host", "port"} & {*faulty}:
        yield await check_address(settings)
    if settings.metrics_port > 0 and not unix_path(settings.metrics_host) and "metrics_host" not in faulty:
        yield _check_metrics_address(settings)
    if {"redis", "data"} & {*faulty}:
        yield findings.warning("store", "not looked at, since its setting is refused")
        return
    async for finding in _external(settings) if settings.redis else _embedded(settings):
        yield finding


def _refused(subject: str, error: Exception) -> Finding:
    return findings.error(subject, str(error))


# --- the address


async def check_address(settings: Settings) -> Finding:
    """Bind the address, and let it go; where a server runs on it, ask whether it is ready."""
    path = unix_path(settings.host)
    subject = "address"
    name = path or f"{settings.host}:{settings.port}"
    try:
        if path:
            return await _check_path(path)
        _bind(settings.host, settings.port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return await _check_running(name, settings)
        return findings.error(subject, f"{name}: {error.strerror}", "choose an address of this machine, and a port")
    return findings.ok(subject, f"{name} is free")


def _check_metrics_address(settings: Settings) -> Finding:
    """Bind the operators' address, and let it go. It may be in use by the server that is to be restarted."""
    subject, name = "metrics address", f"{settings.metrics_host}:{settings.metrics_port}"
    hosts = {settings.host, settings.metrics_host}
    if settings.port == settings.metrics_port and (len(hosts) == 1 or hosts & EVERY_ADDRESS):
        return findings.error(subject, f"{name} is the address of readers, too", "choose another --metrics-port")
    try:
        _bind(settings.metrics_host, settings.metrics_port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            do = "if a server that you restart is not what uses it, choose another --metrics-port"
            return findings.warning(subject, f"{name}: {error.strerror}", do)
        do = "choose an address of this machine for --metrics-host, and a port"
        return findings.error(subject, f"{name}: {error.strerror}", do)
    return findings.ok(subject, f"{name} is free")


def _bind(host: str, port: int) -> None:
    """Raises OSError where nobody can listen on an address now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    socket.create_server((host, port), family=family).close()


async def _check_path(path: str) -> Finding:
    if not Path(path).parent.is_dir():
        return findings.error("address", f"{path}: its folder is missing", f"mkdir {Path(path).parent}")
    if not Path(path).exists():
        return findings.ok("address", f"{path} is free")
    return await _check_running(path, Settings(host=f"unix:{path}"))


async def _check_running(name: str, settings: Settings) -> Finding:
    """Ask the server that runs on the address."""
    answer = await _ask_ready(settings)
    status = answer[9:12].decode("latin-1")
    if status == "200":
        return findings.ok("address", f"{name} is in use by a server that is ready, as before a restart")
    body = answer.partition(b"\r\n\r\n")[2].decode(errors="replace").strip()
    if status == "503":
        return findings.error("address", f"a server runs on {name}, and is not ready: {body}", "read its log")
    do = "stop what runs there (`ss -ltnp` lists it), or choose another port"
    return findings.error("address", f"{name} is in use, and /readyz does not answer as this server does", do)


async def _ask_ready(settings: Settings) -> bytes:
    """The answer to `GET /readyz`; as much of it as came where there is none in time."""
    path = unix_path(settings.host)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(PROBE_LIMIT):
            opening = asyncio.open_unix_connection(path) if path else asyncio.open_connection(host, settings.port)
            reader, writer = await opening
            try:
                writer.write(READY)
                return await _read(reader)
            finally:
                writer.close()
    return b""


async def _read(reader: asyncio.StreamReader) -> bytes:
    answer = b""
    while len(answer) < PROBE_BYTES and (part := await reader.read(PROBE_BYTES)):
        answer += part
    return answer


# --- the store


async def _external(settings: Settings) -> AsyncIterator[Finding]:
    try:
        store = Store(settings.redis, partitions=settings.partitions, replicas=settings.replicas)
    except ValueError as error:
        yield findings.error(f"store {hide_secrets(settings.redis)}", str(error))
        return
    try:
        async for finding in checks.examine_store(store, settings, writes=False, is_shared=True):
            yield finding
    finally:
        await store.close()


async def _embedded(settings: Settings) -> AsyncIterator[Finding]:
    """Look at the data folder; where its store runs, try that as a start does."""
    data = Path(settings.data)
    folder = checks.check_folder(data, make=False)
    yield folder
    if folder.level is findings.Level.ERROR or not data.exists():
        return
    if not settings.key:
        yield checks.check_local_key(data)
    for finding in _log_and_disk(data):
        yield finding
    try:
        is_running = await _is_running(data)
    except CannotStart as error:
        yield _refused("--data (PUSHSERVER_DATA)", error)
        return
    if is_running:
        yield findings.ok(
            "data folder", f"{data} is in use by a server, which has to end before another one starts on it"
        )
        async for finding in _running(data, settings.partitions):
            yield finding


def _log_and_disk(data: Path) -> Iterator[Finding]:
    """Look at the files of the embedded store, and at the space that is free for them."""
    try:
        folder = DataFolder(data)
        folder.check_log(accept_empty=False)
        condition = folder.condition(Condition.SOUND)
    except CannotStart as error:
        yield _refused("embedded store", error)
        return
    except OSError as error:
        yield findings.error("embedded store", f"{data} cannot be read: {error.strerror}")
        return
    says = f"{folder.free() >> 20} MiB free, reserve {folder.reserve() >> 20} MiB"
    if condition == Condition.SOUND:
        yield findings.ok("disk", says)
    else:
        yield findings.warning("disk", f"{CONDITIONS[condition]} ({says})", "make room on the disk of the data folder")


async def _is_running(data: Path) -> bool:
    with reachable(data.absolute() / SOCKET) as path, suppress(OSError):
        _, writer = await asyncio.open_unix_connection(path)
        writer.close()
        return True
    return False


async def _running(data: Path, partitions: int) -> AsyncIterator[Finding]:
    """Try the embedded store that runs; nothing is written to one whose disk is full, which would end on it."""
    with reachable(data.absolute() / SOCKET) as path, shared() as condition:
        with suppress(OSError):
            condition.set(DataFolder(data).condition(Condition.SOUND))
        own = Settings(redis=socket_url(path), partitions=partitions)
        store = Store(own.redis, partitions=partitions, condition=condition)
        try:
            async for finding in checks.examine_store(store, own, writes=False, is_shared=False):
                yield finding
        finally:
            await store.close()
