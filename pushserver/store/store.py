"""The store, Redis or Valkey: which server has a key, and what is verified of it.

No command that may have been carried out is sent again: a publish that is sent twice would be stored twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import redis.asyncio as aioredis
from redis.commands.core import AsyncScript
from redis.crc import key_slot
from redis.exceptions import (
    ClusterDownError,
    ConnectionError,
    MovedError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from .. import metrics, model
from ..errors import shorten
from .condition import StoreCondition
from .connection import BlockingConnection, Channels, Node, hinted, within
from .format import FORMAT_KEY, OWN, misfit
from .rights import Refusal, refusal_of, refused, refused_channel
from .topology import topology_of

logger = logging.getLogger(__name__)

LOCATED_EVERY = 0.5  # seconds; a primary that was replaced may not know, and go on taking writes that will be lost
REPLICA_WAIT_MS = 1_000  # for replicas to acknowledge a write
REPLICA_LATE_MS = 10  # the same, while fewer replicas than configured acknowledged the write before
LEAST_REDIS = (7, 0)  # effects replication, and the options of XADD and SET that are in use
MARK_SECONDS = 60  # for which the key is stored that shows that the store takes writes
PARTITIONS = "pushserver:partitions"  # key: how many partitions the streams of this store are spread over
STORE_ID = "pushserver:store"  # key: the id of an embedded store, which the marker of its folder has, too

StoreError = RedisError
T = TypeVar("T")


class StoreUnfit(Exception):
    """StoreUnfit refuses a store that answers and must not be used; it says what was expected and what came."""


class Durability(NamedTuple):
    """Durability says what a store promises of a write that it acknowledged.

    `level` is `disk` where every write is synced before the answer, `replica` where as many replicas as configured have
    acknowledged it, else `memory`. `replicas` is how many have, None where none are configured.
    """

    level: str
    replicas: int | None = None


class Store:
    """Store is the connection to Redis or Valkey. Tasks may share it; `close` ends it.

    `run` keeps up with which servers are primaries. Raises ValueError for a URL that it cannot read.
    """

    def __init__(
        self, url: str, *, partitions: int, replicas: int = 0, condition: StoreCondition | None = None
    ) -> None:
        self.partitions = partitions
        self.condition = condition or StoreCondition()
        self.replicas = replicas  # that have to acknowledge a write before it is called `replica`
        self.ahead_ms = [0.0] * partitions  # by partition: how far its primary's clock is ahead of ours
        self._topology = topology_of(url)
        self._shards: list[tuple[int, int, Node]] = []  # the first slot, the last one, and their primary
        self._locating = asyncio.Lock()
        self._located_at = float("-inf")

    async def run(self) -> None:
        """Look for the primaries every LOCATED_EVERY seconds, until cancelled. A failure is logged once per reason."""
        logged = ""
        while True:
            await asyncio.sleep(LOCATED_EVERY)
            said = await self._look()
            if said and said != logged:
                logger.warning("store primaries not located: %s", said)
            elif logged and not said:
                logger.info("store primaries located again")
            logged = said

    async def _look(self) -> str:
        """Look for the primaries; why they are not found, if they are not."""
        try:
            await self.locate()
        except StoreError as error:
            return str(error)
        return ""

    async def close(self) -> None:
        for node in self._nodes():
            await node.close()
        await self._topology.close()

    def _nodes(self) -> list[Node]:
        """The primaries that are known, each once."""
        return list(dict.fromkeys(node for _, _, node in self._shards))

    # --- where keys live

    async def locate(self) -> None:
        """Find out which servers are primaries now, and disconnect from those that no longer are. Raises StoreError."""
        asked_at = asyncio.get_running_loop().time()
        async with self._locating:
            if self._located_at >= asked_at:  # another task has located them while this one waited for the lock
                return
            shards = await self._topology.find()
            self._located_at = asyncio.get_running_loop().time()
            known = {node.url: node for node in self._nodes()}
            nodes = {shard.url: known.get(shard.url) or Node(shard.url) for shard in shards}
            self._shards = [(shard.first, shard.last, nodes[shard.url]) for shard in shards]
            for url in known.keys() - nodes.keys():
                logger.warning("store primary replaced: closing the connections to the former one")
                await known[url].close()

    async def node(self, key: str) -> Node:
        """The primary of a key. Raises StoreError where no server has its slot."""
        if not self._shards:
            await self.locate()
        slot = key_slot(key.encode())
        place = bisect_left(self._shards, slot, key=lambda shard: shard[1])
        if place == len(self._shards) or slot < self._shards[place][0]:
            raise ClusterDownError(f"no server has slot {slot}, which is that of {shorten(key)}")
        return self._shards[place][2]

    async def primaries(self) -> dict[Node, list[int]]:
        """The primaries of the partitions, and the partitions that each has. Raises StoreError."""
        partitions: dict[Node, list[int]] = {}
        for partition in range(self.partitions):
            partitions.setdefault(await self.node(model.tag(partition)), []).append(partition)
        return partitions

    async def call(self, key: str, command: Callable[[aioredis.Redis], Awaitable[T]]) -> T:
        """Run a command on the primary of a key. Raises StoreError."""
        return await self._at(key, lambda node: command(node.redis))

    async def read(self, script: AsyncScript, keys: Sequence[str], arguments: Sequence[Any] = ()) -> Any:
        """Run a script that only reads on the primary of its keys. Raises StoreError."""
        return await self._at(keys[0], lambda node: node.reads.run(script, keys, arguments))

    async def keep(self, key: str, command: Callable[[aioredis.Redis], Awaitable[T]]) -> tuple[T, Durability]:
        """Run a command that writes, or that finds its write done: its answer and durability. Raises StoreError."""

        async def run(node: Node) -> tuple[T, Durability]:
            if not self.replicas:
                return await command(node.redis), Durability(node.durability)
            # WAIT counts the replicas that have what its own connection wrote: on another connection it would count
            # nothing. The mark is written after the command, which may have written nothing, having been carried out
            # before.
            # redis-py looks for the scripts of a pipeline before it would give its connection back by itself.
            async with node.redis.pipeline(transaction=False) as pipeline:
                await command(pipeline)
                self._mark(pipeline, key)
                pipeline.wait(self.replicas, REPLICA_WAIT_MS if node.replicas >= self.replicas else REPLICA_LATE_MS)
                answer, _, node.replicas = await pipeline.execute()
            reached = node.replicas >= self.replicas
            return answer, Durability("replica" if reached else node.durability, node.replicas)

        return await self._at(key, run)

    def _mark(self, pipeline: aioredis.client.Pipeline, key: str) -> None:
        pipeline.set(f"{key.partition('}')[0]}}}:written", model.now(), ex=MARK_SECONDS)

    async def _at(self, key: str, command: Callable[[Node], Awaitable[T]]) -> T:
        """Run a command on the primary of a key; again, where the server refused it for being none any more."""
        node = await self.node(key)
        try:
            return await within(command(node))
        except (MovedError, ReadOnlyError):
            await self.locate()
            located = await self.node(key)
            if located is node:
                raise
            return await within(command(located))

    async def connect(self, key: str) -> BlockingConnection:
        """Open a connection for blocking commands to the primary of a key. Raises StoreError, OSError."""
        return await BlockingConnection.open(await self.node(key))

    # --- messages between workers

    @asynccontextmanager
    async def channels(self, *names: str) -> AsyncIterator[Channels]:
        """Subscribe to sharded channels of one hash slot, on a connection of its own. Raises StoreError, OSError."""
        connection = await self.connect(names[0])
        try:
            await connection.subscribe(names)
            yield Channels(connection)
        finally:
            await connection.close()

    async def publish(self, channel: str, message: str) -> int:
        """Send a message to a sharded channel; how many subscribers received it. Raises StoreError."""
        return int(await self.call(channel, lambda redis: redis.execute_command("SPUBLISH", channel, message)))  # type: ignore[no-untyped-call]

    async def exchange(self, key: str, field: bytes, value: bytes) -> dict[bytes, bytes]:
        """Set a field of a hash; all fields that it has then. Raises StoreError."""

        async def run(redis: aioredis.Redis) -> dict[bytes, bytes]:
            pipeline = redis.pipeline(transaction=False)
            pipeline.hset(key, field, value)
            pipeline.hgetall(key)
            _, fields = await pipeline.execute()
            return cast(dict[bytes, bytes], fields)

        return await self.call(key, run)

    # --- what is verified

    async def check(self) -> None:
        """Refuse a store that this deployment must not use; verify its durability. Raises StoreError, StoreUnfit."""
        for check in self.checks().values():
            await check()

    def checks(self, *, writes: bool = True) -> dict[str, Callable[[], Awaitable[None]]]:
        """The steps of `check`, by name and in their order; each raises StoreError, StoreUnfit.

        With `writes` a new store gets its format and its number of partitions.
        """
        return {
            "version": self._check_servers,
            "channels": self._check_channels,
            "format": partial(self._check_format, writes=writes),
            "partitions": partial(self._check_partitions, writes=writes),
            "commands, keys and eviction": self.ping,
        }

    async def _check_servers(self) -> None:
        """Refuse a server that is too old. Raises StoreError, StoreUnfit."""
        for node in await self.primaries():
            try:
                _check_server(await within(node.redis.info()))
            except ResponseError as error:
                _refuse(refusal_of("INFO", error))
            except ConnectionError as error:
                raise ConnectionError(hinted(node.url, error)) from error

    async def _check_channels(self) -> None:
        """Refuse a server on which nobody may subscribe. Raises StoreError, StoreUnfit, OSError."""
        for node, partitions in (await self.primaries()).items():
            _refuse(await refused_channel(node, model.tag(partitions[0])))

    async def _check_format(self, *, writes: bool) -> None:
        """Write the format version into a store that has none; refuse one that cannot be used. Raises StoreUnfit."""
        try:
            stored = await self._stored(FORMAT_KEY, OWN if writes else "")
        except ResponseError as error:
            if str(error).startswith("WRONGTYPE"):
                raise StoreUnfit(f"expected {FORMAT_KEY} to be a string such as {OWN}, got another type") from None
            _refuse(refusal_of("SET" if writes else "GET", error))
        if stored is not None and (why := misfit(stored)):
            raise StoreUnfit(why)

    async def _check_partitions(self, *, writes: bool) -> None:
        """Note the number of partitions in a store that has none; refuse another number. Raises StoreUnfit."""
        stored = await self._stored(PARTITIONS, str(self.partitions) if writes else "")
        if stored is not None and int(stored) != self.partitions:
            raise StoreUnfit(
                f"expected {int(stored)} partitions, with which this store was made, got {self.partitions}"
            )

    async def _stored(self, key: str, first: str) -> bytes | None:
        """The text of a key; where it has none, `first` is stored, unless that is empty. Raises StoreError."""
        if first:
            return cast("bytes | None", await self.call(key, lambda redis: redis.set(key, first, nx=True, get=True)))
        return cast("bytes | None", await self.call(key, lambda redis: redis.get(key)))

    async def ping(self) -> None:
        """Verify that the primaries take writes and evict nothing, how durable, and that the user has every right.

        Where the condition of an embedded store forbids to write, it is verified that it answers. Raises StoreError,
        StoreUnfit.
        """
        for node, partitions in (await self.primaries()).items():
            tags = [model.tag(partition) for partition in partitions]
            if self.condition.may_write():
                await within(self._try_write(node, tags))
            await within(self._verify_durability(node))
            await self._read_clock(node)
            for partition in partitions:
                self.ahead_ms[partition] = node.clock.ahead_ms

    async def _read_clock(self, node: Node) -> None:
        """Note a server's time. It is in INFO: the command TIME would be one more that its user has to be allowed."""
        before = time.time()
        info = await within(node.redis.info("server"))
        its = info.get("server_time_usec")
        if isinstance(its, int):
            node.clock.note(before * 1_000, its / 1_000, time.time() * 1_000)

    async def _try_write(self, node: Node, tags: list[str]) -> None:
        try:
            async with node.redis.pipeline(transaction=False) as pipeline:
                self._mark(pipeline, tags[0])
                if self.replicas:
                    pipeline.wait(self.replicas, REPLICA_WAIT_MS)
                began = time.monotonic()
                _, *replicas = await pipeline.execute()
                metrics.ROUND_TRIP.observe(time.monotonic() - began)
        except NoPermissionError as error:
            _refuse(refusal_of("SET", error))
        node.replicas = sum(replicas)
        _refuse(await refused(node, tags))

    async def _verify_durability(self, node: Node) -> None:
        try:
            config = await node.redis.config_get("append*", "maxmemory*")
        except ResponseError:  # a managed store may deny CONFIG: nothing is verified then, so `disk` is not claimed
            config = {}
        synced = config.get("appendonly") == "yes" and config.get("appendfsync") == "always"
        node.durability = "disk" if synced else "memory"
        _refuse_eviction(int(config.get("maxmemory") or 0), config.get("maxmemory-policy"))

    def durability(self) -> str:
        """The least that a primary promises of a write, as it was verified last: `disk` or `memory`."""
        return "disk" if all(node.durability == "disk" for node in self._nodes()) else "memory"

    def has_replicas(self) -> bool:
        """Whether as many replicas as configured acknowledged the last write to every primary."""
        return all(node.replicas >= self.replicas for node in self._nodes())


def _refuse(refusal: Refusal | None) -> None:
    """Raises StoreUnfit for a right that the user of the store lacks."""
    if refusal is not None:
        raise StoreUnfit(str(refusal))


def _check_server(info: dict[str, Any]) -> None:
    version = str(info.get("valkey_version") or info["redis_version"])
    if tuple(int(part) for part in version.split(".")[:2]) < LEAST_REDIS:
        raise StoreUnfit(f"expected Redis 7.0 or Valkey 7.2 or later, got {version}")
    _refuse_eviction(info.get("maxmemory"), info.get("maxmemory_policy"))


def _refuse_eviction(maxmemory: int | None, policy: str | None) -> None:
    """Raises StoreUnfit where a store that is full would delete keys to make room."""
    if maxmemory and policy not in (None, "noeviction"):
        raise StoreUnfit(f"expected maxmemory-policy noeviction, got {policy}: a full store would delete streams")
