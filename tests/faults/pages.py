"""Clients that load the pages of a stream while something happens to its server: none is refused what is in memory.

Nobody changes the stream meanwhile. A connection stays with its worker: once that has answered with a surface, it
has it in memory, and has to answer again, with a mark while the store is away.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from itertools import count

from ..support.server import LIMIT
from .checker import Violation
from .connection import Answer, Connection

SURFACES = ["", "/entries", "/feed.atom", "/feed.json", "?before=9007199254740991.z"]
MARK = "pushserver-stale-since"
PAUSE = 0.1  # seconds between two loads of a client
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


class PageLoads:
    """The loads of a stream, and what was wrong with them. `stale` counts those that were marked.

    `publish` publishes an entry with this headline, or raises AssertionError.
    """

    def __init__(self, url: str, stream: str, publish: Callable[[str], Awaitable[object]]) -> None:
        self.loads = 0
        self.stale = 0
        self.violations: list[Violation] = []
        self._url = url
        self._stream = stream
        self._publish = publish

    @asynccontextmanager
    async def going_on(self, clients: int) -> AsyncIterator[None]:
        """While clients load the pages; then each surface is exact again, on connections of their own."""
        await self._publish("published before it")
        tasks = [asyncio.create_task(self._load()) for _ in range(clients)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        self.violations += [
            Violation("page", f"a client ended: {error!r}") for error in ended if isinstance(error, Exception)
        ]
        await self._settle()

    async def _load(self) -> None:
        """Load one surface after the other, on a connection as long as it lives."""
        while True:
            with suppress(OSError, EOFError):
                await self._load_on(await Connection.open(self._url))
            await asyncio.sleep(PAUSE)

    async def _load_on(self, connection: Connection) -> None:
        has: set[str] = set()
        try:
            while True:
                for surface in SURFACES:
                    self._judge(surface, await self._get(connection, surface), has)
                    await asyncio.sleep(PAUSE)
        finally:
            await connection.close()

    def _judge(self, surface: str, answer: Answer, has: set[str]) -> None:
        self.loads += 1
        since = answer.fields.get(MARK)
        self.stale += since is not None
        if since is not None and not INSTANT.fullmatch(since):
            self.violations.append(Violation("page", f"{surface or '/'} may be late since {since}"))
        if answer.status == 200:
            has.add(surface)
        elif answer.status == 404:  # somebody empties the store, and means to
            has.clear()
        elif surface in has:
            self.violations.append(Violation("page", f"{surface or '/'} was in memory, and answered {answer.status}"))

    async def _get(self, connection: Connection, surface: str) -> Answer:
        return await connection.send("GET", f"/streams/{self._stream}{surface}", Accept_Encoding="identity")

    async def _all(self) -> list[Answer]:
        connection = await Connection.open(self._url)
        try:
            return [await self._get(connection, surface) for surface in SURFACES]
        finally:
            await connection.close()

    async def _settle(self) -> None:
        """Wait until no worker's answer is marked. What is published then, each surface has at once."""
        async with asyncio.timeout(LIMIT):
            for number in count():
                with suppress(OSError, EOFError, AssertionError):
                    if await self._is_exact(f"published after it {number}"):
                        return
                await asyncio.sleep(PAUSE)

    async def _is_exact(self, headline: str) -> bool:
        """Note the surfaces that lack what is published now; False where one is marked: its worker is back later."""
        if any(MARK in answer.fields for answer in await self._all()):
            return False
        await self._publish(headline)
        answers = await self._all()
        if any(MARK in answer.fields for answer in answers):
            return False
        for surface, answer in zip(SURFACES, answers, strict=True):
            if answer.status != 200 or headline.encode() not in answer.body:
                what = f"{surface or '/'} does not show what was published, {answer.status}"
                self.violations.append(Violation("page", what))
        return True
