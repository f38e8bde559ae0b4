"""Locks of a data folder: one server, and one store, may run on it.

The server alone locks `server.lock`. The store inherits the lock on `valkey.lock`: while a store runs, even one whose
server was killed, no second one can start on the same files. Such an orphan is stopped.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from .folder import SERVER_LOCK, STORE_LOCK, CannotStart

logger = logging.getLogger(__name__)

TERM_LIMIT, KILL_LIMIT = 10.0, 60.0  # seconds until an orphan that was sent the signal has ended


@asynccontextmanager
async def locked(data: Path) -> AsyncIterator[int]:
    """Lock a data folder for a server and its store; yield the lock that the store is to inherit.

    Raises CannotStart where another server runs on the folder, or a store on it does not end.
    """
    server_lock = _lock(data / SERVER_LOCK)
    if server_lock is None:
        raise CannotStart(f"another server runs on {data}; stop it, or choose another folder with --data")
    try:
        store_lock = await _store_lock(data)
        try:
            yield store_lock
        finally:
            os.close(store_lock)
    finally:
        os.close(server_lock)


def _lock(path: Path) -> int | None:
    """Lock a file; None where another process has locked it. It is unlocked when no process has the descriptor open."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


async def _store_lock(data: Path) -> int:
    """Lock `valkey.lock`, ending the store that a killed server left. Raises CannotStart where that does not end."""
    path = data / STORE_LOCK
    loop = asyncio.get_running_loop()
    for number, patience in ((signal.SIGTERM, TERM_LIMIT), (signal.SIGKILL, KILL_LIMIT)):
        deadline = loop.time() + patience
        signalled: set[int] = set()
        while loop.time() < deadline:
            lock = _lock(path)
            if lock is not None:
                return lock
            for pid in _holders(data, path) - signalled:
                logger.warning("orphaned embedded store, pid %s: ending it with signal %s", pid, number)
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
                signalled.add(pid)
            await asyncio.sleep(0.02)
    pids = ", ".join(f"pid {pid}" for pid in sorted(_holders(data, path))) or f"`fuser {path}` as root names it"
    raise CannotStart(
        f"expected a free lock {path}, got one that the store of a killed server has; that store ({pids}) did not end "
        f"within {TERM_LIMIT + KILL_LIMIT:.0f} s: end it, then start again"
    )


def _holders(data: Path, path: Path) -> set[int]:
    """The pids of the processes that have the store's lock open: only a store inherits it.

    The pid file is believed only where there is no /proc to look into: it may be of a store before, whose pid is
    another process's by now.
    """
    if not Path("/proc/self/fd").exists():
        return {int((data / "valkey.pid").read_text())}
    processes = (int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal())
    return {pid for pid in processes if _has_open(pid, path)}


def _has_open(pid: int, path: Path) -> bool:
    try:
        descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
        return any(os.path.realpath(descriptor) == os.path.realpath(path) for descriptor in descriptors)
    except OSError:  # it has ended, or is another user's
        return False
