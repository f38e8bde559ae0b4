"""The benchmark counts right: what is late, missing, twice, dear, and who was the limit."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bench import contenders, table
from bench.contenders import CONTENDERS, Contender, Rig, entry
from bench.workloads import SHORT, Invalid, flood
from pushserver.bench import usage
from pushserver.bench.publisher import Course, Poster
from pushserver.bench.reader import CLOSE, MARK, PING, TICK_NS, Chunk, Target, mark, parse
from pushserver.bench.run import Machine, Outcome, percentiles
from pushserver.bench.run import run as run_trial
from pushserver.bench.swarm import Readers, Result

from ..support.server import ROOT, Run, Running, clean_environment

PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "bench" / "results.json"


def frame(opcode: int, payload: bytes) -> bytes:
    """A server's frame (RFC 6455, 5.2)."""
    head = bytes([128 | opcode])
    return head + (bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + len(payload).to_bytes(2)) + payload


class Careless:
    """A server for the benchmark that makes the mistakes it is told: by entry, how often it is sent, and how late."""

    def __init__(self, copies: dict[int, int] | None = None, stalls: dict[int, float] | None = None) -> None:
        self.copies = copies or {}
        self.stalls = stalls or {}
        self.put_off = 0  # readers that are to come later
        self._readers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if b"Upgrade" in head and self.put_off:
                self.put_off -= 1
                writer.write(b"HTTP/1.1 503 Later\r\nRetry-After: 0\r\n\r\n")
                writer.close()
                return
            if b"Upgrade" in head:
                writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
                self._readers.append(writer)
                await reader.read()
                writer.close()
                return
            body = await reader.readexactly(int(head.partition(b"Content-Length: ")[2].split()[0]))
            found = MARK.search(body)
            assert found
            number = int(found[1])
            await asyncio.sleep(self.stalls.get(number, 0))
            for other in self._readers:
                other.write(frame(1, body) * self.copies.get(number, 1))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


@asynccontextmanager
async def listening(careless: Careless) -> AsyncIterator[Target]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await careless.serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        yield Target("127.0.0.1", port, "/ws/{group}", "127.0.0.1")
    finally:
        server.close()


async def tried(careless: Careless, readers: int, entries: int, rate: float = 0.0, limit: float = 10.0) -> Outcome:
    """One trial of it."""
    async with listening(careless) as target:
        swarm, poster = await Readers.start(target), Poster(target, ())
        await target.connect(poster)
        try:
            await swarm.open(readers)
            course = Course(lambda number: "/pub/0", entry, 0, entries, rate)
            return await run_trial(swarm, [poster], course, limit=limit)
        finally:
            poster.close()
            await swarm.close()


# --- what readers see


@pytest.mark.anyio
async def test_what_is_missing_or_comes_twice_is_counted() -> None:
    outcome = await tried(Careless({3: 0, 5: 2, 6: 3}), readers=4, entries=10, limit=2)
    assert (outcome.seen.missing, outcome.seen.twice) == (4, 4 + 2 * 4)
    assert not outcome.is_whole
    assert (await tried(Careless(), readers=4, entries=10)).is_whole


@pytest.mark.anyio
async def test_a_publisher_that_has_to_wait_makes_what_comes_after_late() -> None:
    """Else a server that stalls would be measured only when it does not."""
    outcome = await tried(Careless(stalls={10: 0.4}), readers=2, entries=40, rate=100)
    late = outcome.figures()["late_ms"]
    assert late["max"] >= 400
    waited = sum(count for ticks, count in outcome.seen.late.items() if ticks * TICK_NS > 50e6)
    assert waited >= 2 * 20


@pytest.mark.anyio
async def test_a_reader_that_is_asked_to_come_later_does() -> None:
    careless = Careless()
    careless.put_off = 3
    outcome = await tried(careless, readers=5, entries=1)
    assert outcome.is_whole
    assert outcome.seen.put_off == 3


