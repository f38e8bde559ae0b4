"""A run counts what is late, missing or delivered twice."""

from __future__ import annotations

import pytest

from bench.contenders import entry
from pushserver.bench.measurement import Outcome
from pushserver.bench.publisher import PublisherConnection, PublishSchedule
from pushserver.bench.reader import TICK_NS
from pushserver.bench.run import run_schedule
from pushserver.bench.swarm import ReaderPool

from ..support.faulty import FaultyServer, listening
from ..support.server import LIMIT


async def tried(faulty: FaultyServer, readers: int, entries: int, rate: float = 0.0, limit: float = LIMIT) -> Outcome:
    """One trial of it."""
    async with listening(faulty) as endpoint:
        swarm, connection = await ReaderPool.start(endpoint), PublisherConnection(endpoint, ())
        await endpoint.connect(connection)
        try:
            await swarm.open(readers)
            schedule = PublishSchedule(lambda number: "/pub/0", entry, 0, entries, rate)
            return await run_schedule(swarm, [connection], schedule, limit=limit)
        finally:
            connection.close()
            await swarm.close()


@pytest.mark.anyio
async def test_what_is_missing_or_comes_twice_is_counted() -> None:
    outcome = await tried(FaultyServer({3: 0, 5: 2, 6: 3}), readers=4, entries=10, limit=5)
    assert (outcome.counts.missing, outcome.counts.duplicates) == (4, 4 + 2 * 4)
    assert not outcome.is_complete
    assert (await tried(FaultyServer(), readers=4, entries=10)).is_complete


@pytest.mark.anyio
async def test_a_publisher_that_has_to_wait_makes_what_comes_after_late() -> None:
    """Else a server that stalls would be measured only when it does not."""
    outcome = await tried(FaultyServer(stalls={10: 0.4}), readers=2, entries=40, rate=100)
    late = outcome.figures()["late_ms"]
    assert late["max"] >= 400
    waited = sum(count for ticks, count in outcome.counts.late.items() if ticks * TICK_NS > 50e6)
    assert waited >= 2 * 20


@pytest.mark.anyio
async def test_a_reader_that_is_asked_to_come_later_does() -> None:
    faulty = FaultyServer()
    faulty.deferred = 3
    outcome = await tried(faulty, readers=5, entries=1)
    assert outcome.is_complete
    assert outcome.counts.deferred == 3
