"""Receipts: who has been given an event, on which workers, and after how long."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from http.client import HTTPConnection
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from pushserver.store.store import Store

from ..support.server import LIMIT, ROOT, Running, clean_environment, clients_of, reader, receive, running, until

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of two workers."""
    with running(tmp_path_factory.mktemp("two") / "data", "--workers", "2", "--heartbeat", "0.5") as server:
        yield server


async def on_both_workers(stack: AsyncExitStack, server: Running, stream: str) -> list[ClientConnection]:
    """Readers until each of the two workers has some: a heartbeat says how many its worker has."""
    sockets: list[ClientConnection] = []
    while True:
        sockets += [await stack.enter_async_context(reader(server, stream)) for _ in range(4)]
        counts = [(await receive(socket, "head"))["readers"] for socket in sockets]
        if len(sockets) - max(counts) > 0:
            return sockets


def delivery(server: Running, stream: str, id: str, query: str = "") -> dict[str, Any]:
    response = server.send("GET", f"/streams/{stream}/entries/{id}/delivery?{query}", b"")
    assert response.status_code == 200, response.text
    receipt: dict[str, Any] = response.json()
    return receipt


async def test_a_receipt_counts_the_readers_of_every_worker(two: Running, stream: str) -> None:
    two.publish_ok(stream, "first")
    async with AsyncExitStack() as stack:
        sockets = await on_both_workers(stack, two, stream)
        answer = two.publish_ok(stream, "second")
        receipt = delivery(two, stream, answer["id"], f"n={answer['n']}&wait=10")
        assert (receipt["reached"], receipt["silent"], len(receipt["workers"])) == (True, 0, 2)
        assert (receipt["sent"], receipt["behind"]) == (len(sockets), 0)
        assert {worker["state"] for worker in receipt["workers"]} == {"reached"}
        assert sum(worker["sent"] for worker in receipt["workers"]) == len(sockets)
        assert 0 <= receipt["p50_ms"] <= receipt["p99_ms"] <= receipt["last_ms"]
        late = await stack.enter_async_context(reader(two, stream, cursor=str(answer["cursor"])))
        await receive(late, "hello")
        assert delivery(two, stream, answer["id"])["sent"] == len(sockets)


async def test_the_receipt_of_a_withdrawal_says_that_no_ring_has_it(two: Running, stream: str) -> None:
    entry = two.publish_ok(stream, "Said too soon")
    async with AsyncExitStack() as stack:
        sockets = await on_both_workers(stack, two, stream)
        response = two.send("DELETE", f"/streams/{stream}/entries/{entry['id']}?reason=legal", b"")
        receipt = response.json()["receipt"]
        assert (receipt["reached"], receipt["sent"], receipt["behind"], receipt["silent"]) == (True, len(sockets), 0, 0)
        for socket in sockets:
            assert (await receive(socket, "entry.withdraw"))["id"] == entry["id"]


async def test_a_worker_that_does_not_answer_is_named_silent(start: Callable[..., Running], stream: str) -> None:
    server = start("--workers", "2", "--heartbeat", "0.5")
    entry = server.publish_ok(stream, "first")
    while len(delivery(server, stream, entry["id"])["workers"]) < 2:  # the second one is still starting
        pass
    frozen, awake = (pid for pid in server.children() if pid != server.store_pid())
    with connected_to(server, awake) as connection:
        os.kill(frozen, signal.SIGSTOP)
        try:
            path = f"/streams/{stream}/entries/{entry['id']}/delivery?n=1&wait=0"
            connection.request("GET", path, headers={"Authorization": f"Bearer {server.key}"})
            receipt = json.loads(connection.getresponse().read())
            assert (receipt["reached"], receipt["silent"], len(receipt["workers"])) == (False, 1, 1)
        finally:
            os.kill(frozen, signal.SIGCONT)


@contextmanager
def connected_to(server: Running, worker: int) -> Iterator[HTTPConnection]:
    """A connection that the kernel gave to this worker."""
    while True:
        with closing(HTTPConnection(server.url.removeprefix("http://"), timeout=LIMIT)) as connection:
            connection.connect()
            port = connection.sock.getsockname()[1]
            until(lambda port=port: any(port in clients_of(pid) for pid in server.children()))  # type: ignore[misc]
            if port in clients_of(worker):
                yield connection
                return


async def test_without_readers_there_is_nobody_to_reach(two: Running, stream: str) -> None:
    entry = two.publish_ok(stream, "unread")
    receipt = delivery(two, stream, entry["id"], f"n={entry['n']}&wait=1")
    assert (receipt["reached"], receipt["sent"], receipt["p50_ms"]) == (True, 0, None)
    assert [worker["state"] for worker in receipt["workers"]] == ["idle", "idle"]


async def test_an_event_that_never_comes_is_waited_for_no_longer_than_asked(server: Running, stream: str) -> None:
    entry = server.publish_ok(stream, "first")
    async with reader(server, stream) as socket:
        await receive(socket, "head")
        receipt = delivery(server, stream, entry["id"], "n=99&wait=0.5")
        assert (receipt["reached"], receipt["behind"]) == (False, 1)
        assert receipt["workers"][0]["state"] == "waiting"


@pytest.mark.parametrize("query", ["n=0", "n=x", "wait=-1", "wait=11", "wait=nan", "other=1"])
async def test_a_bad_question_is_refused_by_name(server: Running, stream: str, query: str) -> None:
    entry = server.publish_ok(stream, "first")
    response = server.send("GET", f"/streams/{stream}/entries/{entry['id']}/delivery?{query}", b"")
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, query.partition("=")[0])


async def test_a_receipt_is_for_publishers_and_of_what_there_is(server: Running, stream: str) -> None:
    entry = server.publish_ok(stream, "first")
    path = f"/streams/{stream}/entries/{entry['id']}/delivery"
    assert server.http.get(path).status_code == 401
    assert server.send("GET", path.replace(entry["id"], "none"), b"").status_code == 404
    withdrawn = server.send("DELETE", f"/streams/{stream}/entries/{entry['id']}", b"").json()
    assert delivery(server, stream, entry["id"], f"n={withdrawn['n']}")["reached"] is True


async def test_a_channel_is_heard_after_a_quiet_time(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pushserver.store.connection.QUIET", 0.05)
    store = Store(store_url, partitions=16)
    try:
        async with store.channels("{p00}:a", "{p00}:b") as channels:
            assert [await channels.read() for _ in range(3)] == [None] * 3
            assert await store.publish("{p00}:b", "said") == 1
            heard = [await channels.read()]
            while heard[-1] is None:
                heard.append(await channels.read())
            assert heard[-1] == b"said"
    finally:
        await store.close()


async def test_the_command_waits_and_says_to_how_many(two: Running, stream: str) -> None:
    two.publish_ok(stream, "first")
    async with AsyncExitStack() as stack:
        sockets = await on_both_workers(stack, two, stream)
        done = subprocess.run(
            [sys.executable, "-m", "pushserver", "publish", stream, "--headline", "second", "--wait"],
            cwd=ROOT,
            env={**clean_environment(), "PUSHSERVER_URL": two.url, "PUSHSERVER_DATA": str(two.data)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"delivered to {len(sockets)} readers on 2 workers, half within " in done.stdout
