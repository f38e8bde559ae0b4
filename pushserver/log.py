"""The only module that speaks Redis: append to a stream's log, read its snapshot, resume from a cursor, tail.

Keys are made by `_key` alone, from checked names. Nothing here is retried: a publish that is sent twice would be stored
twice, and a hidden retry of a blocking read hides that it never returns (redis-py 8 does both by default).
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Mapping
from importlib import resources
from typing import Any, NamedTuple, cast

import redis.asyncio as aioredis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisError, ResponseError, TimeoutError

from . import model
from .errors import Conflict, Fault, KeyReused, Unavailable
from .frames import dumps
from .model import Cursor, Event

logger = logging.getLogger(__name__)

CONNECTIONS = 64  # of the pool that requests share; one more request waits a second, then is told 503
COMMAND_TIMEOUT = 5.0
BLOCK_MS = 2_000  # of a tail's read; well below COMMAND_TIMEOUT, so that a silent connection is found out
READ_EVENTS = 256  # of one read: a reply is held in memory whole
LEAST_REDIS = (7, 0)  # effects replication and XADD's options as they are used here

StoreError = RedisError


class Append(NamedTuple):
    """What one publish asks of the log. `rev` is the one that it makes."""

    stream: str
    type: str
    data: dict[str, Any]
    at: int
    state: dict[str, Any]
    rev: int
    shown_at: str
    entry: model.Entry | None = None
    key: str = ""
    body_hash: str = ""


class Appended(NamedTuple):
    """What the log answered: for a key that it knew, the first answer again."""

    cursor: Cursor
    n: int
    entry_id: str
    rev: int
    replayed: bool


class Snapshot(NamedTuple):
    """A stream at one instant: its head, its page, and entries as JSON in the order of the page."""

    cursor: Cursor
    n: int
    page: dict[str, Any]
    entries: list[str]
    older: bool


class Resumed(NamedTuple):
    """Everything after a cursor, which names event `n`; or, with a reason, nothing."""

    reason: str | None
    n: int
    events: list[Event]


class Moved(Exception):
    """The revision that was to be replaced is not the current one any more."""


class Log:
    """The streams of one store. Safe to share between tasks; `close` when done."""

    def __init__(
        self,
        url: str,
        *,
        partitions: int,
        log_events: int,
        entry_limit: int,
        idempotency: int,
        durability: str = "memory",
    ) -> None:
        options = {
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": COMMAND_TIMEOUT,
            "socket_connect_timeout": COMMAND_TIMEOUT,
        }
        self._pool = aioredis.BlockingConnectionPool.from_url(url, max_connections=CONNECTIONS, timeout=1, **options)
        self._redis = aioredis.Redis(connection_pool=self._pool)
        self._append = self._redis.register_script(_script("append"))
        self._snapshot = self._redis.register_script(_script("snapshot"))
        self._resume = self._redis.register_script(_script("resume"))
        self._log_events = log_events
        self._entry_limit = entry_limit
        self._idempotency = idempotency
        self.partitions = partitions
        self.durability = durability

    async def close(self) -> None:
        await self._redis.aclose()
        await self._pool.disconnect()

    # --- the store itself

    async def check(self) -> None:
        """Refuse a store that this deployment cannot rely on, and find out what an acknowledgement means there."""
        info = await self._redis.info()
        version = str(info.get("valkey_version") or info["redis_version"])
        if tuple(int(part) for part in version.split(".")[:2]) < LEAST_REDIS:
            raise StoreUnfit(f"expected Redis 7.0 or Valkey 7.2 or later, got {version}")
        known = await self._redis.set("pushserver:partitions", self.partitions, nx=True, get=True)
        if known is not None and int(known) != self.partitions:
            raise StoreUnfit(f"expected {int(known)} partitions, which this store was made with, got {self.partitions}")
        await self.ping()
        if info.get("maxmemory") and info.get("maxmemory_policy") != "noeviction":
            logger.warning("the store evicts (%s): whole streams can vanish", info["maxmemory_policy"])

    async def ping(self) -> None:
        """Ask the store whether it answers, and what that promises: `disk` while each write is synced first."""
        try:
            config = await self._redis.config_get("append*")
        except ResponseError:  # a store may deny CONFIG: then nothing was verified, and nothing is claimed
            await self._redis.ping()
            config = {}
        synced = config.get("appendonly") == "yes" and config.get("appendfsync") == "always"
        self.durability = "disk" if synced else "memory"

    # --- what publishers do

    async def append(self, append: Append) -> Appended:
        """Store one event. Raises Moved, Conflict, KeyReused, or Unavailable, which says whether it may be stored."""
        stream, entry = append.stream, append.entry
        names = ("log", "entries", "order", "page")
        keys = [*(self._key(stream, name) for name in names), self._tag(stream) + ":streams"]
        keys.append(self._key(stream, f"idem:{append.key}"))
        arguments: list[str | int] = [
            *(append.type, dumps(append.data), append.at, secrets.token_hex(8), secrets.token_hex(8)),
            *(entry.id if entry else "", append.rev, dumps(append.state), model.order_of(entry.json) if entry else 0),
            *(append.shown_at, stream, self._log_events, self._entry_limit),
            *(append.key, append.body_hash, self._idempotency),
        ]
        try:
            answer = [part.decode() for part in await self._append(keys, arguments)]
        except (ConnectionError, TimeoutError) as error:
            logger.warning("publish to %s: outcome unknown: %r", stream, error)
            raise Unavailable("The store did not answer; send it again with the same Idempotency-Key.") from error
        except ResponseError as error:
            logger.warning("publish to %s: refused by the store: %s", stream, error)
            raise Unavailable("The store takes no writes now; nothing was stored.") from error
        match answer:
            case ["stored" | "replayed" as outcome, id, n, epoch, nonce, entry_id, rev]:
                return Appended(Cursor(epoch, id, nonce), int(n), entry_id, int(rev), outcome == "replayed")
            case ["reused"]:
                detail = "This Idempotency-Key came with another body before; nothing was stored."
                raise KeyReused(detail, Fault("Idempotency-Key", "one key for one body", append.key))
            case ["full", count]:
                fault = Fault("stream", f"fewer than {self._entry_limit} entries", count)
                raise Conflict("The stream is full; go on in a next one.", fault)
            case _:
                raise Moved

    # --- what readers do

    async def snapshot(self, stream: str, *, limit: int, after: tuple[int, str] | None = None) -> Snapshot | None:
        """The newest entries, or those after a score and id; None where there is no such stream."""
        keys = [self._key(stream, name) for name in ("log", "entries", "order", "page")]
        found = await self._snapshot(keys, [limit, *(after or ("", ""))])
        if found is None:
            return None
        record, page_json, updated_at, entries, older = found
        head = _event(record)
        if head is None:
            raise StoreUnfit(f"the log of {stream} ends with a record that is not an event")
        page = model.loads(page_json) if page_json else model.unwritten_page(stream)
        page["updated_at"] = updated_at.decode()
        return Snapshot(head.cursor, head.n, page, [entry.decode() for entry in entries], bool(older))

    async def resume(self, stream: str, cursor: Cursor, *, limit: int) -> Resumed:
        """Everything after a cursor, verified by identity; else the reason why there is no such thing."""
        found = await self._resume([self._key(stream, "log")], [*cursor, limit])
        reason = found[0].decode()
        if reason != "ok":
            return Resumed(reason, 0, [])
        return Resumed(None, int(found[1]), [event for event in map(_event, found[2]) if event])

    async def streams(self) -> list[tuple[str, int]]:
        """Every stream and when it last changed, in milliseconds; the newest first."""
        pipeline = self._redis.pipeline(transaction=False)
        for partition in range(self.partitions):
            pipeline.zrevrange(f"{{p{partition:02d}}}:streams", 0, 99, withscores=True)
        found = [(name.decode(), int(score)) for part in await pipeline.execute() for name, score in part]
        return sorted(found, key=lambda pair: (-pair[1], pair[0]))[:100]

    async def page_of(self, stream: str) -> dict[str, Any] | None:
        """A stream's page as it is stored; None before its first."""
        found = await cast(Awaitable[bytes | None], self._redis.hget(self._key(stream, "page"), "json"))
        return model.loads(found) if found else None

    # --- what tails do

    async def open_tail(self) -> TailConnection:
        """A connection of its own for blocking reads."""
        connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        await connection.connect()
        try:
            await connection.send_command("CLIENT", "ID")
            return TailConnection(connection, int(await connection.read_response()), self._log_key_names)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise

    async def unblock(self, client_id: int) -> None:
        """Make a blocked read return now. Nothing happens where it is not blocked."""
        await self._redis.client_unblock(client_id)

    def _log_key_names(self, streams: Mapping[str, str]) -> dict[str, str]:
        return {self._key(stream, "log"): stream for stream in streams}

    def _tag(self, stream: str) -> str:
        return f"{{p{model.partition_of(stream, self.partitions):02d}}}"

    def _key(self, stream: str, name: str) -> str:
        return f"{self._tag(stream)}:{stream}:{name}"


