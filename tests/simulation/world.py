"""What a run is made of: workers around one store, and what was lost there."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from pushserver import model
from pushserver.errors import Deleted, NotFound, Unavailable
from pushserver.live.drain import Drain
from pushserver.live.heartbeat import IDLE_BEATS
from pushserver.live.hub import Hub
from pushserver.live.options import HubOptions
from pushserver.live.stream import LiveStream
from pushserver.model import Cursor
from pushserver.settings import Settings
from pushserver.store.log import Log
from pushserver.store.store import StoreError
from pushserver.transport.asgi import attend

from .loop import Loop, Process
from .memory import Memory, id_of, text_of
from .store import Line, Server
from .wire import Wire, WireReader

T = TypeVar("T")

PARTITIONS = 2
ROOMY = 10_000  # bytes of a ring that is never full of bytes here
SAVES = 12  # states of the store that it may fall back to


class WorkerDied(Exception):
    """It had not answered by then."""


class Worker:
    """One server process. A dead one stays dead; the one that follows has another number."""

    def __init__(self, world: World, number: int) -> None:
        self.process = Process(f"worker {number}")
        self.line = Line(world.server, PARTITIONS)
        settings = world.settings
        self.log = Log(self.line, log_events=settings.log_events, entry_limit=settings.entry_limit, idempotency=60)
        self.hub = Hub(self.log, HubOptions.of(settings))
        self._loop = world.loop
        self.drain_window = settings.drain_window
        self._wires: list[Wire] = []
        self._asked: list[asyncio.Future[Any]] = []
        self._start(self.hub.run())

    def _start(self, work: Any) -> asyncio.Task[Any]:
        return self._loop.create_task(work, context=self.process.context.copy())

    async def ask(self, work: Callable[[Log], Awaitable[T]]) -> T:
        """Have something done there. Raises what that raises, or WorkerDied."""
        answer: asyncio.Future[T] = self._loop.create_future()
        self._asked.append(answer)

        async def answered() -> None:
            try:
                result = await work(self.log)
            except Exception as error:
                if not answer.done():
                    answer.set_exception(error)
            else:
                if not answer.done():
                    answer.set_result(result)

        self._start(answered())
        return await answer

    def drain(self) -> None:
        """SIGTERM."""
        drain = Drain(window=self.drain_window)
        drain.begin(self._loop.time())
        self._start(self.hub.drain(drain))

    def kill(self) -> None:
        """kill -9."""
        self.process.alive = False
        for wire in self._wires:
            wire.cut()
        for answer in self._asked:
            if not answer.done():
                answer.set_exception(WorkerDied())

    def connect(self, wire: Wire, stream: str, cursor: str) -> None:
        self._wires.append(wire)
        self._start(self._serve(wire, stream, cursor))

    async def _serve(self, wire: Wire, stream: str, cursor: str) -> None:
        """What the route of a socket does."""
        try:
            async with self.hub.follow(stream) as live:
                wire.accepted.set()
                gone = self._start(wire.left.wait())
                await attend(self.hub, live, WireReader(wire, live.fanout), Cursor.parse(cursor), gone)
        except NotFound:
            wire.refuse(404)
        except Deleted:
            wire.refuse(410)
        except (Unavailable, StoreError):
            wire.refuse(503)

    def holds(self, lost: Stored, taken: Sequence[Stored]) -> LiveStream | None:
        """The stream whose ring has an event, and will when all of what was taken has come."""
        live = self.hub._streams.get(lost.stream) if self.process.alive else None
        if live is None:
            return None
        ring = [event.cursor for event in live.recent_events(self.hub._options.ring_events)]
        cursors, head, settings = [stored.cursor for stored in taken], live.ring.head, self.hub._options
        coming = len(cursors) - cursors.index(head) - 1 if head in cursors else 0
        if coming:
            ring = ring[: max(0, settings.ring_events - coming)] if settings.ring_bytes > ROOMY else []
        return live if lost.cursor in ring else None


class Stored(NamedTuple):
    """An event as the store took it."""

    stream: str
    cursor: Cursor
    key: str
    type: str
    entry_id: str
    rev: int


class Loss(NamedTuple):
    """An event that the store had acknowledged and lost, and who held it then."""

    stored: Stored
    holders: list[tuple[Worker, LiveStream]]

    @property
    def is_curable(self) -> bool:
        """Whether someone who held it was there to notice. Whoever has no readers may have let go of it before."""
        return any(worker.process.alive and live.idle_beats <= IDLE_BEATS for worker, live in self.holders)


class History(Memory):
    """A store that also knows, of each stream, what it took: without what it lost, and trimmed or not."""

    def __init__(self, world: World) -> None:
        chance = world.chance
        slack = chance.choice((0, 0, 5, 30))
        super().__init__(lambda: world.loop.ms() + world.clock, lambda count: chance.randint(0, count + slack))
        self.saves: deque[dict[str, Any]] = deque(maxlen=SAVES)
        self._world = world

    def trim(self, key: str, count: int) -> None:
        super().trim(key, count)
        self._world.trimmed(key)

    def append(self, keys: Sequence[str], arguments: Sequence[Any]) -> list[bytes]:
        answer = super().append(keys, arguments)
        if answer[0] == b"stored":
            id, _, epoch, nonce, entry, rev = (word.decode() for word in answer[1:])
            taken = Stored(arguments[10], Cursor(epoch, id, nonce), arguments[13], arguments[0], entry, int(rev))
            self.keys[f"taken:{arguments[10]}"] = [*self.taken(arguments[10]), taken]
            self.saves.append(self.saved())
        return answer

    def taken(self, stream: str) -> list[Stored]:
        found: list[Stored] = self.keys.get(f"taken:{stream}", [])
        return found


class World:
    """Everything there is in a run."""

    def __init__(self, loop: Loop, settings: Settings, streams: list[str], workers: int) -> None:
        self.loop = loop
        self.chance = loop.chance
        self.settings = settings
        self.streams = streams
        self.clock = 0  # milliseconds that the store's clock is ahead
        self.calm = False  # no faults any more: who is away comes back to stay
        self.memory = History(self)
        self.server = Server(loop, self.memory)
        self.trace: list[str] = []
        self.losses: dict[tuple[str, str], Loss] = {}  # by stream and key: the last time that it was lost
        self.workers: list[Worker] = []
        self._numbers = 0
        for _ in range(workers):
            self.add_worker()

    def note(self, what: str) -> None:
        self.trace.append(f"{self.loop.at:9.4f} {what}")

    def add_worker(self) -> None:
        self._numbers += 1
        self.workers.append(Worker(self, self._numbers))

    def any_worker(self) -> Worker:
        return self.chance.choice(self.workers)

    def replace(self, worker: Worker) -> None:
        """Another one takes its place; it gets no new readers."""
        self.workers.remove(worker)
        self.add_worker()

    def key(self, stream: str, name: str) -> str:
        return f"{{p{model.partition_of(stream, PARTITIONS):02d}}}:{stream}:{name}"

    # --- what the store has

    def head(self, stream: str) -> str | None:
        """The cursor of the newest event."""
        records = self.memory.keys.get(self.key(stream, "log"))
        last = records.last_event() if records else None
        return str(Cursor(last.fields["e"], text_of(last.id), last.fields["u"])) if last else None

    def entries(self, stream: str) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.memory.keys.get(self.key(stream, "entries"), {}).values()]

    def withdrawn(self, stream: str) -> set[str]:
        return set(self.memory.keys.get(self.key(stream, "withdrawn"), {}))

    def page(self, stream: str) -> str:
        """The headline of the page."""
        page = self.memory.keys.get(self.key(stream, "page"), {}).get("json")
        headline: str = (json.loads(page) if page else model.unwritten_page(stream))["headline"]
        return headline

    # --- what it lost

    def is_back(self, lost: Stored) -> bool:
        """Whether an event is there again, or its publisher sent it again, or another came in its place meanwhile."""
        return lost.entry_id in self.withdrawn(lost.stream) or any(
            stored.key == lost.key or (stored.entry_id == lost.entry_id and stored.rev >= lost.rev)
            for stored in self.memory.taken(lost.stream)
        )

    def unwithdrawn(self, stream: str) -> set[str]:
        """The entries whose withdrawal was lost, for good.

        Who was told of it in the place of the entry itself, and no more, keeps it withdrawn and is not told otherwise:
        the event that the cursor names is there.
        """
        lost = [loss.stored for (of, _), loss in self.losses.items() if of == stream]
        return {stored.entry_id for stored in lost if stored.type == "entry.withdraw"} - self.withdrawn(stream)

    def lose(self, change: Callable[[], object]) -> list[Stored]:
        """Note what the store does not have any more, of what it had taken, after this change."""
        before = {stream: (self._epoch(stream), self.memory.taken(stream)) for stream in self.streams}
        change()
        lost = []
        for stream, (epoch, taken) in before.items():
            remaining = set(self.memory.taken(stream))
            # Then it is not put back, as somebody may have meant it.
            is_anew = self._epoch(stream) is None or self._epoch(stream) != epoch
            for stored in taken:
                if stored not in remaining:
                    lost.append(stored)
                    self._lose_one(stored, [] if is_anew else self._holders(stored, taken))
            if is_anew:
                for key, loss in self.losses.items():
                    if key[0] == stream:
                        self.losses[key] = loss._replace(holders=[])
        return lost

    def trimmed(self, key: str) -> None:
        """Whose last event is older than all that is left in a log cannot tell what was lost from what was trimmed."""
        records = self.memory.keys.get(key)
        oldest = records.all[0].id if records and records.all else None
        for name, loss in self.losses.items():
            if oldest and self.key(name[0], "log") == key:
                holders = [(worker, live) for worker, live in loss.holders if id_of(live.ring.head.id) >= oldest]
                self.losses[name] = loss._replace(holders=holders)

    def _epoch(self, stream: str) -> str | None:
        head = self.head(stream)
        return head.split(".")[1] if head else None

    def _holders(self, lost: Stored, taken: Sequence[Stored]) -> list[tuple[Worker, LiveStream]]:
        found = [(worker, worker.holds(lost, taken)) for worker in self.workers]
        return [(worker, live) for worker, live in found if live]

    def _lose_one(self, stored: Stored, holders: list[tuple[Worker, LiveStream]]) -> None:
        names = ", ".join(worker.process.name for worker, _ in holders) or "nobody"
        self.note(f"lost {stored.stream} {stored.key} {stored.cursor}, which {names} holds")
        # What was lost before may have been healed under another key: as the withdrawal that it had become.
        for key, loss in self.losses.items():
            before = key[0], loss.stored.entry_id, loss.stored.cursor.epoch
            if before == (stored.stream, stored.entry_id, stored.cursor.epoch) and loss.stored.rev <= stored.rev:
                self.losses[key] = loss._replace(holders=holders)
        self.losses[stored.stream, stored.key] = Loss(stored, holders)
