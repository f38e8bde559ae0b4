"""The histories of a stream's entries, as the store has them."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, cast

import redis.asyncio as aioredis
from redis.exceptions import ResponseError

from ..errors import Unavailable, deleted
from ..model import Deletion
from .log import MARK, Log, script


class Histories:
    """Histories reads and restores which publish keys made the revisions of entries, as rows of text."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._restore = aioredis.Redis().register_script(script("history"))  # never connected, as those of the log

    async def of(self, stream: str, ids: Sequence[str]) -> dict[str, bytes]:
        """The rows of each entry that has any. Raises StoreError."""
        if not ids:
            return {}
        key = self._log.key(stream, "history")
        rows: list[Any] = await self._log.store.call(
            key, lambda redis: cast(Awaitable[list[Any]], redis.hmget(key, list(ids)))
        )
        return {id: row for id, row in zip(ids, rows, strict=True) if row}

    async def restore(self, stream: str, id: str, rows: Sequence[str]) -> bool:
        """Store rows before those that an entry has; False where it has them already.

        Raises Deleted, Unavailable, StoreError.
        """
        if not rows:
            return False
        keys = [self._log.key(stream, name) for name in ("history", MARK)]
        arguments = [id, "\n".join(rows)]
        try:
            answer, _ = await self._log.store.keep(keys[0], lambda redis: self._restore(keys, arguments, client=redis))
        except ResponseError as error:
            raise Unavailable("The store takes no writes; the history was not stored. Retry later.") from error
        if answer[0] == b"deleted":
            raise deleted(stream, Deletion.parse(answer[1]).at)
        return bool(answer[0] == b"stored")
