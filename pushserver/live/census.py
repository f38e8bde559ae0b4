"""A census counts the readers of each stream on all workers: each worker writes its own figures once a heartbeat.

No clock of another machine is believed: the last figures of a worker count for two heartbeats of the one that reads
them. They come with a number that grows, so that figures that stay the same are seen to be new.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections import Counter
from collections.abc import Mapping

from ..log_throttle import Trouble
from ..store.store import Store, StoreError

logger = logging.getLogger(__name__)

KEY = "pushserver:readers"  # a hash in the store: the figures of each worker
STREAMS = 1_000  # of a worker: those that most read are counted
WAIT = 0.5  # seconds that a heartbeat waits for the store
COUNTED = 2  # heartbeats for which the last figures of a worker count
REMOVED = 20  # heartbeats after which the figures of a worker that is gone are removed from the store


class Census:
    """Census is the figures of all workers, as of this worker's last heartbeat."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._name = secrets.token_hex(6).encode()
        self._beat = 0
        self._figures: dict[bytes, tuple[int, bytes]] = {}  # of other workers, behind the beat at which they came
        self._others: Counter[str] = Counter()  # readers on other workers, by stream
        self._trouble = Trouble(logger, "the readers of other workers are counted again")

    def readers(self, stream: str, own: int) -> int:
        """The readers of a stream, of which this worker has `own`."""
        return own + self._others[stream]

    async def take(self, own: Mapping[str, int]) -> None:
        """Write this worker's figures, and read those of the others. Where the store is slow, the last ones age."""
        self._beat += 1
        figures = json.dumps([self._beat, dict(Counter(own).most_common(STREAMS))])
        try:
            async with asyncio.timeout(WAIT):
                rows = await self._store.exchange(KEY, self._name, figures.encode())
                self._figures = {name: self._dated(name, row) for name, row in rows.items() if name != self._name}
                if gone := [name for name, (beat, _) in self._figures.items() if self._beat - beat > REMOVED]:
                    await self._store.call(KEY, lambda redis: redis.hdel(KEY, *gone))
        except (StoreError, TimeoutError) as error:
            says = str(error) or f"no answer within {WAIT} s"
            self._trouble.failed("the readers of other workers are not counted anew: %s", says)
        else:
            self._trouble.over()
        self._count()

    def _count(self) -> None:
        self._others = Counter()
        for beat, row in self._figures.values():
            if self._beat - beat < COUNTED:
                self._others.update(json.loads(row)[1])

    def _dated(self, name: bytes, row: bytes) -> tuple[int, bytes]:
        """Figures behind the beat at which they came."""
        before = self._figures.get(name)
        return before if before and before[1] == row else (self._beat, row)
