"""The streams in the store: append to a stream's log, read its snapshot, resume from a cursor, tail.

Keys are made by `_key` alone, from checked names.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple, cast

import redis.asyncio as aioredis
from redis.exceptions import ConnectionError, ResponseError, TimeoutError

from .. import metrics, model
from ..codec import dumps, loads
from ..errors import Conflict, Fault, Gone, KeyReused, Unavailable
from ..model import Append, Cursor, Event
from ..settings import Settings
from .store import Blocking, Kept, Store
from .topology import Node, within

logger = logging.getLogger(__name__)

BLOCK_MS = 2_000  # of a tail's read; well below COMMAND_TIMEOUT, so that a silent connection is found out
STREAMS_LISTED = 100
READ_EVENTS = 256  # of one read: a reply is held in memory whole

PLAIN = re.compile(rb"[\w.:+-]*", re.ASCII)
SHAPES = {  # of the fields of an event
    b"e": re.compile(rb"[0-9a-f]{16}"),
    b"n": re.compile(rb"[1-9][0-9]{0,14}"),
    b"p": re.compile(rb"[0-9]+-[0-9]+\.[0-9a-f]+"),
    b"u": re.compile(rb"[0-9a-f]{16}"),
    **dict.fromkeys((b"t", b"s", b"k"), PLAIN),
    b"d": re.compile(rb"\{.*\}", re.DOTALL),
}


class Appended(NamedTuple):
    """What the log answered: for a key that it knew, the first answer again."""

    cursor: Cursor
    n: int
    entry_id: str
    rev: int
    replayed: bool
    kept: Kept


class Snapshot(NamedTuple):
    """A stream at one instant: its head, its page, entries as JSON in the order of the page, and its oldest instant."""

    cursor: Cursor
    n: int
    page: dict[str, Any]
    entries: list[str]
    older: bool
    began_at: str
    withdrawals: list[dict[str, Any]]  # the newest first


class Contents(NamedTuple):
    """What a stream holds as of the event `head`: the ids of entries, the lowest on the page first, and withdrawals."""

    head: str
    page: dict[str, Any] | None
    entries: list[str]
    withdrawals: list[str]


class Resumed(NamedTuple):
    """Everything after a cursor, which names event `n`, or the first part of it; or, with a reason, nothing."""

    reason: str | None
    n: int
    events: list[Event]
    more: bool = False


class Moved(Exception):
    """The revision that was to be replaced is not the current one any more."""


class Log:
    """The streams of one store. Safe to share between tasks."""

    def __init__(self, store: Store, *, log_events: int, entry_limit: int, idempotency: int) -> None:
        self.store = store
        unbound = aioredis.Redis()  # each call names the server that it goes to
        self._append, self._snapshot, self._resume, self._verify = [
            unbound.register_script(_script(name)) for name in ("append", "snapshot", "resume", "verify")
        ]
        self._log_events = log_events
        self._entry_limit = entry_limit
        self._idempotency = idempotency

    @classmethod
    def of(cls, store: Store, settings: Settings) -> Log:
        """The log that the settings describe."""
        return cls(
            store,
            log_events=settings.log_events,
            entry_limit=settings.entry_limit,
            idempotency=settings.idempotency,
        )

    # --- what publishers do

    async def append(self, append: Append) -> Appended:
        """Store one event. Raises Moved, Conflict, KeyReused, or Unavailable, which says whether it may be stored."""
        stream = append.stream
        keys = [self._key(stream, name) for name in ("log", "entries", "order", "page")]
        keys += [
            f"{self._tag(stream)}:streams",
            self._key(stream, "withdrawn"),
            self._key(stream, "gone"),
            self._key(stream, f"idem:{append.key}"),
        ]
        arguments: list[str | int] = [
            *(append.type, dumps(append.data), append.at, secrets.token_hex(8), secrets.token_hex(8)),
            *(append.entry_id, append.rev, dumps(append.state), append.order),
            *(append.shown_at, stream, self._log_events, self._entry_limit),
            *(append.key, append.body_hash, self._idempotency, append.state.get("state", "")),
            append.rev - 1 if append.replaces is None else append.replaces,
            append.began_at,
        ]
        try:
            answer, kept = await self.store.keep(keys[0], lambda redis: self._append(keys, arguments, client=redis))
        except (ConnectionError, TimeoutError) as error:
            metrics.PUBLISHED.labels("unavailable").inc()
            logger.warning("publish to %s: outcome unknown: %s", stream, error)
            detail = "The store did not answer; send it again with the same Idempotency-Key."
            raise Unavailable(detail, key=append.key) from error
        except ResponseError as error:
            metrics.PUBLISHED.labels("unavailable").inc()
            logger.warning("publish to %s: refused by the store: %s", stream, error)
            raise Unavailable("The store takes no writes now; nothing was stored.") from error
        match [part.decode() for part in answer]:
            case ["full", count]:
                fault = Fault("stream", f"fewer than {self._entry_limit} entries", count)
                raise Conflict("The stream is full; go on in a next one.", fault)
            case ["gone"]:
                raise Gone("The entry was withdrawn; nothing was stored.", Fault("id", "an entry", append.entry_id))
            case ["ended"]:
                raise Conflict("The coverage has ended; nothing was stored.", Fault("stream", "a live one", "ended"))
            case ["rev", _]:
                raise Moved
            case stored:
                metrics.PUBLISHED.labels(stored[0]).inc()
                return _appended(stored, append.key, kept)

    async def first_answer(self, stream: str, key: str, body_hash: str) -> Appended | None:
        """What an idempotency key was answered before. Raises KeyReused where that was to another body."""
        name = self._key(stream, f"idem:{key}")
        found, kept = await self.store.keep(name, lambda redis: cast(Awaitable[bytes | None], redis.get(name)))
        if found is None:
            return None
        held_hash, *rest = json.loads(found)
        return _appended(["replayed" if held_hash == body_hash else "reused", *rest], key, kept)

    # --- what an export does

    async def contents(self, stream: str) -> Contents | None:
        """What a stream holds, by name; None for no such stream. A page that was never put is left out."""

        def read(redis: aioredis.Redis) -> Awaitable[list[Any]]:
            pipeline = redis.pipeline(transaction=True)
            pipeline.xrevrange(self._key(stream, "log"), count=1)
            pipeline.hmget(self._key(stream, "page"), "json", "updated_at", "began_at")
            pipeline.zrange(self._key(stream, "order"), 0, -1)
            pipeline.hkeys(self._key(stream, "withdrawn"))
            return pipeline.execute()

        last, (page_json, updated_at, began_at), entries, withdrawals = await self.store.call(self._tag(stream), read)
        if not last:
            return None
        page = _page(stream, page_json, updated_at)
        page["began_at"] = began_at.decode() if began_at else page["updated_at"]
        names = [[id.decode() for id in ids] for ids in (entries, sorted(withdrawals))]
        return Contents(last[0][0].decode(), page if page_json else None, *names)

    async def held(self, stream: str, name: str, ids: list[str]) -> tuple[str, list[dict[str, Any]]]:
        """The event as of which this is, and some `entries` or `withdrawn` ones as they are stored."""

        def read(redis: aioredis.Redis) -> Awaitable[list[Any]]:
            pipeline = redis.pipeline(transaction=True)
            pipeline.xrevrange(self._key(stream, "log"), count=1)
            pipeline.hmget(self._key(stream, name), ids)
            return pipeline.execute()

        last, values = await self.store.call(self._tag(stream), read)
        return last[0][0].decode() if last else "", [loads(value) for value in values if value]

    # --- what readers do

    async def snapshot(
        self, stream: str, *, limit: int, after: tuple[int, str] | None = None, withdrawals: int = 0
    ) -> Snapshot | None:
        """The newest entries, or those after a score and id, and the newest withdrawals; None for no such stream."""
        keys = [self._key(stream, name) for name in ("log", "entries", "order", "page", "withdrawn", "gone")]
        arguments = [limit, *(after or ("", "")), withdrawals]
        found = await self.store.call(keys[0], lambda redis: self._snapshot(keys, arguments, client=redis))
        if found is None:
            return None
        record, page_json, updated_at, began_at, entries, older, gone = found
        head = _event(record)
        assert head is not None, "the script takes no other record for the head"
        return Snapshot(
            head.cursor,
            head.n,
            _page(stream, page_json, updated_at),
            [entry.decode() for entry in entries],
            bool(older),
            (began_at or updated_at).decode(),  # a store that was filled by an earlier version has not noted it yet
            [loads(withdrawal) for withdrawal in gone],
        )

    async def resume(
        self, stream: str, cursor: Cursor, *, limit: int, limit_bytes: int, in_part: bool = False
    ) -> Resumed:
        """Everything after a cursor, verified by identity; else the reason why there is no such thing.

        What is more than the limits is `too_far`, unless it is asked for in parts: then as much as they allow comes.
        """
        keys = [self._key(stream, name) for name in ("log", "withdrawn")]
        arguments = [*cursor, limit, limit_bytes, "part" if in_part else "whole"]
        found = await self.store.call(keys[0], lambda redis: self._resume(keys, arguments, client=redis))
        reason = found[0].decode()
        if reason != "ok":
            return Resumed(reason, 0, [])
        gone = {id.decode(): _told(withdrawal) for id, withdrawal in found[3]}
        events = [event for event in map(_event, found[2]) if event]
        told = [event.withdrawn(gone[event.entry_id]) if event.entry_id in gone else event for event in events]
        return Resumed(None, int(found[1]), told, bool(found[4]))

    async def streams(self) -> list[tuple[str, dict[str, Any]]]:
        """The streams that changed last and their pages, the newest first."""
        on: dict[Node, dict[str, int]] = {}
        for node, partitions in (await self.store.primaries()).items():
            pipeline = node.redis.pipeline(transaction=False)
            for partition in partitions:
                pipeline.zrevrange(f"{model.tag(partition)}:streams", 0, STREAMS_LISTED - 1, withscores=True)
            parts = await within(pipeline.execute())
            on[node] = {name.decode(): int(score) for part in parts for name, score in part}
        changed = sorted(((-score, name) for names in on.values() for name, score in names.items()))
        listed = [name for _, name in changed[:STREAMS_LISTED]]
        pages: dict[str, dict[str, Any]] = {}
        for node, names in on.items():
            here = [name for name in listed if name in names]
            pipeline = node.redis.pipeline(transaction=False)
            for name in here:
                pipeline.hmget(self._key(name, "page"), "json", "updated_at")
            held = await within(pipeline.execute())
            pages |= {name: _page(name, *fields) for name, fields in zip(here, held, strict=True)}
        return [(name, pages[name]) for name in listed]

    async def entry(self, stream: str, id: str) -> tuple[str | None, dict[str, Any] | None]:
        """An entry as JSON, or its withdrawal; neither where there is no such entry."""

        def read(redis: aioredis.Redis) -> Awaitable[list[Any]]:
            pipeline = redis.pipeline(transaction=True)
            pipeline.hget(self._key(stream, "entries"), id)
            pipeline.hget(self._key(stream, "withdrawn"), id)
            return pipeline.execute()

        found, withdrawal = await self.store.call(self._tag(stream), read)
        return found.decode() if found else None, loads(withdrawal) if withdrawal else None

    async def page_of(self, stream: str) -> dict[str, Any] | None:
        """A stream's page as it is stored; None before its first."""
        name = self._key(stream, "page")
        found = await self.store.call(name, lambda redis: cast(Awaitable[bytes | None], redis.hget(name, "json")))
        return loads(found) if found else None

    # --- what tails do

    async def missing(self, events: Sequence[tuple[str, Cursor, str]]) -> list[int]:
        """Which of these events, each of a stream of one partition, its log does not hold, by identity.

        Or does not go on from, where the log was read on to another redis id, and there is an event up to that.
        """
        if not events:
            return []
        keys = [self._key(stream, "log") for stream, _, _ in events]
        arguments = [word for _, cursor, read_to in events for word in (cursor.id, cursor.nonce, read_to)]
        found = await self.store.call(keys[0], lambda redis: self._verify(keys, arguments, client=redis))
        return [number - 1 for number in found]

    async def open_tail(self, partition: int) -> TailConnection:
        """A connection of its own for blocking reads of a partition, on whoever has it now. Raises StoreError."""
        await self.store.locate()
        connection = await self.store.connect(model.tag(partition))
        return TailConnection(connection, lambda stream: self._key(stream, "log").encode())

    def _tag(self, stream: str) -> str:
        return model.tag(model.partition_of(stream, self.store.partitions))

    def _key(self, stream: str, name: str) -> str:
        return f"{self._tag(stream)}:{stream}:{name}"


