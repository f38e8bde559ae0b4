from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from uuid import UUID

import pytest
import redis.asyncio as aioredis

from pushserver import metrics, model
from pushserver.errors import Conflict, KeyReused
from pushserver.model import Cursor
from pushserver.store.listing import Listing
from pushserver.store.log import Appended, Log, RevisionConflict
from pushserver.store.store import Store

from ..support.logs import execute, log_key, log_on, put, put_page, records, tag_of, withdraw
from ..support.server import entry_append

pytestmark = pytest.mark.anyio

NEVER = "0-0.0000000000000000"  # what the first event of a log names as the one before
NO_NONCE = "0" * 16


def headlines(entries: list[str]) -> list[str]:
    return [json.loads(text)["headline"] for text in entries]


# --- append


async def test_numbers_are_dense_and_each_event_names_the_one_before(
    log: Log, store: aioredis.Redis, stream: str
) -> None:
    answers = [await log.append(put(stream, str(number))) for number in range(1, 6)]
    stored = await records(store, stream)
    assert [answer.n for answer in answers] == [int(record["n"]) for record in stored] == [1, 2, 3, 4, 5]
    assert {record["e"] for record in stored} == {answers[0].cursor.epoch}
    assert [Cursor(record["e"], record["id"], record["u"]) for record in stored] == [a.cursor for a in answers]
    assert [record["p"] for record in stored] == [NEVER, *(f"{record['id']}.{record['u']}" for record in stored[:-1])]
    assert len({record["u"] for record in stored}) == 5


async def test_the_state_moves_with_the_log(log: Log, stream: str) -> None:
    assert await log.snapshot(stream, limit=10) is None
    first = put(stream, "one")
    for append, expected in [
        (first, ["one"]),
        (put(stream, "two"), ["two", "one"]),
        (put(stream, "one, corrected", id=first.entry_id, rev=2, at=first.at), ["two", "one, corrected"]),
        (put_page(stream, 1, "Flood"), ["two", "one, corrected"]),
    ]:
        appended = await log.append(append)
        snapshot = await log.snapshot(stream, limit=10)
        assert snapshot is not None
        assert (snapshot.cursor, snapshot.n) == (appended.cursor, appended.n)
        assert (appended.entry_id, appended.rev) == (append.entry_id, append.rev)
        assert (headlines(snapshot.entries), snapshot.older) == (expected, False)
        if append.type == "page.put":
            assert (snapshot.page["headline"], snapshot.page["rev"]) == ("Flood", 1)
            assert await log.page_of(stream) == snapshot.page


async def test_one_key_stores_one_entry_however_many_send_it_at_once(
    log: Log, store: aioredis.Redis, stream: str
) -> None:
    appends = [put(stream, key="same") for _ in range(20)]
    answers = await asyncio.gather(*map(log.append, appends))
    assert len({answer._replace(replayed=False) for answer in answers}) == 1
    assert sorted(answer.replayed for answer in answers) == [False] + [True] * 19
    (record,) = await records(store, stream)
    assert (record["i"], int(record["n"])) == ("same b0d7", answers[0].n)
    snapshot = await log.snapshot(stream, limit=100)
    assert snapshot is not None
    assert [json.loads(text)["id"] for text in snapshot.entries] == [answers[0].entry_id]
    assert 0 < await execute(store, "TTL", f"{tag_of(stream)}:{stream}:idem:same") <= 60


async def test_a_key_answers_as_it_first_did_after_others_have_published(log: Log, stream: str) -> None:
    first = await log.append(put(stream, key="first"))
    await log.append(put(stream, "two"))
    assert await log.append(put(stream, key="first")) == first._replace(replayed=True)


async def test_a_key_that_comes_with_another_body_is_refused(log: Log, store: aioredis.Redis, stream: str) -> None:
    await log.append(put(stream, key="same", body_hash="aa"))
    with pytest.raises(KeyReused) as refused:
        await log.append(put(stream, "other", key="same", body_hash="bb"))
    assert [(fault.field, fault.got) for fault in refused.value.faults] == [("Idempotency-Key", "same")]
    assert len(await records(store, stream)) == 1


