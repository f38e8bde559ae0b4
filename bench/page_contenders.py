"""Servers that page loads are compared with: each sends the answers that pushserver gave, byte for byte.

bare          an ASGI application that has them in memory, on the same uvicorn
nginx         has them as files, compressed ahead (gzip_static)
behind nginx  pushserver itself, behind deploy/nginx.conf and its cache; the processor time is that of both
"""

from __future__ import annotations

import base64
import functools
import gzip
import http.client
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pushserver.bench import usage
from pushserver.bench.reader import Endpoint, ServerUnavailable
from tests.support.server import Running as Server
from tests.support.server import running as serving
from tests.support.shipped_nginx import NGINX, shipped

from .contenders import INSTALLED, PEERS, Contender, NotInstallable, Rig, Running, page_path, peer, start_pushserver
from .entries import entries

STREAM, PAGE_ENTRIES = "bench-0", 100
NAMES = ("page", "entries", "atom", "json", "304", "static")  # of what is loaded
RECORDED = INSTALLED / "pages.json"
FILES = """
daemon off;
user root;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 1000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        root {folder}/pages;
        gzip_static on;
        location = /livez {{ return 200; }}
    }}
}}
"""


def fetch(address: str, path: str, headers: dict[str, str]) -> tuple[int, list[tuple[str, str]], bytes]:
    """An answer as it came, in its coding, without the fields that a server adds by itself."""
    connection = http.client.HTTPConnection(address)
    try:
        connection.request("GET", path, headers={"Accept-Encoding": "gzip", **headers})
        response = connection.getresponse()
        head = [(name, value) for name, value in response.getheaders() if name.lower() not in ("date", "server")]
        return response.status, head, response.read()
    finally:
        connection.close()


async def etag_of(endpoint: Endpoint, path: str) -> str:
    """The ETag of a page. Raises ServerUnavailable where it has none."""
    status, head, _ = fetch(f"{endpoint.address}:{endpoint.port}", path, {})
    tag = next((value for name, value in head if name.lower() == "etag"), None)
    if tag is None:
        raise ServerUnavailable(f"expected an ETag of {path}, got an answer {status} without one")
    return tag


def record(server: Server) -> dict[str, Any]:
    """Publish a page, and return what the server answers, by name."""
    for entry in entries(PAGE_ENTRIES):
        assert server.publish(STREAM, entry).status_code == 201
    address, answers = server.url.removeprefix("http://"), dict[str, Any]()
    for name in NAMES:
        tag = dict(answers["page"][1]).get("etag", "") if name == "304" else ""
        status, head, body = fetch(address, page_path(name), {"If-None-Match": tag} if tag else {})
        answers[name] = status, head, base64.b64encode(body).decode()
    return answers


@functools.cache
def install_recorded() -> None:
    """Record the answers that the peers send."""
    INSTALLED.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "data") as server:
        RECORDED.write_text(json.dumps(record(server)))


@functools.cache
def install_nginx() -> None:
    if NGINX is None:
        raise NotInstallable("nginx is not installed")
    install_recorded()


def _bare(port: int, folder: Path) -> list[str]:
    return [sys.executable, str(PEERS / "bare.py"), str(port), str(RECORDED)]


def _files(port: int, folder: Path) -> list[str]:
    pages = folder / "pages"
    pages.mkdir()
    for name, (_, _, body) in json.loads(RECORDED.read_text()).items():
        data = base64.b64decode(body)
        if data:
            (pages / f"{name}.gz").write_bytes(data)
            (pages / name).write_bytes(gzip.decompress(data))
    for name in ("", ".gz"):
        shutil.copy(pages / f"page{name}", pages / f"304{name}")
        (pages / f"304{name}").touch()
        shutil.copystat(pages / f"page{name}", pages / f"304{name}")
    (folder / "pages.conf").write_text(FILES.format(folder=folder, port=port))
    return [str(NGINX), "-e", str(folder / "error.log"), "-c", str(folder / "pages.conf")]


@asynccontextmanager
async def _start_behind_nginx(rig: Rig, groups: int, workers: int) -> AsyncIterator[Running]:
    async with start_pushserver(rig, groups, workers) as running:
        server = f"http://{running.endpoint.address}:{running.endpoint.port}"
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, shipped(Path(folder), server) as nginx:
            front = usage.process_tree(int((Path(folder) / "nginx.pid").read_text()))
            usage.pin(front, rig.server_cpus)
            processes = running.processes._replace(server=[*running.processes.server, *front])
            endpoint = running.endpoint._replace(port=int(nginx.url.rpartition(":")[2]))
            yield running._replace(loads=endpoint, processes=processes)


PAGE_CONTENDERS = [
    Contender("bare", "ASGI on uvicorn, from memory", install_recorded, peer(_bare), only="h"),
    Contender("nginx", "gzip_static", install_nginx, peer(_files), only="h"),
    Contender("behind nginx", "proxy_cache before pushserver", install_nginx, _start_behind_nginx, only="h"),
]
