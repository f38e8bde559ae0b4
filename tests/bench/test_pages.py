"""Page loads are counted by the status of their answers, and wait from the instant at which they were due."""

from __future__ import annotations

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from pushserver.bench.pages import Orders, PageLoader
from pushserver.bench.reader import Endpoint, ServerUnavailable

from ..support.server import LIMIT, Running

pytestmark = pytest.mark.anyio


def endpoint_of(server: Running) -> Endpoint:
    parts = urlsplit(server.url)
    assert parts.hostname
    assert parts.port
    return Endpoint(parts.hostname, parts.port, "", parts.hostname)


@pytest.mark.parametrize("rate", [0.0, 100.0])
async def test_every_load_counts_with_its_status(server: Running, stream: str, rate: float) -> None:
    server.publish_ok(stream, "One")
    paths = [f"/streams/{stream}", f"/streams/{stream}-none"]
    loader = await PageLoader.start()
    await loader.begin(Orders(endpoint_of(server), paths, 4, rate))
    figures = await loader.end()
    assert figures.statuses.keys() == {"200", "404"}
    assert sum(figures.statuses.values()) == figures.loads
    assert 0 < figures.p50 <= figures.p99 <= figures.longest < LIMIT * 1e3


async def test_a_server_that_is_not_there_is_an_error() -> None:
    loader = await PageLoader.start()
    with pytest.raises(ServerUnavailable, match=r"expected a server at 127\.0\.0\.1:1"):
        await loader.begin(Orders(Endpoint("127.0.0.1", 1, "", "127.0.0.1"), ["/"], 2))
    await loader.close()


class Once(BaseHTTPRequestHandler):
    """A server that answers once on each connection, and says so."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


async def test_loads_go_on_where_a_server_ends_connections() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Once) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        loader = await PageLoader.start()
        endpoint = Endpoint("127.0.0.1", server.server_port, "", "127.0.0.1")
        await loader.begin(Orders(endpoint, ["/one", "/two", "/three"], 1))
        figures = await loader.end()
        await asyncio.to_thread(server.shutdown)
        thread.join()
    assert figures.statuses.keys() == {"200"}
    assert figures.loads >= 3