def test_a_chunk_is_read_the_same_wherever_it_is_cut() -> None:
    marks = [mark(7, 1_000), mark(8, 2_000)]
    pieces = [frame(1, f"{mark}{'x' * size}".encode()) for mark, size in zip(marks, (20, 300), strict=True)]
    data = pieces[0] + frame(PING, b"p") + pieces[1] + frame(CLOSE, (1012).to_bytes(2))
    whole = parse(data)
    assert whole == Chunk(1 << 7 | 1 << 8, (1_000, 2_000), b"", (b"p",), 1012)
    for at in range(len(data)):
        first = parse(data[:at])
        second = parse(first.rest + data[at:])
        assert first.numbers | second.numbers == whole.numbers
        assert first.due + second.due == whole.due
        assert first.pings + second.pings == whole.pings
        assert (first.close or second.close, second.rest) == (1012, b"")


# --- what it comes to


def outcome(load: float = 0.1, server: float = 0.1, timers: tuple[float, ...] = (0.1,)) -> Outcome:
    seen = Result(10, 0, 0, {}, 0, Counter({5: 10}), 0, list(timers))
    return Outcome(1, 10, 10, seen, 1.0, [1], usage.Usage(1, 0, 10), usage.Usage(0, 0, 0), load, server)


def test_it_says_who_was_the_limit() -> None:
    assert outcome().limit() == "none"
    assert outcome(server=0.95).limit() == "server"
    assert outcome(server=0.95, load=0.95).limit() == "load"
    assert outcome(server=0.95, timers=(80.0, 90.0, 0.1)).limit() == "load"


def test_percentiles_are_values_that_came() -> None:
    assert percentiles(Counter(range(1, 101))) == (50, 90, 99, 100)
    assert percentiles(Counter({3: 1})) == (3, 3, 3, 3)
    assert percentiles(Counter({1: 98, 7: 2})) == (1, 1, 7, 7)
    assert percentiles(Counter()) == (0, 0, 0, 0)


def test_what_a_process_uses_is_what_the_kernel_counts() -> None:
    burn = "import os, time\nfor _ in range(500): os.write(1, b'.')\nwhile time.process_time() < 0.3: pass\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        over = time.monotonic() + 20
        while (used := usage.usage([process.pid])).cpu < 0.3:
            assert time.monotonic() < over
        assert process.stdout is not None
        assert len(process.stdout.read(500)) == 500
        assert used.writes >= 500
        assert process.pid in usage.tree(os.getpid())
        assert usage.memory([process.pid]) > 1_000
        process.communicate(b"\n")
    assert usage.usage([process.pid]) == usage.Usage(0, 0, 0)


# --- the command


def test_it_measures_a_server_that_runs_and_shows_how_far_it_is(server: Running) -> None:
    shown, terminal = os.openpty()
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "pushserver", "bench", server.url, "--data", str(server.data)),
            *("--pid", str(server.process.pid), "--readers", "20", "--entries", "30", "--rate", "50"),
        ],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
    ) as process:
        told, _ = process.communicate(timeout=30)
    os.close(terminal)
    live = os.read(shown, 65_536).decode()
    os.close(shown)
    assert process.returncode == 0, told + live
    assert "600 of 600" in told
    assert "a processor; its store" in told
    assert "connecting" in live
    assert live.count("delivering") > 3
    streams = server.http.get("/", headers={"Accept": "application/json"}).text
    assert "Measured by pushserver bench" in streams


def test_it_measures_a_server_of_its_own(run: Run) -> None:
    done = run("bench", "--local", "--readers", "40", "--entries", "20", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["deliveries"], told["missing"], told["twice"], told["whole"]) == (800, 0, 0, True)
    assert 0 < told["late_ms"]["p50"] <= told["late_ms"]["p99"] <= told["late_ms"]["max"]
    assert told["server"]["us_per_delivery"] > 0
    assert 0 < told["server"]["writes_per_delivery"] < 3
    assert told["store"]["us_per_entry"] > 0


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ((), 2, "Expected URL or --local"),
        (("http://127.0.0.1:1", "--local"), 2, "Expected URL or --local"),
        (("--local", "--readers", "30000"), 2, "1<=x<=20000"),
        (("--local", "--entries", "10000"), 2, "1<=x<=9000"),
        (("--local", "--limit", "601"), 2, "1<=x<=600"),
        (("ftp://127.0.0.1",), 1, "http:// or https://"),
        (("http://127.0.0.1:1",), 3, "expected a server at 127.0.0.1:1"),
    ],
)
def test_it_refuses_with_a_word(run: Run, arguments: tuple[str, ...], status: int, words: str) -> None:
    done = run("bench", *arguments)
    assert done.returncode == status
    assert words in done.stderr


