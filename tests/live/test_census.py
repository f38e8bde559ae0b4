"""The readers of a stream are counted on all workers, each of which writes its own figures once a heartbeat."""

from __future__ import annotations

import logging

import pytest

from pushserver.live.census import COUNTED, KEY, REMOVED, STREAMS, Census
from pushserver.store.store import Store

pytestmark = pytest.mark.anyio


async def test_the_figures_of_all_workers_are_summed(log_store: Store, stream: str) -> None:
    one, two, other = Census(log_store), Census(log_store), f"{stream}-other"
    await one.take({stream: 2})
    await two.take({stream: 3, other: 1})
    await one.take({stream: 2})
    assert (one.readers(stream, 2), one.readers(other, 0), two.readers(stream, 3)) == (5, 1, 5)
    assert one.readers(f"{stream}-nobody", 0) == 0


async def test_the_last_figures_of_a_worker_that_is_gone_count_for_two_heartbeats(
    log_store: Store, stream: str
) -> None:
    one, gone = Census(log_store), Census(log_store)
    await gone.take({stream: 3})
    seen = []
    for _ in range(COUNTED + 1):
        await one.take({})
        seen.append(one.readers(stream, 1))
    assert seen == [4] * COUNTED + [1]
    for _ in range(REMOVED):
        await one.take({})
    fields = await log_store.call(KEY, lambda redis: redis.hkeys(KEY))
    assert gone._name not in fields
    assert one._name in fields


async def test_a_store_that_is_away_is_one_line_of_the_log(
    log_store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*_: object) -> None:
        raise TimeoutError

    one = Census(log_store)
    with caplog.at_level(logging.INFO), monkeypatch.context() as patch:
        patch.setattr(log_store, "exchange", fails)
        for _ in range(3):
            await one.take({})
        patch.undo()
        await one.take({})
    assert [record.getMessage().split(" after ")[0] for record in caplog.records] == [
        "the readers of other workers are not counted anew: no answer within 0.5 s",
        "the readers of other workers are counted again,",
    ]


async def test_a_worker_names_the_streams_that_most_read(log_store: Store, stream: str) -> None:
    one, two = Census(log_store), Census(log_store)
    await two.take({f"{stream}-{number}": number + 1 for number in range(STREAMS + 1)})
    await one.take({})
    assert (one.readers(f"{stream}-0", 0), one.readers(f"{stream}-1", 0)) == (0, 2)
