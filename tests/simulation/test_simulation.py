"""Some schedules of the simulation, that it is the same each time, and that it finds what it is there to find."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from pushserver.client.subscription import Action, Subscription
from pushserver.errors import Unavailable
from pushserver.live import healing
from pushserver.live.fanout import Fanout
from pushserver.live.hub import Hub
from pushserver.live.resume import Resumption
from pushserver.live.ring import Ring
from pushserver.store.connection import Node
from pushserver.store.log import Log
from pushserver.wire.frames import Frame

from ..support.server import ROOT
from .memory import Memory, id_of
from .run import run

SEEDS = 500
FOUND_WITHIN = 150  # seeds, for what is broken on purpose


def replay(seed: int) -> str:
    return f"python -m tests.simulation --trace {seed}"


@pytest.mark.parametrize(
    "first", [pytest.param(first, marks=() if first == 1 else pytest.mark.full) for first in range(1, SEEDS, 50)]
)
def test_nothing_that_is_promised_breaks_in_a_simulation(first: int) -> None:
    deliveries = 0
    for seed in range(first, first + 50):
        result = run(seed)
        assert result.violations == [], replay(seed)
        deliveries += result.deliveries
    assert deliveries > 1_000


def test_a_seed_makes_the_same_happen_each_time() -> None:
    """In this process and in another one, whose hashes are not the same."""
    hashes = {run(7).hash, run(7).hash}
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-m", "tests.simulation", "--trace", "7"]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        hashes.add(done.stdout.split()[-1])
    assert len(hashes) == 1
    assert run(8).hash not in hashes


# --- what is broken on purpose


def no_check_of_the_event_before(patch: pytest.MonkeyPatch) -> None:
    append = Ring.append

    def broken(ring: Ring, frame: Any) -> None:
        if frame.event.n == ring.n + 1:
            ring.head = frame.event.prev
        append(ring, frame)

    patch.setattr(Ring, "append", broken)


def resume_by_id_alone(patch: pytest.MonkeyPatch) -> None:
    resume = Memory.resume

    def broken(memory: Memory, keys: Any, arguments: Any) -> list[Any]:
        epoch, id, nonce, *rest = arguments
        records = memory._records(keys[0])
        record = records.at(id_of(id)) if records else None
        return resume(memory, keys, [epoch, id, record.fields.get("u", nonce) if record else nonce, *rest])

    patch.setattr(Memory, "resume", broken)


def replay_in_part(patch: pytest.MonkeyPatch) -> None:
    resume = Resumption._replay

    async def broken(*arguments: Any) -> Any:
        resumed, missed = await resume(*arguments)
        return resumed, missed[:-1]

    patch.setattr(Resumption, "_replay", broken)


def forget_the_reset(patch: pytest.MonkeyPatch) -> None:
    restart = Fanout.restart

    def broken(fanout: Fanout, head: Any, n: int, sent: list[Frame]) -> None:
        restart(fanout, head, n, [])

    patch.setattr(Fanout, "restart", broken)


def heal_without_the_key(patch: pytest.MonkeyPatch) -> None:
    async def broken(log: Log, append: Any) -> Any:
        current = await healing._current_rev(log, append)
        return await log.append(append._replace(key="", replaces=current))

    patch.setattr(healing, "_publish", broken)


def give_up_healing_when_the_store_is_away(patch: pytest.MonkeyPatch) -> None:
    whole = healing.heal

    async def broken(*arguments: Any, **options: Any) -> Any:
        try:
            return await whole(*arguments, **options)
        except Unavailable:
            return healing.Healed(0, [], [])

    patch.setattr(healing, "heal", broken)


def heal_only_what_follows_what_is_there(patch: pytest.MonkeyPatch) -> None:
    async def broken(log: Log, append: Any) -> Any:
        return await log.append(append)

    patch.setattr(healing, "_publish", broken)


def never_look_whether_the_log_is_the_same(patch: pytest.MonkeyPatch) -> None:
    async def broken(hub: Hub, streams: Any) -> None:
        pass

    patch.setattr(Hub, "_verify", broken)


def wait_for_a_connection_without_a_limit(patch: pytest.MonkeyPatch) -> None:
    async def broken(node: Node) -> Any:
        connection = node._pool.make_connection()
        await connection.connect()  # type: ignore[no-untyped-call]
        return connection

    patch.setattr(Node, "connect", broken)


def a_client_that_applies_whatever_comes(patch: pytest.MonkeyPatch) -> None:
    def broken(subscription: Subscription, frame: Any, at: float) -> Action:
        subscription.n, subscription.cursor = frame["n"], frame["cursor"]
        return Action.APPLY

    patch.setattr(Subscription, "_take_event", broken)


BROKEN: dict[Callable[[pytest.MonkeyPatch], None], set[str]] = {
    no_check_of_the_event_before: {"order", "state"},
    resume_by_id_alone: {"order", "state"},
    replay_in_part: {"gap"},
    forget_the_reset: {"gap", "order", "repeat", "state"},
    heal_without_the_key: {"doubled"},
    give_up_healing_when_the_store_is_away: {"unhealed"},
    heal_only_what_follows_what_is_there: {"unhealed"},
    never_look_whether_the_log_is_the_same: {"stuck", "unhealed"},
    wait_for_a_connection_without_a_limit: {"stuck"},
    a_client_that_applies_whatever_comes: {"gap", "repeat"},
}  # and what the checker says of it
FOUND_EVERY_TIME = {no_check_of_the_event_before, replay_in_part, a_client_that_applies_whatever_comes}


@pytest.mark.parametrize(
    "broken",
    [pytest.param(broken, marks=() if broken in FOUND_EVERY_TIME else pytest.mark.full) for broken in BROKEN],
    ids=lambda broken: broken.__name__.replace("_", " "),
)
def test_the_simulation_finds(broken: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch)
    for seed in range(1, FOUND_WITHIN):
        found = {violation.promise for violation in run(seed).violations}
        if found & BROKEN[broken]:
            return
    pytest.fail(f"not found within {FOUND_WITHIN} seeds")