def test_it_says_who_may_not_publish(run: Run, server: Running) -> None:
    done = run("bench", server.url, "--key", "not-a-key")
    assert done.returncode == 1
    assert "was refused: 401" in done.stderr


def test_it_says_that_files_are_too_few(tmp_path: Path) -> None:
    command = f"ulimit -n 300; exec {sys.executable} -m pushserver bench --local --readers 1000"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "expected a limit of at least 1064 open files, got 300" in done.stderr


# --- side by side


@pytest.mark.anyio
@pytest.mark.skipif(not shutil.which("cc"), reason="needs cc")
async def test_the_floor_and_this_server_are_measured_alike() -> None:
    cpus = os.sched_getaffinity(0)
    checkout = Path(sys.prefix).parent
    rig = Rig(checkout, entry(0, 0).decode(), cpus, cpus)
    size = SHORT._replace(flood_readers=50, flood_entries=20)
    for contender in CONTENDERS[:2]:
        contender.install()
        figures = await flood(contender, rig, size)
        assert float(figures["CPU us/delivery"]) > 0


@pytest.mark.anyio
async def test_a_round_in_which_an_entry_is_missing_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pushserver.bench.run.SILENCE", 1.0)

    @asynccontextmanager
    async def start(rig: Rig, groups: int, workers: int) -> AsyncIterator[contenders.Running]:
        async with listening(Careless({7: 0})) as target:
            yield contenders.Running(target, Machine([os.getpid()]), lambda group: "/pub/0", entry)

    cpus = os.sched_getaffinity(0)
    rig = Rig(ROOT, "", cpus, cpus)
    contender = Contender("careless", "loses one", contenders.nothing, start)
    with pytest.raises(Invalid, match="5 of 100 missing, 0 twice"):
        await flood(contender, rig, SHORT._replace(flood_readers=5, flood_entries=20))


def told(*rounds: tuple[str, int, dict[str, float | str]]) -> dict[str, Any]:
    results = [
        {"workload": "a", "title": "flood", "round": number, "contender": name, "others": 0.1, "figures": figures}
        for name, number, figures in rounds
    ]
    return {"command": "x", "on": "y", "skipped": [], "contenders": ["pushserver", "floor", "Bun"], "results": results}


def test_ratios_are_those_within_a_round() -> None:
    rounds = told(
        ("pushserver", 0, {"CPU us/delivery": 2.0, "deliveries/s": 100.0}),
        ("pushserver", 1, {"CPU us/delivery": 8.0, "deliveries/s": 300.0}),
        ("floor", 0, {"CPU us/delivery": 4.0, "deliveries/s": 100.0}),
        ("floor", 1, {"CPU us/delivery": 24.0, "deliveries/s": 100.0}),
        ("Bun", 1, {"CPU us/delivery": 8.0, "deliveries/s": 100.0, "limit": "load"}),
    )
    rounds["results"].append(
        {
            "workload": "a",
            "title": "flood",
            "round": 0,
            "contender": "Bun",
            "others": 0.5,
            "invalid": "5 of 100 missing",
        }
    )
    shown = table.markdown(rounds)
    assert "| (a) flood: CPU us/delivery | 5 (2-8) | x 2.5 (2-3) | x 1 |" in shown
    assert "| (a) deliveries a second, times the best peer's | at least 3 | 3 | met |" in shown
    assert "| (a) CPU of a delivery, times the floor's | at most 0.4 | 0.417 | missed |" in shown
    assert "* (a) Bun, round 1 does not count: 5 of 100 missing" in shown
    assert "* (a) Bun, round 2: the load was the limit" in shown
    assert "Others took 10% of the processors (median), 50% at most." in shown


def test_the_table_of_the_docs_is_made_from_what_was_measured() -> None:
    page = PAGE.read_text()
    assert table.put(page, table.markdown(json.loads(RESULTS.read_text()))) == page
    with pytest.raises(ValueError, match="expected <!-- begin"):
        table.put("no marks", "")
