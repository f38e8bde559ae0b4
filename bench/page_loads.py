"""The script measures what a page load costs a worker, beside a bare ASGI application that sends the same bytes.

    .venv/bin/python -m bench.page_loads [ROUNDS]

Both run on uvicorn with uvloop and httptools. 64 connections ask again and again for SECONDS, in turn for ours and for
the bare one. It prints microseconds of processor time per GET, and the ratio: median and range over the rounds.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import uvloop

from pushserver.bench.usage import measure
from tests.support.ports import free_port
from tests.support.server import Running, running

from .connections import worker_of
from .entries import entries

STREAM, PAGE_ENTRIES = "measured", 100
CONNECTIONS, SECONDS = 64, 1.5
BARE = """
import base64, json, os, sys, uvicorn
answers = {path: (status, [(k.encode(), v.encode()) for k, v in head], base64.b64decode(body))
           for path, (status, head, body) in json.load(sys.stdin).items()}
async def app(scope, receive, send):
    status, head, body = answers[scope["path"]]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", http="httptools", lifespan="off",
            access_log=False, log_level="error", server_header=False)
"""


def fetch(server: Running, path: str, **headers: str) -> tuple[int, list[tuple[str, str]], bytes]:
    """An answer as it came, in its coding."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    with server.http.stream("GET", path, headers={"Accept-Encoding": "gzip", **fields}) as response:
        head = [(name, value) for name, value in response.headers.multi_items() if name not in ("date", "server")]
        return response.status_code, head, b"".join(response.iter_raw())


class Load:
    """Load asks for one path over CONNECTIONS keep-alive connections, and counts the answers."""

    def __init__(self, port: int, path: str, fields: str) -> None:
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: gzip\r\n{fields}\r\n"
        self._request, self._port = request.encode(), port
        self.answers = 0

    async def run(self, seconds: float) -> None:
        over = asyncio.get_running_loop().time() + seconds
        await asyncio.gather(*(self._ask(over) for _ in range(CONNECTIONS)))

    async def _ask(self, over: float) -> None:
        loop = asyncio.get_running_loop()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**20)
        size: int | None = None
        while loop.time() < over:
            writer.write(self._request)
            if size is None:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), b":0"
                )
                body = 0 if b" 304 " in head[:20] else int(length.partition(b":")[2])
                size = len(head) + body
                await reader.readexactly(body)
            else:
                await reader.readexactly(size)
            self.answers += 1
        writer.close()


def cost(pid: int, port: int, path: str, fields: str) -> float:
    """Microseconds of processor time per GET."""
    load = Load(port, path, fields)
    before = measure([pid])
    uvloop.run(load.run(SECONDS))
    return measure([pid]).since(before).cpu / load.answers * 1e6


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data") as server:
        for entry in entries(2 * PAGE_ENTRIES):
            answer = server.publish(STREAM, entry)
            assert answer.status_code == 201
        base = f"/streams/{STREAM}"
        paths = {"page": base, "entries": f"{base}/entries", "atom": f"{base}/feed.atom", "json": f"{base}/feed.json"}
        paths |= {"entry": answer.json()["url"], "older": base + server.http.get(f"{base}/entries").json()["older"]}
        answers = {name: fetch(server, path, Accept="text/html") for name, path in paths.items()}
        etag = dict(answers["page"][1])["etag"]
        answers["304"] = fetch(server, base, If_None_Match=etag)
        asks = {**paths, "304": base, "static": "/static/page.js"}
        answers["static"] = fetch(server, asks["static"])
        fields = {"304": f"If-None-Match: {etag}\r\n", "entry": "Accept: text/html\r\n"}
        port, table = free_port(), {}
        for name, (status, head, body) in answers.items():
            table[f"/{name}"] = (status, head, base64.b64encode(body).decode())
            print(f"{name:8} {status} {len(body):7} bytes {dict(head).get('content-encoding', 'identity')}")
        bare = subprocess.Popen([sys.executable, "-c", BARE, str(port)], stdin=subprocess.PIPE, env=dict(os.environ))
        assert bare.stdin
        bare.stdin.write(json.dumps(table).encode())
        bare.stdin.close()
        while not _answers(port):
            assert bare.poll() is None
        try:
            _measure(server, bare.pid, port, asks, fields, rounds)
        finally:
            bare.terminate()
            bare.wait()


def _measure(server: Running, bare: int, port: int, asks: dict[str, str], fields: dict[str, str], rounds: int) -> None:
    ours_port, worker = int(server.url.rpartition(":")[2]), worker_of(server)
    print(f"{'':8}{'ours, us':>10}{'bare, us':>10}{'ratio':>8}  range")
    for name, path in asks.items():
        pairs = [
            (cost(worker, ours_port, path, fields.get(name, "")), cost(bare, port, f"/{name}", fields.get(name, "")))
            for _ in range(rounds)
        ]
        ratios = [ours / other for ours, other in pairs]
        ours, other = (statistics.median(column) for column in zip(*pairs, strict=True))
        middle = statistics.median(ratios)
        print(f"{name:8}{ours:10.1f}{other:10.1f}{middle:8.2f}  {min(ratios):.2f} to {max(ratios):.2f}")


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
