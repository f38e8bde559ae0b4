"""The workers of a server: one in each place, restarted one by one, and stopped together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from ..live.drain import HURRIED, longest, longest_leaving
from ..settings import Settings
from ..store.folder import CannotStart
from .channel import Word
from .cluster import WorkerCluster
from .listener import Listeners
from .process import WorkerProcess
from .signals import Signals
from .worker_place import KILL_AFTER, TRIES, WorkerPlace

logger = logging.getLogger(__name__)

TICK = 1.0  # seconds
REPORTED = 1.0  # seconds for a worker to say that its readers have left; those of one that hangs hold up no other
CUT_OFF = 1  # the exit status of a server whose drain was cut off


class Workers:
    """Workers is the worker processes of a server. `status` is the exit status that they leave it.

    `cluster` shows them to the operator. `read_anew` makes the settings of a restart from those of now: with the files
    read again that they name.
    """

    def __init__(
        self,
        settings: Settings,
        listeners: Listeners,
        condition: int,
        signals: Signals,
        read_anew: Callable[[Settings], Settings],
        cluster: WorkerCluster,
    ) -> None:
        self.status = 0
        self._settings = settings
        self._listeners = listeners
        self._condition = condition
        self._signals = signals
        self._read_anew = read_anew
        self._cluster = cluster
        self._processes: set[WorkerProcess] = set()
        self._places = [
            WorkerPlace(
                listeners,
                start=partial(self._start, number),
                failed=self._failed,
                forget=self._forget,
                other=partial(self._worker_beside, number),
                window=settings.drain_window,
            )
            for number in range(1, settings.workers + 1)
        ]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the workers; at the end, drain and stop them all."""
        try:
            async with asyncio.TaskGroup() as tasks:
                work = [place.keep() for place in self._places] + [self._tick(), self._restart()]
                running = [tasks.create_task(each) for each in work]
                yield
                for task in running:
                    task.cancel()
        finally:
            await self._stop()

    async def _start(self, place: int) -> WorkerProcess:
        worker = await WorkerProcess.start(self._settings, self._condition, place=place, take=self._cluster.take)
        self._processes.add(worker)
        self._cluster.join(worker)
        return worker

    def _worker_beside(self, number: int) -> WorkerProcess | None:
        """A worker that accepts, of another place than this one."""
        workers = [place.worker for place in self._places if place.worker is not None]
        return next((each for each in workers if each.place != number and not each.ended.done()), None)

    def _forget(self, worker: WorkerProcess) -> None:
        """Let go of a worker that has ended."""
        self._processes.discard(worker)
        worker.close()
        self._cluster.forget(worker)

    def _failed(self, status: int, tries: int) -> None:
        """Log that a worker did not become ready; stop a server on which none serves, if more tries cannot help."""
        from uvicorn.config import STARTUP_FAILURE  # noqa: PLC0415 - a supervisor needs it here alone

        logger.error("a worker did not become ready: it ended with status %s, try %d of %d", status, tries, TRIES)
        if any(place.worker for place in self._places) or (status != STARTUP_FAILURE and tries < TRIES):
            return
        logger.error("no worker becomes ready; stopping the server")
        self.status = STARTUP_FAILURE
        self._signals.stop.set()

    async def _tick(self) -> None:
        """Have each worker give signs of life."""
        while True:
            await asyncio.sleep(TICK)
            for worker in tuple(self._processes):
                worker.tick(self._settings.hung)
            self._cluster.tick()

    async def _restart(self) -> None:
        """Replace the workers one after the other, each time that a signal asks for it."""
        while True:
            await self._signals.restart.wait()
            self._signals.restart.clear()
            try:
                self._settings = self._read_anew(self._settings)
            except (CannotStart, OSError) as error:
                logger.error("not restarted, the workers go on as they are: %s", error)
                continue
            logger.info("restarting the workers, one after the other")
            for place in self._places:
                if not await place.renew():
                    logger.error(
                        "a new worker did not become ready (see above); the workers that are not replaced yet go on "
                        "with their old files"
                    )
                    break
            else:
                logger.info("all workers have been restarted")

    # --- the end

    async def _stop(self) -> None:
        """Drain all workers and wait until they have ended."""
        word = Word.STOP_NOW if self._signals.from_terminal else Word.STOP
        for place in self._places:
            place.end_with_worker()
        for worker in self._processes:
            if worker.ready.is_set():
                worker.say(word)
            else:
                worker.kill()  # it has nobody to send away, and might be given connections
        helpers = [asyncio.create_task(step) for step in (self._close(), self._hurry(), self._cut())]
        try:
            limit = longest(self._settings.drain_delay, self._settings.drain_window) + KILL_AFTER
            await asyncio.gather(*(worker.until_ended(limit) for worker in self._processes))
        finally:
            for helper in helpers:
                helper.cancel()
            for place in self._places:
                place.close()
            for worker in tuple(self._processes):
                self._forget(worker)

    async def _close(self) -> None:
        """Refuse new connections once the readers of all workers have left, at one instant for all listeners.

        Of those that share an address, the kernel gives connections to each one until it is closed, and resets the ones
        whose handshake is under way then.
        """
        limit = longest_leaving(self._settings.drain_delay, self._settings.drain_window) + REPORTED
        await asyncio.gather(*(worker.until_left(limit) for worker in self._processes))
        for place in self._places:
            place.refuse()
        word = Word.REPLACED if self._listeners.is_passed else Word.CLOSE  # by the next server, which accepts the rest
        for worker in self._processes:
            worker.say(word)

    async def _hurry(self) -> None:
        await self._signals.hurry.wait()
        logger.info(
            "a second signal: all readers are sent away at once; they have %.1f s to leave, and requests %.1f s to end",
            *(HURRIED, HURRIED),
        )
        for worker in self._processes:
            worker.say(Word.HURRY)

    async def _cut(self) -> None:
        await self._signals.cut.wait()
        logger.warning("a third signal: the workers are cut off")
        self.status = CUT_OFF
        for worker in self._processes:
            worker.kill()
