"""Failovers: what the new primary has, and what it has not, and what publishers and readers are told of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from ..support.server import LIMIT, Running, reader, receive, running, until
from ..support.stores import REDIS, STRIKES, Watched, watched
from .run import Run

pytestmark = [pytest.mark.anyio, pytest.mark.full]

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
BEHIND = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": "-10s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
Serve = Callable[..., tuple[Watched, Running]]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start a primary with a replica and Sentinels, and a server of three workers on them."""
    with ExitStack() as stack:

        def _serve(*arguments: str, **options: Any) -> tuple[Watched, Running]:
            store = stack.enter_context(watched(tmp_path / "store", **options))
            more = ("--redis", store.url, "--workers", "3", "--heartbeat", "1", "--page-entries", "500")
            return store, stack.enter_context(running(tmp_path / "data", *more, *arguments))

        yield _serve


async def fail_over(store: Watched) -> None:
    await asyncio.to_thread(store.primary.kill)
    await asyncio.to_thread(store.until_failed_over)


async def test_a_failover_in_sync_loses_nothing_and_disconnects_nobody(serve: Serve, stream: str) -> None:
    store, server = serve()
    run = Run(server, stream, seed=1)

    async def fault(run: Run) -> None:
        await run.more(10)
        await fail_over(store)

    assert await run.of(fault) == []
    assert not run.broken
    assert run.deliveries > 100


@pytest.mark.parametrize(
    "replica_env",
    [
        pytest.param(None, id="its clock right"),
        pytest.param(
            BEHIND, id="its clock behind", marks=pytest.mark.skipif(not FAKETIME, reason="libfaketime is not installed")
        ),
    ],
)
async def test_what_a_failover_lost_comes_back_and_everyone_is_told(
    serve: Serve, stream: str, replica_env: dict[str, str] | None
) -> None:
    """With a clock behind, what the new primary stores has lower ids than what readers hold."""
    store, server = serve("--replicas", "1", replica_env=replica_env)
    run = Run(server, stream, seed=1)
    away = {"cursor": ""}

    async def fault(run: Run) -> None:
        await run.more(10)
        await asyncio.to_thread(store.cut_off_replicas)
        await run.more(20)
        answer = await asyncio.to_thread(server.publish, stream, {"headline": "On one server alone"})
        assert (answer.status_code, answer.json()["durability"], answer.json()["replicas"]) == (202, "memory", 0)
        away["cursor"] = answer.json()["cursor"]
        async with run.paused():  # what no worker has read cannot come back
            await fail_over(store)

    assert await run.of(fault) == []
    assert not run.broken
    assert {frame["reason"] for log in run.logs for frame in log if frame["type"] == "reset"} == {"rollback"}
    assert "On one server alone" in {entry["headline"] for entry in server.snapshot(stream)["entries"]}
    async with reader(server, stream, cursor=away["cursor"]) as socket:
        hello, snapshot = await receive(socket), await receive(socket)
        assert (hello["complete"], hello["reason"]) == (False, "rollback")
        assert snapshot["entries"] == server.snapshot(stream)["entries"]


async def test_a_replica_that_never_had_anything_begins_a_new_log_and_everyone_is_told(
    serve: Serve, stream: str
) -> None:
    store, server = serve("--replicas", "1")
    (replica,) = store.replicas
    stored = server.publish_ok(stream, "Lost with its server")
    assert stored["durability"] == "replica"
    async with reader(server, stream, cursor=stored["cursor"]) as socket:
        assert (await receive(socket, "hello"))["complete"]
        store.cut_off_replicas()
        replica.ask("CONFIG", "SET", "replica-read-only", "no")
        replica.ask("FLUSHALL")
        until(lambda: server.http.get("/readyz").json()["replicas"] is False)  # before anything was lost
        await fail_over(store)
        assert await _published_again(server, stream)
        with suppress(ConnectionClosed):  # where the worker looked before there was a new one
            assert (await receive(socket, "reset"))["reason"] == "epoch"
    assert await _answer_to_return(server, stream, stored["cursor"]) == ("epoch", ["Published again"])


async def _answer_to_return(server: Running, stream: str, cursor: str) -> tuple[str, list[str]]:
    """Why a reader who comes back with a cursor is given a snapshot, and what is in it."""
    why = ""
    async with asyncio.timeout(LIMIT):
        while True:
            with suppress(InvalidStatus, ConnectionClosed):  # a worker that has not seen the new log yet
                async with reader(server, stream, cursor=cursor) as socket:
                    while (frame := await receive(socket))["type"] != "snapshot":
                        why = frame.get("reason", why)
                    return why, [entry["headline"] for entry in frame["entries"]]
            await asyncio.sleep(0.1)


async def _published_again(server: Running, stream: str) -> bool:
    async with asyncio.timeout(LIMIT):
        while True:
            answer = await asyncio.to_thread(
                server.publish, stream, {"headline": "Published again"}, Idempotency_Key="again"
            )
            if answer.status_code != 503:
                return answer.is_success
            await asyncio.sleep(0.1)


async def test_a_primary_that_only_its_clients_can_reach_is_left(serve: Serve, stream: str) -> None:
    """Nobody tells a worker that the primary that it reads is none any more, but the Sentinels when they are asked."""
    store, server = serve(options=("--min-replicas-to-write", "0"))
    run = Run(server, stream, seed=1)

    async def fault(run: Run) -> None:
        await run.more(10)
        await asyncio.to_thread(store.isolate)
        await asyncio.to_thread(store.until_failed_over)
        await asyncio.to_thread(until, lambda: _clients(store) == 0)

    assert await run.of(fault) == []
    assert not run.broken


def _clients(store: Watched) -> int:
    """How many connections of workers the old primary has."""
    return sum(client["user"] == "worker" for client in store.primary.client.client_list())


@contextmanager
def frozen(store: Watched) -> Iterator[None]:
    store.primary.freeze()
    try:
        yield
    finally:
        store.primary.thaw()


async def test_a_primary_that_was_frozen_and_comes_back_is_no_primary(serve: Serve, stream: str) -> None:
    store, server = serve()
    run = Run(server, stream, seed=1)

    async def fault(run: Run) -> None:
        await run.more(10)
        with frozen(store):
            await asyncio.to_thread(store.until_failed_over)
        await asyncio.to_thread(until, lambda: store.primary.info("replication")["role"] == "slave")

    assert await run.of(fault) == []
    assert not run.broken


@pytest.mark.parametrize(
    "binary",
    [
        pytest.param("", id="valkey"),
        pytest.param(REDIS, id="redis", marks=pytest.mark.skipif(not REDIS, reason="redis is not installed")),
    ],
)
@pytest.mark.parametrize("strike", STRIKES)
@pytest.mark.parametrize(("away", "how"), [(0, "alone"), (2, "frozen")])
async def test_a_failover_while_replicas_are_away_loses_nothing(
    serve: Serve, stream: str, away: int, how: str, strike: str, binary: str
) -> None:
    """Once the Sentinels name the new primary, workers leave the old one, which may go on taking writes."""
    store, server = serve(replicas=3, failover_timeout_ms=180_000, binary=binary)
    run = Run(server, stream, seed=1)

    async def fault(run: Run) -> None:
        await asyncio.to_thread(store.take_away, away, how)
        await run.more(10)
        await asyncio.to_thread(store.strike, strike)
        await asyncio.to_thread(store.until_failed_over)
        if strike == "asked for":
            await asyncio.to_thread(until, lambda: _clients(store) == 0)

    assert await run.of(fault) == []
    assert not run.broken
    assert "Unclosed" not in server.log
