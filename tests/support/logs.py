"""Appends as publishers make them, and a log as it is stored, to be read and harmed past the `Log`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio as aioredis

from pushserver import model
from pushserver.content import changes, schema, validation
from pushserver.model import Append
from pushserver.store.log import Log
from pushserver.store.store import Store

from .server import entry_append, withdrawal_append


def put(
    stream: str,
    headline: str = "one",
    *,
    id: str = "",
    rev: int = 1,
    at: int = 0,
    key: str = "",
    body_hash: str = "b0d7",
    **fields: Any,
) -> Append:
    """An entry as the publish path hands it to the log."""
    return entry_append(stream, headline, id=id, rev=rev, at=at, key=key, body_hash=body_hash, **fields)


def put_page(stream: str, rev: int, headline: str = "Page") -> Append:
    """A page at a revision."""
    at = model.now()
    page = changes.revise_page(validation.read(schema.PageIn, {"headline": headline}), at=at)
    page["rev"] = rev
    return changes.put_page(stream, page, at=at)


def withdraw(stream: str, id: str, at: int) -> Append:
    """The withdrawal of an entry's first revision."""
    return withdrawal_append(stream, id, at=at)


def tag_of(stream: str) -> str:
    """The hash tag of a stream's keys, in a store of 16 partitions."""
    return f"{{p{model.partition_of(stream, 16):02d}}}"


def log_key(stream: str, name: str = "log") -> str:
    return f"{tag_of(stream)}:{stream}:{name}"


async def execute(store: aioredis.Redis, *words: object) -> Any:
    return await store.execute_command(*words)  # type: ignore[no-untyped-call]


@asynccontextmanager
async def log_on(url: str, *, partitions: int = 16, entry_limit: int = 500) -> AsyncIterator[Log]:
    """A log on a store that was not checked."""
    store = Store(url, partitions=partitions)
    try:
        yield Log(store, log_events=1_000, entry_limit=entry_limit, idempotency=60)
    finally:
        await store.close()


async def records(store: aioredis.Redis, stream: str) -> list[dict[str, str]]:
    """The log as it is stored; each record's redis id under `id`."""
    rows = []
    for id, pairs in await execute(store, "XRANGE", log_key(stream), "-", "+"):
        items = pairs.items() if isinstance(pairs, dict) else zip(pairs[::2], pairs[1::2], strict=True)
        rows.append({"id": id.decode(), **{name.decode(): value.decode() for name, value in items}})
    return rows


async def texts_of(store: aioredis.Redis) -> str:
    """All that a store has, names and values."""
    texts: list[Any] = []
    async for name in store.scan_iter():
        kind: Any = await store.type(name)
        match kind.decode():
            case "stream":
                texts += [name, await execute(store, "XRANGE", name, "-", "+")]
            case "hash":
                texts += [name, await store.hgetall(name)]
            case "zset":
                texts += [name, await store.zrange(name, 0, -1)]
            case other:
                assert other == "string", f"{name!r} is a {other}"
                texts += [name, await store.get(name)]
    return repr(texts)


async def add_foreign(store: aioredis.Redis, stream: str) -> str:
    """Add a record that something else wrote into the log; its redis id."""
    id: bytes = await execute(store, "XADD", log_key(stream), "*", "temperature", "21.5")
    return id.decode()
