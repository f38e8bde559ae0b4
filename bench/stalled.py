"""The script measures what 200 stalled readers cost 800 healthy ones, the server and the kernel.

    .venv/bin/python -m bench.stalled [ROUNDS]

Rounds in which they stall and rounds in which they read as well take turns on one server with default settings, so that
both serve the same number of readers. Each round publishes entries at a pace, and measures how late healthy readers
receive them, from the time at which the entry was due. The script prints the p99 of both and their ratio, when the last
stalled reader was closed, and the most memory that each took.
"""

from __future__ import annotations

import asyncio
import re
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2
import uvloop

from pushserver.server.worker import ALIVE_EVERY
from tests.support.scrapes import METRICS, scrape, status
from tests.support.server import Running, running

HEALTHY, STALLED = 800, 200
ENTRIES, PACE = 150, 0.1  # of a round, and the seconds between two
BODY = "word " * 800  # 4 kB: a round's are far more than server and kernel keep for one reader
LIMIT = 45.0  # seconds for stalled readers to be let go
DUE = re.compile(rb'"headline":"(\d+)"')
WATCHED_EVERY = 1.0  # seconds
TAIL = 64  # bytes of a chunk in which a number may be cut


class Healthy(asyncio.Protocol):
    """A reader that reads: notes how many milliseconds late each entry came."""

    def __init__(self, late: list[float]) -> None:
        self._late = late
        self._tail = b""
        self.seen = 0

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        data = self._tail + data
        end = 0
        for match in DUE.finditer(data):
            end = match.end()
            self.seen += 1
            self._late.append((now - int(match[1])) / 1e6)
        self._tail = data[max(end, len(data) - TAIL) :]


def handshake(stream: str, cursor: str) -> bytes:
    return (
        f"GET /streams/{stream}/ws?cursor={cursor} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


async def stalled_reader(address: tuple[str, int], request: bytes) -> socket.socket:
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, address)
    await asyncio.get_running_loop().sock_sendall(raw, request)
    return raw


class Round:
    """One stream, its readers, and what was seen."""

    def __init__(self, server: Running, number: int, stalled: int) -> None:
        host, port = server.url.removeprefix("http://").split(":")
        self._server = server
        self._address = (host, int(port))
        self._stream = f"round-{number}"
        self._stalled = stalled
        self.late: list[float] = []
        self.kernel = self.worker = 0.0  # KiB of each stalled reader, at most
        self.let_go = 0.0  # seconds until the last of them was gone, since the first entry

    async def run(self) -> None:
        cursor = self._server.publish_ok(self._stream, "start")["cursor"]
        request = handshake(self._stream, cursor)
        loop = asyncio.get_running_loop()
        readers = []
        for _ in range(HEALTHY):
            transport, healthy = await loop.create_connection(lambda: Healthy(self.late), *self._address)
            transport.write(request)
            readers.append((transport, healthy))
        raws = [await stalled_reader(self._address, request) for _ in range(self._stalled)]
        others = []
        for _ in range(STALLED - self._stalled):
            transport, _ = await loop.create_connection(lambda: Healthy([]), *self._address)
            transport.write(request)
            others.append(transport)
        await self._until_joined(HEALTHY + STALLED)
        ports = {raw.getsockname()[1] for raw in raws} | {other.get_extra_info("sockname")[1] for other in others}
        before, began = pss(self._pid), time.monotonic()
        watching = asyncio.create_task(self._watch(ports, before))
        await self._publish()
        async with asyncio.timeout(LIMIT):
            while any(healthy.seen < ENTRIES for _, healthy in readers):
                await asyncio.sleep(0.05)
        for other in others:
            other.abort()
        await watching
        self.let_go = time.monotonic() - began if raws else 0.0
        assert all(healthy.seen == ENTRIES for _, healthy in readers), "a healthy reader received an entry twice"
        for raw in raws:
            raw.close()
        for transport, _ in readers:
            transport.abort()
        await self._until_joined(0)

    @property
    def _pid(self) -> int:
        (pid,) = (pid for pid in self._server.children() if pid != self._server.store_pid())
        return pid

    async def _until_joined(self, readers: int) -> None:
        async with asyncio.timeout(LIMIT):
            while (
                sum(worker["readers"] for worker in (await asyncio.to_thread(status, self._server))["workers"])
                != readers
            ):
                await asyncio.sleep(0.05)

    async def _get(self, path: str) -> str:
        async with httpx2.AsyncClient(base_url=self._server.url) as http:
            return (await http.get(path)).text

    async def _publish(self) -> None:
        """An entry whenever one is due, whose headline is that instant."""
        headers = {"Authorization": f"Bearer {self._server.key}"}
        async with httpx2.AsyncClient(base_url=self._server.url, headers=headers, timeout=30) as http:
            began = time.monotonic_ns()
            for number in range(ENTRIES):
                due = began + int(number * PACE * 1e9)
                await asyncio.sleep(max(0.0, (due - time.monotonic_ns()) / 1e9))
                response = await http.post(
                    f"/streams/{self._stream}/entries", json={"headline": str(due), "body": BODY}
                )
                assert response.status_code == 201, response.text

    async def _watch(self, ports: set[int], before: float) -> None:
        """Note the most memory that each stalled connection takes, until the last of them is closed."""
        while ports and (queued := await send_queues(self._address[1], ports)):
            self.kernel = max(self.kernel, sum(queued) / len(queued) / 1024)
            self.worker = max(self.worker, (pss(self._pid) - before) / len(ports))
            await asyncio.sleep(WATCHED_EVERY)


