from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import ExitStack, closing
from pathlib import Path

import httpx2
import pytest

from pushserver.server.listener import Listeners, listen
from pushserver.server.process import WorkerProcess
from pushserver.server.worker_place import TRIES, WorkerPlace

from ..support.processes import Start, eventually, workers_of
from ..support.server import LIMIT, clients_of, reader, receive

pytestmark = pytest.mark.anyio

LISTENING = 0  # where /proc has the port at the other end of a connection


def test_connections_are_refused_until_the_first_worker_is_ready() -> None:
    """A balancer asks another server then; if they waited in the listener, it would wait with them."""

    async def start() -> WorkerProcess:
        raise AssertionError

    with closing(Listeners(listen(("127.0.0.1", 0), 30.0), 30.0)) as listeners:
        WorkerPlace(
            listeners, start=start, failed=lambda *_: None, forget=lambda _: None, other=lambda: None, window=0.0
        )
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(listeners.address)


async def test_a_worker_that_stops_by_itself_is_replaced_before_it_has_left_and_one_that_dies_afterwards(
    start: Start, stream: str
) -> None:
    server = start("--drain-delay", "300")
    cursor = server.publish_ok(stream, "one")["cursor"]
    (old,) = workers_of(server)
    async with reader(server, stream, cursor=cursor) as own:
        await receive(own, "hello")
        os.kill(old, signal.SIGTERM)
        assert (await receive(own, "bye"))["reason"] == "drain"
    await eventually(lambda: old not in workers_of(server))
    (new,) = workers_of(server)
    assert f"worker {old} is replaced by worker {new}" in server.log
    assert "ended with status" not in server.log
    assert server.publish_ok(stream, "two")["n"] == 2
    for _ in range(2):  # the second one is started a second later
        (victim,) = workers_of(server)
        os.kill(victim, signal.SIGKILL)
        await eventually(lambda victim=victim: len({*workers_of(server)} - {victim}) == 1)  # type: ignore[misc]
    assert server.log.count("ended with status -9") == 2, "perhaps before it was ready"
    server.process.terminate()
    await eventually(lambda: "server stopping" in server.log)
    assert server.stop() == 0, "the second signal ends the delay"


@pytest.mark.full  # with one worker they wait for the next one
async def test_connections_of_a_worker_that_is_killed_are_answered_by_another_one(start: Start) -> None:
    server = start("--workers", "2")
    await eventually(lambda: all(LISTENING in clients_of(pid) for pid in workers_of(server)))
    host, port = server.url.removeprefix("http://").split(":")
    first, other = workers_of(server)
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: len({*workers_of(server)} - {first, other}) == 1)
    (victim,) = {*workers_of(server)} - {first, other}  # its successor is started only after a second
    await eventually(lambda: b"worker" in Path(f"/proc/{victim}/cmdline").read_bytes())  # else it is still a fork
    await eventually(lambda: LISTENING in clients_of(victim))
    os.kill(victim, signal.SIGSTOP)
    await eventually(lambda: " T " in Path(f"/proc/{victim}/stat").read_text())  # it accepts nothing any more
    with ExitStack() as stack:
        wires = [stack.enter_context(socket.create_connection((host, int(port)), LIMIT)) for _ in range(20)]
        for wire in wires:
            wire.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        os.kill(victim, signal.SIGKILL)
        answers = [await asyncio.to_thread(wire.recv, 65_536) for wire in wires]
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)


@pytest.mark.full  # it starts two workers
async def test_no_connection_waits_for_a_worker_that_dies_while_its_server_stops(start: Start) -> None:
    server = start("--workers", "2", "--drain-delay", "300")
    await eventually(lambda: all(LISTENING in clients_of(pid) for pid in workers_of(server)))
    victim, _ = workers_of(server)
    server.process.terminate()
    await eventually(lambda: "server stopping" in server.log)
    os.kill(victim, signal.SIGKILL)
    await eventually(lambda: victim not in workers_of(server))
    async with httpx2.AsyncClient(base_url=server.url, headers={"Connection": "close"}, timeout=LIMIT) as http:
        answers = await asyncio.gather(*(http.get("/livez") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    server.process.terminate()
    server.close()
    assert server.process.returncode == 0


@pytest.mark.full  # it waits for the back-off of each try
async def test_a_server_whose_workers_never_become_ready_ends_with_a_status(start: Start, tmp_path: Path) -> None:
    keys = tmp_path / "secret"
    keys.write_text("s" * 32)
    server = start("--private", "desk-*", "--token-keys", str(keys), "--token-algorithms", "HS256")
    (victim,) = workers_of(server)
    keys.write_text("too short")
    os.kill(victim, signal.SIGKILL)
    await eventually(lambda: f"try {TRIES - 1} of" in server.log)  # before the longest back-off
    server.close()
    assert server.process.returncode == 3
    assert f"try {TRIES} of {TRIES}" in server.log
    assert "no worker becomes ready; stopping the server" in server.log
