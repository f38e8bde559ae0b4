"""A worker is ready while it can do its work, and alive whatever the store does. (Silence is a fault of `faults/`.)"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis.asyncio as aioredis

from pushserver.store.embedded import SOCKET

from ..support.server import Running, reader, receive

pytestmark = pytest.mark.anyio

LIMIT = 12.0  # seconds after which readiness tells of a store at the latest

Harm = Callable[[aioredis.Redis], Awaitable[Any]]


async def is_replica_of_nobody(store: aioredis.Redis) -> None:
    await store.execute_command("REPLICAOF", "127.0.0.1", "1")  # type: ignore[no-untyped-call]


async def is_primary_again(store: aioredis.Redis) -> None:
    await store.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]


async def is_full(store: aioredis.Redis) -> None:
    await store.config_set("maxmemory", "1")


async def has_room(store: aioredis.Redis) -> None:
    await store.config_set("maxmemory", "0")


async def evicts(store: aioredis.Redis) -> None:
    await store.execute_command("CONFIG", "SET", "maxmemory", "1gb", "maxmemory-policy", "allkeys-lru")  # type: ignore[no-untyped-call]


async def keeps(store: aioredis.Redis) -> None:
    await store.execute_command("CONFIG", "SET", "maxmemory", "0", "maxmemory-policy", "noeviction")  # type: ignore[no-untyped-call]


@asynccontextmanager
async def store_of(server: Running) -> AsyncIterator[aioredis.Redis]:
    async with aioredis.Redis.from_url(f"unix://{server.data}/{SOCKET}") as store:
        yield store


async def until(server: Running, **expected: bool) -> dict[str, Any]:
    """Wait until it says so; all that it says. It is alive all the time, and says each at once."""
    deadline = time.monotonic() + LIMIT
    while True:
        began = time.monotonic()
        assert (await asyncio.to_thread(server.http.get, "/livez")).status_code == 200
        response = await asyncio.to_thread(server.http.get, "/readyz")
        assert time.monotonic() - began < 2, "a probe waited for the store"
        checks: dict[str, Any] = response.json()
        assert checks["ready"] is (response.status_code == 200)
        if expected.items() <= checks.items():
            return checks
        assert time.monotonic() < deadline, checks
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("harm", "mend", "takes_writes"),
    [(is_replica_of_nobody, is_primary_again, False), (is_full, has_room, False), (evicts, keeps, True)],
    ids=lambda part: part.__name__.replace("_", " ") if callable(part) else "",
)
async def test_a_worker_is_not_ready_while_its_store(
    server: Running, stream: str, harm: Harm, mend: Harm, takes_writes: bool
) -> None:
    cursor = server.publish_ok(stream, "before")["cursor"]
    async with store_of(server) as store, reader(server, stream, cursor=cursor) as socket:
        await until(server, ready=True)
        await harm(store)
        try:
            await until(server, ready=False, store=False)
            answer = server.publish(stream, {"headline": "meanwhile"}, Idempotency_Key="meanwhile")
            assert answer.status_code == (201 if takes_writes else 503)
            if not takes_writes:
                assert int(answer.headers["Retry-After"]) > 0
                assert "nothing was stored" in answer.json()["detail"]
        finally:
            await mend(store)
        await until(server, ready=True)
        again = server.publish(stream, {"headline": "meanwhile"}, Idempotency_Key="meanwhile")
        assert (again.json()["n"], again.status_code) == (2, 200 if takes_writes else 201)
        assert (await receive(socket, "entry.put"))["n"] == 2  # by a reader who never noticed
