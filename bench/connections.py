"""The script measures what clients that send too much, read nothing or fall silent cost a worker and its readers.

    .venv/bin/python -m bench.connections [memory | silent [ROUNDS]]

`memory` prints the worker's memory before and after each way to leave answers unread, and fails where one ends more
than 32 MiB above its start. `silent` opens 3,000 connections that stop in every state while 300 readers are sent ten
entries a second, and prints the p99 of those readers with and without them, and when the last connection was gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import re
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path

import httpx2
import uvloop

from tests.support.server import Running, open_files, running

from .stalled import Healthy, handshake, p99

MIB = 2**20
ALLOWED = 32.0  # MiB above the start
STREAM = "measured"
WATCHED = 10.0  # seconds for which memory is watched
READERS, SILENT = 300, 3_000
ENTRIES, PACE = 200, 0.1  # of a round, and the seconds between two
TRICKLED_EVERY = 1.0  # seconds
GONE_LIMIT = 90.0  # seconds for silent connections to be gone
PAGE = f"GET /streams/{STREAM} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
EVENTS = f"GET /streams/{STREAM}/sse HTTP/1.1\r\nHost: x\r\n\r\n".encode()
LIVE = b"GET /livez HTTP/1.1\r\nHost:\r\n\r\n"


def address_of(server: Running) -> tuple[str, int]:
    host, port = server.url.removeprefix("http://").split(":")
    return host, int(port)


def worker_of(server: Running) -> int:
    (pid,) = (pid for pid in server.children() if pid != server.store_pid())
    return pid


def rss(pid: int) -> float:
    """MiB."""
    match = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert match
    return int(match[1]) / 1024


# --- memory


def fill(server: Running) -> None:
    """Publish a snapshot of 5 MB, and read it once in each way."""
    entry = {"headline": "x", "blocks": [{"type": "paragraph", "html": "x" * 17_000}] * 3}
    for _ in range(100):
        assert server.publish(STREAM, entry).status_code == 201
    for path in ("", "/entries"):
        assert len(server.http.get(f"/streams/{STREAM}{path}").content) > 5 * 10**6
    with server.http.stream("GET", f"/streams/{STREAM}/sse") as response:
        next(line for line in response.iter_lines() if '"type":"snapshot"' in line)


def pipelined(server: Running, size: int, *, is_read: bool) -> Iterator[None]:
    """Send so many bytes of requests, and read the answers or not, until the connection ends or a time is over."""
    request = LIVE * (size // len(LIVE))
    with socket.create_connection(address_of(server)) as raw:
        raw.setblocking(False)
        until, sent = time.monotonic() + WATCHED, 0
        while time.monotonic() < until:
            with contextlib.suppress(BlockingIOError):
                sent += raw.send(request[sent : sent + 65_536])
            with contextlib.suppress(BlockingIOError):
                if is_read and not raw.recv(262_144):
                    return
            yield


def unread(server: Running, count: int, request: bytes) -> Iterator[None]:
    """Open so many connections, ask, and read nothing."""
    with ExitStack() as stack:
        for _ in range(count):
            raw = stack.enter_context(socket.socket())
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            raw.connect(address_of(server))
            raw.sendall(request)
            yield
        until = time.monotonic() + WATCHED
        while time.monotonic() < until:
            time.sleep(0.05)
            yield


WAYS: dict[str, Callable[[Running], Iterator[None]]] = {
    "6.5 MB of requests, answers unread": lambda server: pipelined(server, 6_500_000, is_read=False),
    "24 MB of requests, answers read": lambda server: pipelined(server, 24_000_000, is_read=True),
    "300 SSE readers of 5 MB who read nothing": lambda server: unread(server, 300, EVENTS),
    "60 pages of 5 MB, unread": lambda server: unread(server, 60, PAGE),
    "60 snapshots of 5 MB, unread": lambda server: unread(
        server, 60, f"GET /streams/{STREAM}/entries HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    ),
}


def measure_memory() -> int:
    failed = 0
    for name, way in WAYS.items():
        with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data") as server:
            fill(server)
            pid = worker_of(server)
            before = most = after = rss(pid)
            for _ in way(server):
                after = rss(pid)
                most = max(most, after)
            failed += after - before > ALLOWED
            print(f"{name}: {before:.0f} MiB -> {after:.0f} MiB, {most:.0f} MiB at most", flush=True)
    return failed


# --- silence


def states(key: str) -> dict[str, tuple[list[bytes], bytes]]:
    """The states of a connection: what the client sends one after the other, and what it then trickles."""
    post = f"POST /streams/{STREAM}/entries HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
    body = f"{post}Content-Type: application/json\r\nContent-Length: 60000\r\n\r\n".encode()
    return {
        "nothing sent": ([], b""),
        "an empty line after an answer": ([LIVE, b"\r\n"], b""),
        "empty lines, trickled": ([LIVE], b"\r\n"),
        "half a head": ([b"GET /livez HTTP/1.1\r\nHo"], b""),
        "a head, trickled": ([b"GET /livez HTTP/1.1\r\nX: "], b"x"),
        "no body": ([body], b""),
        "a body, trickled": ([body], b"x"),
        "a body of GET": ([b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"], b"x"),
        "an unread stream": ([EVENTS], b""),
        "unread pipelined answers": ([b"GET /openapi.json HTTP/1.1\r\nHost:\r\n\r\n" * 30], b""),
        "half a handshake": ([handshake("none", "")[:-2]], b""),
        "a refused handshake": ([handshake("none", "")], b"x"),
    }


def be_silent(address: tuple[str, int], key: str, pipe: Connection) -> None:
    """Open the connections, say so, and stay as they are. It runs in a process of its own, until it is ended."""
    uvloop.run(_be_silent(address, key, pipe))


async def _be_silent(address: tuple[str, int], key: str, pipe: Connection) -> None:
    kinds, loop = list(states(key).values()), asyncio.get_running_loop()
    tasks = []
    for number in range(SILENT):
        steps, trickled = kinds[number % len(kinds)]
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        raw.setblocking(False)
        await loop.sock_connect(raw, address)
        tasks.append(loop.create_task(_stop_in_state(raw, steps, trickled)))
    pipe.send("open")
    await asyncio.wait(tasks)


async def _stop_in_state(raw: socket.socket, steps: list[bytes], trickled: bytes) -> None:
    """Send what leads to a state, then nothing or little, until the server ends the connection."""
    loop = asyncio.get_running_loop()
    with raw, contextlib.suppress(OSError):
        for step in steps:
            await loop.sock_sendall(raw, step)
            if step is LIVE:
                await loop.sock_recv(raw, 4_096)
        while not await _has_ended(raw):
            if trickled:
                await loop.sock_sendall(raw, trickled)


async def _has_ended(raw: socket.socket) -> bool:
    """Whether the connection is at its end, after a short time; nothing is read of an answer."""
    await asyncio.sleep(TRICKLED_EVERY)
    try:
        return raw.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False


def sockets_of(pid: int) -> int:
    """The number of sockets of a process: the server has let go of a client that may not know of it yet."""
    return sum(name.startswith("socket:") for name in open_files(pid))


async def deliver(server: Running, stream: str) -> list[float]:
    """Send a round of entries to the readers; how many milliseconds late each of them came."""
    late: list[float] = []
    request = handshake(stream, server.publish_ok(stream, "start")["cursor"])
    readers = []
    for _ in range(READERS):
        transport, reader = await asyncio.get_running_loop().create_connection(
            lambda: Healthy(late), *address_of(server)
        )
        transport.write(request)
        readers.append((transport, reader))
    await asyncio.sleep(1)  # until all have joined
    headers = {"Authorization": f"Bearer {server.key}"}
    async with httpx2.AsyncClient(base_url=server.url, headers=headers, timeout=30) as http:
        first = time.monotonic_ns()
        for number in range(ENTRIES):
            due = first + int(number * PACE * 1e9)
            await asyncio.sleep(max(0.0, (due - time.monotonic_ns()) / 1e9))
            response = await http.post(f"/streams/{stream}/entries", json={"headline": str(due)})
            assert response.status_code == 201, response.text
    await asyncio.sleep(1)
    assert all(reader.seen == ENTRIES for _, reader in readers)
    for transport, _ in readers:
        transport.abort()
    return late


def measure_silence(rounds: int) -> int:
    ratios, failed = [], 0
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data") as server:
        fill(server)
        uvloop.run(deliver(server, "warm-up"))
        for number in range(rounds):
            alone = p99(uvloop.run(deliver(server, f"alone-{number}")))
            ours, theirs = multiprocessing.Pipe()
            silent = multiprocessing.get_context("spawn").Process(
                target=be_silent, args=(address_of(server), server.key, theirs)
            )
            before, first = sockets_of(worker_of(server)), time.monotonic()
            silent.start()
            assert ours.recv() == "open"
            beside = p99(uvloop.run(deliver(server, f"beside-{number}")))
            while (left := sockets_of(worker_of(server)) - before) > 0 and time.monotonic() < first + GONE_LIMIT:
                time.sleep(0.2)
            seconds = time.monotonic() - first
            silent.kill()
            silent.join()
            ratios.append(beside / alone)
            failed += left
            print(f"p99 {alone:.1f} ms alone, {beside:.1f} ms beside {SILENT}; {left} left after {seconds:.0f} s")
    print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    return int(failed > 0 or statistics.median(ratios) > 1.2)


def main(what: str, rounds: int) -> int:
    failed = measure_memory() if what in ("", "memory") else 0
    return failed + (measure_silence(rounds) if what in ("", "silent") else 0)


if __name__ == "__main__":
    arguments = [*sys.argv[1:], "", "3"]
    sys.exit(main(arguments[0], int(arguments[1] or 3)))
