"""Erasure removes the text of a withdrawn entry from the log's records, and from the files of an embedded store.

A withdrawal alone takes the text from whoever reads. It stays in the records of the log until these are trimmed, and in
the store's append-only file until that is rewritten.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable
from typing import Any, NamedTuple, cast

import redis.asyncio as aioredis
from redis.exceptions import ResponseError

from .. import model
from ..codec import dumps
from ..errors import Conflict, NotFound, Unavailable
from ..model import StoredWithdrawal
from .connection import Node, within
from .log import MARK, Log, script
from .records import withdrawal_data
from .store import STORE_ID, Durability

STEP_RECORDS, STEP_BYTES = 200, 262_144  # of one step, so that it holds the store for milliseconds
COPY_SECONDS = 60  # for which the copy of a log stays that nobody goes on with
LIMIT = 60.0  # seconds for all steps
REWRITE_LIMIT = 10.0  # seconds to wait until the files are rewritten; a large store takes longer, and goes on
REWRITE_LOOKS = 0.02  # seconds between two looks whether they are


class Erased(NamedTuple):
    """Erased says since when no record has the text, and whether no file of the store has it.

    `files` is None for a store that this server does not own, and False where rewriting them goes on.
    """

    at: str
    files: bool | None
    durability: Durability


class Erasures:
    """Erasures removes the texts of withdrawn entries from the store of a log."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._erase = aioredis.Redis().register_script(script("erase"))  # never connected, as those of the log

    async def erase(self, stream: str, id: str, by: str = "") -> Erased:
        """Erase the text of an entry that was withdrawn; `by` is who asked for it, for its history.

        One that was erased before stays as it is, and its files are rewritten once more.

        Raises NotFound, Conflict for an entry that was not withdrawn, Deleted, Unavailable, StoreError.
        """
        entry, withdrawal = await self._log.entry(stream, id)
        if entry is not None:
            raise Conflict("The entry is published: withdraw it first. With the reason legal it is erased at once.")
        if withdrawal is None:
            raise NotFound(f"There is no entry {id} in {stream}.")
        self._log.store.condition.check("entry.erase")  # refused at the reserve of a disk: a copy takes room
        now = model.now()
        at = withdrawal.get("erased_at") or model.instant(now)
        row = f"{withdrawal['rev']} {now} {by}" if by else ""
        try:
            if "erased_at" in withdrawal:  # in the same step in which the text left the log
                durability = await self._durability(stream)
            else:
                durability = await self._rewrite_log(stream, id, {**withdrawal, "erased_at": at}, row)
        except ResponseError as error:
            raise Unavailable("The store takes no writes; nothing was erased. Retry later.") from error
        return Erased(at, await self._rewrite_files(), durability)

    async def _rewrite_log(self, stream: str, id: str, withdrawal: StoredWithdrawal, row: str) -> Durability:
        state: dict[str, Any] = {name: value for name, value in withdrawal.items() if name != "headline"}
        text = dumps(state)
        fixed = [id, text, withdrawal_data(text.encode()), STEP_RECORDS, STEP_BYTES, COPY_SECONDS, row]
        copy, times, began = "", b"", time.monotonic()
        while time.monotonic() - began < LIMIT:
            if not times:
                copy = self._log.key(stream, f"log:{secrets.token_hex(4)}")
            keys = [*(self._log.key(stream, name) for name in ("log", "withdrawn", "page")), copy]
            keys.append(self._log.key(stream, "history"))
            step = time.monotonic()
            (outcome, *more), durability = await self._step(keys, [*fixed, times])
            match outcome:
                case b"erased":
                    return durability
                case b"absent":
                    raise NotFound(f"There is no withdrawn entry {id} in {stream}.")
                case b"begun":
                    (times,) = more
                case b"changed":
                    times = b""
                case _:
                    await asyncio.sleep(time.monotonic() - step)  # half of the store's time is for others
        raise Unavailable("The log changes faster than it can be rewritten; nothing was erased. Retry later.")

    async def _durability(self, stream: str) -> Durability:
        """The durability of what the store of a stream has now."""
        name = self._log.key(stream, MARK)
        return (await self._log.store.keep(name, lambda redis: cast(Awaitable[Any], redis.get(name))))[1]

    async def _step(self, keys: list[str], arguments: list[Any]) -> tuple[list[bytes], Durability]:
        return await self._log.store.keep(keys[0], lambda redis: self._erase(keys, arguments, client=redis))

    async def _rewrite_files(self) -> bool | None:
        """Rewrite the files of an embedded store, which have what its keys had; None for any other store."""
        node = await self._log.store.node(STORE_ID)
        if not await within(node.redis.get(STORE_ID)):
            return None
        try:
            async with asyncio.timeout(REWRITE_LIMIT):
                await self._until_rewritten(node)  # one that is under way may have begun before
                await within(node.redis.bgrewriteaof())
                return await self._until_rewritten(node)
        except ResponseError:  # an embedded store was moved to a server whose user may not rewrite
            return None
        except TimeoutError:
            return False

    async def _until_rewritten(self, node: Node) -> bool:
        """Wait until no rewriting is under way; whether the last one succeeded."""
        while True:
            info = await within(node.redis.info("persistence"))
            if not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"]:
                return str(info["aof_last_bgrewrite_status"]) == "ok"
            await asyncio.sleep(REWRITE_LOOKS)
