"""The script measures what Python does for a page load, beside a bare ASGI application on uvicorn, without a kernel.

    .venv/bin/python -m bench.request_cost [ROUNDS]

Requests go to the protocol of a connection whose transport counts answers and sends nothing; the store answers at once.
64 connections ask, in turn ours and bare ones. It prints the least processor time of a request in a round, in us, so
that it says nearly the same on a machine that is busy. What the kernel does comes on top, for both.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from pushserver.access.addresses import Addresses, AddressLimits, Proxies
from pushserver.access.origins import Origins
from pushserver.live.passes import Passes
from pushserver.model import Cursor
from pushserver.page.site import Site
from pushserver.store.log import Head
from pushserver.surfaces import heads
from pushserver.surfaces.cache import SurfaceCache
from pushserver.surfaces.codings import ContentCoding
from pushserver.surfaces.shelf import Copy, CopyKey
from pushserver.surfaces.surface import NEWEST
from pushserver.transport.door import Door
from pushserver.transport.http import HttpProtocol
from pushserver.transport.outlet import Unread
from pushserver.web.app import static_folder
from pushserver.web.cache_control import cache_control
from pushserver.web.middleware import App
from pushserver.web.static_files import StaticSet

CONNECTIONS, ROUNDS = 64, 1_000
BODY = b"x" * 40_000
TAG = '"1.0.abcd.v1.e.1-1.gzip"'
HEAD = Head(Cursor("e" * 16, "1-1", "n" * 16), 1)
FIELDS = [(b"name-%d" % number, b"value") for number in range(8)]  # of the bare application's answers
ASKS = {  # path and fields of ours, path of the bare application
    "page": ("/streams/s", "", "/200"),
    "entries": ("/streams/s/entries", "", "/200"),
    "304": ("/streams/s", f"If-None-Match: {TAG}\r\n", "/304"),
    "static": ("/static/page.js", "", "/200"),
}


class Transport:
    """A transport that counts what is written."""

    def __init__(self) -> None:
        self.writes = 0

    def write(self, data: bytes) -> None:
        self.writes += 1

    def writelines(self, data: Sequence[bytes]) -> None:
        self.writes += 1

    def get_extra_info(self, name: str, default: object = None) -> object:
        return {"peername": ("127.0.0.1", 2), "sockname": ("127.0.0.1", 1)}.get(name, default)

    def is_closing(self) -> bool:
        return False

    def nothing(self, *arguments: Any, **options: Any) -> None:
        """Do nothing."""

    set_write_buffer_limits = pause_reading = resume_reading = abort = close = nothing


class NearLog:
    """A log that answers at once; a look at it costs nothing here. `looks` counts them."""

    store = SimpleNamespace(partitions=1)
    looks = 0

    async def heads(self, names: Sequence[str]) -> list[Head | None]:
        self.looks += 1
        await asyncio.sleep(0)
        return [HEAD for _ in names]


def our_app(log: NearLog) -> App:
    """Our application, with finished bytes of each surface."""
    hub: Any = SimpleNamespace(passes=Passes(), unwatch=lambda *arguments: None)
    near: Any = log
    cache = SurfaceCache(near, hub, page_entries=100, limit_bytes=2**26, stale_pages=300, site=Site(), version="1")
    shelf = cache._open("s")
    shelf.head = HEAD
    for surface in NEWEST:
        shelf.put(CopyKey(surface, ContentCoding.GZIP), Copy(BODY, ContentCoding.GZIP, TAG, HEAD, None))
    tokens: Any = SimpleNamespace(is_private=lambda stream: False, any_private=False)
    lifespan: Any = None
    return App(
        [],
        hub=hub,
        addresses=Addresses(AddressLimits(0, 0, 0), Proxies("")),
        origins=Origins("", ""),
        surfaces=cache,
        cache_control=cache_control(1),
        tokens=tokens,
        static=StaticSet(static_folder()),
        lifespan=lifespan,
    )


async def bare_app(scope: Any, receive: Any, send: Any) -> None:
    is_whole = scope["path"] == "/200"
    headers = [(b"content-length", b"40000"), *FIELDS] if is_whole else FIELDS
    await send({"type": "http.response.start", "status": 200 if is_whole else 304, "headers": headers})
    await send({"type": "http.response.body", "body": BODY if is_whole else b""})


class Connections:
    """Connections that are asked together, until each has answered."""

    def __init__(self, make: Callable[[], Any], request: str) -> None:
        self._request = f"GET {request}\r\n".encode()
        self._all = [(make(), Transport()) for _ in range(CONNECTIONS)]
        for protocol, transport in self._all:
            protocol.connection_made(transport)

    async def ask(self) -> float:
        """Return the processor time of one request, in us."""
        for _, transport in self._all:
            transport.writes = 0
        begin = time.thread_time()
        for protocol, _ in self._all:
            protocol.data_received(self._request)
        while not all(transport.writes for _, transport in self._all):
            await asyncio.sleep(0)
        return (time.thread_time() - begin) / CONNECTIONS * 1e6


def _request(path: str, fields: str) -> str:
    return f"{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: gzip\r\n{fields}"


async def main(rounds: int) -> None:
    heads.INTERVAL = 0
    log, state = NearLog(), ServerState()
    state.default_headers = [(b"date", b"Sat, 28 Nov 2026 14:00:00 GMT")]
    app = our_app(log)
    door = Door(app.addresses, last_file=None)
    ours_config, bare_config = (uvicorn.Config(each, log_config=None, access_log=False) for each in (app, bare_app))
    for config in (ours_config, bare_config):
        config.load()
    ours: Any = partial(HttpProtocol, door=door, unread=Unread(2**30), prepare=app.prepare, config=ours_config)
    bare: Any = partial(HttpToolsProtocol, config=bare_config)
    options: dict[str, Any] = {"server_state": state, "app_state": {}}
    gc.disable()
    print(f"{'':8}{'ours, us':>10}{'bare, us':>10}{'ratio':>8}")
    for name, (path, fields, bare_path) in ASKS.items():
        sides = [
            Connections(partial(ours, **options), _request(path, fields)),
            Connections(partial(bare, **options), _request(bare_path, fields)),
        ]
        times = [[await side.ask() for side in sides] for _ in range(rounds)]
        our_time, bare_time = (min(column) for column in zip(*times, strict=True))
        print(f"{name:8}{our_time:10.1f}{bare_time:10.1f}{our_time / bare_time:8.2f}")
    print(f"a look was shared by {(len(ASKS) - 1) * rounds * CONNECTIONS / max(log.looks, 1):.0f} requests")


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS))
