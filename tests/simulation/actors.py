"""Those on the outside: publishers who repeat until they know, readers who come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

from pushserver import model
from pushserver.client import TurnedAway, follow
from pushserver.codec import loads
from pushserver.content import changes
from pushserver.content.schema import WithdrawalIn
from pushserver.errors import Gone, Unavailable
from pushserver.model import Append, Idempotency, StoredEntry, StoredPage
from pushserver.store.log import Appended, Log, RevisionConflict
from pushserver.store.store import StoreError

from ..faults.checker import Frame, Outcome
from .wire import Wire
from .world import WorkerDied, World

HASH = "b0d7"
ATTEMPTS = 5  # at a change that others make at the same time
MISSES = 8  # times that what was acknowledged is looked for and not there, before a publisher gives up


class Missing(Exception):
    """What is to be changed is not there."""


class Publisher:
    """Publishes entries, changes some, and does what `publish.py` and `client.py` do about what goes wrong."""

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self._number = number
        self.known: list[tuple[str, Outcome]] = []  # by stream

    async def run(self, entries: int) -> None:
        for number in range(entries):
            key, stream = f"{self._number}.{number}", self._world.chance.choice(self._world.streams)
            answer = await self.publish(stream, key)
            if answer:
                await self._change(stream, answer.entry_id, key)
            await asyncio.sleep(self._world.chance.expovariate(0.4))

    async def publish(self, stream: str, key: str) -> Appended | None:
        return await self._known(stream, key, lambda log: _put(log, stream, key))

    async def _change(self, stream: str, id: str, key: str) -> None:
        """Correct it, or take it back, or change the page, or leave it."""
        match self._world.chance.randrange(7):
            case 0 | 1:
                await self._known(stream, f"{key}.c", lambda log: _correct(log, stream, id, f"{key}.c"))
            case 2 | 3:
                await self._known(stream, f"{key}.w", lambda log: _withdraw(log, stream, id, f"{key}.w"), True)
            case 4:
                await self._known(stream, f"{key}.p", lambda log: _page(log, stream, f"{key}.p"))

    async def _known(
        self, stream: str, key: str, attempt: Callable[[Log], Awaitable[Appended]], withdraws: bool = False
    ) -> Appended | None:
        """The answer, asked for at any worker until there is one; None where there is nothing to change any more."""
        misses = 0
        while misses < MISSES:
            try:
                answer = await self._world.any_worker().ask(lambda log: _settled(log, attempt))
            except (Unavailable, StoreError, WorkerDied):
                self._world.note(f"publisher {self._number} does not know {key}")
            except Missing:
                misses += 1
            except Gone:
                return None
            else:
                self._world.note(f"publisher {self._number} {key} n {answer.n} {answer.entry_id}")
                self.known.append((stream, Outcome(key, answer.entry_id, withdraws)))
                return answer
            await asyncio.sleep(self._world.chance.uniform(0, 1.5))
        return None


async def _settled(log: Log, attempt: Callable[[Log], Awaitable[Appended]]) -> Appended:
    """Made from what is current, again where something else came first."""
    for _ in range(ATTEMPTS):
        try:
            return await attempt(log)
        except RevisionConflict:
            continue
    raise Unavailable("Others are changing it at the same time.")


async def _put(log: Log, stream: str, key: str) -> Appended:
    at = model.now()
    entry = {
        "id": model.new_id(),
        "rev": 1,
        "headline": key,
        "flags": {},
        "sort_at": model.instant(at),
        "published_at": model.instant(at),
    }
    return await log.append(entry_append(stream, entry, at, key))


async def _correct(log: Log, stream: str, id: str, key: str) -> Appended:
    if first := await log.first_answer(stream, key, HASH):
        return first
    current, at = await _stored_entry(log, stream, id), model.now()
    return await log.append(entry_append(stream, {**current, "rev": current["rev"] + 1, "headline": key}, at, key))


async def _withdraw(log: Log, stream: str, id: str, key: str) -> Appended:
    if first := await log.first_answer(stream, key, HASH):
        return first
    current, at = await _stored_entry(log, stream, id), model.now()
    entry = cast(StoredEntry, current)
    append = changes.withdraw_entry(
        stream, entry, WithdrawalIn(), at=at, idempotency=Idempotency(key, HASH, from_client=True)
    )
    return await log.append(append)


async def _page(log: Log, stream: str, key: str) -> Appended:
    if first := await log.first_answer(stream, key, HASH):
        return first
    current, at = await log.page_of(stream) or model.unwritten_page(stream), model.now()
    page: StoredPage = {**current, "rev": current["rev"] + 1, "headline": key, "updated_at": model.instant(at)}
    return await log.append(changes.put_page(stream, page, at=at, idempotency=Idempotency(key, HASH)))


async def _stored_entry(log: Log, stream: str, id: str) -> dict[str, Any]:
    stored, withdrawal = await log.entry(stream, id)
    if withdrawal:
        raise Gone("It was withdrawn.")
    if not stored:
        raise Missing
    return loads(stored.encode())


def entry_append(stream: str, entry: dict[str, Any], at: int, key: str) -> Append:
    """An entry of few fields as the publish path hands it to the log."""
    append = changes.put_entry(
        stream,
        cast(StoredEntry, {"published_at": entry["sort_at"], **entry}),
        at=at,
        idempotency=Idempotency(key, HASH),
    )
    return append._replace(shown_at=model.instant(at))


class Reader:
    """Someone who reads a stream, by the shipped client: stays a while, goes, comes back with the last cursor."""

    def __init__(self, world: World, number: int) -> None:
        chance = world.chance
        self.number = number
        self.stream = chance.choice(world.streams)
        self.frames: list[Frame] = []  # as they came
        self.shown: list[Frame] = []  # as the client gave them on, and what it was greeted with
        self.lossy = chance.choice((0.0, 0.0, 0.05))
        self._world = world
        self._delay = chance.choice((0.001, 0.02, 0.3))
        self._reads = chance.choice((0.0, 0.0, 0.0, 0.3, 2.0))  # seconds that it takes over a frame, at most
        self._stays = chance.choice((1.0, 5.0, 30.0))  # seconds, on average
        self._away = chance.choice((0.1, 2.0, 15.0))
        self._cursor = ""

    @property
    def cursor(self) -> str:
        return self._cursor

    async def run(self) -> None:
        chance, world = self._world.chance, self._world
        READER.set(self)
        while True:
            stays = None if world.calm else chance.expovariate(1 / self._stays)
            try:
                async with asyncio.timeout(stays), aclosing(self._following()) as frames:
                    async for frame in frames:
                        self._show(frame)
                        if not world.calm:
                            await asyncio.sleep(chance.uniform(0, self._reads))
            except TimeoutError:
                pass
            except TurnedAway:
                world.note(f"reader {self.number} was turned away")
            await asyncio.sleep(chance.expovariate(1 / self._away) if not world.calm else chance.uniform(0, 1))

    def _following(self) -> AsyncGenerator[dict[str, Any], None]:
        return follow("http://any", self.stream, cursor=self._cursor)

    def _show(self, frame: Frame) -> None:
        self.shown.append(frame)
        self._cursor = frame.get("cursor", self._cursor)
        self._world.note(f"reader {self.number} {frame['type']} {frame.get('n')} {frame.get('cursor')}")

    async def connect(self, address: str) -> Wire:
        """A connection to any worker, as the shipped client asks for it."""
        url, world = urlsplit(address), self._world
        wire = Wire(world.loop, delay=self._delay, lossy=0.0 if world.calm else self.lossy, heard=self._hear)
        stream, cursor = url.path.split("/")[2], parse_qs(url.query).get("cursor", [""])[0]
        worker = world.any_worker()
        world.note(f"reader {self.number} asks {worker.process} from {cursor}")
        await asyncio.sleep(world.chance.expovariate(1 / self._delay))
        worker.connect(wire, stream, cursor)
        await wire.accepted.wait()
        if wire.refused:
            world.note(f"reader {self.number} was answered {wire.refused}")
            raise InvalidStatus(Response(wire.refused, "", Headers()))
        return wire

    def _hear(self, frame: Frame) -> None:
        if frame["type"] != "head":
            self.frames.append(frame)
        if frame["type"] == "hello":  # it is not shown, and says what may come
            self.shown.append(frame)


READER: ContextVar[Reader] = ContextVar("reader")


async def connect(address: str, **_: object) -> Wire:
    """`websockets.connect`, for whoever reads here."""
    return await READER.get().connect(address)
