"""The script measures the memory that a worker takes for the streams that it follows.

    .venv/bin/python -m bench.rings                    # 1,000 streams of 1,000 entries, read in every variant
    .venv/bin/python -m bench.rings --streams 100      # fewer of them
    .venv/bin/python -m bench.rings --minutes 60       # 30 streams whose readers come and go, for an hour
    .venv/bin/python -m bench.rings --minutes 60 --visitors 4   # fewer of them at a time, on a busy machine
    .venv/bin/python -m bench.rings --frame            # bytes of one event beside its data and its encodings

Each stream has a reader that stays, and is filled while it reads. Then readers in every transport, coding and format
begin 900 events back, and each must receive every event since, or a snapshot where the format's limit is lower. With
`--minutes` readers of every kind come and go, beside pages, corrections, withdrawals and new entries; the script prints
the memory once a minute, and at the end what the publisher was answered. The exit status is 1 where a reader missed an
event, or the memory exceeded LIMIT_MIB or grew by more than 5 % after the first third of the time. A server of its own
is started, on loopback, and stopped at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import gc
import itertools
import json
import random
import re
import secrets
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import redis.asyncio as aioredis
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from pushserver import model
from pushserver.codec import dumps
from pushserver.live.fanout import Fanout
from pushserver.live.ring import Ring
from pushserver.live.stream import LiveStream
from pushserver.model import Cursor, Event
from pushserver.store.folder import SOCKET
from pushserver.store.records import event_of
from pushserver.wire.frames import Coding, Format
from tests.support.server import Running, entry_append, running

EVENTS, BACK = 1_000, 900  # of each stream, and how many of them the readers miss
TEXT = "word " * 190  # of an entry: with its other fields 1 kB
LIMIT_MIB = 512
AT_ONCE = 16  # readers
PUT_OFF = 1.0  # seconds until a publisher or a reader that was put off comes again
PATIENCE = 120.0  # seconds for a reader to receive all that it missed
GROWTH = 1.05
CONNECT_ERRORS = (InvalidHandshake, httpx2.HTTPError, OSError)  # errors of a refused handshake or a lost connection
HEAD = re.compile(r'{"type":"([a-z.]+)"(?:,"n":(\d+),"cursor":"([^"]+)")?')


class Variant(NamedTuple):
    """A transport, a coding and a format."""

    name: str
    transport: str
    format: str
    deflate: bool = False


VARIANTS = [
    Variant(f"{transport}{' deflated' if deflate else ''} {format}", transport, format, deflate)
    for transport, deflate in (("websocket", False), ("websocket", True), ("sse", False))
    for format in ("json", "html")
]


# --- filling streams


def entries(stream: str, first: int, last: int, prev: Cursor) -> Iterator[tuple[Cursor, Cursor, int, Any]]:
    """The events of a stream from a number on: cursor, the one before, number, and what is stored."""
    for n in range(first, last + 1):
        append = entry_append(stream, f"Entry {n}", id=f"e{n}", at=model.now(), body=f"{n} {TEXT}")
        cursor = Cursor(prev.epoch, f"{append.at}-{n}", secrets.token_hex(8))
        yield cursor, prev, n, append
        prev = cursor


@functools.cache
def templates() -> list[Any]:
    """Return what is stored for events 2 to EVENTS of a stream STREAM: the values of FILL, event by event."""
    values: list[Any] = []
    for _, _, n, append in entries("STREAM", 2, EVENTS, Cursor("", "", "")):
        values += [n, append.type, append.shown_at, append.entry_id, dumps(append.data), dumps(append.state)]
        values.append(append.order)
    return values


# It stores what the server's script stores, in one call for a stream: to send every event takes a second.
FILL = """
local rows = redis.call('LRANGE', KEYS[4], 0, -1)
local stream, epoch, at, prev = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
for row = 0, #rows / 7 - 1 do
    local n, type, shown, entry, data, state, order = unpack(rows, row * 7 + 1, row * 7 + 7)
    local id, nonce = at .. '-' .. n, ARGV[5 + row]
    data, state = string.gsub(data, 'STREAM', stream), string.gsub(state, 'STREAM', stream)
    redis.call('XADD', KEYS[1], id, 'n', n, 't', type, 's', shown, 'k', entry, 'd', data, 'i', '',
               'e', epoch, 'p', prev, 'u', nonce)
    redis.call('HSET', KEYS[2], entry, state)
    redis.call('ZADD', KEYS[3], order, entry)
    prev = id .. '.' .. nonce
