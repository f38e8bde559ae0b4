"""Each fault, in a short run on an embedded store with three workers: nothing that is promised breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from ..proxy import Proxy, to_server
from ..support import Running, running
from .faults import FAULTS, the_log_is_deleted, the_store_loses_its_newest_events
from .run import Run

SEEN: dict[Any, set[str]] = {
    the_log_is_deleted: {"reset"},
    the_store_loses_its_newest_events: {"reset"},
}  # frames that a fault has to cause

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    arguments = ("--workers", "3", "--heartbeat", "1", "--page-entries", "500")
    with running(tmp_path_factory.mktemp("three") / "data", *arguments) as server:
        yield server


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__.replace("_", " "))
async def test_nothing_that_is_promised_breaks_when(
    three: Running, stream: str, fault: Callable[[Run], Coroutine[Any, Any, None]]
) -> None:
    run = Run(three, stream, seed=1)
    assert await run.of(fault) == []
    assert run.deliveries > 500
    assert {frame["type"] for log in run.logs for frame in log} >= SEEN.get(fault, set())


async def test_nothing_that_is_promised_breaks_when_the_network_cuts(three: Running, stream: str) -> None:
    async with Proxy(to_server(three.url)).running() as proxy:

        async def cuts(run: Run) -> None:
            proxy.cut_at_random(seed=1, chance=0.01)
            for _ in range(8):
                await asyncio.sleep(0.25)
                proxy.cut()
            proxy.cut_at_random(seed=1, chance=0)

        run = Run(three, stream, seed=1, url=proxy.url)
        assert await run.of(cuts) == []
        assert proxy.cuts > 0
