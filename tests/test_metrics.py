"""What is counted: by all workers together, those that ended included, and nobody named in it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import httpx2
import pytest

from pushserver import errors, metrics
from pushserver.metrics import FAMILIES, SECONDS, Counter, Histogram

from .support.processes import workers_of
from .support.scrapes import METRICS, ask, scrape, until_scraped
from .support.server import Running, reader, receive, running, until

pytestmark = pytest.mark.anyio

WORKERS = 3


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of three workers whose metrics are served."""
    folder: Path = tmp_path_factory.mktemp("metrics") / "data"
    with running(folder, "--workers", str(WORKERS), *METRICS, "--heartbeat", "0.5") as server:
        yield server


def is_answered(server: Running) -> bool:
    with suppress(httpx2.TransportError):
        return server.http.get("/readyz").status_code == 200
    return False


def readers(samples: dict[str, float]) -> float:
    return sum(value for name, value in samples.items() if name.startswith("pushserver_readers,"))


async def test_what_three_workers_count_is_the_sum_of_what_clients_did_and_nobody_is_named(
    watched: Running, stream: str
) -> None:
    before = scrape(watched)
    for number in range(5):
        watched.publish(stream, {"headline": "Once"}, Idempotency_Key=f"key-{number % 4}")
    async with AsyncExitStack() as sockets:
        all_readers = [await sockets.enter_async_context(reader(watched, stream)) for _ in range(6)]
        for socket in all_readers:
            await receive(socket, "snapshot")
        watched.publish_ok(stream, "Live")
        for socket in all_readers:
            await receive(socket, "entry.put")
        expected = {
            "pushserver_published_total,stored": 5,
            "pushserver_published_total,replayed": 1,
            "pushserver_publish_seconds_count": 6,
            "pushserver_events_written_total": 6,
            "pushserver_readers_opened_total,websocket,public": 6,
        }

        def has_all(now: dict[str, float]) -> bool:
            return readers(now) == 6 and all(now[name] - before[name] >= count for name, count in expected.items())

        now = await asyncio.to_thread(until_scraped, watched, has_all)
        assert {name: now[name] - before[name] for name in expected} == expected
        lag = "pushserver_written_lag_seconds_count"
        assert 1 <= now[lag] - before[lag] <= WORKERS, "once for each worker that has readers"
    until_scraped(watched, lambda now: readers(now) == 0)
    until_scraped(watched, lambda now: now["pushserver_readers_closed_total,client"] >= 6)
    text = ask(watched, "/metrics").text
    assert stream not in text
    assert watched.key not in text


async def test_a_killed_worker_leaves_its_counts_and_none_of_its_readers(watched: Running, stream: str) -> None:
    watched.publish_ok(stream, "First")
    before = until_scraped(watched, lambda now: now["pushserver_readers,websocket,public"] == 0)
    async with AsyncExitStack() as sockets:
        all_readers = [await sockets.enter_async_context(reader(watched, stream)) for _ in range(9)]
        for socket in all_readers:
            await receive(socket, "snapshot")
        seen = await asyncio.to_thread(until_scraped, watched, lambda now: readers(now) == 9)
        victim = workers_of(watched)[0]
        os.kill(victim, signal.SIGKILL)
        await asyncio.to_thread(
            until, lambda: len(workers_of(watched)) == WORKERS and victim not in workers_of(watched)
        )
        after = await asyncio.to_thread(
            until_scraped, watched, lambda now: now["pushserver_workers,serving"] == WORKERS
        )
        name = "pushserver_readers_opened_total,websocket,public"
        assert after[name] == seen[name] == before[name] + 9
        await asyncio.gather(*(socket.ping() for socket in all_readers), return_exceptions=True)
        await asyncio.to_thread(
            until_scraped, watched, lambda now: readers(now) == sum(socket.close_code is None for socket in all_readers)
        )
    until(lambda: is_answered(watched))
    assert scrape(watched)["pushserver_workers_ended_total"] == before["pushserver_workers_ended_total"] + 1


def test_every_value_of_every_label_is_there_from_the_start(watched: Running) -> None:
    now = scrape(watched)
    for family in FAMILIES.values():
        suffix = "_total" if isinstance(family, Counter) else "_count" if isinstance(family, Histogram) else ""
        for labels in family.cells:
            assert ",".join([f"{family.name}{suffix}", *labels]) in now


def test_every_refusal_has_its_cause_in_the_list() -> None:
    """Also those of modules that the ground may not know."""
    from pushserver.server import worker  # noqa: F401, PLC0415 - it loads them

    def kinds(kind: type[errors.Refused]) -> Iterator[tuple[int, str]]:
        yield kind.status, kind.kind
        for each in kind.__subclasses__():
            yield from kinds(each)

    assert {*kinds(errors.Refused)} <= {*errors.CAUSES}


def test_what_no_list_has_is_counted_as_other_and_stops_nothing() -> None:
    before = metrics.CUT.value("other")
    metrics.CUT.inc("a reason of tomorrow")
    assert metrics.CUT.value("other") == before + 1


@pytest.mark.parametrize(("value", "bucket"), [(0, 0), (0.001, 0), (0.0011, 1), (10, 12), (11, 13)])
def test_an_observation_is_in_the_bucket_of_the_first_bound_that_it_does_not_exceed(value: float, bucket: int) -> None:
    histogram = Histogram.__new__(Histogram)
    histogram.bounds, histogram.counts, histogram.sum = SECONDS, [0] * (len(SECONDS) + 1), 0.0
    histogram.observe(value)
    assert histogram.counts.index(1) == bucket
    assert histogram.sum == value