async def test_each_attempt_is_counted_by_its_outcome(log: Log, stream: str) -> None:
    before = {**metrics.PUBLISHED.counts}
    await log.append(put(stream, id="entry", key="same"))
    await log.append(put(stream, id="entry", key="same"))
    assert await log.first_answer(stream, "same", "b0d7")
    for refused in (put(stream, "other", key="same", body_hash="aa"), put(stream, id="entry", rev=3)):
        with pytest.raises((KeyReused, RevisionConflict)):
            await log.append(refused)
    with pytest.raises(KeyReused):
        await log.first_answer(stream, "same", "aa")
    assert await log.first_answer(stream, "another", "aa") is None
    counted = {outcome: count - before[outcome,] for (outcome,), count in metrics.PUBLISHED.counts.items()}
    assert counted == {**dict.fromkeys(counted, 0), "stored": 1, "replayed": 2, "reused": 2, "rev": 1}


async def test_a_key_belongs_to_its_stream(log: Log, stream: str) -> None:
    answers = [await log.append(put(name, key="same")) for name in (stream, f"{stream}-b")]
    assert [(answer.n, answer.replayed) for answer in answers] == [(1, False), (1, False)]


@pytest.mark.parametrize("rev", [1, 2, 4])
async def test_a_revision_that_is_not_the_next_one_stores_nothing(
    log: Log, store: aioredis.Redis, stream: str, rev: int
) -> None:
    for number in (1, 2):
        await log.append(put(stream, f"rev {number}", id="entry", rev=number))
        await log.append(put_page(stream, number))
    before = await records(store, stream), await log.snapshot(stream, limit=10)
    for append in (put(stream, "stale", id="entry", rev=rev, key="stale"), put_page(stream, rev)):
        with pytest.raises(RevisionConflict):
            await log.append(append)
    assert (await records(store, stream), await log.snapshot(stream, limit=10)) == before
    assert not (await log.append(put(stream, "next", id="entry", rev=3, key="stale"))).replayed


async def test_a_correction_of_what_does_not_exist_stores_nothing(log: Log, stream: str) -> None:
    with pytest.raises(RevisionConflict):
        await log.append(put(stream, rev=2))
    assert await log.snapshot(stream, limit=10) is None


async def test_a_full_stream_takes_no_new_entry_and_still_takes_corrections(store_url: str, stream: str) -> None:
    async with log_on(store_url, entry_limit=3) as log:
        for number in range(3):
            await log.append(put(stream, id=f"entry{number}"))
        with pytest.raises(Conflict) as refused:
            await log.append(put(stream))
        assert refused.value.faults[0].got == "3"
        assert (await log.append(put(stream, "corrected", id="entry0", rev=2))).n == 4
        assert (await log.append(put_page(stream, 1))).n == 5


async def test_a_deleted_log_begins_anew_with_another_epoch(log: Log, store: aioredis.Redis, stream: str) -> None:
    old = [await log.append(put(stream)) for _ in range(3)][-1]
    await store.delete(log_key(stream))
    new = await log.append(put(stream))
    assert (new.n, new.cursor.epoch != old.cursor.epoch) == (1, True)
    assert [record["p"] for record in await records(store, stream)] == [NEVER]


async def test_a_log_whose_newest_event_was_deleted_begins_anew_with_another_epoch(
    log: Log, store: aioredis.Redis, stream: str
) -> None:
    first, second = await log.append(put(stream)), await log.append(put(stream, "two"))
    await store.xdel(log_key(stream), second.cursor.id)
    third = await log.append(put(stream, "three"))
    fourth = await log.append(put(stream, "four"))
    assert third.cursor.epoch not in (first.cursor.epoch, ""), "who had only the first would never hear of the second"
    assert (third.n, fourth.n, fourth.cursor.epoch) == (1, 2, third.cursor.epoch)
    assert (await log.resume(stream, first.cursor, limit=10, limit_bytes=10**6)).reason == "epoch"
    snapshot = await log.snapshot(stream, limit=10)
    assert snapshot is not None
    assert len(snapshot.entries) == 4


async def test_an_event_deleted_from_the_middle_of_a_log_leaves_its_epoch(
    log: Log, store: aioredis.Redis, stream: str
) -> None:
    first, _, third = [await log.append(put(stream, name)) for name in ("one", "two", "three")]
    await store.xdel(log_key(stream), first.cursor.id)
    assert (await log.append(put(stream, "four"))).cursor.epoch == third.cursor.epoch


