"""A store that is slow, frozen, away or full: what an operator is told by metric, log and readiness.

The table is in docs/operations.md. A full disk is `faults/test_disk.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pushserver.log_throttle import REASONS

from ..support.scrapes import METRICS, scrape, until_scraped
from ..support.server import ROOT, Running, reader, receive, running, until
from ..support.stores import Server

pytestmark = [pytest.mark.anyio, pytest.mark.full]

MOST_LINES = 12  # of the log in one state, from its begin to its end; a line for each try would be many more
Samples = dict[str, float]


class State(NamedTuple):
    """A State of the store: how it comes and goes, and what is said of it."""

    begin: Callable[[Server], object]
    end: Callable[[Server], object]
    failing: str  # the check of /readyz
    metric: Callable[[Samples, Samples], bool]  # of a scrape before it, and one meanwhile
    line: str
    last_line: str
    alert: str  # `test_alerts_caused.py` causes it


STATES = {
    "slow": State(
        lambda store: store.ask("CLIENT", "PAUSE", 60_000, "WRITE"),
        lambda store: store.ask("CLIENT", "UNPAUSE"),
        "fast",
        lambda before, now: now["pushserver_check,fast"] == 0 and now["pushserver_store_up"] == 1,
        "store slow: a check took",
        "the store is fast again",
        "PushserverStoreSlow",
    ),
    "frozen": State(
        Server.freeze,
        Server.thaw,
        "store",
        lambda before, now: (
            now["pushserver_store_up"] == 0
            and now["pushserver_store_failed_total,timeout"] > before["pushserver_store_failed_total,timeout"]
            and now["pushserver_tail_silence_seconds"] > 1
        ),
        "store check failed: no answer within",
        "store check passes again, after",
        "PushserverStoreAway",
    ),
    "away": State(
        Server.kill,
        Server.start,
        "store",
        lambda before, now: (
            now["pushserver_store_up"] == 0
            and now["pushserver_tails,lost"] + now["pushserver_tails,connecting"] > 0
            and now["pushserver_store_failed_total,connection"] > before["pushserver_store_failed_total,connection"]
        ),
        "tail lost",
        "all tails are read again, after",
        "PushserverStoreAway",
    ),
    "full": State(
        lambda store: store.ask("CONFIG", "SET", "maxmemory", "1"),
        lambda store: store.ask("CONFIG", "SET", "maxmemory", "0"),
        "store",
        lambda before, now: (
            now["pushserver_store_up"] == 0
            and now["pushserver_store_failed_total,refused"] > before["pushserver_store_failed_total,refused"]
        ),
        "store check failed: command not allowed",
        "store check passes again, after",
        "PushserverStoreAway",
    ),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    store = Server(tmp_path_factory.mktemp("store"), "--appendonly", "yes", "--appendfsync", "always")
    yield store
    store.close()


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, store: Server) -> Iterator[Running]:
    """A server on a store of the tests' own."""
    folder: Path = tmp_path_factory.mktemp("told") / "data"
    url = f"redis://127.0.0.1:{store.port}"
    with running(folder, "--redis", url, "--slow-store", "500", "--log-level", "info", *METRICS) as server:
        yield server


def ready(server: Running) -> dict[str, Any]:
    answer: dict[str, Any] = server.http.get("/readyz").json()
    return answer


@pytest.mark.parametrize("name", STATES)
async def test_an_operator_is_told(watched: Running, store: Server, stream: str, name: str) -> None:
    state = STATES[name]
    cursor = watched.publish_ok(stream, "one")["cursor"]
    await asyncio.to_thread(until, lambda: ready(watched)["ready"])
    assert watched.http.get(f"/streams/{stream}").status_code == 200  # it is in memory
    async with reader(watched, stream, cursor=cursor) as socket:
        await receive(socket, "hello")
        before, lines = scrape(watched), len(watched.log.splitlines())
        state.begin(store)
        try:
            await asyncio.to_thread(until, lambda: not ready(watched)[state.failing])
            assert ready(watched)["reasons"]
            assert watched.http.get("/livez").status_code == 200
            assert watched.http.get("/readyz/read").status_code == 200
            await asyncio.to_thread(until_scraped, watched, lambda now: state.metric(before, now))
        finally:
            state.end(store)
        await asyncio.to_thread(until, lambda: ready(watched)["ready"])

        def new() -> list[str]:
            return watched.log.splitlines()[lines:]

        await asyncio.to_thread(until, lambda: any(state.last_line in line for line in new()))
        assert 1 <= sum(state.line in line for line in new()) <= REASONS, new()
        assert len(new()) <= MOST_LINES, new()
        await asyncio.to_thread(until_scraped, watched, lambda now: now["pushserver_store_up"] == 1)


def test_the_table_names_every_state() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    _, _, section = page.partition("## How each state of the store shows")
    for name, state in STATES.items():
        (row,) = [line for line in section.splitlines() if line.startswith(f"| {name}")]
        assert state.line in row
        assert f"`{state.failing}`" in row
        assert row.endswith(f"| {state.alert} |")
