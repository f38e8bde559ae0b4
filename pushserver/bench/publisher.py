"""The publishers of a benchmark use raw HTTP, so that publishing costs the load generator little."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httptools

from .reader import Endpoint, ServerUnavailable


class PublishRefused(Exception):
    """The server refused a publish; the text has the request and the answer."""


class PublisherConnection(asyncio.Protocol):
    """PublisherConnection sends one request at a time and waits for its answer."""

    def __init__(self, endpoint: Endpoint, headers: tuple[str, ...]) -> None:
        head = "".join(f"{line}\r\n" for line in (f"Host: {endpoint.host}:{endpoint.port}", *headers))
        self._head = f"Content-Type: application/json\r\n{head}"
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._parser: Any = None
        self._body = b""

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def send(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Send a request and return the answer's status and body. Raises ServerUnavailable."""
        if self._transport is None or not self.is_open:
            raise ServerUnavailable("the server closed the publisher's connection")
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
            self._answer.set_exception(ServerUnavailable(f"no answer, the connection ended: {exc or 'closed'}"))


class PublishSchedule(NamedTuple):
    """PublishSchedule says which entries are published and when: `rate` a second, or 0 for one after the other."""

    path: Callable[[int], str]
    body: Callable[[int, int], bytes]  # of an entry, by its number and its due time in ns of the monotonic clock
    first: int
    entries: int
    rate: float = 0.0


async def publish_entries(connections: list[PublisherConnection], schedule: PublishSchedule) -> list[int]:
    """Publish on all connections at once; return how many ns after its due time each entry was acknowledged.

    An entry whose connection is still busy at its due time is published late, and counts as late. Raises
    PublishRefused, ServerUnavailable.
    """
    acknowledged: list[int] = []
    begin = time.monotonic_ns()

    async def run(connection: PublisherConnection, numbers: Iterator[int]) -> None:
        for number in numbers:
            due = time.monotonic_ns()
            if schedule.rate:
                due = begin + round((number - schedule.first) / schedule.rate * 1e9)
                await asyncio.sleep(max(0.0, (due - time.monotonic_ns()) / 1e9))
            status, answer = await connection.send("POST", schedule.path(number), schedule.body(number, due))
            if not 200 <= status < 300:
                raise PublishRefused(f"entry {number} was refused: {answered_error(status, answer)}")
            acknowledged.append(time.monotonic_ns() - due)

    numbers = iter(range(schedule.first, schedule.first + schedule.entries))
    try:
        async with asyncio.TaskGroup() as tasks:
            for connection in connections:
                tasks.create_task(run(connection, numbers))
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    return acknowledged


def answered_error(status: int, answer: bytes) -> str:
    """Return an error answer in one line: the detail of its problem+json, or its first 100 bytes."""
    try:
        problem = json.loads(answer)
        return f"{status} {problem.get('detail') or problem}"
    except (ValueError, AttributeError):
        return f"{status} {answer[:100].decode(errors='replace')}"
