"""Is this worker alive, and can it do its work? Two questions: a store that is away makes it not ready, never dead."""

from __future__ import annotations

import asyncio
import logging

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .. import metrics
from ..live.hub import Hub
from ..live.receipts import Receipts
from ..store.store import Store, StoreError, StoreUnfit

logger = logging.getLogger(__name__)

ASKED_EVERY = 2.0  # seconds
STALE_AFTER = 10.0  # seconds without an answer from the store


class Health:
    """What is known of the store and the tails. The probes read it; they never wait for the store themselves."""

    def __init__(self, store: Store, hub: Hub, receipts: Receipts) -> None:
        self._store = store
        self._hub = hub
        self._receipts = receipts
        self._answered_at = float("-inf")

    async def run(self) -> None:
        """Ask the store again and again, until cancelled."""
        while True:
            try:
                await self._store.ping()
                self._answered_at = asyncio.get_running_loop().time()
            except (StoreError, StoreUnfit) as error:
                logger.warning("the store is not to be relied on: %s", error)
                self._answered_at = float("-inf")
            await asyncio.sleep(ASKED_EVERY)

    def checks(self) -> dict[str, bool]:
        """What readiness is made of."""
        age = asyncio.get_running_loop().time() - self._answered_at
        return {
            "store": age < STALE_AFTER,
            "replicas": self._store.has_replicas(),
            "tail": self._hub.is_sound(),
            "receipts": self._receipts.open,
            "staying": not self._hub.draining,
        }


async def exposed(request: Request) -> Response:
    """`GET /metrics`: what the workers count."""
    return Response(metrics.exposition(), headers={"Cache-Control": "no-store"}, media_type=metrics.CONTENT_TYPE)


async def livez(request: Request) -> Response:
    """`GET /livez`: the loop turns."""
    return JSONResponse({"live": True}, headers={"Cache-Control": "no-store"})


async def readyz(request: Request) -> Response:
    """`GET /readyz`: 200 while all that readiness is made of is so; else 503."""
    checks = request.app.state.health.checks()
    ready = all(checks.values())
    return JSONResponse({"ready": ready, **checks}, 200 if ready else 503, {"Cache-Control": "no-store"})