end
"""
TEMPLATES = "templates"  # key


async def fill(store: aioredis.Redis, stream: str, first: Cursor) -> list[Cursor]:
    """Append events past the server, as its script does. The cursors of all events, the oldest first."""
    if not await store.exists(TEMPLATES):
        await store.rpush(TEMPLATES, *templates())
    key = f"{model.tag(model.partition_of(stream, 16))}:{stream}"
    at = model.now() + 1
    cursors = [first, *(Cursor(first.epoch, f"{at}-{n}", secrets.token_hex(8)) for n in range(2, EVENTS + 1))]
    keys = [f"{key}:log", f"{key}:entries", f"{key}:order", TEMPLATES]
    nonces = [cursor.nonce for cursor in cursors[1:]]
    await store.eval(FILL, len(keys), *keys, stream, first.epoch, at, f"{first.id}.{first.nonce}", *nonces)
    return cursors


# --- readers


async def frames(server: Running, stream: str, cursor: str, variant: Variant) -> Any:
    """The texts of a reader's frames."""
    path = f"/streams/{stream}/{'ws' if variant.transport == 'websocket' else 'sse'}?cursor={cursor}"
    url = f"{server.url}{path}&format={variant.format}"
    if variant.transport == "sse":
        # Without verification: to load the certificates of authorities takes longer than to read.
        async with httpx2.AsyncClient(timeout=PATIENCE, verify=False) as http, http.stream("GET", url) as response:
            rest = b""
            async for part in response.aiter_raw():
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    if line.startswith(b"data: "):
                        yield line[6:].decode()
        return
    compression = "deflate" if variant.deflate else None
    async with connect(
        url.replace("http", "ws", 1), compression=compression, proxy=None, max_size=None, open_timeout=PATIENCE
    ) as socket:
        async for text in socket:
            yield text


async def behind(server: Running, stream: str, cursor: Cursor, variant: Variant) -> str:
    """`events` where a reader received every event after its cursor in order, `snapshot` where one stood for them.

    One that is sent away comes back with its cursor, as readers do; the result names the reason.
    """
    reading = Reading(EVENTS - BACK, str(cursor))
    async with asyncio.timeout(PATIENCE):
        while reading.n < EVENTS:
            try:
                async for text in frames(server, stream, reading.cursor, variant):
                    reading.receive(text)
                    if reading.n == EVENTS:
                        return reading.kind
            except ConnectionClosed:
                pass  # a `bye` said why
            except CONNECT_ERRORS as reason:
                reading.kind += f" after {type(reason).__name__} ({str(reason)[:80]})"
            await asyncio.sleep(PUT_OFF)
    return reading.kind


class Reading:
    """Reading is what a reader received: up to which event, and whether events or a snapshot."""

    def __init__(self, n: int, cursor: str) -> None:
        self.n = n
        self.cursor = cursor
        self.kind = "events"

    def receive(self, text: str) -> None:
        match = HEAD.match(text)
        assert match, text[:100]
        if match[1] == "bye":
            self.kind += f" after {json.loads(text)['reason']}"
        elif match[1] in ("snapshot", "entry.put"):
            n = int(match[2])
            assert match[1] == "snapshot" or n == self.n + 1, f"expected {self.n + 1}, got {n}"
            self.n, self.cursor = n, match[3]
            self.kind = "snapshot" if match[1] == "snapshot" else self.kind


async def follower(server: Running, stream: str, cursor: str, last: dict[str, int]) -> None:
    """A reader that stays, and notes the last event that it received. On a busy machine it may be cut as too slow."""
    while True:
        with suppress(ConnectionClosed, *CONNECT_ERRORS):
            async for text in frames(server, stream, cursor, VARIANTS[0]):
                match = HEAD.match(text)
                if match and match[1] == "entry.put":
                    last[stream], cursor = int(match[2]), match[3]


async def in_turns(jobs: Iterator[Awaitable[str]]) -> list[str]:
    """The results of jobs, AT_ONCE of which run at a time."""
    results: list[str] = []

    async def work() -> None:
        for job in jobs:
            results.append(await job)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(work())
    return results


# --- memory


