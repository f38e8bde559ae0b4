"""An event loop without sockets, threads or a clock: time is what the next timer says, and chance is the seed's.

Of the callbacks that are ready any may be next: they belong to several processes. Whose a callback is, its context
says; of a process that is frozen or killed none runs, from one callback to the next.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from typing import Any
from unittest.mock import patch

BEGIN_MS = 1_700_000_000_000  # when every run begins, in milliseconds since 1970
CALL = 0.0002  # seconds that a callback takes, at most
GLANCE = 0.00005  # seconds between two looks at the clock, at most
STEPS = 100_000  # callbacks of a run, at most


class Process:
    """Something that can be frozen and killed: whatever is started in its context."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.frozen = False
        self.context = Context()
        self.context.run(_PROCESS.set, self)

    def __repr__(self) -> str:
        return self.name


_PROCESS: ContextVar[Process] = ContextVar("process")


def running() -> str:
    """Whose callback is running."""
    process = _PROCESS.get(None)
    return process.name if process else "outside"


LATER = Context()  # of callbacks that belong to no process


class Stuck(Exception):
    """Nothing is left that could happen, or it goes on without end."""


class Loop(asyncio.BaseEventLoop):
    """Runs one of the callbacks that are ready; when there is none, time goes on to the next timer."""

    _ready: deque[Any]  # handles; these two are asyncio's
    _scheduled: list[Any]

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance = chance
        self.errors: list[str] = []  # what nobody caught
        self._steps = 0
        self.at = 0.0  # seconds; to look at it here takes no time
        self._over = False
        self._held: list[asyncio.Handle] = []  # callbacks of processes that are frozen or dead
        self._tasks: list[asyncio.Task[Any]] = []  # kept: a task of the dead must not be collected, for that runs it
        self.set_exception_handler(self._note)
        self.set_task_factory(self._task)

    def time(self) -> float:
        self.at += self.chance.random() * GLANCE
        return self.at

    def ms(self) -> int:
        """Milliseconds since 1970."""
        return BEGIN_MS + int(self.at * 1000)

    def release(self) -> None:
        """Let the callbacks of processes that are not frozen any more run."""
        self._ready.extend(self._held)
        self._held.clear()

    def end(self) -> None:
        """Cancel whatever still goes on, in killed processes too, and close."""
        self._over, self._steps = True, 0
        self.release()
        while left := [task for task in self._tasks if not task.done()]:
            for task in left:
                task.cancel()
            self.run_until_complete(asyncio.wait(left, timeout=1))
        self.close()

    def _task(self, loop: asyncio.AbstractEventLoop, work: Any, context: Context | None = None) -> asyncio.Task[Any]:
        task = asyncio.Task(work, loop=loop, context=context)
        self._tasks.append(task)
        return task

    def _note(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.errors.append(f"{context['message']}: {context.get('exception')!r}")

    # What asyncio's own loop does in these, with a selector and a clock.

    def _run_once(self) -> None:
        self._steps += 1
        if self._steps > STEPS:
            raise Stuck(f"there is no end after {STEPS} callbacks")
        self._take_due()
        if not self._ready:
            return
        self._ready.rotate(-self.chance.randrange(len(self._ready)))
        handle = self._ready.popleft()
        if handle._cancelled:
            return
        process = handle._context.get(_PROCESS)
        if process is not None and not self._over and (process.frozen or not process.alive):
            self._held.append(handle)
            return
        self.at += self.chance.random() * CALL
        handle._run()

    def _take_due(self) -> None:
        """The callbacks whose time has come are ready; if nothing else is, the next one's time comes."""
        timers = self._scheduled
        while timers:
            timer = timers[0]
            if not timer._cancelled:
                if timer._when > self.at:
                    if self._ready:
                        return
                    self.at = timer._when
                self._ready.append(timer)
            heapq.heappop(timers)
            timer._scheduled = False
        if not self._ready:
            raise Stuck("nothing is left that could happen")

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is passed over when its time comes."""

    def _write_to_self(self) -> None:
        """There is no other thread that would have to wake it."""


@contextmanager
def simulated(seed: int) -> Iterator[Loop]:
    """A loop, and for as long as it is there the clock and the chance of the standard library are its own."""
    chance = random.Random(seed)
    loop = Loop(chance)
    state = random.getstate()
    random.seed(seed)
    try:
        with (
            patch("time.time_ns", lambda: loop.ms() * 1_000_000),
            patch("secrets.token_hex", lambda size: f"{chance.getrandbits(8 * size):0{2 * size}x}"),
            patch("secrets.randbits", chance.getrandbits),
        ):
            yield loop
    finally:
        try:
            loop.end()
        finally:
            random.setstate(state)
