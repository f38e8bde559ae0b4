"""The log: append to a stream, read its snapshot, resume from a cursor, tail a partition.

Keys are made by `_key` alone, from checked names.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Sequence
from importlib import resources
from typing import Any, NamedTuple, cast

import redis.asyncio as aioredis
from redis.exceptions import ConnectionError, ResponseError, TimeoutError

from .. import metrics, model
from ..codec import loads
from ..errors import Conflict, Deleted, Fault, Gone, Unavailable, deleted, key_reused
from ..log_throttle import Trouble
from ..model import Append, Cursor, Deletion, Event, StoredPage, StoredWithdrawal
from ..settings import Settings
from .records import append_arguments, event_of, shown_page, withdrawal_data
from .store import Durability, Store
from .tail import TailConnection

logger = logging.getLogger(__name__)

MARK = "deleted"  # of the keys of a stream: the mark of its deletion


class Appended(NamedTuple):
    """Appended is the log's answer to an append; for an idempotency key that it knows, the first answer again."""

    cursor: Cursor
    n: int
    entry_id: str
    rev: int
    replayed: bool
    durability: Durability


class Snapshot(NamedTuple):
    """Snapshot is a stream at one instant: head, page, entries as JSON in the page's order, oldest instant shown."""

    cursor: Cursor
    n: int
    page: StoredPage
    entries: list[str]
    older: bool
    began_at: str
    withdrawals: list[StoredWithdrawal]  # the newest first
    feed_id: str | None = None  # None where an earlier version began the stream, and nobody read its feed since


class Head(NamedTuple):
    """Head is the newest event of a stream and its number."""

    cursor: Cursor
    n: int


class Contents(NamedTuple):
    """Contents is the ids of a stream's entries, the lowest on the page first, and withdrawals, as of event `head`."""

    head: str
    page: StoredPage | None
    entries: list[str]
    withdrawals: list[str]


class Resumed(NamedTuple):
    """Resumed is every event after a cursor, which names event `n`, or the first of them; with a reason, none."""

    reason: str | None
    n: int
    events: list[Event]
    more: bool = False


class RevisionConflict(Exception):
    """RevisionConflict refuses an append: the revision that it replaces is not the current one."""