def worker_of(server: Running) -> int:
    (pid,) = (pid for pid in server.children() if pid != server.store_pid())
    return pid


def mib(pid: int, field: str = "VmRSS") -> float:
    """The memory of a process, in MiB; `VmHWM` is the most that it had."""
    match = re.search(rf"^{field}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert match
    return int(match[1]) / 1024


# --- many streams


async def many(server: Running, streams: int) -> int:
    pid = worker_of(server)
    print(f"{'at the start':30} {mib(pid):6.0f} MiB", flush=True)
    names = [f"s{number}" for number in range(streams)]
    last = dict.fromkeys(names, 0)
    cursors: dict[str, list[Cursor]] = {}
    async with aioredis.Redis(unix_socket_path=str(server.data / SOCKET)) as store, asyncio.TaskGroup() as tasks:
        followers = []
        await store.config_set("appendfsync", "no")  # filling would take most of the time
        for name in names:
            answer = await asyncio.to_thread(server.publish_ok, name, "First")
            first = Cursor.parse(answer["cursor"])
            assert first
            followers.append(tasks.create_task(follower(server, name, answer["cursor"], last)))
            cursors[name] = await fill(store, name, first)
            while last[name] < EVENTS:
                await asyncio.sleep(0.01)
            if len(followers) % 100 == 0:
                print(f"{f'{len(followers)} followed and filled':30} {mib(pid):6.0f} MiB", flush=True)
        for variant in VARIANTS:
            jobs = (behind(server, name, cursors[name][EVENTS - BACK - 1], variant) for name in names)
            results = await in_turns(jobs)
            counts = ", ".join(f"{results.count(kind)} got {kind}" for kind in sorted(set(results)))
            print(f"{'read as ' + variant.name:30} {mib(pid):6.0f} MiB   {counts}", flush=True)
        for task in followers:
            task.cancel()
    most = mib(pid, "VmHWM")
    warnings = Counter(re.findall(r" (?:WARNING|ERROR) \S+ ([^\d\n]+)", server.log))
    print(
        f"{streams} streams of {EVENTS} events: at most {most:.0f} MiB, limit {LIMIT_MIB}; the log has {dict(warnings)}"
    )
    return int(most >= LIMIT_MIB)


# --- coming and going


async def coming_and_going(server: Running, minutes: float, streams: int, visitors: int) -> int:
    pid, over = worker_of(server), time.monotonic() + minutes * 60
    names = [f"s{number}" for number in range(streams)]
    cursors: dict[str, list[Cursor]] = {}
    async with aioredis.Redis(unix_socket_path=str(server.data / SOCKET)) as store, asyncio.TaskGroup() as tasks:
        measuring = tasks.create_task(_measure(pid, over))
        running: list[asyncio.Task[None]] = []
        await store.config_set("appendfsync", "no")
        for name in names:
            answer = await asyncio.to_thread(server.publish_ok, name, "First")
            first = Cursor.parse(answer["cursor"])
            assert first
            running.append(tasks.create_task(follower(server, name, answer["cursor"], {})))
            cursors[name] = await fill(store, name, first)
        ends: Counter[str] = Counter()
        for _ in range(visitors):
            running.append(tasks.create_task(_visit(server, names, cursors, over, ends)))
        answers: Counter[int] = Counter()
        running.append(tasks.create_task(_publish(server, names, over, answers)))
        figures = await measuring
        for task in running:
            task.cancel()
    print(f"the publisher's answers: {dict(answers)}; how visits ended: {dict(ends)}")
    early, late = max(figures[: max(1, len(figures) // 3)]), figures[-1]
    print(f"{early:.0f} MiB at most in the first third, {late:.0f} MiB at the end: {late / early - 1:+.1%}")
    return int(late > GROWTH * early)


async def _measure(pid: int, over: float) -> list[float]:
    figures: list[float] = []
    while (left := over - time.monotonic()) > 0:
        await asyncio.sleep(min(60.0, left))
        figures.append(mib(pid))
        print(f"minute {len(figures):3} {figures[-1]:6.0f} MiB", flush=True)
    return figures


async def _visit(
    server: Running, names: list[str], cursors: dict[str, list[Cursor]], over: float, ends: Counter[str]
) -> None:
    """Read as one reader after the other, each for a moment, from anywhere. `ends` counts why a visit was over."""
    while time.monotonic() < over:
        name, variant = random.choice(names), random.choice(VARIANTS)
        cursor = str(random.choice(cursors[name])) if random.random() < 0.8 else ""
        try:
            async with asyncio.timeout(random.uniform(0.1, 5.0)):
                async for _ in frames(server, name, cursor, variant):
                    pass
            ends["let go by the server"] += 1
        except TimeoutError:
            ends["left"] += 1
        except (ConnectionClosed, *CONNECT_ERRORS) as reason:
            ends[str(reason)[:80] or type(reason).__name__] += 1


async def _publish(server: Running, names: list[str], over: float, answers: Counter[int]) -> None:
    """Publish, correct and withdraw entries, change pages, and load pages. `answers` counts each status."""
    headers = {"Authorization": f"Bearer {server.key}", "Content-Type": "application/json"}
    async with httpx2.AsyncClient(base_url=server.url, headers=headers, timeout=PATIENCE) as http:
        for number in itertools.count():
            if time.monotonic() >= over:
                return
            path, id = f"/streams/{random.choice(names)}", f"v{number}"
            entry = {"headline": f"Visit {number}", "body": f"{number} {TEXT}"}
            for method, to, value in (
                ("PUT", f"{path}/entries/{id}", entry),
                ("PATCH", f"{path}/entries/{id}", {"headline": f"Visit {number}, corrected"}),
                ("DELETE", f"{path}/entries/{id}", None),
                ("PUT", path, {"headline": f"Page {number}"}),
                ("GET", path, None),
                ("GET", f"{path}/entries", None),
            ):
                response = await http.request(method, to, json=value)
                answers[response.status_code] += 1
                if response.status_code == 503:  # on a busy machine: the rest of this entry's life is left out
                    await asyncio.sleep(PUT_OFF)
                    break
                assert response.is_success, response.text
            await asyncio.sleep(0.05)


# --- one event


def frame_bytes() -> None:
    """Print the bytes of an event beside its data, and of its encodings, as they are and as they are counted."""
    first = Cursor(secrets.token_hex(8), "0-0", "0" * 16)
    ring = Ring(first, 0, max_events=10_000, max_bytes=10**10)
    page: Any = {**model.unwritten_page("storm"), "dek": "A storm", "intro": "It comes"}
    stream = LiveStream("storm", Fanout(ring), page, give_up=lambda *_: None)
    gc.collect()
    tracemalloc.start()
    data = 0
    for cursor, prev, n, append in entries("storm", 1, EVENTS, first):
        event = _as_read(cursor, prev, n, append)
        data += len(event.data)
        stream.append(event)
        next(ring.newest()).latencies.update({1: 1, 2: 1, 5: 1})
    gc.collect()
    used = tracemalloc.get_traced_memory()[0]
    print(f"beside its data: {(used - data) / EVENTS:.0f}, counted {(stream.account.bytes - data) / EVENTS:.0f}")
    counted = stream.account.bytes
    for frame in ring.newest():
        for format, coding in itertools.product(Format, Coding):
            frame.encoded(format, coding)
    made = tracemalloc.get_traced_memory()[0] - used
    print(f"its encodings: {made / EVENTS:.0f}, counted {(stream.account.bytes - counted) / EVENTS:.0f}")


def _as_read(cursor: Cursor, prev: Cursor, n: int, append: Any) -> Event:
    """An event as the tail makes it of the store's answer, none of whose parts is shared with another event."""
    fields = {"e": cursor.epoch, "n": n, "p": f"{prev.id}.{prev.nonce}", "u": cursor.nonce, "t": append.type}
    fields |= {"s": append.shown_at, "k": append.entry_id, "d": dumps(append.data), "i": secrets.token_hex(48)}
    event = event_of([cursor.id.encode(), [str(word).encode() for pair in fields.items() for word in pair]])
    assert event
    return event


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--visitors", type=int, default=AT_ONCE)
    parser.add_argument("--frame", action="store_true")
    options = parser.parse_args()
    if options.frame:
        frame_bytes()
        return 0
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data") as server:
        if options.minutes:
            return asyncio.run(coming_and_going(server, options.minutes, options.streams or 30, options.visitors))
        return asyncio.run(many(server, options.streams or 1_000))


if __name__ == "__main__":
    sys.exit(main())
