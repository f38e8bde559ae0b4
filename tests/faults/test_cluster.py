"""A cluster whose slots move, and whose primaries die."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from pushserver import model

from ..support.server import running, until
from ..support.stores import Server, cluster, is_whole
from .run import Run

pytestmark = [pytest.mark.anyio, pytest.mark.full]

ARGUMENTS = ("--workers", "3", "--heartbeat", "1", "--page-entries", "500")


def url_of(servers: list[Server]) -> str:
    return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in servers)


def owner_of(servers: list[Server], slot: int) -> Server:
    ports = {shard[2][1] for shard in servers[0].ask("CLUSTER", "SLOTS") if shard[0] <= slot <= shard[1]}
    return next(server for server in servers if server.port in ports)


def slot_of(servers: list[Server], stream: str) -> int:
    return int(servers[0].ask("CLUSTER", "KEYSLOT", model.tag(model.partition_of(stream, 16))))


async def test_a_slot_that_moves_disturbs_nobody(tmp_path: Path, stream: str) -> None:
    with cluster(tmp_path / "store") as servers:
        with running(tmp_path / "data", "--redis", url_of(servers), *ARGUMENTS) as server:
            slot = slot_of(servers, stream)

            async def move(run: Run) -> None:
                for _ in range(2):
                    await run.more(15)
                    source = owner_of(servers, slot)
                    target = next(server for server in servers if server is not source)
                    to = ("SLOTSRANGE", slot, slot, "NODE", target.ask("CLUSTER", "MYID"))
                    source.ask("CLUSTER", "MIGRATESLOTS", *to)
                    await asyncio.to_thread(until, partial(_has, servers, slot, target))

            run = Run(server, stream, seed=1)
            assert await run.of(move) == []
            assert not run.broken
            assert run.deliveries > 100


def _has(servers: list[Server], slot: int, server: Server) -> bool:
    return owner_of(servers, slot) is server


@pytest.mark.parametrize("how", ["killed", "frozen", "asked for", "taken over"])
async def test_a_primary_of_a_cluster_that_is_replaced_is_left(tmp_path: Path, stream: str, how: str) -> None:
    """In a takeover nobody votes: other nodes hear of it later, and the old primary, which is frozen, last."""
    with cluster(tmp_path / "store", replicas=True) as servers:
        with running(tmp_path / "data", "--redis", url_of(servers), *ARGUMENTS) as server:

            async def replace(run: Run) -> None:
                await run.more(10)
                primary = owner_of(servers, slot_of(servers, stream))
                successor = servers[servers.index(primary) + 3]
                await asyncio.to_thread(_replace, primary, successor, how)
                await asyncio.to_thread(until, partial(_leads, successor))
                left = [server for server in servers if server is not primary]
                await asyncio.to_thread(until, lambda: is_whole(left[0], len(servers)))
                await run.more(20)
                primary.thaw()

            run = Run(server, stream, seed=1)
            assert await run.of(replace) == []
            assert not run.broken


def _replace(primary: Server, successor: Server, how: str) -> None:
    match how:
        case "killed":
            primary.kill()
        case "asked for":
            successor.ask("CLUSTER", "FAILOVER")
        case _:
            primary.freeze()
    if how == "taken over":
        successor.ask("CLUSTER", "FAILOVER", "TAKEOVER")


def _leads(server: Server) -> bool:
    return bool(server.info("replication")["role"] == "master")
