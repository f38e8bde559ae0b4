"""The door counts the connections of an address for as long as they last, whatever they become, and answers the rest.

The peer has to be an address of this machine that is not loopback; where it has none, these tests are skipped.
"""

from __future__ import annotations

import json
import socket as sockets
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from ..support.processes import Start, eventually
from ..support.scrapes import METRICS, until_scraped
from ..support.server import LIMIT, Running

MOST = 3
UPGRADE = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n".format(
    "AAAAAAAAAAAAAAAAAAAAAA=="
)

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def own_address() -> str:
    """An address of this machine that other machines can reach. No packet is sent to find it out."""
    with sockets.socket(sockets.AF_INET, sockets.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect(("198.51.100.1", 9))
        address: str = probe.getsockname()[0]
        if not address.startswith("127."):
            return address
    pytest.skip("this machine has no address but loopback")


def read_all(wire: sockets.socket) -> bytes:
    """All bytes come until the other side closes the connection."""
    return b"".join(iter(lambda: wire.recv(65_536), b""))


class Wires:
    """Wires are raw connections to a server, from an address of this machine."""

    def __init__(self, port: int, address: str, stack: ExitStack) -> None:
        self._port = port
        self._address = address
        self._stack = stack

    def open(self, address: str = "") -> sockets.socket:
        to = address or self._address
        return self._stack.enter_context(sockets.create_connection((to, self._port), LIMIT, (to, 0)))

    def ask(self, path: str = "/livez", headers: str = "", address: str = "") -> tuple[int, sockets.socket]:
        """The status of an answer, and the connection on which it came."""
        wire = self.open(address)
        wire.sendall(f"GET {path} HTTP/1.1\r\nHost: there\r\n{headers}\r\n".encode())
        line = b""
        while len(line) < 12:
            came = wire.recv(12 - len(line))
            assert came, f"closed after {line!r}"
            line += came
        return int(line[9:]), wire

    def is_full(self) -> bool:
        status, wire = self.ask()
        wire.close()
        return status == 429


@pytest.fixture
def server(start: Start, stream: str) -> Running:
    server = start("--address-connections", str(MOST), "--host", "0.0.0.0", *METRICS)
    server.publish_ok(stream, "one")
    return server


@pytest.fixture
def wires(server: Running, own_address: str) -> Iterator[Wires]:
    with ExitStack() as stack:
        yield Wires(int(server.url.rpartition(":")[2]), own_address, stack)


async def test_an_address_has_as_many_connections_as_its_limit_whatever_they_are(
    server: Running, wires: Wires, stream: str
) -> None:
    path = f"/streams/{stream}"
    kinds = {"/livez": ("", 200), f"{path}/ws": (UPGRADE, 101), f"{path}/sse": ("", 200), "": ("", 0)}
    for path, (headers, expected) in kinds.items():
        opened = []
        for _ in range(MOST):
            status, wire = wires.ask(path, headers) if path else (0, wires.open())
            assert status == expected
            opened.append(wire)
        assert wires.is_full()
        assert wires.ask(address="127.0.0.1")[0] == 200
        opened.pop().close()
        await eventually(lambda: not wires.is_full())
        for wire in opened:
            wire.close()
    assert until_scraped(server, lambda now: now["pushserver_limited_total,address_connections"] > 0)


async def test_a_handshake_that_is_refused_leaves_its_place(wires: Wires) -> None:
    for _ in range(2 * MOST):
        status, wire = wires.ask("/streams/nothing/ws", UPGRADE)
        assert status == 404
        assert b"There is no stream" in read_all(wire)


async def test_a_connection_too_many_is_answered_before_it_asks(wires: Wires) -> None:
    opened = [wires.open() for _ in range(MOST)]
    refused = wires.open()
    head, _, body = read_all(refused).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
    for line in (b"connection: close", b"retry-after: 5", b"content-type: application/problem+json"):
        assert b"\r\n" + line in head
    problem = json.loads(body)
    assert problem["type"] == "urn:pushserver:problem:too-many"
    assert problem["errors"] == [
        {"field": "address", "expected": f"at most {MOST} connections at a time", "got": "more"}
    ]
    assert len(opened) == MOST
