"""A worker process, as its supervisor sees it."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Callable

from ..settings import Settings, worker_environment
from .channel import Channel, Word, channel_pair

logger = logging.getLogger(__name__)

Take = Callable[["WorkerProcess", bytes], object]


class WorkerProcess:
    """WorkerProcess is a worker and the supervisor's end of its channel. `ended` has its exit status at the end."""

    def __init__(self, process: Process, end: socket.socket, place: int, take: Take) -> None:
        self.pid = process.pid
        self.place = place
        self.ready = asyncio.Event()
        self.is_sent_away = False
        self.leaving = asyncio.Event()  # it drains by itself
        self.left = asyncio.Event()  # its readers have left
        self.ended = asyncio.create_task(process.wait())
        self._process = process
        self._channel = Channel(end, self._hear, lambda summary: take(self, summary))
        self._silent = 0  # ticks since it last was alive
        self.started_at = asyncio.get_running_loop().time()

    @classmethod
    async def start(
        cls, settings: Settings, condition: int, *, place: int = 1, take: Take = lambda worker, summary: None
    ) -> WorkerProcess:
        """Start a worker; `condition` is a file descriptor that it inherits. `take` is called with its summaries."""
        own, its = channel_pair()
        with its:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "pushserver", "worker", str(its.fileno()), str(condition)),
                env=worker_environment(settings),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[its.fileno(), condition],
                # Ctrl-C in a terminal must reach the supervisor alone: workers that it stopped at once would not drain.
                start_new_session=True,
            )
        return cls(process, own, place, take)

    @property
    def state(self) -> str:
        """`starting`, `serving`, or `leaving` where it was sent away or leaves by itself."""
        if not self.ready.is_set():
            return "starting"
        return "leaving" if self.is_sent_away or self.leaving.is_set() else "serving"

    def listen(self, listener: socket.socket) -> None:
        """Give it a listener, from which it accepts from now on."""
        self._channel.say(Word.LISTEN, listener)

    def adopt(self, listener: socket.socket) -> None:
        """Have it accept what waits in the listener of a worker that has died, and close it."""
        self._channel.say(Word.ADOPT, listener)

    def say(self, word: Word) -> None:
        """Send it a word."""
        self.is_sent_away = True  # each of them has it leave
        self._channel.say(word)

    def kill(self) -> None:
        """kill -9; once it has ended, nothing."""
        if self._process.returncode is None:
            self._process.kill()

    def tick(self, most: int) -> None:
        """Note that time passes; kill a worker that gave no sign of life for so many ticks. Of 0, there is no end.

        A machine that slept passes no ticks, so that nobody is killed when it wakes.
        """
        if not self.ready.is_set() or not most:
            return
        self._silent += 1
        if self._silent > most:
            logger.error("worker %s gave no sign of life for %d s; it is killed and replaced", self.pid, most)
            self.kill()

    async def until_ready(self, limit: float) -> bool:
        """Wait until it is ready; False where it ends before, or is not within so many seconds, and was killed."""
        await self._until(self.ready, limit)
        if not self.ready.is_set():
            self.kill()
            await self.ended
        return self.ready.is_set()

    async def until_left(self, limit: float) -> None:
        """Wait until its readers have left, it has ended, or so many seconds have passed."""
        await self._until(self.left, limit)

    async def until_ended(self, limit: float) -> bool:
        """Wait until it has ended; False where it did not within so many seconds, and was killed."""
        await asyncio.wait([self.ended], timeout=limit)
        in_time = self.ended.done()
        if not in_time:
            logger.error("worker %s did not stop in time and was killed", self.pid)
            self.kill()
        await self.ended
        return in_time

    def close(self) -> None:
        """Let go of its channel, after what is left in it."""
        self._channel.read_rest()
        self._channel.close()

    async def _until(self, event: asyncio.Event, limit: float) -> None:
        """Wait for an event of its life, which may end before."""
        happening = asyncio.create_task(event.wait())
        try:
            await asyncio.wait([happening, self.ended], timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        finally:
            happening.cancel()

    def _hear(self, word: Word | None) -> None:
        if word is Word.READY:
            self.ready.set()
        elif word is Word.LEAVING:
            self.leaving.set()
        elif word is Word.LEFT:
            self.left.set()
        self._silent = 0
