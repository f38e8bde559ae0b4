from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from pushserver.server.listener import listen
from pushserver.wire.codes import Close

from ..support.ports import free_port
from ..support.processes import Start, eventually, read_to_close, stored, workers_of
from ..support.server import clients_of, is_alive, reader, receive

pytestmark = pytest.mark.anyio

READER_OBJECTS = 6  # that the collector of cycles knows: ours, and what uvloop has for a transport
READERS = 200
SPARE = 20  # objects of a type that the worker may have let go of meanwhile
COUNT_TYPES = """
import collections, gc, signal, sys

def count_types(*_):
    gc.collect()
    types = collections.Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.get_objects())
    print("objects", *(f"{name}={count}" for name, count in types.items()), file=sys.stderr, flush=True)

signal.signal(signal.SIGUSR1, count_types)
"""


def test_the_collector_of_cycles_looks_at_the_program_no_more() -> None:
    counted = "import gc; from pushserver.server import worker; print(len(gc.get_objects())); worker.spare_collector()"
    program = f"{counted}; print(len(gc.get_objects()))"
    before, after = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout.split()
    assert int(before) > 20_000
    assert int(after) < 1_000


async def test_a_reader_is_few_objects_to_the_collector_of_cycles(start: Start, stream: str, tmp_path: Path) -> None:
    """A reader and its transport; no task, scope, parser, queue or timer is left of the handshake.

    What others make meanwhile is not counted: of each type, as many as there are readers, or twice as many, and so on.
    """
    (tmp_path / "sitecustomize.py").write_text(COUNT_TYPES)
    server = start(env={"PYTHONPATH": str(tmp_path)})
    server.publish_ok(stream, "one")
    cursor = server.snapshot(stream)["cursor"]

    async def types() -> dict[str, int]:
        counts = server.log.count("objects ")
        os.kill(workers_of(server)[0], signal.SIGUSR1)
        await eventually(lambda: server.log.count("objects ") > counts and server.log.endswith("\n"))
        line = server.log.rsplit("objects ", 1)[1].splitlines()[0]
        return {name: int(count) for name, count in (word.rsplit("=", 1) for word in line.split())}

    async with AsyncExitStack() as readers:
        before = await types()
        for _ in range(READERS):
            await receive(await readers.enter_async_context(reader(server, stream, cursor=cursor)))
        after = await types()
    each = {name: (after[name] - before.get(name, 0) + SPARE) // READERS for name in after}
    assert each["pushserver.transport.socket.SocketReader"] == 1, each
    assert sum(each.values()) <= READER_OBJECTS, {name: count for name, count in each.items() if count}


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.full)])
async def test_a_worker_whose_supervisor_is_killed_frees_the_port_before_its_readers_have_left(
    start: Start, stream: str, workers: str
) -> None:
    port = free_port()
    server = start("--workers", workers, "--port", str(port), "--drain", "300")
    server.publish_ok(stream, "one")
    with socket.create_connection(("127.0.0.1", port)) as stubborn:  # it answers no close
        request = f"GET /streams/{stream}/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        stubborn.sendall(f"{request}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n\r\n".encode())
        assert stubborn.recv(12) == b"HTTP/1.1 101"
        own_port = stubborn.getsockname()[1]
        (its,) = [pid for pid in workers_of(server) if own_port in clients_of(pid)]
        os.kill(server.process.pid, signal.SIGKILL)
        server.close()
        try:
            await eventually(lambda: is_free(port))
            assert is_open(stubborn)
        finally:
            os.kill(its, signal.SIGKILL)


def is_open(connection: socket.socket) -> bool:
    """Whether the other end has not closed it yet."""
    connection.setblocking(False)
    try:
        while connection.recv(65_536):
            pass
    except BlockingIOError:
        return True
    return False


def is_free(port: int) -> bool:
    try:
        listen(("127.0.0.1", port), 30.0).close()
    except OSError:
        return False
    return True


@pytest.mark.full  # `test_supervisor.py` does it with one worker
async def test_workers_whose_supervisor_is_killed_leave_and_a_new_server_starts(start: Start, stream: str) -> None:
    port = free_port()
    server = start("--workers", "2", "--port", str(port))
    cursor = server.publish_ok(stream, "one")["cursor"]
    workers, store = workers_of(server), server.store_pid()
    assert len(workers) == 2
    async with reader(server, stream, cursor=cursor) as connection:
        await receive(connection, "hello")
        os.kill(server.process.pid, signal.SIGKILL)
        frames, code = await read_to_close(connection)
    assert (code, [frame["type"] for frame in frames]) == (Close.RESTART, ["bye"])
    server.close()
    await eventually(lambda: not any(map(is_alive, workers)))
    assert is_alive(store)
    server = start("--workers", "2", "--port", str(port))
    assert not is_alive(store)
    assert [entry["headline"] for entry in stored(server, stream)] == ["one"]
    assert server.publish_ok(stream, "two")["n"] == 2
