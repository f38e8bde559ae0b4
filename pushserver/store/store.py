"""The store: where its keys live, with limits in time; what it promises; what is kept there for all streams.

Nothing here is retried that may have been done: a publish that is sent twice would be stored twice, and a hidden
retry of a blocking read hides that it never returns (redis-py 8 does both by default).
"""

from __future__ import annotations

import asyncio
import builtins
import logging
from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar

import redis.asyncio as aioredis
from redis.asyncio.connection import AbstractConnection
from redis.crc import key_slot
from redis.exceptions import ClusterDownError, ConnectionError, MovedError, ReadOnlyError, RedisError, ResponseError

from .. import model
from .topology import Node, topology_of, within

logger = logging.getLogger(__name__)

QUIET = 5.0  # seconds without a message after which the store is asked whether it is there
LOCATED_EVERY = 1.0  # seconds; a primary that was replaced may not know, and go on taking writes that will be lost
REPLICA_WAIT_MS, REPLICA_LATE_MS = (
    1_000,
    10,
)  # for replicas to say that they have a write; for those that did not before
LEAST_REDIS = (7, 0)  # effects replication and XADD's options as they are used here
WRITTEN_KEPT = 60  # seconds for a key that shows that writes are taken
PARTITIONS = "pushserver:partitions"

StoreError = RedisError
T = TypeVar("T")


class StoreUnfit(Exception):
    """The store is reachable, and not one to build on; says what was expected and what came."""


class Kept(NamedTuple):
    """How well something is kept: `disk` if it was synced before the answer, `replica` if enough of those have it."""

    durability: str
    replicas: int | None = None  # that said that they have it, where any were asked


class Channels:
    """What is said in some channels, as it is said."""

    def __init__(self, connection: Blocking) -> None:
        self._connection = connection

    async def read(self) -> bytes | None:
        """The next message; None when there was none for a while and the store is still there. Raises StoreError."""
        reply = await self._connection.hear() or await self._connection.ask("PING")
        if reply[0] == b"sunsubscribe":
            raise ConnectionError("the channels have moved to another server")
        return reply[2] if reply[0] == b"smessage" else None  # else it is the answer to a PING


def packed(command: Sequence[str | bytes | int]) -> bytes:
    """A command on the wire (RESP), in a third of the time that redis-py takes: a tail's names all that it follows."""
    words = [word if isinstance(word, bytes) else str(word).encode() for word in command]
    return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


class Blocking:
    """A connection of one's own, for commands that wait in the store."""

    client_id: int

    def __init__(self, node: Node, connection: AbstractConnection) -> None:
        self._node = node
        self._connection = connection

    async def ask(self, *command: str | bytes | int) -> Any:
        """The answer to a command. Raises StoreError, also when the node is the primary no more."""
        return await within(self._ask(*command))

    async def _ask(self, *command: str | bytes | int) -> Any:
        await self._connection.send_packed_command([packed(command)])
        return await self._connection.read_response()

    async def subscribe(self, channels: Sequence[str]) -> None:
        """Be told what is said in sharded channels of one hash slot."""
        await self.ask("SSUBSCRIBE", *channels)
        for _ in channels[1:]:
            await within(self._connection.read_response())

    async def hear(self) -> Any:
        """The next message of a subscription; None when there was none for a while. Raises StoreError."""
        try:
            async with asyncio.timeout(QUIET):
                # By itself redis-py disconnects when a read is given up, and connects again without the subscription.
                return await self._connection.read_response(disconnect_on_error=False)
        except builtins.TimeoutError:
            return None

    async def unblock(self) -> None:
        """Make a blocked command return now. Nothing happens where it is not blocked."""
        await within(self._node.redis.client_unblock(self.client_id))

    async def close(self) -> None:
        await self._node.disconnect(self._connection)


