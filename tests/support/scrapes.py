"""What the tests ask of the operators' listener: a scrape, and the status."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from .server import LIMIT, Running, until

METRICS = ("--metrics-port", "0")  # flags of a server that has the listener


def metrics_url(server: Running) -> str:
    """The address of the operators' listener, which the server prints when it is ready."""
    match = re.search(r"metrics +(http://\S+)/metrics\n", server.greeting)
    assert match, server.greeting
    return match[1]


def ask(server: Running, path: str, *, method: str = "GET", **headers: str) -> httpx2.Response:
    """A request to the operators' listener."""
    return httpx2.request(method, metrics_url(server) + path, headers=headers, timeout=LIMIT)


def scrape(server: Running) -> dict[str, float]:
    """Every sample of a scrape, by its name and the values of its labels."""
    text = ask(server, "/metrics").text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {",".join([sample.name, *sample.labels.values()]): sample.value for sample in samples}


def until_scraped(server: Running, is_so: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    """The first scrape of which something is so: a worker's counts are there a second later."""
    last: dict[str, float] = {}

    def look() -> bool:
        last.update(scrape(server))
        return is_so(last)

    until(look)
    return last


def status(server: Running) -> dict[str, Any]:
    """The cluster as `/status.json` shows it."""
    shown: dict[str, Any] = ask(server, "/status.json").json()
    return shown


def ready_workers(server: Running) -> set[int]:
    """The pids of the workers that are ready."""
    return {worker["pid"] for worker in status(server)["workers"] if worker["ready"]}
