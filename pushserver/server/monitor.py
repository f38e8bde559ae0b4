"""The monitor serves what operators look at, on a listener of its own in the supervisor: metrics and status.

Readers and publishers never reach it. It answers while every worker hangs, and has the limits of HTTP that a worker
has.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib import metadata
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from ..access.addresses import Addresses, AddressLimits, Proxies
from ..codec import dumps
from ..status.page import POLICY, page_files
from ..transport.connection import connections_of
from ..transport.door import Door
from ..transport.http import HttpProtocol
from ..transport.outlet import Unread
from .cluster import WorkerCluster
from .exposition import exposition

UNREAD_BYTES = 8_388_608  # of answers that clients have not read
CONNECTIONS = 64  # from one address at a time, but for loopback
LAST_FILE = 512  # the descriptor from which on a connection is refused: the supervisor has fewer of its own
JSON = "application/json"

Answer = tuple[int, bytes, str]  # status, body, content type
Scope = dict[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Handler = Callable[[Scope], Answer]


class Monitor:
    """Monitor is the ASGI application of the operators' listener. `pages` are its answers to GET and HEAD by path."""

    def __init__(self, cluster: WorkerCluster) -> None:
        self._cluster = cluster
        self._version = metadata.version("pushserver")
        self.pages: dict[str, Handler] = {"/metrics": self._metrics, "/status.json": self._status}
        for path, (content, kind) in page_files().items():
            self.pages[path] = partial(_file, content, kind)

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        page = self.pages.get(scope["path"])
        if page is None:
            names = ", ".join(self.pages)
            answer = 404, f"Here are {names}.\n".encode(), "text/plain; charset=utf-8"
        elif scope["method"] not in ("GET", "HEAD"):
            answer = 405, b"Expected GET or HEAD.\n", "text/plain; charset=utf-8"
        else:
            answer = page(scope)
        await _send(send, *answer)

    def _metrics(self, scope: Scope) -> Answer:
        accept = b",".join(value for name, value in scope["headers"] if name == b"accept").decode("latin-1")
        body, content_type = exposition(self._cluster, self._version, accept)
        return 200, body, content_type

    def _status(self, scope: Scope) -> Answer:
        return 200, f"{dumps(self._cluster.status(self._version))}\n".encode(), JSON


def _file(content: bytes, kind: str, scope: Scope) -> Answer:
    return 200, content, kind


async def _send(send: Send, status: int, body: bytes, content_type: str) -> None:
    headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"content-security-policy", POLICY.encode()),
        *([(b"allow", b"GET, HEAD")] if status == 405 else []),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(app: Monitor, listener: socket.socket) -> AsyncIterator[None]:
    """Serve an application on a listener, which is closed at the end."""
    config = uvicorn.Config(app, http=_protocol(), log_config=None, access_log=False, server_header=False, ws="none")
    config.load()
    state = ServerState()
    protocol: Any = config.http_protocol_class
    make = partial(protocol, config=config, server_state=state, app_state={})
    server = await asyncio.get_running_loop().create_server(make, sock=listener)
    try:
        yield
    finally:
        server.close()
        for connection in connections_of(state):
            connection.cut("stopping")


def _protocol() -> Any:
    """The HTTP of the workers, with its limits. uvicorn calls it as it would call the class."""
    limits = AddressLimits(CONNECTIONS, 0, 0)
    door = Door(Addresses(limits, Proxies("")), last_file=LAST_FILE)
    return partial(HttpProtocol, door=door, unread=Unread(UNREAD_BYTES))
