from __future__ import annotations

from typing import Any

import pytest
import redis.asyncio as aioredis

from pushserver import model
from pushserver.store.log import Log

from ..support.logs import add_foreign, log_key, put, put_page

pytestmark = pytest.mark.anyio


async def test_a_foreign_record_is_skipped_by_resume(log: Log, store: aioredis.Redis, stream: str) -> None:
    cursor = (await log.append(put(stream))).cursor
    last = await log.append(put(stream))
    await add_foreign(store, stream)
    resumed = await log.resume(stream, cursor, limit=10, limit_bytes=10**6)
    assert (resumed.reason, resumed.n, [event.cursor for event in resumed.events]) == (None, 1, [last.cursor])


async def test_a_foreign_record_between_two_events_is_skipped_by_resume(
    log: Log, store: aioredis.Redis, stream: str
) -> None:
    cursor = (await log.append(put(stream))).cursor
    await log.append(put(stream))
    await add_foreign(store, stream)
    await log.append(put(stream))
    resumed = await log.resume(stream, cursor, limit=10, limit_bytes=10**6)
    assert (resumed.reason, resumed.n, [event.n for event in resumed.events]) == (None, 1, [2, 3])


async def test_a_foreign_record_is_skipped_by_the_tail(log: Log, store: aioredis.Redis, stream: str) -> None:
    cursor = (await log.append(put(stream))).cursor
    second = await log.append(put(stream))
    foreign = await add_foreign(store, stream)
    connection = await log.open_tail(model.partition_of(stream, 16))
    try:
        ((name, last, events),) = await connection.read({stream: cursor.id})
        assert (name, last, [event.cursor for event in events]) == (stream, foreign, [second.cursor])
        await log.append(put(stream))
        ((_, _, events),) = await connection.read({stream: foreign})
        assert [(event.n, event.prev) for event in events] == [(3, second.cursor)]
    finally:
        await connection.close()


async def test_a_foreign_record_changes_no_number_and_no_link(log: Log, store: aioredis.Redis, stream: str) -> None:
    first = await log.append(put(stream, id="entry"))
    await add_foreign(store, stream)
    snapshot = await log.snapshot(stream, limit=10)
    assert snapshot is not None
    assert (snapshot.cursor, snapshot.n) == (first.cursor, 1)
    answers = [
        await log.append(append) for append in (put(stream, "corrected", id="entry", rev=2), put_page(stream, 1))
    ]
    assert [answer.n for answer in answers] == [2, 3]
    resumed = await log.resume(stream, first.cursor, limit=10, limit_bytes=10**6)
    assert [(event.cursor, event.prev) for event in resumed.events] == [
        (answers[0].cursor, first.cursor),
        (answers[1].cursor, answers[0].cursor),
    ]


GOOD: dict[Any, Any] = {
    "e": "0" * 16,
    "n": "7",
    "p": f"1-1.{'0' * 16}",
    "u": "0" * 16,
    "t": "entry.put",
    "s": "",
    "k": "x",
    "d": "{}",
}


@pytest.mark.parametrize(
    "broken",
    [{"n": "many"}, {"n": "-1"}, {"n": "1e99"}, {"p": "none"}, {"u": ""}, {"e": "x y"}, {"k": b"\xff"}, {"d": "[]"}],
    ids=str,
)
async def test_a_record_that_only_looks_like_an_event_is_skipped_by_everyone(
    log: Log, store: aioredis.Redis, stream: str, broken: dict[Any, Any]
) -> None:
    first = await log.append(put(stream))
    await store.xadd(log_key(stream), {**GOOD, **broken})
    second = await log.append(put(stream))
    assert second.n == 2
    resumed = await log.resume(stream, first.cursor, limit=10, limit_bytes=10**6)
    assert (resumed.reason, [event.cursor for event in resumed.events]) == (None, [second.cursor])
    connection = await log.open_tail(model.partition_of(stream, 16))
    try:
        ((_, _, events),) = await connection.read({stream: first.cursor.id})
    finally:
        await connection.close()
    assert [(event.n, event.prev) for event in events] == [(2, first.cursor)]
