"""Probes of a worker: it is alive while it answers, and ready while it can do its work.

A store that is away makes a worker not ready, never dead: to restart it would only cut its readers off.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .. import metrics
from ..live.hub import Hub
from ..live.receipts import Receipts
from ..log_throttle import Trouble
from ..store.condition import Condition
from ..store.connection import within
from ..store.log import Log
from ..store.store import StoreError, StoreUnfit
from ..surfaces import heads

logger = logging.getLogger(__name__)

PROBES = ("/livez", "/readyz", "/readyz/read")  # which balancers ask, also by HEAD and OPTIONS, and without a limit
ASKED_EVERY = 2.0  # seconds
STALE_AFTER = 10.0  # seconds without an answer from the store
READ_LIMIT = heads.LIMIT  # seconds: a store that takes longer to read is away for page loads
READY_LIMIT = 5.0  # seconds that a worker's start waits for its checks
READY_LOOK = 0.01  # seconds between two looks
# Why a worker is not ready, by the check that does not pass.
REASONS = {
    "store": "the last check of the store failed, or it has not answered for 10 s",
    "fast": "a check of the store takes longer than --slow-store",
    "folder": "the data folder of the embedded store is gone or was replaced",
    "replicas": "fewer replicas than --replicas acknowledged the last write",
    "tail": "the events of a followed stream are not read",
    "receipts": "the connection over which workers exchange receipts of delivery is not open",
    "room": "the worker has as many readers as it accepts (--readers)",
    "files": "the worker has as many files open as it may",
    "staying": "the worker is about to stop",
    "pages": "the store has been away for longer than --stale-pages",
}
_NO_STORE = {"Cache-Control": "no-store"}


class Health:
    """Health asks the store regularly and keeps the result for the probes, which never wait for the store.

    `stale_pages` are the seconds for which pages are served without it, `slow_store` the milliseconds that a check of
    it may take, 0 for any. From descriptor `last_file` on a new connection is refused.
    """

    def __init__(
        self,
        log: Log,
        hub: Hub,
        receipts: Receipts,
        *,
        stale_pages: float,
        slow_store: int = 0,
        last_file: int | None = None,
    ) -> None:
        self._log = log
        self._store = log.store
        self._hub = hub
        self._receipts = receipts
        self._stale_pages = stale_pages
        self._slow = slow_store / 1_000 or float("inf")
        self._last_file = last_file
        self._answered_at = self._read_at = float("-inf")
        self._is_read = False  # whether it could be read when it was tried last
        self._trouble = Trouble(logger, "store check passes again")
        self._slowness = Trouble(logger, "the store is fast again")
        self._asked_at: float | None = None  # while a check of the store is under way
        self._took = 0.0  # seconds, of the last one

    async def run(self) -> None:
        """Read from the store and ping it, every 2 seconds, until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            await self._try_read()
            began = self._asked_at = clock()
            try:
                await self._store.ping()
                self._answered_at = clock()
                self._trouble.over()
            except (StoreError, StoreUnfit) as error:
                self._trouble.failed("store check failed: %s", error, reason=error)
                self._answered_at = float("-inf")
            self._asked_at, self._took = None, clock() - began
            if self._took >= self._slow:
                self._slowness.failed("store slow: a check took %.1f s, more than --slow-store", self._took)
            else:
                self._slowness.over()
            await asyncio.sleep(ASKED_EVERY)

    async def _try_read(self) -> None:
        """Note whether the store is read as page loads read it: it may refuse writes, or be slow, and answer reads."""
        try:
            await within(self._log.try_read(), READ_LIMIT)
        except StoreError:
            self._is_read = False  # the check that follows logs what is wrong with the store
        else:
            self._is_read, self._read_at = True, asyncio.get_running_loop().time()

    def _is_fast(self) -> bool:
        """Whether the last check of the store was quick, and the one under way has not waited for long either."""
        waited = 0.0 if self._asked_at is None else asyncio.get_running_loop().time() - self._asked_at
        return max(waited, self._took) < self._slow

    def _has_files(self) -> bool:
        """Whether a new connection would get a descriptor below that from which on it is refused."""
        if self._last_file is None:
            return True
        try:
            lowest = os.dup(2)
        except OSError:
            return False
        os.close(lowest)
        return lowest < self._last_file

    async def wait_until_ready(self) -> None:
        """Wait until every check passes, at most READY_LIMIT seconds: a worker that is not ready serves what it can."""
        with suppress(TimeoutError):
            async with asyncio.timeout(READY_LIMIT):
                while not all(self.checks().values()):
                    await asyncio.sleep(READY_LOOK)

    def checks(self) -> dict[str, bool]:
        """The checks that readiness needs, by name."""
        age = asyncio.get_running_loop().time() - self._answered_at
        return {
            "store": age < STALE_AFTER,
            "fast": self._is_fast(),
            "folder": self._store.condition.get() != Condition.FOLDER_LOST,
            "replicas": self._store.has_replicas(),
            "tail": self._hub.is_sound(),
            "receipts": self._receipts.open,
            "room": self._hub.has_room,
            "files": self._has_files(),
            "staying": not self._hub.draining,
        }

    def reading_checks(self) -> dict[str, bool]:
        """The checks that page loads need, by name. While the store is away, pages come from memory for a while."""
        at = asyncio.get_running_loop().time()
        age = at - self._read_at
        pages = age < self._stale_pages or (self._is_read and age < STALE_AFTER)
        return {"pages": pages, "staying": not self._hub.draining}

    def measure(self) -> None:
        """Set the metrics of the checks, and of the store."""
        checks = self.checks()
        for name, passes in checks.items():
            metrics.CHECK.set(passes, name)
        metrics.STORE_UP.set(checks["store"])
        for condition in Condition:
            metrics.CONDITION.set(condition is self._store.condition.get(), condition.name.lower())

    def publishes(self) -> bool:
        """Whether there is room on the disk for new entries. A worker that has none is ready all the same: to read."""
        return self._store.condition.get() == Condition.SOUND


class HealthRoutes:
    """Handlers of probes."""

    def __init__(self, health: Health) -> None:
        self._health = health

    async def livez(self, request: Request) -> Response:
        """`GET /livez`: 200, which a worker that hangs does not answer."""
        return JSONResponse({"live": True}, headers=_NO_STORE)

    async def readyz(self, request: Request) -> Response:
        """`GET /readyz`: 200 if every check of the worker passes, else 503. `publishing` is no check."""
        return _answer(self._health.checks(), publishing=self._health.publishes())

    async def readyz_read(self, request: Request) -> Response:
        """`GET /readyz/read`: 200 while the worker answers page loads and stays, else 503."""
        return _answer(self._health.reading_checks())


def _answer(checks: Mapping[str, bool], **more: bool) -> Response:
    reasons = [REASONS[name] for name, passes in checks.items() if not passes]
    body = {"ready": not reasons, "reasons": reasons, **checks, **more}
    return JSONResponse(body, 503 if reasons else 200, _NO_STORE)
