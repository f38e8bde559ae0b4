"""A legal withdrawal whose erasure is struck in the middle: the text is there or it is not, and the log is whole."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest
import redis

from pushserver.errors import Unavailable
from pushserver.store import erasure
from pushserver.store.folder import SOCKET
from pushserver.store.store import StoreError

from ..scenarios.test_takedown import SECRET, assert_complete, store_of
from ..store.test_erasure import Interrupted, reads, withdrawn
from ..support.logs import log_on, texts_of
from ..support.processes import eventually, workers_of
from ..support.server import LIMIT, Running, running, until
from ..support.stores import Watched, watched

pytestmark = [pytest.mark.anyio, pytest.mark.full]

LARGE, BODY = 250, "word " * 3_000  # entries, and their text: a dozen of them are one step of an erasure
AROUND = 12  # entries before and after it, with cursors

FLAGS = ("--workers", "2", "--admit", "10000", "--replay-bytes", str(2**24))


class Struck(NamedTuple):
    """Struck is a server, its store, and what happens to them in the middle of an erasure."""

    server: Running
    store: redis.Redis
    strike: Callable[[], Running]  # the server that goes on after it


@contextmanager
def embedded(folder: Path, how: str) -> Iterator[Struck]:
    """A server of two workers on its own store, of which something is killed."""
    server = Running(folder / "data", *FLAGS)
    servers = [server]

    def strike() -> Running:
        if how == "server":
            server.kill_all()
            servers.append(Running(folder / "data", *FLAGS))
        else:
            for pid in [server.store_pid()] if how == "store" else workers_of(server):
                os.kill(pid, signal.SIGKILL)
        return servers[-1]

    try:
        with redis.Redis(unix_socket_path=str(server.data / SOCKET)) as store:
            yield Struck(server, store, strike)
    finally:
        servers[-1].stop()


@contextmanager
def replicated(folder: Path) -> Iterator[Struck]:
    """A server of two workers on a store that fails over."""
    with watched(folder / "store", replicas=2) as store:  # so that the next primary has one, too
        with running(folder / "data", "--redis", store.url, "--replicas", "1", *FLAGS) as server:

            def strike() -> Running:
                store.primary.kill()
                store.until_failed_over()
                return server

            yield Struck(server, store.primary.client, strike)


def is_copying(store: redis.Redis, stream: str) -> bool:
    """Whether a copy of the log is being made, with which an erasure replaces it."""
    return any(store.scan_iter(f"*:{stream}:log:*", count=10_000))


async def newest_of(server: Running, stream: str) -> int:
    """The number of a stream's newest event, once the server answers again."""

    def is_whole() -> bool:
        with suppress(httpx2.TransportError):
            answers = [server.http.get(path).status_code for path in (f"/streams/{stream}/entries", "/readyz")]
            return answers == [200, 200]
        return False

    await eventually(is_whole)
    return int(server.snapshot(stream)["n"])


def published(server: Running, stream: str) -> tuple[str, list[str]]:
    """The id of an entry with the text, among others; and cursors from before its withdrawal."""
    cursors = [server.publish_ok(stream, f"before {number}")["cursor"] for number in range(AROUND)]
    first = server.publish_ok(stream, SECRET)
    corrected = server.send("PATCH", f"/streams/{stream}/entries/{first['id']}", {"body": f"{SECRET} again"}).json()
    lines = b"".join(json.dumps({"headline": "large", "body": BODY}).encode() + b"\n" for _ in range(LARGE))
    answer = server.send("POST", f"/streams/{stream}/entries", lines, Content_Type="application/x-ndjson")
    assert answer.text.count('"status":201') == LARGE
    cursors += [first["cursor"], corrected["cursor"]]
    cursors += [server.publish_ok(stream, f"after {number}")["cursor"] for number in range(AROUND)]
    return first["id"], cursors


async def withdraw(server: Running, stream: str, id: str) -> None:
    """Withdraw an entry for legal reasons. Whoever is struck meanwhile may not answer."""
    with suppress(httpx2.TransportError):
        await asyncio.to_thread(server.send, "DELETE", f"/streams/{stream}/entries/{id}?reason=legal", b"")


async def erase(server: Running, stream: str, id: str) -> None:
    """Erase the text of an entry, again until it is done."""
    async with asyncio.timeout(LIMIT):
        while True:
            with suppress(httpx2.TransportError):
                answer = await asyncio.to_thread(server.send, "POST", f"/streams/{stream}/desk/entries/{id}/erase", b"")
                if answer.status_code in (200, 202):
                    return
            await withdraw(server, stream, id)  # where it was struck before the withdrawal was stored


@pytest.mark.parametrize("how", ["workers", "store", "server", "failover"])
async def test_what_is_struck_in_the_middle_of_an_erasure_leaves_a_whole_log(
    tmp_path: Path, stream: str, how: str
) -> None:
    with replicated(tmp_path) if how == "failover" else embedded(tmp_path, how) as struck:
        id, cursors = published(struck.server, stream)
        withdrawing = asyncio.create_task(withdraw(struck.server, stream, id))
        await eventually(lambda: is_copying(struck.store, stream))
        server = await asyncio.to_thread(struck.strike)
        await withdrawing
        await assert_complete(server, stream, cursors, await newest_of(server, stream))
        await erase(server, stream, id)
        await assert_complete(server, stream, cursors, await newest_of(server, stream))
        assert SECRET not in server.http.get(f"/streams/{stream}/events").text
        if how != "failover":
            async with store_of(server) as store:
                assert SECRET not in await texts_of(store)


# --- a failover between two steps


@pytest.mark.parametrize("lag", ["none", "of the copy", "of a part of the copy"])
async def test_an_erasure_goes_on_after_a_failover_from_what_the_new_primary_has(
    tmp_path: Path, stream: str, lag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "STEP_RECORDS", 20)
    with watched(tmp_path / "store") as store:
        async with log_on(store.url) as log:
            await log.store.check()
            id, answers = await withdrawn(log, stream, around=30)
            cursors = [answer.cursor for answer in answers]
            until(lambda: _offsets(store) == 1)
            before = await reads(log, stream, cursors)

            async def cut_off() -> None:
                await asyncio.to_thread(store.cut_off_replicas)

            async def fail_over() -> None:
                await asyncio.to_thread(store.primary.kill)
                await asyncio.to_thread(store.until_failed_over)

            async def nothing() -> None:
                pass

            if lag == "of the copy":
                await cut_off()
            between = {"of a part of the copy": [cut_off, fail_over]}.get(lag, [nothing, fail_over])
            with suppress(StoreError, Unavailable):  # else the next step was made on the new primary
                await Interrupted(log, *between).erase(stream, id)
            async with asyncio.timeout(LIMIT):
                while True:
                    await asyncio.sleep(0.1)
                    with suppress(StoreError, Unavailable):
                        await log.store.locate()
                        assert await reads(log, stream, cursors) == before
                        await erasure.Erasures(log).erase(stream, id)
                        break
            assert await reads(log, stream, cursors) == before
            primary = (await log.store.node(stream)).redis
            assert SECRET not in await texts_of(primary)


def _offsets(store: Watched) -> int:
    """Count the different positions in the primary's writes at which its servers are."""
    replicas = [replica.info("replication")["slave_repl_offset"] for replica in store.replicas]
    return len({store.primary.info("replication")["master_repl_offset"], *replicas})
