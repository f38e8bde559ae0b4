"""A server of one worker in this process, on pushserver's HTTP protocol and an application of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, cast

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from pushserver.access.addresses import Addresses, AddressLimits, Proxies
from pushserver.transport.asgi import DETACH
from pushserver.transport.deadline import LIMITS, Limits
from pushserver.transport.door import Door
from pushserver.transport.exchange import PreparedAnswer, prepared_head
from pushserver.transport.http import HttpProtocol
from pushserver.transport.outlet import Unread

from .server import LIMIT

LARGE = 5 * 2**20  # bytes that no kernel buffers for a client
HOST = b"Host: a.example\r\n"


class Wire:
    """A client's socket, which sends bytes as they are."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=LIMIT)

    def send(self, data: bytes) -> None:
        """Send all, or what the server takes until it cuts the connection."""
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(data)

    def get(self, path: str, fields: bytes = b"") -> None:
        self.send(b"GET %b HTTP/1.1\r\n%b%b\r\n" % (path.encode(), HOST, fields))

    def answer(self) -> tuple[int, bytes]:
        """The status and the body of the next answer, by its Content-Length."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self.socket.recv(1)
            assert byte, f"the connection ends in a head: {head!r}"
            head += byte
        fields = [line.partition(b": ") for line in head.lower().split(b"\r\n")]
        left = next((int(value) for name, _, value in fields if name == b"content-length"), 0)
        body = b""
        while len(body) < left:
            part = self.socket.recv(min(left - len(body), 65_536))
            assert part, "the connection ends in a body"
            body += part
        return int(head.split()[1]), body

    def rest(self) -> bytes:
        """All that comes until the connection ends; it fails where it does not end."""
        came = b""
        with contextlib.suppress(ConnectionError):
            while part := self.socket.recv(65_536):
                came += part
        return came


class Site:
    """The application: what a path does is the name of a method. `asked` are the paths, in the order of requests."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.waiting: list[int] = []  # requests that wait on the connections, at each request
        self.server: uvicorn.Server | None = None
        self.go_on = threading.Event()  # for `slow`
        self.gone = threading.Event()  # a client has disconnected before it was answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        self.asked.append(scope["path"])
        if self.server is not None:
            connections = cast(Any, self.server.server_state.connections)
            self.waiting += [len(getattr(each, "_waiting", ())) for each in connections]
        await getattr(self, scope["path"].split("/")[1])(scope, receive, send)

    def prepare(self, scope: Scope, reply: Callable[[PreparedAnswer | None], None]) -> bool:
        """Answer some paths from memory; of `later` it is known only in the next turn that the application has to."""
        paths = {
            "/ready": PreparedAnswer(200, prepared_head(200, [(b"content-length", b"5")]), b"ready"),
            "/later/short": None,
        }
        if scope["path"] not in paths:
            return False
        asyncio.get_running_loop().call_soon(reply, paths[scope["path"]])
        return True

    async def later(self, scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"later")

    async def short(self, scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, scope["path"].encode())

    async def large(self, scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, scope["path"].encode() * (LARGE // len(scope["path"])))

    async def slow(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer when the test says so."""
        await asyncio.to_thread(self.go_on.wait, LIMIT)
        await respond(send, b"slow")

    async def read(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the body that came."""
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone.set()
                return
            body, more = body + message["body"], message["more_body"]
        await respond(send, body)

    async def refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse without a look at the body."""
        await respond(send, b"no such thing", 404)

    async def parts(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer in parts, without a length."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in (b"one ", b"two ", b""):
            await send({"type": "http.response.body", "body": part, "more_body": bool(part)})

    async def fails(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("on purpose")

    async def late(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Fail after the answer has begun."""
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        await send({"type": "http.response.body", "body": b"some", "more_body": True})
        raise ValueError("on purpose")

    async def longer(self, scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"too long", headers=[(b"content-length", b"3")])

    async def splits(self, scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"", headers=[(b"x-name", b"one\r\nx-other: two")])

    async def socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Accept a WebSocket, and give it to a protocol that says so."""
        await send({"type": "websocket.accept"})
        scope["extensions"][DETACH](Greeting())


class Greeting(asyncio.Protocol):
    """An accepted WebSocket is handed to this protocol."""

    def connection_made(self, transport: Any) -> None:
        transport.write(b"accepted")


async def respond(send: Send, body: bytes, status: int = 200, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    headers = [(b"content-length", b"%d" % len(body))] if headers is None else headers
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Serving(NamedTuple):
    """A server that runs."""

    address: tuple[str, int]
    site: Site
    unread: Unread

    def bodies(self) -> list[bytes]:
        """The bytes that each connection keeps for its client."""
        assert self.site.server is not None
        outlets = [cast(Any, each)._outlet for each in tuple(self.site.server.server_state.connections)]
        return [outlet._body for outlet in outlets if outlet is not None]  # a connection that is just made has none

    @contextlib.contextmanager
    def wire(self) -> Iterator[Wire]:
        wire = Wire(self.address)
        with wire.socket:
            yield wire


@contextlib.contextmanager
def serving(limits: Limits = LIMITS, *, unread_bytes: int = 2**30) -> Iterator[Serving]:
    """Serve a site with these limits, in a thread."""
    site, unread = Site(), Unread(unread_bytes)
    door = Door(Addresses(AddressLimits(0, 0, 0), Proxies("")), last_file=None)  # it refuses nobody
    protocol = cast(Any, partial(HttpProtocol, door=door, unread=unread, limits=limits, prepare=site.prepare))
    app = cast(ASGIApp, site)
    config = uvicorn.Config(app, loop="uvloop", http=protocol, lifespan="off", log_config=None, server_header=False)
    config.timeout_graceful_shutdown = 1
    server = site.server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield Serving(listener.getsockname(), site, unread)
    finally:
        site.go_on.set()
        server.should_exit = True
        thread.join(LIMIT)
        listener.close()