class Log:
    """Log is the streams of one store. Tasks may share it."""

    def __init__(
        self, store: Store, *, log_events: int, entry_limit: int, idempotency: int, public_url: str = ""
    ) -> None:
        self.store = store
        self._public_url = public_url
        unbound = aioredis.Redis()  # never connected: each call names the server that it goes to
        self._append, self._snapshot, self._resume, self._verify, self._heads, self._feed = [
            unbound.register_script(script(name))
            for name in ("append", "snapshot", "resume", "verify", "heads", "feed")
        ]
        self._log_events = log_events
        self._entry_limit = entry_limit
        self._idempotency = idempotency
        self._trouble = Trouble(logger, "events are stored again")

    @classmethod
    def of(cls, store: Store, settings: Settings) -> Log:
        """The log of a store, with the limits that the settings set."""
        return cls(
            store,
            log_events=settings.log_events,
            entry_limit=settings.entry_limit,
            idempotency=settings.idempotency,
            public_url=settings.public_url,
        )

    # --- for publishers

    async def append(self, append: Append) -> Appended:
        """Store one event.

        Raises RevisionConflict, Conflict, Gone, Deleted, KeyReused; Unavailable, which says whether it may be stored.
        """
        self._check_condition(append)
        keys = [self.key(append.stream, name) for name in ("log", "entries", "order", "page")]
        keys += [
            f"{self.tag(append.stream)}:streams",
            *(self.key(append.stream, name) for name in ("withdrawn", "gone", f"idem:{append.key}", MARK, "history")),
        ]
        arguments = append_arguments(
            append, log_events=self._log_events, entry_limit=self._entry_limit, idempotency=self._idempotency
        )
        try:
            answer, durability = await self.store.keep(
                keys[0], lambda redis: self._append(keys, arguments, client=redis)
            )
        except (ConnectionError, TimeoutError) as error:
            metrics.PUBLISHED.inc("unavailable")
            message = "stream %s: publish with unknown outcome: %s"
            self._trouble.failed(message, append.stream, error, reason=type(error))
            detail = (
                "The store did not answer, so the change may be stored. Send it again with the Idempotency-Key "
                "of this answer: it is stored once."
            )
            raise Unavailable(detail, key=append.key) from error
        except ResponseError as error:
            metrics.PUBLISHED.inc("unavailable")
            self._trouble.failed("stream %s: publish refused by the store: %s", append.stream, error, reason=error)
            raise Unavailable("The store takes no writes; nothing was stored. Retry later.") from error
        self._trouble.over()
        words = [word.decode() for word in answer]
        metrics.PUBLISHED.inc(words[0])
        self._check_stored(words, append)
        return _appended(words, append.key, durability)

    def _check_condition(self, append: Append) -> None:
        """Raises DiskReserve or FolderLost where the embedded store is to write nothing of this type."""
        try:
            self.store.condition.check(append.type)
        except Unavailable:
            metrics.PUBLISHED.inc("unavailable")
            raise

    def _check_stored(self, answer: list[str], append: Append) -> None:
        """Raise the refusal that append.lua answered, if any, but for `reused`, which `_appended` raises."""
        match answer:
            case ["full", count]:
                fault = Fault("stream", f"fewer than {self._entry_limit} entries", count)
                raise Conflict("The stream is full; nothing was stored. Continue in a new stream.", fault)
            case ["gone"]:
                fault = Fault("id", "an entry that is published", append.entry_id)
                raise Gone("The entry was withdrawn; nothing was stored.", fault)
            case ["ended"]:
                detail = "The stream has ended; nothing was stored. To continue it, set the page's `state` to `live`."
                raise Conflict(detail, Fault("stream", "a live one", "ended"))
            case ["rev", _]:
                raise RevisionConflict
            case ["deleted", mark]:
                raise _deleted(append.stream, mark.encode())

    async def first_answer(self, stream: str, key: str, body_hash: str) -> Appended | None:
        """The first answer to an idempotency key; None for a new key. Raises KeyReused where the body was another."""
        name = self.key(stream, f"idem:{key}")
        first, durability = await self.store.keep(name, lambda redis: cast(Awaitable[bytes | None], redis.get(name)))
        if first is None:
            return None
        first_hash, *rest = json.loads(first)
        outcome = "replayed" if first_hash == body_hash else "reused"
        metrics.PUBLISHED.inc(outcome)
        return _appended([outcome, *rest], key, durability)

    # --- for exports

    async def contents(self, stream: str) -> Contents | None:
        """The names of all that a stream has; None for no such stream. A page that was never put is left out.

        Raises Deleted, StoreError.
        """

        def read(redis: aioredis.Redis) -> Awaitable[list[Any]]:
            pipeline = redis.pipeline(transaction=True)
            pipeline.xrevrange(self.key(stream, "log"), count=1)
            pipeline.hmget(self.key(stream, "page"), "json", "updated_at", "began_at")
            pipeline.zrange(self.key(stream, "order"), 0, -1)
            pipeline.hkeys(self.key(stream, "withdrawn"))
            pipeline.get(self.key(stream, MARK))
            return pipeline.execute()

        last, page_fields, entries, withdrawals, mark = await self.store.call(self.tag(stream), read)
        page_json, updated_at, began_at = page_fields
        if mark:
            raise _deleted(stream, mark)
        if not last:
            return None
        page = shown_page(stream, page_json, updated_at)
        page["began_at"] = began_at.decode() if began_at else page["updated_at"]
        names = [[id.decode() for id in ids] for ids in (entries, sorted(withdrawals))]
        return Contents(last[0][0].decode(), page if page_json else None, *names)

    async def stored(self, stream: str, name: str, ids: list[str]) -> tuple[str, list[dict[str, Any]]]:
        """Some `entries` or `withdrawn` ones as they are stored, and the redis id of the stream's event as of which."""

        def read(redis: aioredis.Redis) -> Awaitable[list[Any]]:
            pipeline = redis.pipeline(transaction=True)
            pipeline.xrevrange(self.key(stream, "log"), count=1)
            pipeline.hmget(self.key(stream, name), ids)
            return pipeline.execute()

        last, values = await self.store.call(self.tag(stream), read)
        return last[0][0].decode() if last else "", [loads(value) for value in values if value]

    # --- for readers

    async def snapshot(
        self, stream: str, *, limit: int, after: tuple[int, str] | None = None, withdrawals: int = 0, entry: str = ""
    ) -> Snapshot | None:
        """The newest entries, or those after a score and id, and the newest withdrawals; None for no such stream.

        With the id of an `entry` it has that one alone, if it is published. Raises Deleted, StoreError.
        """
        keys = [self.key(stream, name) for name in ("log", "entries", "order", "page", "withdrawn", "gone", MARK)]
        arguments = [limit, *(after or ("", "")), withdrawals, entry]
        answer = await self.store.read(self._snapshot, keys, arguments)
        if answer is None:
            return None
        if len(answer) == 1:
            raise _deleted(stream, answer[0])
        record, page_json, updated_at, began_at, entries, older, gone, feed_id = answer
        head = event_of(record)
        assert head is not None, "snapshot.lua answers a record that is_event accepts"
        return Snapshot(
            head.cursor,
            head.n,
            shown_page(stream, page_json, updated_at),
            [entry.decode() for entry in entries],
            bool(older),
            (began_at or updated_at).decode(),  # a stream that an earlier version filled has no began_at yet
            [cast(StoredWithdrawal, loads(withdrawal)) for withdrawal in gone],
            feed_id.decode() if feed_id else None,
        )

    async def feed_id(self, stream: str) -> str:
        """The id of a stream's feeds, which is stored now where there is none. Raises Deleted, StoreError, Unavailable.

        A stream that an earlier version began keeps what was its id then, if the public address is known.
        """
        address = f"{self._public_url}/streams/{stream}"
        return (await self.name_feed(stream, address if self._public_url else model.new_feed_id()))[0]

    async def name_feed(self, stream: str, id: str) -> tuple[str, bool]:
        """The id of a stream's feeds, and whether it is this one from now on.

        Raises Deleted, StoreError, Unavailable.
        """
        keys = [self.key(stream, name) for name in ("page", MARK)]
        try:
            answer, _ = await self.store.keep(keys[0], lambda redis: self._feed(keys, [id], client=redis))
        except ResponseError as error:
            raise Unavailable("The store takes no writes, and the feed has no id yet. Retry later.") from error
        outcome, value = answer
        if outcome == b"deleted":
            raise _deleted(stream, value)
        return value.decode(), outcome == b"new"

    async def heads(self, streams: Sequence[str]) -> list[Head | Deletion | None]:
        """The newest event of each stream, or its deletion, None for no such stream; all are of one partition.

        Raises StoreError.
        """
        keys = [self.key(stream, name) for name in ("log", MARK) for stream in streams]
        return [_head(row) for row in await self.store.read(self._heads, keys)]

    async def try_read(self) -> None:
        """Read from each primary as `heads` does. Raises StoreError."""
        for partitions in (await self.store.primaries()).values():
            tag = model.tag(partitions[0])
            await self.store.read(self._heads, [f"{tag}:log", f"{tag}:{MARK}"])

    async def resume(
        self, stream: str, cursor: Cursor, *, limit: int, limit_bytes: int, in_part: bool = False
    ) -> Resumed:
        """Every event after a cursor, which is verified by epoch, id and nonce; or the reason why there is none.

        More than `limit` events or `limit_bytes` of data is `too_far`; `in_part`, as much as the limits allow comes.
        Raises Deleted, StoreError.
        """
        keys = [self.key(stream, name) for name in ("log", "withdrawn", MARK)]
        arguments = [*cursor, limit, limit_bytes, "part" if in_part else "whole"]
        answer = await self.store.call(keys[0], lambda redis: self._resume(keys, arguments, client=redis))
        reason = answer[0].decode()
        if reason == "deleted":
            raise _deleted(stream, answer[1])
        if reason != "ok":
            return Resumed(reason, 0, [])
        _, n, records, withdrawals, more = answer
        gone = {id.decode(): withdrawal_data(withdrawal) for id, withdrawal in withdrawals}
        events = [event for event in map(event_of, records) if event]
        shown = [event.withdrawn(gone[event.entry_id]) if event.entry_id in gone else event for event in events]
        return Resumed(None, int(n), shown, bool(more))

    async def entry(self, stream: str, id: str) -> tuple[str | None, StoredWithdrawal | None]:
        """An entry as JSON, or its withdrawal; neither where there is no such entry. Raises Deleted, StoreError."""

        def read(redis: aioredis.Redis) -> Awaitable[list[Any]]:
            pipeline = redis.pipeline(transaction=True)
            pipeline.hget(self.key(stream, "entries"), id)
            pipeline.hget(self.key(stream, "withdrawn"), id)
            pipeline.get(self.key(stream, MARK))
            return pipeline.execute()

        entry, withdrawal, mark = await self.store.call(self.tag(stream), read)
        if mark:
            raise _deleted(stream, mark)
        return entry.decode() if entry else None, cast(StoredWithdrawal, loads(withdrawal)) if withdrawal else None

    async def page_of(self, stream: str) -> StoredPage | None:
        """A stream's page as it is stored; None where none was put."""
        name = self.key(stream, "page")
        page = await self.store.call(name, lambda redis: cast(Awaitable[bytes | None], redis.hget(name, "json")))
        return cast(StoredPage, loads(page)) if page else None

    # --- for tails

    async def missing(self, events: Sequence[tuple[str, Cursor, str]]) -> list[int]:
        """The places, in `events`, of those that their logs do not have any more, by id and nonce.

        Each is the stream, its last event that was read, and the redis id up to which the log was read; all streams are
        of one partition. An event that the log has, but that another one follows up to that redis id, is missing too:
        after a failover the log may have gone on with lower ids, which no read would show.
        """
        if not events:
            return []
        keys = [self.key(stream, "log") for stream, _, _ in events]
        arguments = [word for _, cursor, read_to in events for word in (cursor.id, cursor.nonce, read_to)]
        numbers = await self.store.call(keys[0], lambda redis: self._verify(keys, arguments, client=redis))
        return [number - 1 for number in numbers]

    async def open_tail(self, partition: int) -> TailConnection:
        """Open a connection for blocking reads of a partition, to its primary as of now. Raises StoreError, OSError."""
        await self.store.locate()
        connection = await self.store.connect(model.tag(partition))
        return TailConnection(connection, lambda stream: self.key(stream, "log").encode())

    def tag(self, stream: str) -> str:
        """The hash tag of a stream's keys."""
        return model.tag(model.partition_of(stream, self.store.partitions))

    def key(self, stream: str, name: str) -> str:
        """The key of a stream that has this name among its keys."""
        return f"{self.tag(stream)}:{stream}:{name}"


def _head(row: list[bytes]) -> Head | Deletion | None:
    """The answer of heads.lua for one stream."""
    if len(row) == 1:
        return Deletion.parse(row[0])
    return Head(Cursor(*(word.decode() for word in row[:3])), int(row[3])) if row else None


def _deleted(stream: str, mark: bytes) -> Deleted:
    return deleted(stream, Deletion.parse(mark).at)


def _appended(answer: list[str], key: str, durability: Durability) -> Appended:
    """The answer of append.lua as Appended. Raises KeyReused."""
    if answer[0] == "reused":
        raise key_reused(key)
    outcome, id, n, epoch, nonce, entry_id, rev = answer
    return Appended(Cursor(epoch, id, nonce), int(n), entry_id, int(rev), outcome == "replayed", durability)


def script(name: str) -> str:
    """The text of a script, behind the functions that all of them share."""
    scripts = resources.files(__package__)
    return "".join(scripts.joinpath(f"{part}.lua").read_text("utf-8") for part in ("events", name))