async def test_every_key_of_a_stream_has_its_partitions_hash_tag(log: Log, store: aioredis.Redis, stream: str) -> None:
    await log.append(put(stream, key="key"))
    await log.append(put_page(stream, 1))
    names = {name.decode() async for name in store.scan_iter(match=f"*:{stream}:*", count=1_000)}
    expected = {f"{tag_of(stream)}:{stream}:{name}" for name in ("log", "entries", "order", "page", "idem:key")}
    assert names == expected
    assert await execute(store, "ZSCORE", f"{tag_of(stream)}:streams", stream) is not None


# --- snapshot


async def test_a_snapshot_has_one_entry_alone_if_that_is_published(log: Log, stream: str) -> None:
    for id in ("one", "two"):
        await log.append(put(stream, f"Headline of {id}", id=id))
    snapshot = await log.snapshot(stream, limit=100, entry="one")
    assert snapshot
    assert [json.loads(entry)["id"] for entry in snapshot.entries] == ["one"]
    assert (snapshot.n, snapshot.older) == (2, False)
    await log.append(withdraw(stream, "one", 5))
    for id in ("one", "none"):
        after = await log.snapshot(stream, limit=100, entry=id)
        assert after
        assert after.entries == []
    assert await log.snapshot(f"{stream}-none", limit=100, entry="one") is None


async def test_a_snapshot_is_one_instant(log: Log, stream: str) -> None:
    rev = 0
    published = asyncio.Event()

    async def publish(number: int) -> None:
        nonlocal rev
        if number % 5 == 0:
            rev += 1
            await log.append(put_page(stream, rev))
        else:
            await log.append(put(stream, str(number)))

    async def publish_all() -> None:
        for number in range(300):
            await publish(number)
        published.set()

    await publish(0)
    seen = set()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(publish_all())
        while not published.is_set():
            for snapshot in await asyncio.gather(*(log.snapshot(stream, limit=500) for _ in range(4))):
                assert snapshot is not None
                assert len(snapshot.entries) == snapshot.n - snapshot.page["rev"]
                newest = await log.resume(stream, snapshot.cursor, limit=1_000, limit_bytes=10**6)
                assert (newest.reason, newest.n) == (None, snapshot.n)
                seen.add(snapshot.n)
    assert len(seen) > 20, "hardly anything was published between two snapshots"


async def test_paging_goes_through_entries_of_the_same_instant_once_and_in_order(log: Log, stream: str) -> None:
    instants = ["1965-07-11T15:53:00Z", "2023-07-11T15:53:00Z", "2023-07-11T15:53:00.001Z"]
    for number in range(33):
        flags = {"pinned": True} if number % 11 == 10 else {}
        await log.append(put(stream, str(number), published_at=instants[number % 3], flags=flags))
    whole = await log.snapshot(stream, limit=33)
    assert whole is not None
    entries = [json.loads(text) for text in whole.entries]
    order = [(model.order_of(entry), entry["id"]) for entry in entries]
    assert (len(set(order)), order, whole.older) == (33, sorted(order, reverse=True), False)
    for limit in (1, 4, 11, 32):
        paged: list[str] = []
        after: tuple[int, str] | None = None
        older = True
        while older:
            page = await log.snapshot(stream, limit=limit, after=after)
            assert page is not None
            assert 0 < len(page.entries) <= limit
            paged, older = paged + page.entries, page.older
            last = json.loads(paged[-1])
            after = (model.order_of(last), last["id"])
        assert paged == whole.entries
        end = await log.snapshot(stream, limit=limit, after=after)
        assert end is not None
        assert (end.entries, end.older) == ([], False)


async def test_streams_come_newest_first(log: Log, stream: str) -> None:
    names = [f"{stream}-{name}" for name in "abc"]
    at = model.now()
    for name, later in zip((*names, names[0]), (1, 2, 3, 4), strict=True):
        await log.append(put(name, at=at + later))
    assert [name for name, _ in await Listing(log).streams() if name in names] == [names[0], names[2], names[1]]


async def test_a_stream_that_is_deleted_while_the_list_is_read_is_left_out(log: Log, stream: str) -> None:
    names = [f"{stream}-{name}" for name in "ab"]
    for name in names:
        await log.append(put(name))
    node = await log.store.node(log.tag(names[0]))
    await node.redis.delete(log.key(names[0], "page"))  # as after the read of the names
    listed = [name for name, _ in await Listing(log).streams()]
    assert (names[0] in listed, names[1] in listed) == (False, True)


