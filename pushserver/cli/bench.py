"""`pushserver bench` measures a deployment: its rates, its latency and its cost."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import click
import uvloop

from .. import settings
from ..bench import run, usage
from ..bench.measurement import Outcome
from ..bench.pages import LoadFigures, Orders, PageLoader
from ..bench.publisher import PublisherConnection, PublishRefused, PublishSchedule, answered_error
from ..bench.reader import Endpoint, ServerUnavailable, stamp
from ..bench.run import ServerProcesses
from ..bench.swarm import ReaderPool, check_file_limit
from ..client import Unauthorized
from ..client.publisher import authorization, encode
from .options import chosen_key, data_option, json_option, key_option, root_url
from .output import NOT_REACHED, REFUSED, fail

FIRST_READERS = 5  # a fifth of the readers connect before the memory is first measured
SETTLED = 1.0  # seconds from the last connect until the memory is measured
WARM_UP = 2  # entries that are published before the measurement
PROGRESS_EVERY = 0.1  # seconds


class Plan(NamedTuple):
    """Plan is what the options ask for: `rate` in entries a second, `size` in bytes, `limit` in seconds."""

    readers: int
    entries: int
    rate: float
    size: int
    publishers: int
    processes: int
    limit: float
    pages: int = 0

    def body(self, number: int, due: int) -> bytes:
        """Return an entry of `size` bytes with its stamp: its number, and its due time in ns."""
        bare = {"headline": "Measured by pushserver bench", "body": stamp(number, due)}
        bare["body"] += " and so on" * (self.size // 10 + 1)
        over = len(encode(bare)) - self.size
        return encode({**bare, "body": bare["body"][:-over]})


@click.command()
@click.argument("url", type=settings.Parsed(root_url), required=False)
@click.option("--local", is_flag=True, help="Start a server on a temporary data folder, and measure it.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Workers of that server.")
@click.option("--pid", type=click.IntRange(1), help="Process id of a server on this machine: measure what it uses.")
@click.option("--readers", type=click.IntRange(1, 20_000), default=1_000, show_default=True, help="Readers to connect.")
@click.option("--entries", type=click.IntRange(1, 9_000), default=200, show_default=True, help="Entries to publish.")
@click.option(
    "--rate",
    type=click.FloatRange(0, 10_000),
    default=0,
    show_default=True,
    help="Entries a second; 0: each as soon as the previous one is acknowledged.",
)
@click.option("--size", type=click.IntRange(128, 60_000), default=350, show_default=True, help="Bytes of each entry.")
@click.option(
    "--publishers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Concurrent publishers.",
)
@click.option(
    "--processes", type=click.IntRange(1, 16), default=1, show_default=True, help="Processes that the readers run in."
)
@click.option(
    "--limit", type=click.FloatRange(1, 600), default=60, show_default=True, help="Seconds after which the run ends."
)
@click.option(
    "--pages",
    type=click.IntRange(0, 1_000),
    default=0,
    show_default=True,
    help="Connections that load the page of the stream meanwhile, without a pause.",
)
@key_option
@data_option
@json_option
def bench(
    url: str | None,
    local: bool,
    workers: int,
    pid: int | None,
    key: str,
    data: str,
    as_json: bool,
    **counts: Any,
) -> None:
    """Measure the server at URL: connect readers, publish entries, and report rates, latency and cost.

    The command creates a stream, and ends it. It loads the server: do not run it where that does harm. Latency counts
    from an entry's due time on this machine's clock, so it includes both ways to the server. The server's own usage is
    measured with --local or --pid. The exit status is 1 if a reader missed an entry or received one twice.
    """
    plan = Plan(**counts)
    if bool(url) == local:
        raise click.UsageError("Expected URL or --local, one of them.")
    if error := check_file_limit(plan.readers):
        fail(f"{plan.readers} readers: {error}", REFUSED)
    key = chosen_key(key, "", data)
    try:
        report = uvloop.run(_measure_local(plan, workers) if local else _measure(plan, url or "", key, pid, None))
    except (ServerUnavailable, OSError) as error:
        fail(str(error), NOT_REACHED)
    except (PublishRefused, Unauthorized) as error:
        fail(str(error), REFUSED)
    click.echo(json.dumps(report) if as_json else as_text(report))
    sys.exit(0 if report["whole"] else REFUSED)


async def _measure_local(plan: Plan, workers: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="pushserver-bench-") as folder:
        async with run.start_local_server(Path(folder) / "data", "--workers", str(workers)) as server:
            cpus = run.pin_apart(ServerProcesses.of(server.pid)) if workers == 1 else None
            return await _measure(plan, server.url, server.key, server.pid, cpus)


async def _measure(plan: Plan, url: str, key: str, pid: int | None, cpus: set[int] | None) -> dict[str, Any]:
    """Measure the server on a new stream and return the report. Raises ServerUnavailable, PublishRefused."""
    stream = f"bench-{secrets.token_hex(4)}"
    endpoint = _endpoint(url, stream)
    server = ServerProcesses.of(pid) if pid else ServerProcesses()
    async with AsyncExitStack() as stack:
        loader = await PageLoader.start(cpus=cpus) if plan.pages else None
        if loader:
            stack.push_async_callback(loader.close)
        await stack.enter_async_context(_stream(endpoint, key, stream))
        readers = await ReaderPool.start(endpoint, processes=plan.processes, cpus=cpus)
        stack.push_async_callback(readers.close)
        connected = await _connect_all(plan, readers, server)
        if loader:
            await loader.begin(Orders(endpoint, [endpoint.path.removesuffix("/ws")], plan.pages))
        # Not sooner: a server closes a connection that is idle for some seconds.
        connections = [await stack.enter_async_context(_connection(endpoint, key)) for _ in range(plan.publishers)]
        path = f"/streams/{stream}/entries"
        schedule = PublishSchedule(lambda number: path, plan.body, 0, WARM_UP, 0.0)
        await run.run_schedule(readers, connections[:1], schedule, limit=plan.limit)
        schedule = schedule._replace(first=WARM_UP, entries=plan.entries, rate=plan.rate)
        with click.progressbar(length=plan.readers * plan.entries, label="delivering", file=sys.stderr) as bar:
            outcome = await run.run_schedule(
                readers,
                connections,
                schedule,
                server=server,
                limit=plan.limit,
                progress=lambda delivered: bar.update(delivered - bar.pos),
            )
        pages = {"page_loads": _page_figures(await loader.end())} if loader else {}
        return {**_report(plan, url, stream, connected, outcome), **pages}


def _page_figures(loads: LoadFigures) -> dict[str, Any]:
    """Return what --json prints of page loads."""
    wait_ms = {"p50": round(loads.p50, 1), "p99": round(loads.p99, 1), "max": round(loads.longest, 1)}
    per_second = round(loads.loads / loads.seconds) if loads.seconds else 0
    return {"loads": loads.loads, "per_second": per_second, "statuses": loads.statuses, "wait_ms": wait_ms}


def _endpoint(url: str, stream: str) -> Endpoint:
    """Return where the readers of a stream connect; its host name is looked up once. Raises ServerUnavailable."""
    parts = urlsplit(url)
    assert parts.hostname
    tls = parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    try:
        address = str(socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise ServerUnavailable(f"expected a server at {parts.hostname}, got: {error}") from None
    path = f"{parts.path.rstrip('/')}/streams/{stream}/ws"
    return Endpoint(parts.hostname, port, path, address, tls, ready='"type":"hello"')


@asynccontextmanager
async def _connection(endpoint: Endpoint, key: str) -> AsyncIterator[PublisherConnection]:
    headers = tuple(f"{name}: {value}" for name, value in authorization(key).items())
    connection = PublisherConnection(endpoint, headers)
    await endpoint.connect(connection)
    try:
        yield connection
    finally:
        connection.close()


@asynccontextmanager
async def _stream(endpoint: Endpoint, key: str, stream: str) -> AsyncIterator[None]:
    """Create the stream, and end it after the measurement."""
    page = {"headline": "Measured by pushserver bench", "timezone": "Etc/UTC"}
    async with _connection(endpoint, key) as connection:
        status, answer = await connection.send("PUT", f"/streams/{stream}", encode(page))
    if status not in (200, 201):
        raise PublishRefused(f"the stream {stream} was refused: {answered_error(status, answer)}")
    try:
        yield
    finally:
        async with _connection(endpoint, key) as connection:
            await connection.send("POST", f"/streams/{stream}/end", b"{}")


async def _connect_all(plan: Plan, readers: ReaderPool, server: ServerProcesses) -> dict[str, Any]:
    """Connect a part of the readers and then the rest; return the rate, and the memory that each of the rest takes."""
    first = -(-plan.readers // FIRST_READERS)
    rest = plan.readers - first
    figures: dict[str, Any] = {}
    with click.progressbar(length=plan.readers, label="connecting", file=sys.stderr) as bar:
        seconds = await _connect(readers, first, bar)
        if server.server and rest:
            await asyncio.sleep(SETTLED)
            before = usage.memory(server.server)
        if rest:
            seconds += await _connect(readers, rest, bar)
        if server.server and rest:
            await asyncio.sleep(SETTLED)
            figures["kib_per_connection"] = round((usage.memory(server.server) - before) / rest, 2)
    return {"connects_per_second": round(plan.readers / seconds), **figures}


async def _connect(readers: ReaderPool, count: int, bar: Any) -> float:
    """Connect `count` more readers; return the seconds that it took."""
    begin = time.monotonic()
    opening = asyncio.create_task(readers.open(count))
    while not (await asyncio.wait([opening], timeout=PROGRESS_EVERY))[0]:
        bar.update(readers.ready - bar.pos)
    opening.result()
    bar.update(readers.opened - bar.pos)
    return time.monotonic() - begin


def _report(plan: Plan, url: str, stream: str, connected: dict[str, Any], outcome: Outcome) -> dict[str, Any]:
    """Return what --json prints."""
    asked = {"url": url, "stream": stream, "whole": outcome.is_complete, **plan._asdict()}
    return {**asked, **connected, "put_off": outcome.counts.deferred, **outcome.figures()}


def as_text(report: dict[str, Any]) -> str:
    """Return a report for people, a line for each figure."""
    pace = f"{report['rate']:g} a second" if report["rate"] else "each after the previous acknowledgement"
    memory = f", {report['kib_per_connection']} KiB each" if "kib_per_connection" in report else ""
    deferred = f", {report['put_off']} times asked to retry later" if report["put_off"] else ""
    rate = report["deliveries_per_second"]
    rows = [
        ("connected", f"{report['readers']:,} readers, {report['connects_per_second']:,} a second{memory}{deferred}"),
        ("published", f"{report['entries']:,} entries of {report['size']:,} bytes, {pace}"),
        ("acknowledged", _times(report["acknowledged_ms"])),
        ("delivered", f"{report['deliveries']:,} of {report['expected']:,}, {rate:,} a second"),
        ("latency", _times(report["late_ms"])),
    ]
    if "server" in report:
        cost, store = report["server"], report["store"]
        rows += [
            ("server", f"{cost['us_per_delivery']} us and {cost['writes_per_delivery']} writes a delivery"),
            ("", f"{cost['share']:.0%} of a processor; its store {store['us_per_entry']} us an entry"),
        ]
    if "page_loads" in report:
        pages = report["page_loads"]
        refused = sum(number for status, number in pages["statuses"].items() if int(status) >= 400)
        rate = f"{pages['loads']:,}, {pages['per_second']:,} a second, {refused:,} refused"
        rows.append(("page loads", f"{rate}; {_times(pages['wait_ms'])}"))
    load = report["load"]
    rows.append(("load", f"{load['share']:.0%} of a processor, timers up to {load['clock_late_ms']['max']} ms late"))
    rows.append(("bottleneck", BOTTLENECKS[report["limit"]]))
    if not report["whole"]:
        lost = "".join(f"; {count} readers disconnected: {reason}" for reason, count in report["lost"].items())
        rows.append(("INCOMPLETE", f"{report['missing']:,} deliveries missing, {report['twice']:,} duplicates{lost}"))
    return "\n".join(f"{name:14}{text}" for name, text in rows)


BOTTLENECKS = {
    "load": "the load generator; use more --processes, or another machine",
    "server": "the server",
    "none": "none: neither the server nor the load generator was busy all the time",
}


def _times(ms: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g} ms" for name, value in ms.items())
