"""The publishers of a benchmark, on raw HTTP, so that to publish costs them little."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httptools

from .reader import Away, Target


class Denied(Exception):
    """The server said no; says to what, and how."""


class Poster(asyncio.Protocol):
    """One publisher's connection: a request, then its answer. Raises Away, where there is none."""

    def __init__(self, target: Target, headers: tuple[str, ...]) -> None:
        head = "".join(f"{line}\r\n" for line in (f"Host: {target.host}:{target.port}", *headers))
        self._head = f"Content-Type: application/json\r\n{head}"
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._parser: Any = None
        self._body = b""

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def send(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """The answer's status and body."""
        if self._transport is None or not self.is_open:
            raise Away("the server has closed the publisher's connection")
        self._parser, self._body = httptools.HttpResponseParser(self), b""
        self._answer = asyncio.get_running_loop().create_future()
        head = f"{method} {path} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)
        return await self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((self._parser.get_status_code(), self._body))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Away(f"the server went away before it answered: {exc or 'connection closed'}"))


class Course(NamedTuple):
    """What is published: entries from `first` on, so many a second; 0 is each when the one before is acknowledged."""

    path: Callable[[int], str]
    body: Callable[[int, int], bytes]  # of an entry by its number, due at an instant in ns
    first: int
    entries: int
    rate: float = 0.0


async def publish(posters: list[Poster], course: Course) -> list[int]:
    """Publish, on as many connections at once as there are; how late each was acknowledged, in ns. Raises Denied."""
    acknowledged: list[int] = []
    begin = time.monotonic_ns()

    async def run(poster: Poster, numbers: Iterator[int]) -> None:
        for number in numbers:
            due = time.monotonic_ns()
            if course.rate:
                due = begin + round((number - course.first) / course.rate * 1e9)
                await asyncio.sleep(max(0.0, (due - time.monotonic_ns()) / 1e9))
            status, answer = await poster.send("POST", course.path(number), course.body(number, due))
            if not 200 <= status < 300:
                raise Denied(f"entry {number} was refused: {said(status, answer)}")
            acknowledged.append(time.monotonic_ns() - due)

    numbers = iter(range(course.first, course.first + course.entries))
    try:
        async with asyncio.TaskGroup() as tasks:
            for poster in posters:
                tasks.create_task(run(poster, numbers))
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    return acknowledged


def said(status: int, answer: bytes) -> str:
    """A refusal in a line: problem+json where it is that, else how it begins."""
    try:
        problem = json.loads(answer)
        return f"{status} {problem.get('detail') or problem}"
    except (ValueError, AttributeError):
        return f"{status} {answer[:100].decode(errors='replace')}"