async def test_withdrawals_come_newest_first_and_only_as_many_as_are_asked_for(log: Log, stream: str) -> None:
    at = model.now()
    for id, later in (("b", 1), ("c", 2), ("a", 3)):
        await log.append(put(stream, id=id, at=at))
        await log.append(withdraw(stream, id, at + later))
    for most in range(5):
        snapshot = await log.snapshot(stream, limit=1, withdrawals=most)
        assert snapshot is not None
        assert [withdrawal["id"] for withdrawal in snapshot.withdrawals] == ["a", "c", "b"][:most]


async def test_the_coverage_began_with_the_oldest_instant_that_was_ever_shown(log: Log, stream: str) -> None:
    noon, earlier = "2023-07-11T12:00:00.000Z", "2023-07-11T11:00:00.000Z"
    for append, began_at in [
        (put(stream, id="a", published_at=noon), noon),
        (put(stream, published_at=earlier), earlier),
        (put(stream), earlier),
        (withdraw(stream, "a", model.now()), earlier),
    ]:
        await log.append(append)
        snapshot = await log.snapshot(stream, limit=1)
        assert snapshot is not None
        assert snapshot.began_at == began_at


# --- resume


async def test_each_cursor_is_answered_with_what_came_after_it(log: Log, stream: str) -> None:
    answers = [await log.append(put(stream, str(number))) for number in range(1, 7)]
    for answer in answers:
        resumed = await log.resume(stream, answer.cursor, limit=100, limit_bytes=10**6)
        assert (resumed.reason, resumed.n) == (None, answer.n)
        assert [event.n for event in resumed.events] == list(range(answer.n + 1, 7))
        assert [event.cursor for event in resumed.events] == [later.cursor for later in answers[answer.n :]]
        assert [event.prev for event in resumed.events] == [before.cursor for before in answers[answer.n - 1 : -1]]
        assert [json.loads(event.data)["entry"]["headline"] for event in resumed.events] == [
            str(event.n) for event in resumed.events
        ]


def newer_than(cursor: Cursor) -> str:
    ms, _, seq = cursor.id.partition("-")
    return f"{ms}-{int(seq) + 1}"


@pytest.mark.parametrize(
    ("n", "change", "limit", "expected"),
    [
        (6, {}, 100, (None, 6, [])),
        (5, {}, 100, (None, 5, [6])),
        (4, {}, 100, (None, 4, [5, 6])),
        (3, {}, 100, (None, 3, [4, 5, 6])),  # trimmed itself, and the next event still names it
        (3, {"nonce": NO_NONCE}, 100, ("trimmed", 0, [])),
        (2, {}, 100, ("trimmed", 0, [])),
        (1, {}, 100, ("trimmed", 0, [])),
        (1, {"id": "0-0"}, 100, ("trimmed", 0, [])),
        (5, {"nonce": NO_NONCE}, 100, ("rollback", 0, [])),
        (6, {"nonce": NO_NONCE}, 100, ("rollback", 0, [])),
        (6, {"id": "99999999999999-0"}, 100, ("rollback", 0, [])),
        (6, {"id": newer_than}, 100, ("rollback", 0, [])),
        (4, {"id": newer_than}, 100, ("rollback", 0, [])),  # between two events that are there
        (6, {"epoch": "0" * 16}, 100, ("epoch", 0, [])),
        (1, {"epoch": "0" * 16}, 100, ("epoch", 0, [])),
        (4, {}, 2, (None, 4, [5, 6])),
        (3, {}, 2, ("too_far", 0, [])),
        (4, {}, 1, ("too_far", 0, [])),
        (6, {}, 1, (None, 6, [])),
    ],
)
async def test_the_verdict_on_a_cursor(
    log: Log,
    store: aioredis.Redis,
    stream: str,
    n: int,
    change: dict[str, str | Callable[[Cursor], str]],
    limit: int,
    expected: tuple[str | None, int, list[int]],
) -> None:
    answers: list[Appended] = []
    for number in range(1, 7):
        answers.append(await log.append(put(stream, str(number))))
    await execute(store, "XTRIM", log_key(stream), "MAXLEN", 3)
    cursor = answers[n - 1].cursor
    changed = {name: value if isinstance(value, str) else value(cursor) for name, value in change.items()}
    resumed = await log.resume(stream, cursor._replace(**changed), limit=limit, limit_bytes=10**6)
    assert (resumed.reason, resumed.n, [event.n for event in resumed.events]) == expected


