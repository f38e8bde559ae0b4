"""A withdrawal has the caches purged that the setting names, and nothing else is called."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from pushserver import metrics
from pushserver.web.purge import ATTEMPTS, WAITING, Purger

from ..support.scrapes import METRICS, until_scraped
from ..support.server import LIMIT, Running

PURGED = ["", "/entries", "/feed.atom", "/feed.json", "/entries/x"]


class Cache(ThreadingHTTPServer):
    """A cache that notes what it is asked, and answers with these statuses, the last one again and again."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.purged: list[tuple[str, str, dict[str, str]]] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Cache

    def do_PURGE(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.purged.append((self.command, self.path, headers))
        status = self.server.statuses.pop(0) if len(self.server.statuses) > 1 else self.server.statuses[0]
        self.send_response(status)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_PURGE

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def cache(*statuses: int) -> Iterator[Cache]:
    with Cache(*statuses) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(LIMIT)


def purger(templates: str, **options: str) -> Purger:
    return Purger(templates, is_private=lambda stream: stream.startswith("desk-"), **options)


def count(outcome: str) -> float:
    return metrics.PURGES.value(outcome)


async def sent(purger: Purger, outcome: str, times: int) -> None:
    """Let it run until so many more addresses have this outcome."""
    before, task = count(outcome), asyncio.create_task(purger.run())
    async with asyncio.timeout(LIMIT):
        while count(outcome) < before + times:
            await asyncio.sleep(0.01)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def test_a_withdrawal_purges_the_addresses_of_its_stream(start: Callable[..., Running]) -> None:
    with cache(200) as one, cache(404) as other:
        templates = f"{one.url}/{{path}} {other.url}/service/1/{{stream}}"
        server = start(*METRICS, "--purge", templates, "--public-url", "https://live.news.example")
        server.send("PUT", "/streams/storm/entries/x", {"headline": "One"})
        assert server.send("PATCH", "/streams/storm/entries/x", {"headline": "Two"}).status_code == 200
        assert server.send("DELETE", "/streams/storm/entries/x?reason=legal", b"").status_code == 200
        until_scraped(server, lambda now: now["pushserver_purges_total,done"] == 6)
        assert sorted(path for _, path, _ in one.purged) == sorted(f"/streams/storm{part}" for part in PURGED)
        assert [path for _, path, _ in other.purged] == ["/service/1/storm"]
        for method, _, headers in (*one.purged, *other.purged):
            assert (method, headers["host"], headers["surrogate-key"]) == ("PURGE", "live.news.example", "storm")
            assert not {"authorization", "cookie"} & headers.keys()


@pytest.mark.anyio
async def test_a_purge_that_fails_is_sent_once_more_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    with cache(500, 200) as healthy, cache(302) as broken:
        again = purger(f"{healthy.url}/{{stream}}")
        again.purge("storm", "x")
        await sent(again, "done", 1)
        assert (len(healthy.purged), caplog.messages) == (2, [])
        fails = purger(f"{broken.url}/{{stream}}?secret=1")
        fails.purge("storm", "x")
        await sent(fails, "failed", 1)
        assert [path for _, path, _ in broken.purged] == ["/storm?secret=1"] * ATTEMPTS  # no redirect is followed
        address = broken.url.removeprefix("http://")
        assert caplog.messages == [f"the cache at {address} was not purged: it answered 302"]


@pytest.mark.anyio
async def test_a_cache_that_is_not_there_harms_nobody(unused_url: str, caplog: pytest.LogCaptureFixture) -> None:
    away = purger(f"{unused_url}/{{path}}")
    away.purge("storm", "x")
    await sent(away, "failed", len(PURGED))
    assert all("was not purged: ConnectError" in message for message in caplog.messages)


@pytest.mark.anyio
async def test_withdrawals_that_no_cache_keeps_up_with_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    full, before = purger("http://127.0.0.1:1/{path}"), count("dropped")
    for _ in range(WAITING + 1):
        full.purge("storm", "x")
    assert count("dropped") == before + 1
    assert caplog.messages == [f"stream storm: no purge of a withdrawal is sent: {WAITING} wait for the caches"]


def test_nothing_is_called_for_a_private_stream() -> None:
    private = purger("http://127.0.0.1:1/{path}")
    for _ in range(WAITING + 1):
        private.purge("desk-one", "x")
    assert private._waiting.empty()
