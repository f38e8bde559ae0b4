"""Readers who take little, or nothing, or are gone without a word: they are let go, and nobody else notices."""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import socket as sockets
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import count

import pytest

from ..support.scrapes import METRICS, until_scraped
from ..support.server import LIMIT, Running, clients_of, open_files, reader, receive

pytestmark = [pytest.mark.anyio, pytest.mark.full]

STALLED, HEALTHY = 20, 30
ENTRIES = 60
BODY = "word " * 3_900  # about 20 kB: all of them are far more than kernel and server keep for one
CLONE_NEWNET = 0x40000000
NUMBERS = count(os.getpid())


def handshake(stream: str, cursor: str) -> bytes:
    return (
        f"GET /streams/{stream}/ws?cursor={cursor} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def connected(server: Running, stream: str, cursor: str) -> sockets.socket:
    """A reader that has asked, and has little room for what comes."""
    host, port = server.url.removeprefix("http://").split(":")
    raw = sockets.socket()
    raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4_096)
    raw.connect((host, int(port)))
    raw.sendall(handshake(stream, cursor))
    return raw


def worker(server: Running) -> int:
    (pid,) = (pid for pid in server.children() if pid != server.store_pid())
    return pid


async def let_go(server: Running, ports: set[int]) -> None:
    """Wait until the worker has no connection to these ports any more."""
    async with asyncio.timeout(LIMIT):
        while ports & clients_of(worker(server)).keys():
            await asyncio.sleep(0.1)


async def read_numbers(server: Running, stream: str, cursor: str, joined: asyncio.Semaphore) -> list[int]:
    async with reader(server, stream, cursor=cursor) as socket:
        joined.release()
        return [(await receive(socket, "entry.put"))["n"] for _ in range(ENTRIES)]


async def test_stalled_and_slow_readers_are_let_go_and_counted_and_the_others_have_everything(
    start: Callable[..., Running], stream: str
) -> None:
    server = start("--heartbeat", "3", *METRICS)
    cursor = server.publish_ok(stream, "start")["cursor"]
    stalled = [connected(server, stream, cursor) for _ in range(STALLED)]
    slow = connected(server, stream, cursor)
    ports = {raw.getsockname()[1] for raw in (*stalled, slow)}
    joined = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as tasks:
        reading = [tasks.create_task(read_numbers(server, stream, cursor, joined)) for _ in range(HEALTHY)]
        for _ in reading:
            await joined.acquire()
        sipping = tasks.create_task(sip(slow))
        for number in range(ENTRIES):
            response = await asyncio.to_thread(server.publish, stream, {"headline": str(number), "body": BODY})
            assert response.status_code == 201
        await let_go(server, ports)
        for task in reading:
            assert await task == list(range(2, ENTRIES + 2))
        assert await sipping < ENTRIES * len(BODY) / 2
    for raw in stalled:
        raw.close()
    await until_logged(server, STALLED + 1)


async def sip(raw: sockets.socket) -> int:
    """Take 1 kB a second, until there is an end; how many bytes that were."""
    taken = 0
    raw.setblocking(False)
    with suppress(ConnectionError):
        while chunk := await asyncio.get_running_loop().sock_recv(raw, 100):
            taken += len(chunk)
            await asyncio.sleep(0.1)
    raw.close()
    return taken


async def until_logged(server: Running, readers: int) -> None:
    """Wait until the log has counted so many, as the metrics have."""
    async with asyncio.timeout(LIMIT):
        while (counts := re.findall(r"cut off \d+ readers that were too slow; (\d+) so far", server.log)) == []:
            await asyncio.sleep(0.1)
        while int(counts[-1]) < readers:
            await asyncio.sleep(0.1)
            counts = re.findall(r"cut off \d+ readers that were too slow; (\d+) so far", server.log)
    assert int(counts[-1]) == readers
    until_scraped(server, lambda now: now["pushserver_readers_closed_total,too_slow"] == readers)


# --- a cable that is pulled


@contextmanager
def cable() -> Iterator[tuple[str, str]]:
    """Another machine, by the name of its network namespace, and the address of this one as it sees it."""
    number = next(NUMBERS) % 200
    name, ours, address = f"far-{number}", f"near-{number}", f"10.213.{number}.1"

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        ip("netns", "add", name)
    except (subprocess.CalledProcessError, FileNotFoundError):
        pytest.skip("only root may lay a cable")
    try:
        ip("link", "add", ours, "type", "veth", "peer", "name", "far", "netns", name)
        ip("addr", "add", f"{address}/24", "dev", ours)
        ip("link", "set", ours, "up")
        ip("-n", name, "addr", "add", f"10.213.{number}.2/24", "dev", "far")
        ip("-n", name, "link", "set", "far", "up")
        yield name, address
    finally:
        ip("netns", "del", name)


def socket_in(name: str) -> sockets.socket:
    """A socket of another network namespace: of the thread that makes it, which ends with that."""
    made: list[sockets.socket] = []

    def make() -> None:
        with open(f"/run/netns/{name}") as namespace:
            assert ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) == 0
        made.append(sockets.socket())

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]


@asynccontextmanager
async def far_reader(name: str, server: Running, stream: str, cursor: str) -> AsyncIterator[int]:
    """A reader on the other machine, who has been answered: its port."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket_in(name) as raw:
        raw.settimeout(LIMIT)
        await asyncio.to_thread(raw.connect, (host, int(port)))
        raw.sendall(handshake(stream, cursor))
        taken = b""
        while b'"hello"' not in taken:
            taken += await asyncio.to_thread(raw.recv, 65_536)
        yield raw.getsockname()[1]


async def test_a_reader_whose_cable_is_pulled_is_let_go(start: Callable[..., Running], stream: str) -> None:
    """No FIN and no RST: the machine is not there any more."""
    with cable() as (name, address):
        server = start("--host", address, "--heartbeat", "1")
        cursor = server.publish_ok(stream, "start")["cursor"]
        async with reader(server, stream, cursor=cursor) as near, far_reader(name, server, stream, cursor) as port:
            while (await receive(near, "head"))["readers"] < 2:
                pass
            file = clients_of(worker(server))[port]
            subprocess.run(["ip", "-n", name, "link", "set", "far", "down"], check=True)
            async with asyncio.timeout(LIMIT):
                while (await receive(near, "head"))["readers"] > 1:
                    pass
            assert file not in open_files(worker(server))