class TailConnection:
    """One connection that reads the logs of a partition as they grow."""

    def __init__(self, connection: Blocking, key: Callable[[str], bytes]) -> None:
        self._connection = connection
        self._key = key
        self._streams: dict[bytes, str] = {}  # that were asked for last, by their logs' keys
        self.unblock = connection.unblock
        self.close = connection.close

    async def read(self, after: Mapping[str, str]) -> list[tuple[str, str, list[Event]]]:
        """Wait up to BLOCK_MS for events after these redis ids: (stream, last redis id, events).

        Concrete ids only: `$` would mean a later now each time it is asked, and what came in between would not be read.
        """
        if list(self._streams.values()) != list(after):
            self._streams = {self._key(stream): stream for stream in after}
        streams, ids = self._streams, [after[stream] for stream in self._streams.values()]
        reply = await self._connection.ask(
            *("XREAD", "COUNT", READ_EVENTS, "BLOCK", BLOCK_MS, "STREAMS"), *streams, *ids
        )
        return [
            (streams[key], records[-1][0].decode(), [event for event in map(_event, records) if event])
            for key, records in reply or ()
        ]


def _event(record: list[Any]) -> Event | None:
    """A record of the log as an event; None for a record that something else wrote, which is skipped.

    `is_event` of events.lua judges the same: the two must agree on what is counted.
    """
    id, pairs = record
    fields = dict(zip(pairs[::2], pairs[1::2], strict=False))
    if not all(name in fields and pattern.fullmatch(fields[name]) for name, pattern in SHAPES.items()):
        metrics.SKIPPED.inc()
        logger.warning("skipped a record that is not an event: %s", id)
        return None
    epoch = fields[b"e"].decode()
    prev_id, prev_nonce = fields[b"p"].decode().split(".")
    return Event(
        cursor=Cursor(epoch, id.decode(), fields[b"u"].decode()),
        prev=Cursor(epoch, prev_id, prev_nonce),
        n=int(fields[b"n"]),
        type=fields[b"t"].decode(),
        data=fields[b"d"],
        shown_at=fields[b"s"].decode(),
        entry_id=fields[b"k"].decode(),
        request=fields.get(b"i", b"").decode(errors="replace"),
    )


def _told(withdrawal: bytes) -> bytes:
    """A withdrawal as it was told to readers; the headline is kept for the entry's own page alone."""
    return dumps({name: value for name, value in loads(withdrawal).items() if name != "headline"}).encode()


def _page(stream: str, page_json: bytes | None, updated_at: bytes) -> dict[str, Any]:
    """A stream's page as it is shown: the one that was put, or one made of its name; and when it last changed."""
    page = loads(page_json) if page_json else model.unwritten_page(stream)
    return {**page, "updated_at": updated_at.decode()}


def _appended(answer: list[str], key: str, kept: Kept) -> Appended:
    """What the script stored, now or before."""
    if answer[0] == "reused":
        fault = Fault("Idempotency-Key", "one key for one request", key)
        raise KeyReused("This Idempotency-Key came with another body before; nothing was stored.", fault)
    outcome, id, n, epoch, nonce, entry_id, rev = answer
    return Appended(Cursor(epoch, id, nonce), int(n), entry_id, int(rev), outcome == "replayed", kept)


def _script(name: str) -> str:
    scripts = resources.files(__package__)
    return "".join(scripts.joinpath(f"{part}.lua").read_text("utf-8") for part in ("events", name))
