"""A deploy: single servers on one store are restarted one after another behind a load balancer, as deploy/ has it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import httpx2

from pushserver.live.arrivals import JITTER
from tests.support.balancers import balancer
from tests.support.ports import free_port
from tests.support.scrapes import METRICS, scrape
from tests.support.server import Running
from tests.support.stores import Server as StoreServer

from .returning import STREAM, Swarm, until
from .visitors import Visited, page_reader, publisher

SERVERS = 3
SETTLE = 2.0  # seconds of publishing before and after the restarts


class Fleet:
    """Fleet is single servers on one store, each with a port that stays over its restarts."""

    def __init__(self, folder: Path, redis: str, lifetime: float) -> None:
        self.lifetime = lifetime  # seconds, of a reader; 0 is without end
        self._folder = folder
        self._options = ("--redis", redis, "--drain-delay", "5", "--lifetime", f"{lifetime:g}", *METRICS)
        self._ports = [free_port() for _ in range(SERVERS)]
        self.servers = [self._start(number) for number in range(SERVERS)]

    def _start(self, number: int) -> Running:
        return Running(self._folder / f"server-{number}", "--port", str(self._ports[number]), *self._options)

    async def restart(self, number: int) -> None:
        """Restart a server; return when it is ready."""
        assert await asyncio.to_thread(self.servers[number].stop) == 0, self.servers[number].log
        self.servers[number] = await asyncio.to_thread(self._start, number)
        await until(lambda: self.servers[number].http.get("/readyz").status_code == 200)

    def readers(self) -> list[int]:
        """Return how many readers each server has."""
        return [_readers(scrape(server)) for server in self.servers]

    def close(self) -> None:
        for server in self.servers:
            server.process.terminate()
        for server in self.servers:
            server.stop()


class Deployed(NamedTuple):
    """Deployed is what a deploy cost, and how many readers each server had after it, and after a lifetime."""

    published: Visited
    pages: Visited
    swarm: Swarm
    shares: list[int]
    renewed: list[int]  # empty where readers have no lifetime

    @property
    def returns(self) -> int:
        """Return how often a reader was sent away at most during the restart of one server."""
        return max(reader.left[stage] for reader in self.swarm.readers for stage in range(SERVERS))

    def row(self) -> str:
        """A row of a table."""
        even = len(self.swarm.readers) / SERVERS
        share = f"{max(self.shares) / even:.2f} | " + (f"{max(self.renewed) / even:.2f}" if self.renewed else "-")
        waits = f"{self.published.longest:.2f} | {self.pages.longest:.2f}"
        return (
            f"{self.published.failed} | {self.pages.failed} | {waits} | {self.swarm.row()} | {self.returns} | {share}"
        )


@contextmanager
def fleet(folder: Path, lifetime: float = 0.0) -> Iterator[Fleet]:
    """A fleet on a store of its own, with a stream."""
    with ExitStack() as stack:
        store = StoreServer(folder, "--appendonly", "yes", "--appendfsync", "always")
        stack.callback(store.close)
        fleet = Fleet(folder, f"redis://127.0.0.1:{store.port}/0", lifetime)
        stack.callback(fleet.close)
        fleet.servers[0].publish_ok(STREAM, "first")
        yield fleet


async def deploy(name: str, folder: Path, fleet: Fleet, readers: int) -> Deployed:
    """Restart each server behind this balancer, below readers, a publisher and a client that loads the page."""
    with balancer(name, folder, fleet.servers) as proxy:
        await until(lambda: _passes(proxy.url))
        host, port = proxy.url.removeprefix("http://").split(":")
        swarm = Swarm((host, int(port)), readers)
        await swarm.open()
        visitors = [publisher(proxy.url, fleet.servers[0].key), page_reader(proxy.url)]
        for visitor in visitors:
            await visitor.begin()
        await asyncio.sleep(SETTLE)
        for number in range(SERVERS):
            swarm.stage = number
            await fleet.restart(number)
        await asyncio.sleep(SETTLE)
        shares = fleet.readers()
        swarm.stage = SERVERS
        await asyncio.sleep(fleet.lifetime * (1 + JITTER))
        published, pages = [await visitor.end() for visitor in visitors]
        await swarm.all_live()
        last = fleet.servers[0].snapshot(STREAM)["n"]
        await until(lambda: all(reader.n == last for reader in swarm.readers))
        renewed = fleet.readers() if fleet.lifetime else []
        swarm.close()
        return Deployed(published, pages, swarm, shares, renewed)


def _readers(samples: dict[str, float]) -> int:
    """The readers of a scrape, of each transport and access."""
    return int(sum(value for name, value in samples.items() if name.startswith("pushserver_readers,")))


def _passes(url: str) -> bool:
    with suppress(httpx2.TransportError):
        return httpx2.get(f"{url}/readyz").status_code == 200
    return False
