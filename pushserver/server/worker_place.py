"""A place is one of the N workers of a server: a listener, and the process that accepts from it, one after another.

    EMPTY --a worker is ready--> SERVED --it ends--> EMPTY          its successor starts at once, or after a back-off
                                   |
                                   '---it is to be replaced--> SERVED   its successor is ready before it leaves

When a place is empty again, the worker of another place accepts what waits in its listener, which is closed then: new
connections go to the other places. Where no other worker serves, connections wait for PLACE_OPEN seconds, and are
refused after them.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

from ..live.drain import longest
from .back_off import BackOff
from .channel import Word
from .listener import Listeners
from .process import WorkerProcess

logger = logging.getLogger(__name__)

PLACE_OPEN = 1.0  # seconds for which connections wait in a place that has no worker
START_LIMIT = 60.0  # seconds for a worker to become ready
TRIES = 5  # workers in a row that did not become ready, after which a server on which none serves ends
KILL_AFTER = 4.0  # seconds, beyond its drain, after which a worker that does not stop is killed


class WorkerPlace:
    """WorkerPlace keeps a worker on one listener. `start` starts a process, `forget` lets go of one that has ended.

    `failed` is called after each that does not become ready, with its exit status and how many there were in a row.
    `other` returns a worker of another place that serves, or None.
    """

    def __init__(
        self,
        listeners: Listeners,
        *,
        start: Callable[[], Awaitable[WorkerProcess]],
        failed: Callable[[int, int], None],
        forget: Callable[[WorkerProcess], None],
        other: Callable[[], WorkerProcess | None],
        window: float,
    ) -> None:
        self.worker: WorkerProcess | None = None  # the one that serves
        self._listeners = listeners
        self._listener: socket.socket | None = None  # until the first worker is ready: balancers ask other servers
        self._start = start
        self._failed = failed
        self._forget = forget
        self._other = other
        self._window = window
        self._back_off = BackOff()
        self._lived: float | None = None  # seconds, of the last worker; None before the first one
        self._tries = 0
        self._asked = asyncio.Event()
        self._renewals: list[asyncio.Future[bool]] = []
        self._leaving: set[asyncio.Task[None]] = set()

    async def keep(self) -> None:
        """Keep a worker in the place, until cancelled."""
        while True:
            if self.worker is None:
                self.worker = await self._fill()
            elif self.worker.ended.done():
                self._empty(self.worker)
            elif self.worker.leaving.is_set() or self._asked.is_set():
                await self._replace(self.worker)
            else:
                await self._until_changed(self.worker)

    async def renew(self) -> bool:
        """Replace the worker by a new one; return once it has left, False where the new one did not become ready."""
        renewal = asyncio.get_running_loop().create_future()
        self._renewals.append(renewal)
        self._asked.set()
        return bool(await renewal)

    def close(self) -> None:
        """Close the listener; the next worker gets another one."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def end_with_worker(self) -> None:
        """Have no successor start any more; where the worker dies, let another one accept what waits."""
        if self.worker is not None:
            self.worker.ended.add_done_callback(lambda _: self._hand_over())

    def refuse(self) -> None:
        """Refuse new connections; the worker accepts those that have begun."""
        if self._listener is not None:
            self._listeners.refuse(self._listener)

    async def _until_changed(self, worker: WorkerProcess) -> None:
        waits = [asyncio.create_task(event.wait()) for event in (worker.leaving, self._asked)]
        try:
            await asyncio.wait([worker.ended, *waits], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _empty(self, worker: WorkerProcess) -> None:
        """Note that the worker has ended."""
        self.worker = None
        status = worker.ended.result()
        self._forget(worker)
        if worker.leaving.is_set() and status == 0:
            logger.info("worker %s has stopped by itself; starting another", worker.pid)
        else:
            logger.error("worker %s ended with status %s; starting another", worker.pid, status)
        self._hand_over()
        self._lived = asyncio.get_running_loop().time() - worker.started_at

    def _hand_over(self) -> None:
        """Have another worker accept what waits in the listener; where there is none, let it wait."""
        other = self._other()
        if other is None or self._listener is None or self._listeners.is_one:
            asyncio.get_running_loop().call_later(PLACE_OPEN, self._close_if_empty)
            return
        other.adopt(self._listener)
        self.close()

    def _close_if_empty(self) -> None:
        if self.worker is None:
            self.close()

    async def _fill(self) -> WorkerProcess:
        """Start workers until one is ready."""
        while True:
            if self._lived is not None:
                await asyncio.sleep(self._back_off.next(self._lived))
            worker = await self._next()
            if worker is not None:
                return worker
            self._lived = 0.0

    async def _next(self) -> WorkerProcess | None:
        """Start a worker and give it the listener; None where it does not become ready."""
        worker = await self._start()
        if not await worker.until_ready(START_LIMIT):
            self._tries += 1
            self._forget(worker)
            self._failed(worker.ended.result(), self._tries)
            return None
        self._tries = 0
        if self._listener is None:
            self._listener = self._listeners.open()
        worker.listen(self._listener)
        return worker

    async def _replace(self, old: WorkerProcess) -> None:
        """Let a new worker accept, and send the old one away."""
        self._asked.clear()
        renewals, self._renewals = self._renewals, []
        worker = await self._next()
        if worker is None:
            _settle(renewals, ok=False)
            if old.leaving.is_set():
                await old.ended
            return
        logger.info("worker %s is replaced by worker %s", old.pid, worker.pid)
        self.worker = worker
        old.say(Word.REPLACED)
        task = asyncio.create_task(self._see_off(old, renewals))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _see_off(self, worker: WorkerProcess, renewals: list[asyncio.Future[bool]]) -> None:
        with suppress(asyncio.CancelledError):
            await worker.until_ended(longest(0.0, self._window) + KILL_AFTER)
            self._forget(worker)
            logger.info("worker %s has stopped", worker.pid)
        _settle(renewals, ok=True)


def _settle(renewals: list[asyncio.Future[bool]], *, ok: bool) -> None:
    for renewal in renewals:
        if not renewal.done():
            renewal.set_result(ok)