class Store:
    """Redis or Valkey, on one server or several. Safe to share between tasks; `close` when done.

    `run` keeps up with which servers are primaries. Raises ValueError for a URL that it cannot read.
    """

    def __init__(self, url: str, *, partitions: int, replicas: int = 0) -> None:
        self.partitions = partitions
        self.replicas = replicas  # that have to have a write before it is called `replica`
        self._topology = topology_of(url)
        self._lasts: list[int] = []  # slots, each the last of a shard's
        self._primaries: list[Node] = []  # of these shards
        self._locating = asyncio.Lock()
        self._located_at = float("-inf")

    async def run(self) -> None:
        """Look for the primaries again and again, until cancelled."""
        while True:
            await asyncio.sleep(LOCATED_EVERY)
            try:
                await self.locate()
            except StoreError as error:
                logger.warning("the primaries of the store were not found: %s", error)

    async def close(self) -> None:
        for node in dict.fromkeys(self._primaries):
            await node.close()
        await self._topology.close()

    # --- where keys live

    async def locate(self) -> None:
        """Find out which servers are primaries now, and let go of those that are none any more. Raises StoreError."""
        asked_at = asyncio.get_running_loop().time()
        async with self._locating:
            if self._located_at >= asked_at:  # somebody else has, meanwhile
                return
            shards = await self._topology.find()
            self._located_at = asyncio.get_running_loop().time()
            known = {node.url: node for node in self._primaries}
            nodes = {shard.url: known.get(shard.url) or Node(shard.url) for shard in shards}
            self._lasts = [shard.last for shard in shards]
            self._primaries = [nodes[shard.url] for shard in shards]
            for url in known.keys() - nodes.keys():
                logger.warning("a server is no primary of the store any more")
                await known[url].close()

    async def node(self, key: str) -> Node:
        """The primary of a key. Raises StoreError where it is not known."""
        if not self._primaries:
            await self.locate()
        place = bisect_left(self._lasts, key_slot(key.encode()))
        if place == len(self._primaries):
            raise ClusterDownError(f"no server has the slot of {key}")
        return self._primaries[place]

    async def primaries(self) -> dict[Node, list[int]]:
        """The primaries of the partitions, and which ones each has."""
        found: dict[Node, list[int]] = {}
        for partition in range(self.partitions):
            found.setdefault(await self.node(model.tag(partition)), []).append(partition)
        return found

    async def call(self, key: str, command: Callable[[aioredis.Redis], Awaitable[T]]) -> T:
        """Run a command where a key lives. Raises StoreError."""
        return await self._at(key, lambda node: command(node.redis))

    async def keep(self, key: str, command: Callable[[aioredis.Redis], Awaitable[T]]) -> tuple[T, Kept]:
        """Run a command that writes, or repeats what was written before, and say how well that is kept."""

        async def run(node: Node) -> tuple[T, Kept]:
            if not self.replicas:
                return await command(node.redis), Kept(node.durability)
            # Replicas are asked for what their own connection wrote (`WAIT`): another one would hear of its own writes
            # only. A mark is written after the command, which may find that it was carried out before.
            pipeline = node.redis.pipeline(transaction=False)
            await command(pipeline)
            self._mark(pipeline, key)
            pipeline.wait(self.replicas, REPLICA_WAIT_MS if node.replicas >= self.replicas else REPLICA_LATE_MS)
            answer, _, node.replicas = await pipeline.execute()
            reached = node.replicas >= self.replicas
            return answer, Kept("replica" if reached else node.durability, node.replicas)

        return await self._at(key, run)

    def _mark(self, pipeline: aioredis.client.Pipeline, key: str) -> None:
        pipeline.set(f"{key.partition('}')[0]}}}:written", model.now(), ex=WRITTEN_KEPT)

    async def _at(self, key: str, command: Callable[[Node], Awaitable[T]]) -> T:
        """The wrong server says so, and has done nothing: the command runs once more, on the right one."""
        node = await self.node(key)
        try:
            return await within(command(node))
        except (MovedError, ReadOnlyError):
            await self.locate()
            found = await self.node(key)
            if found is node:
                raise
            return await within(command(found))

    async def connect(self, key: str) -> Blocking:
        """A connection of one's own, where a key lives. Raises StoreError, OSError."""
        node = await self.node(key)
        connection = Blocking(node, await node.connect())
        try:
            connection.client_id = int(await connection.ask("CLIENT", "ID"))
        except BaseException:
            await connection.close()
            raise
        return connection

    # --- what workers say to each other

    @asynccontextmanager
    async def channels(self, *names: str) -> AsyncIterator[Channels]:
        """Subscribe to sharded channels of one hash slot, on a connection of its own."""
        connection = await self.connect(names[0])
        try:
            await connection.subscribe(names)
            yield Channels(connection)
        finally:
            await connection.close()

    async def publish(self, channel: str, message: str) -> int:
        """Say something to all who are subscribed; how many that were."""
        return int(await self.call(channel, lambda redis: redis.execute_command("SPUBLISH", channel, message)))  # type: ignore[no-untyped-call]

    # --- what it is

    async def check(self) -> None:
        """Refuse a store that this deployment cannot rely on, and find out what an acknowledgement means there."""
        for node in await self.primaries():
            _check_fit(await within(node.redis.info()))
        known = await self.call(PARTITIONS, lambda redis: redis.set(PARTITIONS, self.partitions, nx=True, get=True))
        if known is not None and int(known) != self.partitions:
            raise StoreUnfit(f"expected {int(known)} partitions, which this store was made with, got {self.partitions}")
        await self.ping()

    async def ping(self) -> None:
        """Ask each primary whether it takes and keeps writes, and what it promises. Raises StoreError, StoreUnfit."""
        for node, partitions in (await self.primaries()).items():
            await within(self._ping(node, model.tag(partitions[0])))

    async def _ping(self, node: Node, tag: str) -> None:
        pipeline = node.redis.pipeline(transaction=False)
        self._mark(pipeline, tag)
        if self.replicas:
            pipeline.wait(self.replicas, REPLICA_WAIT_MS)
        _, *replicas = await pipeline.execute()
        node.replicas = sum(replicas)
        try:
            config = await node.redis.config_get("append*", "maxmemory*")
        except ResponseError:  # a store may deny CONFIG: then nothing was verified, and nothing is claimed
            config = {}
        synced = config.get("appendonly") == "yes" and config.get("appendfsync") == "always"
        node.durability = "disk" if synced else "memory"
        _refuse_eviction(int(config.get("maxmemory") or 0), config.get("maxmemory-policy"))

    def has_replicas(self) -> bool:
        """Whether as many replicas as were asked for kept up with every primary when it was asked last."""
        return all(node.replicas >= self.replicas for node in self._primaries)


def _check_fit(info: dict[str, Any]) -> None:
    version = str(info.get("valkey_version") or info["redis_version"])
    if tuple(int(part) for part in version.split(".")[:2]) < LEAST_REDIS:
        raise StoreUnfit(f"expected Redis 7.0 or Valkey 7.2 or later, got {version}")
    _refuse_eviction(info.get("maxmemory"), info.get("maxmemory_policy"))


def _refuse_eviction(maxmemory: int | None, policy: str | None) -> None:
    """Raises StoreUnfit where a store that has no more room would make some."""
    if maxmemory and policy not in (None, "noeviction"):
        raise StoreUnfit(f"expected maxmemory-policy noeviction, got {policy}: whole streams could vanish")