def pss(pid: int) -> float:
    """KiB."""
    match = re.search(r"^Pss: +(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert match
    return float(match[1])


async def send_queues(port: int, ports: set[int]) -> list[int]:
    """Bytes that the kernel keeps for each established connection from a port to these.

    Asked of `ss`, in a process of its own: to read it all here would make every reader late.
    """
    ask = ("ss", "-Htn", "state", "established", "sport", "=", f":{port}")
    process = await asyncio.create_subprocess_exec(*ask, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    rows = (line.split() for line in output.decode().splitlines())
    return [int(queue) for _, queue, _, peer in rows if int(peer.rpartition(":")[2]) in ports]


def p99(late: list[float]) -> float:
    return statistics.quantiles(late, n=100)[98]


def main(rounds: int) -> int:
    rounds_of: dict[int, list[Any]] = {0: [], STALLED: []}
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data", *METRICS) as server:
        uvloop.run(_warm_up(server))
        for number in range(2 * rounds):
            stalled = STALLED if number % 2 else 0
            round = Round(server, number, stalled)
            uvloop.run(round.run())
            rounds_of[stalled].append(round)
            print(f"{HEALTHY} healthy, {stalled:3} stalled: p99 {p99(round.late):6.1f} ms", flush=True)
        time.sleep(2 * ALIVE_EVERY)  # the last readers are in the next summary
        closed: int = int(scrape(server)["pushserver_readers_closed_total,too_slow"])
    without, with_them = ([p99(round.late) for round in rounds_of[stalled]] for stalled in (0, STALLED))
    ratios = sorted(b / a for a, b in zip(without, with_them, strict=True))
    print(
        f"p99 without {statistics.median(without):.1f} ms, with {statistics.median(with_them):.1f} ms, "
        f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )
    print(
        f"cut off: {closed} of {rounds * STALLED}, the last one "
        f"{max(round.let_go for round in rounds_of[STALLED]):.1f} s after the first entry"
    )
    print(
        f"each stalled reader took at most {max(round.worker for round in rounds_of[STALLED]):.0f} KiB of the worker, "
        f"{max(round.kernel for round in rounds_of[STALLED]):.0f} KiB in the kernel's send queue"
    )
    return int(closed != rounds * STALLED)


async def _warm_up(server: Running) -> None:
    await Round(server, 999, 0).run()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 3))
