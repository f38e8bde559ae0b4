"""Visitors of a measurement: a publisher that sends nothing twice, and a client that loads the page."""

from __future__ import annotations

import asyncio
import multiprocessing as mp
import time
from collections import Counter
from typing import Any, NamedTuple

import httpx2

from .returning import LIMIT, STREAM

EVERY = 0.05  # seconds between two requests, unless said otherwise
ANSWER_LIMIT = 30.0  # seconds


class Visited(NamedTuple):
    """Visited is how many requests were sent, how many of them failed and how, and the longest wait in seconds."""

    sent: int
    failures: Counter[str]
    longest: float

    @property
    def failed(self) -> str:
        named = ", ".join(f"{count} x {name}" for name, count in self.failures.items())
        return f"{self.failures.total()} of {self.sent}" + (f" ({named})" if named else "")


class Visitor:
    """Visitor sends the same request every so many seconds, from `begin` to `end`. It has a process of its own."""

    def __init__(
        self, url: str, method: str, path: str, key: str = "", body: bytes = b"", every: float = EVERY
    ) -> None:
        context = mp.get_context("spawn")
        self._ready, self._begun, self._over = context.Event(), context.Event(), context.Event()
        self._results = context.Queue()
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"} if key else {}
        events = (self._ready, self._begun, self._over)
        arguments = (url, method, path, headers, body, every, events, self._results)
        self._process = context.Process(target=_visit, args=arguments, daemon=True)
        self._process.start()

    async def begin(self) -> None:
        """Begin as soon as the process runs: a measurement must not be over before."""
        await asyncio.to_thread(self._ready.wait, LIMIT)
        self._begun.set()

    async def end(self) -> Visited:
        self._over.set()
        visited: Visited = await asyncio.to_thread(self._results.get, True, LIMIT)
        await asyncio.to_thread(self._process.join)
        return visited


def publisher(url: str, key: str, every: float = EVERY) -> Visitor:
    """A publisher that does not send again what failed."""
    return Visitor(url, "POST", f"/streams/{STREAM}/entries", key, b'{"headline":"x"}', every)


def page_reader(url: str) -> Visitor:
    """A client that loads the page."""
    return Visitor(url, "GET", f"/streams/{STREAM}")


def _visit(
    url: str,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes,
    every: float,
    events: Any,
    results: Any,
) -> None:
    ready, begun, over = events
    failures: Counter[str] = Counter()
    sent, longest = 0, 0.0
    with httpx2.Client(base_url=url, timeout=ANSWER_LIMIT) as http:
        ready.set()
        begun.wait()
        while not over.is_set():
            began = time.monotonic()
            try:
                answer = http.request(method, path, content=body, headers=headers)
                if not answer.is_success:
                    failures[str(answer.status_code)] += 1
            except httpx2.TransportError as error:
                failures[type(error).__name__] += 1
            took = time.monotonic() - began
            sent, longest = sent + 1, max(longest, took)
            time.sleep(max(0.0, every - took))
    results.put(Visited(sent, failures, longest))
