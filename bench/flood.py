"""The script measures how fast real readers get in while handshakes to streams that do not exist flood a worker.

    .venv/bin/python -m bench.flood [HANDSHAKES A SECOND] [ADMIT]

A process of its own sends the handshakes: first all to one name, then each to another. A round lasts 25 s at most. The
readers read three streams, of which one is followed already, and come back when `Retry-After` says. The script prints
how many handshakes were answered, how many readers got in, and after how many seconds.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvloop

from tests.support.server import running

READERS, STREAMS = 18, 3
WITHIN = 25.0  # seconds for a reader to get in
FLOODED_FIRST = 2.0  # seconds of flood before the readers come
OPEN = 500  # handshakes under way at once, at most
TICK = 0.01  # seconds between two bursts of the flood


def handshake(stream: str) -> bytes:
    return (
        f"GET /streams/{stream}/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


async def ask(port: int, stream: str) -> tuple[int, float, asyncio.StreamWriter]:
    """The status of a handshake, its `Retry-After`, and the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(handshake(stream))
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").lower().split("\r\n")
    wait = next((line.partition(":")[2] for line in lines if line.startswith("retry-after:")), "1")
    return int(lines[0].split()[1]), float(wait), writer


class Shot(asyncio.Protocol):
    """One handshake of the flood: sent, its status counted, closed."""

    def __init__(self, request: bytes, counts: dict[bytes, int]) -> None:
        self._request = request
        self._counts = counts

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        status = data[9:12]
        self._counts[status] = self._counts.get(status, 0) + 1
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._counts[b"open"] -= 1


async def shoot(port: int, request: bytes, counts: dict[bytes, int]) -> None:
    """Send one handshake of the flood."""
    counts[b"open"] += 1
    try:
        await asyncio.get_running_loop().create_connection(lambda: Shot(request, counts), "127.0.0.1", port)
    except OSError:
        counts[b"open"] -= 1


async def flood(port: int, rate: int, is_one_name: bool) -> None:
    """Send handshakes until the standard input ends; print how many were answered with each status."""
    counts: dict[bytes, int] = {b"open": 0}
    loop = asyncio.get_running_loop()
    ended = loop.run_in_executor(None, sys.stdin.read)
    print("ready", flush=True)
    began, sent = loop.time(), 0
    async with asyncio.TaskGroup() as shots:
        while not ended.done():
            due = int((loop.time() - began) * rate)
            for number in range(sent, min(due, sent + OPEN - counts[b"open"])):
                request = handshake("nothing" if is_one_name else f"nothing-{number}")
                shots.create_task(shoot(port, request, counts))
                sent += 1
            await asyncio.sleep(TICK)
    seconds = loop.time() - began
    answers = {status.decode(): f"{count / seconds:.0f}" for status, count in counts.items() if status != b"open"}
    print(f"{sent / seconds:.0f} handshakes a second; answers a second by status: {answers}")


async def come_in(port: int, stream: str, began: float) -> tuple[float, asyncio.StreamWriter]:
    """Try until a handshake is accepted; return the seconds that it took."""
    while True:
        with suppress(OSError, asyncio.IncompleteReadError):
            status, wait, writer = await ask(port, stream)
            if status == 101:
                return time.monotonic() - began, writer
            writer.close()
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))


async def measure(port: int, streams: list[str]) -> list[float]:
    """The seconds after which each reader got in, of those that did."""
    began = time.monotonic()
    coming = [asyncio.create_task(come_in(port, streams[number % STREAMS], began)) for number in range(READERS)]
    done, late = await asyncio.wait(coming, timeout=WITHIN)
    for task in late:
        task.cancel()
    for task in done:
        task.result()[1].close()
    return sorted(task.result()[0] for task in done)


async def measure_round(url: str, rate: int, kind: str, streams: list[str]) -> None:
    port = int(url.rpartition(":")[2])
    command = [sys.executable, "-m", "bench.flood", "--send", str(port), str(rate), kind]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert process.stdout is not None
    await process.stdout.readline()
    try:
        await asyncio.sleep(FLOODED_FIRST)
        times = await measure(port, streams)
    finally:
        report, _ = await process.communicate(b"")  # it ends with its standard input
    middle = f"p50 {statistics.median(times):.2f} s, last {times[-1]:.2f} s" if times else "none"
    print(f"{kind}: {report.decode().strip()}\n{kind}: {len(times)} of {READERS} readers got in; {middle}")


async def run(rate: int, admit: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("one-name", "ever-new-names"):
            with running(Path(folder) / kind, "--admit", str(admit)) as server:
                streams = [f"real-{number}" for number in range(STREAMS)]
                for stream in streams:
                    server.publish_ok(stream, "one")
                _, _, followed = await ask(int(server.url.rpartition(":")[2]), streams[0])
                await measure_round(server.url, rate, kind, streams)
                followed.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--send"]:
        uvloop.run(flood(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "one-name"))
    else:
        numbers = [int(text) for text in sys.argv[1:]]
        uvloop.run(run(*numbers, *(4_500, 100)[len(numbers) :]))
