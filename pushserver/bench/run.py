"""A run publishes a schedule of entries and waits until every reader has them; it can start the server to measure."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from .. import processes, settings
from ..access import keyfile
from . import usage
from .measurement import Outcome
from .publisher import PublisherConnection, PublishSchedule, publish_entries
from .reader import ServerUnavailable
from .swarm import ReaderPool

CHECKED_EVERY = 0.05  # seconds
SILENCE = 10.0  # seconds without a delivery after the last publish, after which the run ends
START_LIMIT, STOP_LIMIT = 30.0, 60.0  # seconds
LAST_LINES = 5  # of a server's log, shown where it does not start


class ServerProcesses(NamedTuple):
    """ServerProcesses are the pids of a server on this machine, its store's apart."""

    server: Sequence[int] = ()
    store: Sequence[int] = ()

    @classmethod
    def of(cls, pid: int) -> ServerProcesses:
        """Find the processes of the server whose supervisor has this pid."""
        pids = usage.process_tree(pid)
        store = [pid for pid in pids if usage.command_name(pid) in ("valkey-server", "redis-server")]
        return cls([pid for pid in pids if pid not in store], store)


async def run_schedule(
    readers: ReaderPool,
    connections: list[PublisherConnection],
    schedule: PublishSchedule,
    *,
    groups: int = 1,
    server: ServerProcesses = ServerProcesses(),  # noqa: B008 (it cannot be changed)
    limit: float = 60.0,
    progress: Callable[[int], None] = lambda delivered: None,
) -> Outcome:
    """Publish a schedule and wait until every reader has all of it, or for `limit` seconds.

    Raises PublishRefused, ServerUnavailable.
    """
    expected = readers.opened // groups * schedule.entries
    await readers.begin()
    before = _usages(readers, server)
    begin = time.monotonic_ns()
    publishing = asyncio.create_task(publish_entries(connections, schedule))
    try:
        await _delivered(publishing, readers, expected, limit, progress)
        after = _usages(readers, server)
        wall = (time.monotonic_ns() - begin) / 1e9
        acknowledged = publishing.result() if publishing.done() else []
    finally:
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
    counts = await readers.end(schedule.first, schedule.first + schedule.entries)
    of_server, of_store, *loads = (now.since(then) for now, then in zip(after, before, strict=True))
    return Outcome(
        readers.opened,
        schedule.entries,
        expected,
        counts,
        max(1e-3, (counts.last - begin) / 1e9),
        acknowledged,
        of_server,
        of_store,
        load=max(load.cpu for load in loads) / wall,
        server_share=of_server.cpu / wall,
    )


def _usages(readers: ReaderPool, server: ServerProcesses) -> list[usage.Usage]:
    """Measure the server, its store, and each reader process."""
    loads = (usage.measure([process.pid]) for process in readers.processes)
    return [usage.measure(server.server), usage.measure(server.store), *loads]


async def _delivered(
    publishing: asyncio.Task[list[int]],
    readers: ReaderPool,
    expected: int,
    limit: float,
    progress: Callable[[int], None],
) -> None:
    """Wait until all is published and delivered, a reader is disconnected, deliveries stop, or the limit is reached."""
    over, last_delivery, delivered = time.monotonic() + limit, time.monotonic(), 0
    while time.monotonic() < min(over, last_delivery + SILENCE) and not readers.disconnected:
        await asyncio.wait([publishing], timeout=CHECKED_EVERY)
        if readers.delivered > delivered or not publishing.done():
            last_delivery, delivered = time.monotonic(), readers.delivered
            progress(delivered)
        if publishing.done():
            publishing.result()
            if delivered >= expected:
                return
            await asyncio.sleep(CHECKED_EVERY)


# --- the server to measure


class LocalServer(NamedTuple):
    """LocalServer is a server that was started to be measured. `pid` is its supervisor's."""

    url: str
    key: str
    pid: int


@asynccontextmanager
async def start_local_server(
    data: Path, *arguments: str, python: str = sys.executable, folder: Path | None = None
) -> AsyncIterator[LocalServer]:
    """Start a server on a free port and a data folder, and stop it at the end. Raises ServerUnavailable.

    `folder` is the checkout whose server is started. The environment's settings do not reach the server: they may name
    a store that is in use.
    """
    ignored = {name for field in settings.KNOBS for name in settings.variables(field.name)}
    with (data.parent / f"{data.name}.log").open("w+") as log:
        process = await asyncio.create_subprocess_exec(
            *(python, "-m", "pushserver", "serve", "--port", "0", "--data", str(data), *arguments),
            cwd=folder,
            env={name: value for name, value in os.environ.items() if name not in ignored},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        try:
            url = await _address(process)
            if not url:
                log.seek(0)
                raise ServerUnavailable(f"the server did not start: {''.join(log.readlines()[-LAST_LINES:]).strip()}")
            yield LocalServer(url, keyfile.local_key(data) or "", process.pid)
        finally:
            await processes.stop(process, STOP_LIMIT)


async def _address(process: asyncio.subprocess.Process) -> str:
    """Return the URL that a server prints when it is ready; '' where it ends or prints none in time."""
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_LIMIT):
            async for line in process.stdout:
                if match := re.search(rb"  pages +(http://\S+)/", line):
                    return match[1].decode()
    except TimeoutError:
        pass
    return ""


def pin_apart(server: ServerProcesses) -> set[int]:
    """Pin a server to the first processor and its store to the others; return the processors for the load.

    On a machine with one processor nothing is pinned.
    """
    first, *others = sorted(os.sched_getaffinity(0))
    if not others:
        return {first}
    usage.pin(server.server, {first})
    usage.pin(server.store, set(others))
    return set(others)
