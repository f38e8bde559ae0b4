"""What is counted: by all workers together, and nobody named in it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed

from .support.server import Running, reader, receive, until

pytestmark = pytest.mark.anyio


def counted(server: Running) -> dict[str, float]:
    """Every sample of a scrape, by its name and labels."""
    response = server.http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    samples = [sample for family in text_string_to_metric_families(response.text) for sample in family.samples]
    return {",".join([sample.name, *sample.labels.values()]): sample.value for sample in samples}


def is_answered(server: Running) -> bool:
    with suppress(httpx2.TransportError):
        return server.http.get("/readyz").status_code == 200
    return False


async def test_any_worker_answers_for_all(start: Callable[..., Running], stream: str) -> None:
    server = start("--workers", "2")
    for number in range(5):
        server.publish(stream, {"headline": "Once"}, Idempotency_Key=f"key-{number % 4}")
    async with reader(server, stream) as one, reader(server, stream) as other:
        for socket in (one, other):
            await receive(socket, "snapshot")
        now = counted(server)
        assert now["pushserver_readers"] == 2
        assert (now["pushserver_published_total,stored"], now["pushserver_published_total,replayed"]) == (4, 1)
    until(lambda: counted(server)["pushserver_readers"] == 0)
    assert stream not in server.http.get("/metrics").text
    assert server.key not in server.http.get("/metrics").text


async def test_a_worker_that_was_killed_counts_no_readers(start: Callable[..., Running], stream: str) -> None:
    server = start()
    server.publish_ok(stream, "First")
    async with reader(server, stream) as socket:
        await receive(socket, "snapshot")
        (worker,) = set(server.children()) - {server.store_pid()}
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(ConnectionClosed):
            await receive(socket, "never")
    until(lambda: worker not in server.children() and len(server.children()) == 2)
    until(lambda: is_answered(server))  # what waited for the worker that was killed is cut
    now = counted(server)
    assert (now["pushserver_readers"], now["pushserver_published_total,stored"]) == (0, 1)
