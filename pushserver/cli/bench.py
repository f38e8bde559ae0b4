"""The command `bench`: how fast a deployment is, how late, and what it costs."""

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

from ..access import keyfile
from ..bench import run, usage
from ..bench.publisher import Course, Denied, Poster, said
from ..bench.reader import Away, Target, mark
from ..bench.run import Machine, Outcome
from ..bench.swarm import Readers, files_short
from ..client import publisher
from .options import NOT_REACHED, REFUSED, data_option, fail, json_option, key_option

FIRST_READERS = 5  # a fifth of them connect before the memory is first looked at
SETTLED = 1.0  # seconds after which a server's memory is what the readers take
WARM_UP = 2  # entries that come before what is measured
SHOWN_EVERY = 0.1  # seconds


class Plan(NamedTuple):
    """What is to be done: counts, bytes, entries and seconds, as the options say."""

    readers: int
    entries: int
    rate: float
    size: int
    publishers: int
    processes: int
    limit: float

    def body(self, number: int, due: int) -> bytes:
        """An entry, as it is published: `size` bytes."""
        bare = {"headline": "Measured by pushserver bench", "body": mark(number, due)}
        bare["body"] += " and so on" * (self.size // 10 + 1)
        over = len(publisher.encode(bare)) - self.size
        return publisher.encode({**bare, "body": bare["body"][:-over]})


@click.command()
@click.argument("url", required=False)
@click.option("--local", is_flag=True, help="Start a server of its own, on a temporary data folder, and measure it.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Of that server.")
@click.option("--pid", type=click.IntRange(1), help="Of a server on this machine that was started: count what it uses.")
@click.option("--readers", type=click.IntRange(1, 20_000), default=1_000, show_default=True)
@click.option("--entries", type=click.IntRange(1, 9_000), default=200, show_default=True)
@click.option(
    "--rate",
    type=click.FloatRange(0, 10_000),
    default=0,
    show_default=True,
    help="Entries a second; 0: each as soon as one before it is acknowledged.",
)
@click.option("--size", type=click.IntRange(128, 60_000), default=350, show_default=True, help="Bytes of an entry.")
@click.option(
    "--publishers", type=click.IntRange(1, 64), default=1, show_default=True, help="That publish at the same time."
)
@click.option(
    "--processes", type=click.IntRange(1, 16), default=1, show_default=True, help="That the readers are spread over."
)
@click.option(
    "--limit", type=click.FloatRange(1, 600), default=60, show_default=True, help="Seconds, after which it gives up."
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
    """Measure the server at URL: open readers, publish entries, and tell how fast, how late and at what cost they come.

    It makes a stream of its own, and ends it. Try it where nobody minds the load. How late a delivery is counts from
    when its entry was due, on this machine's clock: both ways to the server are in it. What the server uses is known
    for one on this machine, with --local or --pid. Exit status 1 says that a reader missed an entry, or had it twice.
    """
    plan = Plan(**counts)
    if bool(url) == local:
        raise click.UsageError("Expected URL or --local, one of them.")
    if short := files_short(max(plan.readers, 1)):
        fail(f"{plan.readers} readers: {short}", REFUSED)
    try:
        key = key or keyfile.local_key(Path(data)) or ""
        told = uvloop.run(_measure_local(plan, workers) if local else _measure(plan, url or "", key, pid, None))
    except (Away, OSError) as error:
        fail(str(error), NOT_REACHED)
    except (Denied, publisher.Unauthorized) as error:
        fail(str(error), REFUSED)
    click.echo(json.dumps(told) if as_json else lines(told))
    sys.exit(0 if told["whole"] else REFUSED)


async def _measure_local(plan: Plan, workers: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="pushserver-bench-") as folder:
        async with run.local_server(Path(folder) / "data", "--workers", str(workers)) as server:
            cpus = run.pin_apart(Machine.of(server.pid)) if workers == 1 else None
            return await _measure(plan, server.url, server.key, server.pid, cpus)


async def _measure(plan: Plan, url: str, key: str, pid: int | None, cpus: set[int] | None) -> dict[str, Any]:
    """Measure, on a stream of its own. Raises Away, Denied."""
    stream = f"bench-{secrets.token_hex(4)}"
    target = _target(url, stream)
    machine = Machine.of(pid) if pid else Machine()
    async with AsyncExitStack() as stack:
        posters = [await stack.enter_async_context(_poster(target, key)) for _ in range(plan.publishers)]
        await stack.enter_async_context(_stream(posters[0], stream))
        readers = await Readers.start(target, processes=plan.processes, cpus=cpus)
        stack.push_async_callback(readers.close)
        opened = await _open(plan, readers, machine)
        path = f"/streams/{stream}/entries"
        course = Course(lambda number: path, plan.body, 0, WARM_UP, 0.0)
        await run.run(readers, posters[:1], course, limit=plan.limit)
        course = course._replace(first=WARM_UP, entries=plan.entries, rate=plan.rate)
        with click.progressbar(length=plan.readers * plan.entries, label="delivering", file=sys.stderr) as bar:
            outcome = await run.run(
                readers,
                posters,
                course,
                machine=machine,
                limit=plan.limit,
                show=lambda deliveries: bar.update(deliveries - bar.pos),
            )
        return _told(plan, url, stream, opened, outcome)


def _target(url: str, stream: str) -> Target:
    """Where the readers of a stream connect to, its name looked up once. Raises Away."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Denied(f"expected a URL that begins with http:// or https://, got {url}")
    tls = parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    try:
        address = str(socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise Away(f"expected a server at {parts.hostname}, got: {error}") from None
    path = f"{parts.path.rstrip('/')}/streams/{stream}/ws"
    return Target(parts.hostname, port, path, address, tls, ready='"type":"hello"')


@asynccontextmanager
async def _poster(target: Target, key: str) -> AsyncIterator[Poster]:
    """A publisher's connection."""
    headers = tuple(f"{name}: {value}" for name, value in publisher.authorization(key).items())
    poster = Poster(target, headers)
    await target.connect(poster)
    try:
        yield poster
    finally:
        poster.close()


@asynccontextmanager
async def _stream(poster: Poster, stream: str) -> AsyncIterator[None]:
    """Make the stream, and end it when all is done."""
    page = {"headline": "Measured by pushserver bench", "timezone": "Etc/UTC"}
    status, answer = await poster.send("PUT", f"/streams/{stream}", publisher.encode(page))
    if status not in (200, 201):
        raise Denied(f"the stream {stream} was refused: {said(status, answer)}")
    try:
        yield
    finally:
        await poster.send("POST", f"/streams/{stream}/end", b"{}")


async def _open(plan: Plan, readers: Readers, machine: Machine) -> dict[str, Any]:
    """Connect the readers, a part and then the rest: how fast, and how much memory each of the rest takes."""
    first = -(-plan.readers // FIRST_READERS)
    rest = plan.readers - first
    with click.progressbar(length=plan.readers, label="connecting", file=sys.stderr) as bar:
        seconds = await _connect(readers, first, bar)
        told: dict[str, Any] = {}
        if machine.server and rest:
            await asyncio.sleep(SETTLED)
            before = usage.memory(machine.server)
        if rest:
            seconds += await _connect(readers, rest, bar)
        if machine.server and rest:
            await asyncio.sleep(SETTLED)
            told["kib_per_connection"] = round((usage.memory(machine.server) - before) / rest, 2)
    return {"connects_per_second": round(plan.readers / seconds), **told}


async def _connect(readers: Readers, count: int, bar: Any) -> float:
    """Connect some; the seconds that it took."""
    begin = time.monotonic()
    opening = asyncio.create_task(readers.open(count))
    while not (await asyncio.wait([opening], timeout=SHOWN_EVERY))[0]:
        bar.update(readers.ready - bar.pos)
    opening.result()
    bar.update(readers.opened - bar.pos)
    return time.monotonic() - begin


def _told(plan: Plan, url: str, stream: str, opened: dict[str, Any], outcome: Outcome) -> dict[str, Any]:
    asked = {"url": url, "stream": stream, "whole": outcome.is_whole, **plan._asdict()}
    return {**asked, **opened, "put_off": outcome.seen.put_off, **outcome.figures()}


def lines(told: dict[str, Any]) -> str:
    """What was measured, for people."""
    pace = f"{told['rate']:g} a second" if told["rate"] else "each when one before it was acknowledged"
    memory = f", {told['kib_per_connection']} KiB each" if "kib_per_connection" in told else ""
    later = f", {told['put_off']} times put off" if told["put_off"] else ""
    rows = [
        ("connected", f"{told['readers']:,} readers, {told['connects_per_second']:,} a second{memory}{later}"),
        ("published", f"{told['entries']:,} entries of {told['size']:,} bytes, {pace}"),
        ("acknowledged", _times(told["acknowledged_ms"])),
        ("delivered", f"{told['deliveries']:,} of {told['expected']:,}, {told['deliveries_per_second']:,} a second"),
        ("late by", _times(told["late_ms"])),
    ]
    if "server" in told:
        cost, store = told["server"], told["store"]
        rows += [
            ("server", f"{cost['us_per_delivery']} us and {cost['writes_per_delivery']} writes a delivery"),
            ("", f"{cost['share']:.0%} of a processor; its store {store['us_per_entry']} us an entry"),
        ]
    load = told["load"]
    rows.append(("load", f"{load['share']:.0%} of a processor, its clock up to {load['clock_late_ms']['max']} ms late"))
    rows.append(("limit", LIMITS[told["limit"]]))
    if not told["whole"]:
        lost = "".join(f"; {count} readers gone: {why}" for why, count in told["lost"].items())
        rows.append(("NOT WHOLE", f"{told['missing']:,} deliveries missing, {told['twice']:,} twice{lost}"))
    return "\n".join(f"{name:14}{text}" for name, text in rows)


LIMITS = {
    "load": "the load: this command had no more to give; try more --processes, or another machine",
    "server": "the server, which had no more to give",
    "none": "none was reached: neither the server nor the load was busy all the time",
}


def _times(ms: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g} ms" for name, value in ms.items())
