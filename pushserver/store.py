"""The connection to the store, with its limits in time; what the store promises; what is kept there for all streams.

Nothing here is retried: a publish that is sent twice would be stored twice, and a hidden retry of a blocking read hides
that it never returns (redis-py 8 does both by default).
"""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import redis.asyncio as aioredis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError, TimeoutError

from . import model
from .frames import dumps

CONNECTIONS = 64  # of the pool that requests share; one more request waits a second, then is told 503
COMMAND_TIMEOUT = 5.0
QUIET = 5.0  # seconds without a message after which the store is asked whether it is there
LEAST_REDIS = (7, 0)  # effects replication and XADD's options as they are used here
WRITTEN, WRITTEN_KEPT = "pushserver:written", 60  # a key that shows that writes are taken, and its seconds
KEYS, KEYS_USED = "pushserver:keys", "pushserver:keys:used"

StoreError = RedisError
T = TypeVar("T")


class StoreUnfit(Exception):
    """The store is reachable, and not one to build on; says what was expected and what came."""


class Channels:
    """What is said in some channels, as it is said."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection

    async def read(self) -> bytes | None:
        """The next message; None when there was none for a while and the store is still there. Raises StoreError."""
        try:
            async with asyncio.timeout(QUIET):
                # By itself redis-py disconnects when a read is given up, and connects again without the subscription.
                return _message(await self._connection.read_response(disconnect_on_error=False))
        except builtins.TimeoutError:
            pass
        await self._connection.send_command("PING")
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT):
                return _message(await self._connection.read_response())
        except builtins.TimeoutError:
            raise TimeoutError(f"no answer within {COMMAND_TIMEOUT} s") from None


def _message(reply: list[bytes]) -> bytes | None:
    """What was said; None for the answer to a PING."""
    return reply[2] if reply[0] == b"smessage" else None


class Store:
    """A Redis or Valkey server. Safe to share between tasks; `close` when done."""

    def __init__(self, url: str, *, partitions: int) -> None:
        options = {
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": None,  # see `within`
            "socket_connect_timeout": COMMAND_TIMEOUT,
        }
        self._pool = aioredis.BlockingConnectionPool.from_url(url, max_connections=CONNECTIONS, timeout=1, **options)
        self.redis = aioredis.Redis(connection_pool=self._pool)
        self.partitions = partitions
        self.durability = "memory"  # until `ping` has verified more

    async def close(self) -> None:
        await self.redis.aclose()
        await self._pool.disconnect()

    async def within(self, command: Awaitable[T]) -> T:
        """Await a command for COMMAND_TIMEOUT at most.

        redis-py would use `asyncio.wait_for`, which on Python 3.11 can swallow a cancellation: a task that was told to
        end goes on.
        """
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT):
                return await command
        except builtins.TimeoutError:
            raise TimeoutError(f"no answer within {COMMAND_TIMEOUT} s") from None

    async def connect(self) -> tuple[AbstractConnection, int]:
        """A connection of its own for a tail, and its client id."""
        connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        await connection.connect()
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT):
                await connection.send_command("CLIENT", "ID")
                return connection, int(await connection.read_response())
        except BaseException:
            await connection.disconnect(nowait=True)
            raise

    async def unblock(self, client_id: int) -> None:
        """Make a blocked read return now. Nothing happens where it is not blocked."""
        await self.within(self.redis.client_unblock(client_id))

    # --- what workers say to each other

    @asynccontextmanager
    async def channels(self, *names: str) -> AsyncIterator[Channels]:
        """Subscribe to sharded channels of one hash slot, on a connection of its own."""
        connection, _ = await self.connect()
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT):
                await connection.send_command("SSUBSCRIBE", *names)
                for _ in names:
                    await connection.read_response()
            yield Channels(connection)
        finally:
            await connection.disconnect(nowait=True)

    async def publish(self, channel: str, message: str) -> int:
        """Say something to all who are subscribed; how many that were."""
        return int(await self.within(self.redis.execute_command("SPUBLISH", channel, message)))  # type: ignore[no-untyped-call]

    # --- what it is

    async def check(self) -> None:
        """Refuse a store that this deployment cannot rely on, and find out what an acknowledgement means there."""
        info = await self.within(self.redis.info())
        version = str(info.get("valkey_version") or info["redis_version"])
        if tuple(int(part) for part in version.split(".")[:2]) < LEAST_REDIS:
            raise StoreUnfit(f"expected Redis 7.0 or Valkey 7.2 or later, got {version}")
        known = await self.within(self.redis.set("pushserver:partitions", self.partitions, nx=True, get=True))
        if known is not None and int(known) != self.partitions:
            raise StoreUnfit(f"expected {int(known)} partitions, which this store was made with, got {self.partitions}")
        policy = info.get("maxmemory_policy", "noeviction")
        if info.get("maxmemory") and policy != "noeviction":
            raise StoreUnfit(f"expected maxmemory-policy noeviction, got {policy}: whole streams could vanish")
        await self.ping()

    async def ping(self) -> None:
        """Ask the store whether it takes writes, and what it promises: `disk` while it syncs each before it answers."""
        await self.within(self.redis.set(WRITTEN, model.now(), ex=WRITTEN_KEPT))
        try:
            config = await self.within(self.redis.config_get("append*"))
        except ResponseError:  # a store may deny CONFIG: then nothing was verified, and nothing is claimed
            config = {}
        synced = config.get("appendonly") == "yes" and config.get("appendfsync") == "always"
        self.durability = "disk" if synced else "memory"

    # --- publish keys

    async def key(self, id: str) -> dict[str, Any] | None:
        """A publish key as it is kept."""
        found = await self.within(cast(Awaitable[bytes | None], self.redis.hget(KEYS, id)))
        return model.loads(found) if found else None

    async def all_keys(self) -> dict[str, dict[str, Any]]:
        """Every publish key by its id, `used` being when it was last, as far as was noted."""
        kept = await self.within(cast(Awaitable[dict[bytes, bytes]], self.redis.hgetall(KEYS)))
        used = await self.within(cast(Awaitable[dict[bytes, bytes]], self.redis.hgetall(KEYS_USED)))
        return {id.decode(): {**model.loads(key), "used": used.get(id, b"").decode()} for id, key in kept.items()}

    async def keep_key(self, id: str, key: dict[str, Any]) -> None:
        await self.within(self.redis.hset(KEYS, id, dumps(key)))

    async def revoke_key(self, id: str) -> bool:
        """From now on it is refused; False where there was none."""
        await self.within(self.redis.hdel(KEYS_USED, id))
        return bool(await self.within(self.redis.hdel(KEYS, id)))

    async def note_key_use(self, id: str, at: str) -> None:
        await self.within(self.redis.hset(KEYS_USED, id, at))
