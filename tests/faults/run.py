"""A run: publishers and readers on one stream of a server, with something happening to it meanwhile."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from pushserver.client import AsyncPublisher, Gone, NotFound, PublishError, Unreached

from ..support.server import Running
from .checker import Frame, Outcome, Violation, judge
from .pages import PageLoads

LIMIT = 180.0  # seconds for everybody to know and to have everything: none of the run's own waits takes that long
STAYS = (0.5, 6.0)  # seconds that a reader stays connected, at random


class Run:
    """One stream of a server, its publishers and readers, and what they log."""

    def __init__(self, server: Running, stream: str, *, seed: int, url: str | None = None) -> None:
        self.server = server
        self.stream = stream
        self.url = url or server.url
        self.outcomes: list[Outcome] = []
        self.acknowledged = 0  # requests, forgotten ones too
        self.logs: list[list[Frame]] = []
        self.ports: dict[int, int] = {}  # of the readers that are connected now
        self.broken: set[int] = set()  # ports of readers whose connection ended, and not because they left
        self.back: list[float] = []  # seconds after which those were connected again
        self.stale: set[int] = set()  # readers who were told that the log is not being read
        self.pages = PageLoads(self.url, f"{stream}-pages", self._publish_page)  # of a stream that nobody changes
        self._lost_at: dict[int, float] = {}
        self._emptied = False
        self._random = random.Random(seed)
        self._leaving = True
        self._over = asyncio.Event()
        self._publishing = 0  # publishers that have more to send
        self._sending = 0
        self._may_send = asyncio.Event()
        self._may_send.set()

    @property
    def deliveries(self) -> int:
        return sum("prev" in frame for log in self.logs for frame in log)

    async def of(
        self,
        fault: Callable[[Run], Coroutine[Any, Any, None]],
        *,
        publishers: int = 5,
        entries: int = 12,
        readers: int = 20,
        leaving: bool = True,
        loads: int = 2,
        limit: float = LIMIT,
    ) -> list[Violation]:
        """Publish, read and load pages while the fault happens, until all are known and have all; what was violated."""
        self._leaving, self._publishing = leaving, publishers
        await asyncio.to_thread(self.server.publish_ok, self.stream, "first")
        async with self._reading(readers), self.pages.going_on(loads):
            async with asyncio.timeout(limit), asyncio.TaskGroup() as tasks:
                for number in range(publishers):
                    tasks.create_task(self._publish(number, entries))
                tasks.create_task(fault(self))
            await self._until_read()
        stored = await asyncio.to_thread(self._everything)
        violations = judge(self.outcomes, self.logs, stored, await asyncio.to_thread(self._withdrawn))
        return [*violations, *self.pages.violations]

    def _everything(self) -> Frame:
        """The stream as it is served, to its oldest entry."""
        whole = self.server.snapshot(self.stream)
        older = whole["older"]
        while older:
            part = self.server.http.get(f"/streams/{self.stream}/entries{older}").json()
            whole["entries"] += part["entries"]
            older = part["older"]
        return whole

    def _withdrawn(self) -> set[str]:
        """The entries that the server says were withdrawn."""
        feed = self.server.http.get(f"/streams/{self.stream}/feed.json").json()
        return {item["url"].rpartition("/")[2] for item in feed["_pushserver"]["withdrawn"]}

    async def _publish_page(self, headline: str) -> None:
        answer = await asyncio.to_thread(self.server.publish, f"{self.stream}-pages", {"headline": headline})
        assert answer.status_code in (201, 202), answer.text  # a primary that is alone has no replica

    async def _publish(self, number: int, entries: int) -> None:
        async with AsyncPublisher(self.url, self.server.key) as publisher:
            for entry in range(entries):
                key = f"{number}.{entry}"
                answer = await self._known(
                    lambda key=key: publisher.publish(  # type: ignore[misc]
                        self.stream, {"headline": f"Entry {key}", "body": "Some *words*."}, idempotency_key=key
                    )
                )
                id = answer["id"]
                self.outcomes.append(Outcome(key, id))
                self.acknowledged += 1
                await self._change(publisher, id, key)
                await asyncio.sleep(self._random.uniform(0, 0.25))
        self._publishing -= 1

    async def _change(self, publisher: AsyncPublisher, id: str, key: str) -> None:
        """Correct it, or take it back, or leave it."""
        # It was withdrawn by the same request, whose answer was lost; or went when everything did.
        with suppress(Gone, NotFound):
            match self._random.randrange(4):
                case 0:
                    change = {"headline": f"Entry {key}, corrected"}
                    await self._known(lambda: publisher.correct(self.stream, id, change, idempotency_key=f"{key}.c"))
                case 1:
                    await self._known(lambda: publisher.withdraw(self.stream, id, idempotency_key=f"{key}.w"))
                    self.outcomes.append(Outcome(f"{key}.w", id, withdrawn=True))

    async def _known(self, send: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """Send it, again and again, until its outcome is known."""
        while True:
            await self._may_send.wait()
            self._sending += 1
            try:
                return await send()
            except Unreached:
                continue
            except NotFound:  # the store lost it, and it is not healed yet
                if self._emptied:
                    raise
                await asyncio.sleep(0.2)
            finally:
                self._sending -= 1

    async def more(self, entries: int) -> None:
        """Wait until so many more entries are acknowledged, or all are that are to be published."""
        goal = self.acknowledged + entries
        while self.acknowledged < goal and self._publishing:
            await asyncio.sleep(0.01)

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """While nobody publishes, and the readers who are there have got what was stored."""
        self._may_send.clear()
        try:
            while self._sending:
                await asyncio.sleep(0.01)
            head = (await self._stored())["cursor"]
            while not self.ports or any(_cursor_of(self.logs[number]) != head for number in self.ports):
                await asyncio.sleep(0.01)
            yield
        finally:
            self._may_send.set()

    def forget(self) -> None:
        """What was acknowledged so far is not lost when it goes: somebody empties the store, and means to."""
        self.outcomes.clear()
        self._emptied = True

    # --- readers

    @asynccontextmanager
    async def _reading(self, readers: int) -> AsyncIterator[None]:
        self.logs = [[] for _ in range(readers)]
        tasks = [asyncio.create_task(self._read(number, log)) for number, log in enumerate(self.logs)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for ended in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(ended, Exception):
                    raise ended

    async def _read(self, number: int, log: list[Frame]) -> None:
        """Come and go, always back with the last cursor."""
        address = f"{self.url.replace('http', 'ws')}/streams/{self.stream}/ws?cursor="
        while True:
            with suppress(OSError, TimeoutError, WebSocketException):
                cursor = _cursor_of(log) or ""
                async with connect(address + cursor, compression=None, proxy=None, max_size=None) as socket:
                    async with self._for_a_while():
                        await self._hear(number, socket, log)
            await asyncio.sleep(self._random.uniform(0, 0.3))

    async def _hear(self, number: int, socket: ClientConnection, log: list[Frame]) -> None:
        """Log every frame of a connection, until it ends."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                frame = json.loads(await socket.recv())
                if frame["type"] == "head":
                    self.stale |= {number} if "stale" in frame else set()
                    continue
                log.append(frame)
                if frame["type"] == "hello":
                    self.ports[number] = socket.local_address[1]
                    if number in self._lost_at:
                        self.back.append(loop.time() - self._lost_at.pop(number))
        except WebSocketException:
            if number in self.ports:
                self.broken.add(self.ports[number])
                self._lost_at[number] = loop.time()
            raise
        finally:
            self.ports.pop(number, None)

    @asynccontextmanager
    async def _for_a_while(self) -> AsyncIterator[None]:
        """Half of the readers leave after a while, as long as the run goes on."""
        leaves = self._leaving and not self._over.is_set() and self._random.random() < 0.5
        stays = self._random.uniform(*STAYS) if leaves else None
        async with asyncio.timeout(stays):
            yield

    async def _until_read(self) -> None:
        """Wait until every reader has the newest event."""
        self._over.set()
        async with asyncio.timeout(LIMIT):
            while True:
                head = (await self._stored())["cursor"]
                if all(_cursor_of(log) == head for log in self.logs):
                    return
                await asyncio.sleep(0.1)

    async def _stored(self) -> Frame:
        """The stream as it is served now."""
        while True:
            try:
                return await asyncio.to_thread(self.server.snapshot, self.stream)
            except (AssertionError, OSError, PublishError):
                await asyncio.sleep(0.2)


def _cursor_of(log: list[Frame]) -> str | None:
    """Where a reader is."""
    for frame in reversed(log):
        if "cursor" in frame:
            return str(frame["cursor"])
    return None