class TailConnection:
    """One connection that reads the logs of a partition as they grow."""

    def __init__(self, connection: AbstractConnection, client_id: int, keys: Any) -> None:
        self._connection = connection
        self._keys = keys
        self.client_id = client_id

    async def read(self, after: Mapping[str, str]) -> list[tuple[str, str, list[Event]]]:
        """Wait up to BLOCK_MS for events after these redis ids: (stream, last redis id, events).

        Concrete ids only: `$` would mean a later now each time it is asked, and what came in between would not be read.
        """
        keys = self._keys(after)
        ids = [after[stream] for stream in keys.values()]
        await self._connection.send_command("XREAD", "COUNT", READ_EVENTS, "BLOCK", BLOCK_MS, "STREAMS", *keys, *ids)
        reply = await self._connection.read_response() or []
        return [
            (keys[key.decode()], records[-1][0].decode(), [event for event in map(_event, records) if event])
            for key, records in reply
        ]

    async def close(self) -> None:
        await self._connection.disconnect(nowait=True)


class StoreUnfit(Exception):
    """The store is reachable, and not one to build on; says what was expected and what came."""


def _event(record: list[Any]) -> Event | None:
    """A record of the log as an event; None for a record that something else wrote, which is skipped."""
    id, pairs = record
    fields = dict(zip(pairs[::2], pairs[1::2], strict=False))
    try:
        epoch = fields[b"e"].decode()
        prev_id, prev_nonce = fields[b"p"].decode().split(".")
        return Event(
            cursor=Cursor(epoch, id.decode(), fields[b"u"].decode()),
            prev=Cursor(epoch, prev_id, prev_nonce),
            n=int(fields[b"n"]),
            type=fields[b"t"].decode(),
            data=fields[b"d"],
            shown_at=fields[b"s"].decode(),
        )
    except (KeyError, ValueError):
        logger.warning("skipped a record that is not an event: %s", id)
        return None


def _script(name: str) -> str:
    return resources.files("pushserver").joinpath(f"{name}.lua").read_text()
