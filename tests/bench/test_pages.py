"""Page loads are counted by the status of their answers, and wait from the instant at which they were due."""

from __future__ import annotations

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
