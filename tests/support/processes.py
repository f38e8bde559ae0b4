"""The processes of a server: its workers and its store, and how they end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from .server import LIMIT, Running, clients_of, is_alive

Start = Callable[..., Running]


async def eventually(is_true: Callable[[], bool]) -> None:
    """Wait for what happens in another process, or in a publisher's thread."""
    async with asyncio.timeout(LIMIT):
        while not is_true():
            await asyncio.sleep(0.02)


def stores_on(data: Path) -> list[int]:
    """The pids of the stores that run in a folder."""
    pids = [int(process.name) for process in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if _is_store(pid, data) and is_alive(pid)]


def _is_store(pid: int, data: Path) -> bool:
    process = Path(f"/proc/{pid}")
    try:
        return b"valkey-server" in (process / "cmdline").read_bytes() and (process / "cwd").readlink() == data
    except OSError:  # it has ended
        return False


def workers_of(server: Running) -> list[int]:
    """The pids of the workers that run."""
    return [pid for pid in server.children() if not _is_store(pid, server.data) and is_alive(pid)]


def worker_of(server: Running, socket: ClientConnection) -> int:
    """The pid of the worker at the other end of a socket."""
    (pid,) = (pid for pid in workers_of(server) if socket.local_address[1] in clients_of(pid))
    return pid


def stored(server: Running, stream: str) -> list[dict[str, Any]]:
    """Every entry of a stream, the oldest first."""
    entries: list[dict[str, Any]] = []
    address: str | None = ""
    while address is not None:
        response = server.http.get(f"/streams/{stream}/entries{address}")
        assert response.status_code == 200, response.text
        entries += response.json()["entries"]
        address = response.json()["older"]
    return entries[::-1]


async def read_to_close(socket: ClientConnection) -> tuple[list[dict[str, Any]], int]:
    """Return the frames until the server closed the connection, and its close code."""
    frames = []
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            frames.append(json.loads(await socket.recv()))
    assert closed.value.rcvd is not None, "it was cut off"
    return frames, closed.value.rcvd.code
