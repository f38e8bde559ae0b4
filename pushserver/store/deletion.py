"""Deletions take streams out of the store. A mark stays for a time, while which nothing is stored under the name."""

from __future__ import annotations

from typing import Any

import redis.asyncio as aioredis
from redis.exceptions import ResponseError

from .. import model
from ..errors import Unavailable
from ..model import Deletion
from .connection import within
from .log import MARK, Log, script
from .store import Durability

GONE = 30 * 86_400  # seconds for which the mark of a deletion stands, by default
SWEPT = 1_000  # keys of the store that one step looks at for idempotency keys
# The keys of a stream, the page and the log first, as delete.lua wants them. The idempotency keys have no text: they go
# after these, and would expire by themselves.
NAMES = ("page", "log", "entries", "order", "withdrawn", "gone", "history")


class Deletions:
    """Deletions removes streams from the store of a log. Each mark stands for `gone` seconds."""

    def __init__(self, log: Log, *, gone: int = GONE) -> None:
        self._log = log
        self._gone = gone
        self._delete = aioredis.Redis().register_script(script("delete"))  # never connected, as those of the log

    async def delete(self, stream: str, *, unchanged_since: int | None = None) -> tuple[Deletion, Durability] | None:
        """Remove a stream; its mark, and how durable that is. None for no such stream.

        With `unchanged_since`, in milliseconds since 1970, only a stream that has ended and has not changed since then
        is removed. A deletion that was cut short is completed by another call. Raises Unavailable, StoreError.
        """
        self._log.store.condition.check("stream.delete")
        keys = [self._log.key(stream, MARK), f"{self._log.tag(stream)}:streams"]
        keys += [self._log.key(stream, name) for name in NAMES]
        limit = "" if unchanged_since is None else unchanged_since
        arguments: list[Any] = [stream, model.instant(model.now()), self._gone, limit]
        try:
            answer, durability = await self._log.store.keep(
                keys[0], lambda redis: self._delete(keys, arguments, client=redis)
            )
        except ResponseError as error:
            raise Unavailable("The store takes no writes; nothing was deleted. Retry later.") from error
        if answer[0] != b"deleted":
            return None
        await self._sweep(stream)
        return Deletion.parse(answer[1]), durability

    async def _sweep(self, stream: str) -> None:
        """Remove the idempotency keys, in steps that hold the store for a moment each."""
        node = await self._log.store.node(self._log.tag(stream))
        pattern, cursor = self._log.key(stream, "idem:*"), 0
        while True:
            cursor, keys = await within(node.redis.scan(cursor, match=pattern, count=SWEPT))
            if keys:
                await within(node.redis.unlink(*keys))
            if not int(cursor):
                return

    async def forget(self, stream: str) -> None:
        """Remove the mark: from now on the name is as one that never was. Raises StoreError."""
        key = self._log.key(stream, MARK)
        await self._log.store.keep(key, lambda redis: redis.unlink(key))

    async def ended(self, partition: int, before: int, *, start: int, count: int) -> list[str]:
        """Up to `count` streams of a partition that did not change after an instant, from place `start` on.

        Those that changed longest ago come first; `delete` verifies that they have ended. Raises StoreError.
        """
        key = f"{model.tag(partition)}:streams"
        names: Any = await self._log.store.call(
            key, lambda redis: redis.zrangebyscore(key, "-inf", before, start=start, num=count)
        )
        return [name.decode() for name in names]
