"""What may happen in a run, each for a while that it draws itself."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from .memory import id_of
from .world import World

BEHIND = -10_000  # milliseconds, of a clock that is behind


async def the_store_is_down(world: World) -> None:
    world.server.is_up = False
    world.server.cut()
    await asyncio.sleep(world.chance.uniform(0.05, 8))
    world.server.is_up = True


async def the_store_freezes(world: World) -> None:
    world.server.freeze()
    await asyncio.sleep(world.chance.uniform(0.1, 12))
    world.server.thaw()


async def the_store_is_slow(world: World) -> None:
    before, world.server.delay = world.server.delay, world.chance.choice((0.05, 0.4, 1.5))
    await asyncio.sleep(world.chance.uniform(1, 8))
    world.server.delay = before


async def the_store_is_full(world: World) -> None:
    world.server.is_full = True
    await asyncio.sleep(world.chance.uniform(0.5, 5))
    world.server.is_full = False


async def answers_are_lost(world: World) -> None:
    world.server.lossy = world.chance.choice((0.05, 0.3))
    await asyncio.sleep(world.chance.uniform(1, 10))
    world.server.lossy = 0.0


async def answers_come_twice(world: World) -> None:
    world.server.twice = 0.5
    await asyncio.sleep(world.chance.uniform(1, 10))
    world.server.twice = 0.0


async def connections_to_the_store_are_cut(world: World) -> None:
    for _ in range(world.chance.randint(1, 5)):
        world.server.cut()
        await asyncio.sleep(world.chance.expovariate(3))


async def a_worker_cannot_reach_the_store(world: World) -> None:
    worker = world.any_worker()
    worker.line.is_cut = True
    if world.chance.random() < 0.5:  # else its connections are silent
        world.server.cut(worker.line)
    await asyncio.sleep(world.chance.uniform(0.5, 12))
    worker.line.is_cut = False
    world.server.cut(worker.line)


async def a_worker_freezes(world: World) -> None:
    process = world.any_worker().process
    process.frozen = True
    await asyncio.sleep(world.chance.uniform(0.1, 12))
    process.frozen = False
    world.loop.release()


async def a_worker_is_killed(world: World) -> None:
    worker = world.any_worker()
    world.note(f"{worker.process} is killed")
    worker.kill()
    world.replace(worker)


async def a_worker_is_drained(world: World) -> None:
    worker = world.any_worker()
    world.note(f"{worker.process} is drained")
    world.replace(worker)
    worker.drain()
    await asyncio.sleep(world.settings.drain_window)
    worker.kill()


async def the_store_loses_its_newest_events(world: World) -> None:
    """A failover to a replica that lagged behind.

    Its clock may be 10 s behind, or so that ids are given out again; it may not take writes yet, or be hard to reach.
    """
    saves, memory = world.memory.saves, world.memory
    if not saves:
        return
    for _ in range(world.chance.randrange(len(saves))):
        saves.pop()
    lost = world.lose(lambda: memory.restore(saves[-1]))
    match world.chance.randrange(3):
        case 0:
            world.clock = BEHIND
        case 1:
            memory.next_ids = deque(id_of(stored.cursor.id) for stored in lost)
    if world.chance.random() < 0.5:
        world.server.cut()
    match world.chance.randrange(4):
        case 0:
            await the_store_is_full(world)
        case 1:
            await answers_are_lost(world)


async def the_primary_is_replaced(world: World) -> None:
    """A failover that workers see one by one, each when it looks who is the primary.

    Until all Sentinels tell of it the old primary takes writes, which are lost; nobody can reach it after that.
    """
    saved = world.memory.saved()
    await asyncio.sleep(world.chance.uniform(0.05, 1.5))
    world.memory.saves.clear()
    world.lose(lambda: world.memory.restore(saved))
    lines = [worker.line for worker in world.workers]
    for line in lines:
        line.is_cut = True
        world.server.cut(line)
    for line in world.chance.sample(lines, len(lines)):
        await asyncio.sleep(world.chance.uniform(0, 0.5))
        line.is_cut = False


async def the_log_is_trimmed(world: World) -> None:
    for _ in range(world.chance.randint(1, 8)):
        world.memory.trim(world.key(world.chance.choice(world.streams), "log"), world.chance.randint(1, 4))
        await asyncio.sleep(world.chance.expovariate(2))


async def a_log_is_deleted(world: World) -> None:
    key = world.key(world.chance.choice(world.streams), "log")
    world.lose(lambda: world.memory.keys.pop(key, None))


async def the_store_is_flushed(world: World) -> None:
    world.lose(world.memory.keys.clear)


async def strange_records_are_in_the_log(world: World) -> None:
    for _ in range(world.chance.randint(1, 5)):
        world.memory.xadd(world.key(world.chance.choice(world.streams), "log"), {"what": "x"})
        await asyncio.sleep(world.chance.expovariate(2))


FAULTS: list[tuple[int, Callable[[World], Coroutine[Any, Any, None]]]] = [
    (2, the_store_is_down),
    (2, the_store_freezes),
    (2, the_store_is_slow),
    (1, the_store_is_full),
    (3, answers_are_lost),
    (1, answers_come_twice),
    (2, connections_to_the_store_are_cut),
    (2, a_worker_cannot_reach_the_store),
    (2, a_worker_freezes),
    (2, a_worker_is_killed),
    (1, a_worker_is_drained),
    (6, the_store_loses_its_newest_events),
    (2, the_primary_is_replaced),
    (2, the_log_is_trimmed),
    (1, a_log_is_deleted),
    (1, the_store_is_flushed),
    (1, strange_records_are_in_the_log),
]  # and how often, against each other