async def test_more_bytes_than_are_replayed_are_too_far(log: Log, stream: str) -> None:
    first = await log.append(entry_append(stream, "one"))
    for number in range(3):
        await log.append(entry_append(stream, str(number), body="x" * 1_000))
    assert (await log.resume(stream, first.cursor, limit=10, limit_bytes=4_800)).reason is None
    assert (await log.resume(stream, first.cursor, limit=10, limit_bytes=3_500)).reason == "too_far"


async def test_nothing_resumes_from_a_log_that_is_empty(log: Log, store: aioredis.Redis, stream: str) -> None:
    cursor = (await log.append(put(stream))).cursor
    assert (await log.resume(f"{stream}-never", cursor, limit=10, limit_bytes=10**6)).reason == "empty"
    await execute(store, "XTRIM", log_key(stream), "MAXLEN", 0)
    assert (await log.resume(stream, cursor, limit=10, limit_bytes=10**6)).reason == "empty"
    await store.delete(log_key(stream))
    assert (await log.resume(stream, cursor, limit=10, limit_bytes=10**6)).reason == "empty"


async def test_the_beginning_of_a_log_is_a_cursor_while_its_first_event_is_held(
    log: Log, store: aioredis.Redis, stream: str
) -> None:
    epoch = (await log.append(put(stream))).cursor.epoch
    await log.append(put(stream))
    beginning = Cursor(epoch, "0-0", NO_NONCE)
    resumed = await log.resume(stream, beginning, limit=10, limit_bytes=10**6)
    assert (resumed.reason, resumed.n, [event.n for event in resumed.events]) == (None, 0, [1, 2])
    await execute(store, "XTRIM", log_key(stream), "MAXLEN", 1)
    assert (await log.resume(stream, beginning, limit=10, limit_bytes=10**6)).reason == "trimmed"


async def test_a_log_with_an_event_missing_in_its_middle_is_replayed_to_nobody(
    log: Log, store: aioredis.Redis, stream: str
) -> None:
    """Replayed, it would send a reader back with the same cursor for ever."""
    cursors = [(await log.append(put(stream))).cursor for _ in range(4)]
    await execute(store, "XDEL", log_key(stream), cursors[2].id)
    reasons = [(await log.resume(stream, cursor, limit=10, limit_bytes=10**6)).reason for cursor in cursors]
    assert reasons == ["rollback", "rollback", None, None]  # the third's own absence costs its reader nothing
    part = await log.resume(stream, cursors[1], limit=1, limit_bytes=1, in_part=True)
    assert part.reason == "rollback"


# --- the id of a stream's feeds


def log_at(store: Store, public_url: str) -> Log:
    return Log(store, log_events=1_000, entry_limit=500, idempotency=60, public_url=public_url)


async def before(log: Log, store: aioredis.Redis, stream: str) -> None:
    """A stream as the version before stored it."""
    await log.append(put(stream))
    await execute(store, "HDEL", f"{tag_of(stream)}:{stream}:page", "feed_id")


async def feed_id_of(log: Log, stream: str) -> str | None:
    snapshot = await log.snapshot(stream, limit=1)
    assert snapshot
    return snapshot.feed_id


async def test_a_new_stream_has_an_id_that_never_changes(log_store: Store, stream: str) -> None:
    await log_at(log_store, "https://news.example").append(put(stream))
    log = log_at(log_store, "https://other.example")
    id = await feed_id_of(log, stream)
    assert id == UUID(id or "").urn
    await log.append(put(stream))
    assert {await feed_id_of(log, stream), await log.feed_id(stream)} == {id}
    assert await log.name_feed(stream, "urn:uuid:other") == (id, False)


async def test_a_stream_of_before_keeps_the_id_that_its_public_address_gave_it(
    log_store: Store, store: aioredis.Redis, stream: str
) -> None:
    log = log_at(log_store, "https://news.example")
    await before(log, store, stream)
    await log.append(put(stream))  # its feed has not been read yet
    assert await feed_id_of(log, stream) is None
    for public_url in ("https://news.example", "https://other.example", ""):
        assert await log_at(log_store, public_url).feed_id(stream) == f"https://news.example/streams/{stream}"


async def test_a_stream_of_before_without_a_public_address_gets_one_id_whoever_asks_first(
    log: Log, store: aioredis.Redis, stream: str
) -> None:
    await before(log, store, stream)
    ids = set(await asyncio.gather(*(log.feed_id(stream) for _ in range(10))))
    assert ids == {await feed_id_of(log, stream)}
