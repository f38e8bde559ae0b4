"""The store has who made each revision: beside the event, and as rows of the entry, the newest fifty."""

from __future__ import annotations

import pytest
import redis.asyncio as aioredis

from pushserver import model
from pushserver.content import changes, history
from pushserver.errors import Deleted
from pushserver.model import Author
from pushserver.store.deletion import Deletions
from pushserver.store.erasure import Erasures
from pushserver.store.history import Histories
from pushserver.store.log import Log

from ..support.logs import log_key, put, records, withdraw

pytestmark = pytest.mark.anyio

DESK, OTHER = Author("0123456789ab", "desk"), Author("ba9876543210", "other")


async def actions(log: Log, stream: str, id: str) -> list[tuple[int, str, str]]:
    rows = (await Histories(log).of(stream, [id])).get(id)
    return [(revision.rev, revision.author.name, revision.action) for revision in history.revisions(rows)]


async def test_each_change_leaves_a_row_and_the_newest_fifty_stay(log: Log, stream: str) -> None:
    by = [history.by(DESK, "publish"), *(history.by(OTHER, "correct", ["headline"]) for _ in range(54))]
    id = ""
    for rev, made in enumerate(by, 1):
        id = (await log.append(put(stream, str(rev), id=id, rev=rev)._replace(by=made))).entry_id
        assert len(await actions(log, stream, id)) == min(rev, 50)
    assert await actions(log, stream, id) == [(rev, "other", "correct") for rev in range(6, 56)]


async def test_an_event_has_its_maker_and_is_healed_with_it(log: Log, store: aioredis.Redis, stream: str) -> None:
    first = await log.append(put(stream)._replace(by=history.by(DESK, "publish")))
    (event,) = (await log.resume(stream, model.Cursor.beginning(first.cursor.epoch), limit=1, limit_bytes=10**6)).events
    assert event.by == history.by(DESK, "publish") == (await records(store, stream))[0]["b"]
    await store.delete(*[log_key(stream, name) for name in ("log", "entries", "order", "history")])
    await log.append(changes.publish_again(stream, event))
    assert await actions(log, stream, first.entry_id) == [(1, "desk", "publish")]


async def test_an_event_without_a_maker_leaves_no_row(log: Log, store: aioredis.Redis, stream: str) -> None:
    """As one of an earlier version that is healed."""
    await log.append(put(stream))
    assert not await store.exists(log_key(stream, "history"))
    assert "b" not in (await records(store, stream))[0]


async def test_a_history_comes_before_what_is_known_and_only_once(log: Log, stream: str) -> None:
    id = (await log.append(put(stream)._replace(by=history.by(OTHER, "restore")))).entry_id
    rows = [f"{rev} {rev} {history.by(DESK, 'correct')}" for rev in (1, 2)]
    histories = Histories(log)
    assert await histories.restore(stream, id, rows)
    assert not await histories.restore(stream, id, rows)
    assert await actions(log, stream, id) == [(1, "desk", "correct"), (2, "desk", "correct"), (1, "other", "restore")]
    await Deletions(log).delete(stream)
    with pytest.raises(Deleted):
        await histories.restore(stream, id, rows)


async def test_an_erasure_is_in_the_history(log: Log, stream: str) -> None:
    id = (await log.append(put(stream)._replace(by=history.by(DESK, "publish")))).entry_id
    await log.append(withdraw(stream, id, 2)._replace(by=history.by(DESK, "withdraw")))
    await Erasures(log).erase(stream, id, history.by(OTHER, "erase"))
    assert await actions(log, stream, id) == [(1, "desk", "publish"), (2, "desk", "withdraw"), (2, "other", "erase")]
