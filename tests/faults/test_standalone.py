"""Each fault, in a short run on an embedded store with three workers: nothing that is promised breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pushserver.store.embedded import embedded
from pushserver.store.folder import SOCKET

from ..support.proxy import Proxy, to_server, to_socket
from ..support.server import Running, running
from . import faults
from .disk import is_small, small_disk
from .faults import FAULTS
from .kills import ARGUMENTS as KILLED
from .kills import Kills
from .run import Run

ARGUMENTS = ("--workers", "3", "--heartbeat", "1", "--page-entries", "500")
TOLD: dict[Any, set[str]] = {  # reasons that a fault has to give, one of them, in a `reset` or a `hello`
    faults.the_log_is_deleted: {"epoch", "empty"},
    faults.everything_is_flushed: {"epoch", "empty"},
    faults.everything_is_evicted: {"epoch", "empty"},
    faults.events_of_the_log_are_deleted: {"epoch", "rollback"},
    faults.the_store_loses_its_newest_events: {"rollback"},
}
CUT_OFF = {  # readers, whom every other fault leaves where they are
    faults.a_worker_is_killed,
    faults.the_log_is_deleted,
    faults.everything_is_flushed,
    faults.everything_is_evicted,
}
MARKED = {faults.the_store_freezes}  # which lasts for longer than pages are served without a mark
READERS: dict[Any, int] = {faults.a_worker_is_killed: 200}
EVERY_TIME = {  # faults that are looked at by `make test` too; the others are by `make test-all`
    faults.a_worker_is_killed,
    faults.the_store_is_killed,
    faults.the_store_loses_its_newest_events,
}

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    data = tmp_path_factory.mktemp("three") / "data"
    with small_disk(data), running(data, *ARGUMENTS) as server:
        yield server


@pytest.mark.parametrize(
    "fault",
    [pytest.param(fault, marks=() if fault in EVERY_TIME else pytest.mark.full) for fault in FAULTS],
    ids=lambda fault: fault.__name__.replace("_", " "),
)
async def test_nothing_that_is_promised_breaks_when(
    three: Running, stream: str, fault: Callable[[Run], Coroutine[Any, Any, None]]
) -> None:
    if "disk" in fault.__name__ and not is_small(three.data):
        pytest.skip("only root may mount a disk to fill")
    run = Run(three, stream, seed=1)
    assert await run.of(fault, readers=READERS.get(fault, 20)) == []
    assert run.deliveries > 100
    assert fault not in TOLD or TOLD[fault] & {frame.get("reason") for log in run.logs for frame in log}
    assert fault in CUT_OFF or not run.broken
    assert run.pages.loads > 0
    assert fault not in MARKED or run.pages.stale > 0


@pytest.mark.full
async def test_nothing_that_is_promised_breaks_when_the_network_cuts(three: Running, stream: str) -> None:
    async with Proxy(to_server(three.url)).running() as proxy:

        async def cuts(run: Run) -> None:
            proxy.cut_at_random(seed=1, chance=0.01)
            for _ in range(8):
                await run.more(4)
                proxy.cut()
            proxy.cut_at_random(seed=1, chance=0)

        run = Run(three, stream, seed=1, url=proxy.url)
        assert await run.of(cuts) == []
        assert proxy.cuts > 0


@pytest.mark.full
async def test_a_store_that_is_killed_again_and_again_is_back_soon_and_costs_no_entry_and_no_connection(
    tmp_path: Path, stream: str
) -> None:
    with running(tmp_path / "data", *KILLED) as server:
        kills, run = Kills(5), Run(server, stream, seed=1)
        before = faults.workers(run)
        assert await run.of(kills, publishers=0, leaving=False) == []
        assert not run.broken
        assert faults.workers(run) == before
        assert len(kills.back) == 5


@pytest.mark.full
async def test_nothing_that_is_promised_breaks_when_the_network_to_the_store_is_silent(
    tmp_path: Path, stream: str
) -> None:
    """No reset, no end: what is sent is not answered, connections stay, new ones are taken and say nothing."""
    async with (
        embedded(tmp_path / "store"),
        Proxy(to_socket(str(tmp_path / "store" / SOCKET))).running() as proxy,
        served(tmp_path / "data", "--redis", f"redis://127.0.0.1:{proxy.port}", *ARGUMENTS) as server,
    ):
        run = Run(server, stream, seed=1)
        assert await run.of(partial(faults.is_silent, hold=proxy.hold, release=proxy.release)) == []
        assert not run.broken
        assert "tail lost: no answer within" in server.log


@asynccontextmanager
async def served(data: Path, *arguments: str) -> AsyncIterator[Running]:
    """A server whose store is reached through this loop, which its start and its end must not hold up."""
    server = await asyncio.to_thread(Running, data, *arguments)
    try:
        yield server
    finally:
        await asyncio.to_thread(server.stop)
