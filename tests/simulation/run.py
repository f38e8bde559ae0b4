"""A run: what a seed makes happen, and what was promised and not kept in it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

from pushserver.settings import Settings

from ..faults.checker import Frame, Outcome, Violation, judge
from .actors import Publisher, Reader, connect
from .faults import FAULTS
from .loop import Loop, Stuck, running, simulated
from .world import World

TROUBLE = 25.0  # seconds in which faults begin
SETTLED = 240.0  # seconds after the last fault within which everybody has everything


class Result(NamedTuple):
    """What came of a seed."""

    seed: int
    violations: list[Violation]
    deliveries: int
    acknowledged: int
    trace: list[str]
    hash: str


def run(seed: int) -> Result:
    """What the seed makes happen. The same each time."""
    with simulated(seed) as loop, patch("pushserver.client.reader.connect", connect):
        world = _world(loop)
        story = Story(world)
        with listening(world):
            try:
                violations = loop.run_until_complete(story.violations())
            except Stuck as stuck:
                violations = [Violation("stuck", str(stuck))]
        violations += [Violation("error", error) for error in loop.errors]
    digest = hashlib.sha256("\n".join(world.trace).encode()).hexdigest()[:16]
    deliveries = sum("prev" in frame for reader in story.readers for frame in reader.frames)
    acknowledged = sum(len(publisher.known) for publisher in story.publishers)
    return Result(seed, violations, deliveries, acknowledged, world.trace, digest)


def _world(loop: Loop) -> World:
    chance = loop.chance
    settings = Settings(
        partitions=2,
        heartbeat=chance.choice((1.0, 4.0)),
        drain_window=2.0,
        page_entries=500,
        log_events=chance.choice((5, 15, 1_000)),
        ring_events=chance.choice((3, 8, 100)),
        ring_bytes=chance.choice((600, 4_000_000)),
        replay_events=chance.choice((3, 10, 1_000)),
    )
    return World(loop, settings, ["storm", "vote"][: chance.choice((1, 1, 2))], chance.choice((1, 2, 3)))


class Story:
    """The publishers, the readers and the faults of a run."""

    def __init__(self, world: World) -> None:
        self._world = world
        chance = world.chance
        self.publishers = [Publisher(world, number) for number in range(chance.choice((1, 3)))]
        self.readers = [Reader(world, number) for number in range(chance.choice((2, 5)))]

    async def violations(self) -> list[Violation]:
        world, chance = self._world, self._world.chance
        reading = [asyncio.create_task(reader.run()) for reader in self.readers]
        async with asyncio.TaskGroup() as tasks:
            for publisher in self.publishers:
                tasks.create_task(publisher.run(chance.randint(3, 10)))
            for _ in range(chance.randint(1, 5)):
                tasks.create_task(self._fault())
        for stream in world.streams:  # one that was emptied has something again
            await self.publishers[0].publish(stream, f"last.{stream}")
        world.calm = True
        world.note("calm")
        await self._settle()
        for task in reading:
            if task.done():
                task.result()
        return list(self._judged())

    async def _fault(self) -> None:
        world = self._world
        await asyncio.sleep(world.chance.uniform(0, TROUBLE))
        (fault,) = world.chance.choices([fault for _, fault in FAULTS], [weight for weight, _ in FAULTS])
        world.note(fault.__name__)
        await fault(world)
        world.note(f"{fault.__name__} is over")

    async def _settle(self) -> None:
        """Wait until every reader has the newest event, and what can be healed is."""
        until = self._world.loop.time() + SETTLED
        while self._world.loop.time() < until:
            await asyncio.sleep(1)
            if not any(self._behind()) and not any(self._unhealed()):
                return

    def _behind(self) -> Iterator[str]:
        """The readers who have not all there is."""
        for reader in self.readers:
            if reader.cursor != self._world.head(reader.stream):
                yield f"reader {reader.number} at {reader.cursor}, not {self._world.head(reader.stream)}"

    def _unhealed(self) -> Iterator[str]:
        for loss in self._world.losses.values():
            if loss.is_curable and not self._world.is_back(loss.stored):
                yield f"{loss.stored} is not back, that {[worker.process for worker, _ in loss.holders]} held"

    def _judged(self) -> Iterator[Violation]:
        world = self._world
        for what in self._behind():
            yield Violation("stuck", what)
        for what in self._unhealed():
            yield Violation("unhealed", what)
        for stream in world.streams:
            yield from self._judged_stream(stream)

    def _judged_stream(self, stream: str) -> Iterator[Violation]:
        world = self._world
        yield from self._judged_taken(stream)
        moot = world.unwithdrawn(stream)
        readers = [reader for reader in self.readers if reader.stream == stream]
        logs = [*(reader.shown for reader in readers), *(reader.frames for reader in readers if not reader.lossy)]
        stored = {"entries": [entry for entry in world.entries(stream) if entry["id"] not in moot]}
        # Of what a page was changed to nothing is left that has a name.
        acknowledged = [outcome for outcome in self._acknowledged(stream) if outcome.entry_id]
        yield from judge(acknowledged, [without(moot, log) for log in logs], stored, world.withdrawn(stream) | moot)
        for reader in readers:
            shows = shown(without(moot, reader.shown))
            if shows != (world.page(stream), {entry["id"]: entry for entry in stored["entries"]}):
                yield Violation("state", f"reader {reader.number} shows {shows}")

    def _judged_taken(self, stream: str) -> Iterator[Violation]:
        """What the store took, and has not lost: each key once, each revision once, and all that was acknowledged."""
        taken = self._world.memory.taken(stream)
        keys = Counter(stored.key for stored in taken)
        revisions = Counter((stored.entry_id, stored.rev) for stored in taken)
        for what, count in (*keys.items(), *revisions.items()):
            if count > 1:
                yield Violation("doubled", f"{what} was taken {count} times")
        acknowledged = self._acknowledged(stream)
        for outcome in self._known(stream):
            if outcome not in acknowledged and (stream, outcome.key) not in self._world.losses:
                yield Violation("lost", f"{outcome.key} was acknowledged")

    def _known(self, stream: str) -> list[Outcome]:
        """What was acknowledged."""
        return [outcome for publisher in self.publishers for of, outcome in publisher.known if of == stream]

    def _acknowledged(self, stream: str) -> list[Outcome]:
        """What was acknowledged and not lost.

        A store that was flushed and comes back to what it was before has under a key what the key was first.
        """
        taken = {(stored.key, stored.entry_id) for stored in self._world.memory.taken(stream)}
        return [outcome for outcome in self._known(stream) if (outcome.key, outcome.entry_id) in taken]


def without(moot: set[str], frames: list[Frame]) -> list[Frame]:
    """The frames in their order, as if these entries did not matter."""
    if not moot:
        return frames
    others = []
    for frame in frames:
        if frame["type"] == "snapshot":
            others.append({**frame, "entries": [entry for entry in frame["entries"] if entry["id"] not in moot]})
        elif frame["type"] == "entry.put" and frame["entry"]["id"] in moot:
            others.append({**frame, "type": "moot"})
        else:
            others.append(frame)
    return others


def shown(frames: list[Frame]) -> tuple[Any, dict[str, Frame]]:
    """The page and the entries that a reader shows in the end."""
    page, entries = None, {}
    for frame in frames:
        match frame["type"]:
            case "snapshot":
                page, entries = frame["page"].get("headline"), {entry["id"]: entry for entry in frame["entries"]}
            case "page.put":
                page = frame["page"]["headline"]
            case "entry.put":
                entries[frame["entry"]["id"]] = frame["entry"]
            case "entry.withdraw":
                entries.pop(frame["id"], None)
    return page, entries


@contextmanager
def listening(world: World) -> Iterator[None]:
    """The log of the code goes into the trace; what it calls an error is one."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = f"{running()}: {record.getMessage()}"
            world.note(text)
            if record.levelno >= logging.ERROR:
                world.loop.errors.append(text)

    logger, listener = logging.getLogger("pushserver"), Listener()
    before, logger.propagate = (logger.level, logger.propagate), False
    logger.setLevel(logging.WARNING)
    logger.addHandler(listener)
    try:
        yield
    finally:
        logger.removeHandler(listener)
        logger.level, logger.propagate = before
