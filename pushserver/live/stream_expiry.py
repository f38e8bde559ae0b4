"""Ended streams expire: a worker looks for those that did not change for a time, and deletes them as a request would.

Every worker looks, at its own pace: a deletion that another one made first changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random

from .. import model
from ..errors import Unavailable
from ..store.deletion import Deletions
from ..store.store import StoreError
from .receipts import Receipts

logger = logging.getLogger(__name__)

LOOKED_EVERY = 60.0  # seconds between two looks, give or take a half
AT_ONCE = 100  # streams of a partition that one look considers
WAIT = 5.0  # seconds for the workers to close the readers


class Expiry:
    """Expiry deletes streams that ended, `after` seconds after their last change. `run` is its only task."""

    def __init__(self, deletions: Deletions, receipts: Receipts, *, partitions: int, after: int) -> None:
        self._deletions = deletions
        self._receipts = receipts
        self._after_ms = after * 1_000
        self._starts = [0] * partitions  # the place from which a look goes on: streams that have not ended stay

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOKED_EVERY * random.uniform(0.5, 1.5))
            try:
                await self.look()
            except (StoreError, Unavailable) as error:
                logger.warning("ended streams are not deleted now: %s; retried within %.0f s", error, 2 * LOOKED_EVERY)

    async def look(self) -> None:
        """Delete the streams whose time is over, AT_ONCE of each partition. Raises StoreError, Unavailable."""
        before = model.now() - self._after_ms
        for partition, start in enumerate(self._starts):
            names = await self._deletions.ended(partition, before, start=start, count=AT_ONCE)
            deleted = [await self._delete(name, before) for name in names]
            is_last = len(names) < AT_ONCE
            self._starts[partition] = 0 if is_last else start + deleted.count(False)

    async def _delete(self, stream: str, before: int) -> bool:
        outcome = await self._deletions.delete(stream, unchanged_since=before)
        if outcome is not None:
            logger.info("stream %s: deleted, as it has ended", stream)
            await self._receipts.deleted(stream, outcome[0].epoch, wait=WAIT)
        return outcome is not None
