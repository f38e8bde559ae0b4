"""Probes of a worker: it is alive while it answers, and ready while it can do its work.

A store that is away makes a worker not ready, never dead: to restart it would only cut its readers off.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .. import metrics
from ..live.hub import Hub
from ..live.receipts import Receipts
from ..store.condition import Condition
from ..store.store import Store, StoreError, StoreUnfit

logger = logging.getLogger(__name__)

ASKED_EVERY = 2.0  # seconds
STALE_AFTER = 10.0  # seconds without an answer from the store
READY_LIMIT = 5.0  # seconds that a worker's start waits for its checks
READY_LOOK = 0.01  # seconds between two looks
_NO_STORE = {"Cache-Control": "no-store"}


class Health:
    """Health asks the store regularly and keeps the result for the probes, which never wait for the store.

    `stale_pages` are the seconds for which pages are served without it.
    """

    def __init__(self, store: Store, hub: Hub, receipts: Receipts, *, stale_pages: float) -> None:
        self._store = store
        self._hub = hub
        self._receipts = receipts
        self._stale_pages = stale_pages
        self._answered_at = self._read_at = float("-inf")

    async def run(self) -> None:
        """Ping the store every 2 seconds, until cancelled."""
        while True:
            try:
                await self._store.ping()
                self._answered_at = self._read_at = asyncio.get_running_loop().time()
            except (StoreError, StoreUnfit) as error:
                logger.warning("store check failed: %s", error)
                self._answered_at = float("-inf")
            await asyncio.sleep(ASKED_EVERY)

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
            "folder": self._store.condition.get() != Condition.FOLDER_LOST,
            "replicas": self._store.has_replicas(),
            "tail": self._hub.is_sound(),
            "receipts": self._receipts.open,
            "staying": not self._hub.draining,
        }

    def reading_checks(self) -> dict[str, bool]:
        """The checks that page loads need, by name. While the store is away, pages come from memory for a while."""
        at = asyncio.get_running_loop().time()
        reads = at - self._answered_at < STALE_AFTER or at - self._read_at < self._stale_pages
        return {"pages": reads, "staying": not self._hub.draining}

    def publishes(self) -> bool:
        """Whether there is room on the disk for new entries. A worker that has none is ready all the same: to read."""
        return self._store.condition.get() == Condition.SOUND


class HealthRoutes:
    """Handlers of probes, and of the scrape of metrics."""

    def __init__(self, health: Health) -> None:
        self._health = health

    async def scrape(self, request: Request) -> Response:
        """`GET /metrics`: the metrics of every worker, in the text format of Prometheus."""
        return Response(metrics.exposition(), headers=_NO_STORE, media_type=metrics.CONTENT_TYPE)

    async def livez(self, request: Request) -> Response:
        """`GET /livez`: 200, which a worker that hangs does not answer."""
        return JSONResponse({"live": True}, headers=_NO_STORE)

    async def readyz(self, request: Request) -> Response:
        """`GET /readyz`: 200 if every check of the worker passes, else 503. `publishing` is no check."""
        checks = self._health.checks()
        ready = all(checks.values())
        return JSONResponse(
            {"ready": ready, **checks, "publishing": self._health.publishes()}, 200 if ready else 503, _NO_STORE
        )

    async def readyz_read(self, request: Request) -> Response:
        """`GET /readyz/read`: 200 while the worker answers page loads and stays, else 503."""
        checks = self._health.reading_checks()
        ready = all(checks.values())
        return JSONResponse({"ready": ready, **checks}, 200 if ready else 503, _NO_STORE)
