"""The cache makes each surface once per event, keeps within its bounds, and loses what is withdrawn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from pushserver.errors import NotFound, Unavailable
from pushserver.live.hub import Hub
from pushserver.model import Deletion
from pushserver.page.masthead import Masthead
from pushserver.page.render import NOWHERE
from pushserver.page.site import Site
from pushserver.store.deletion import Deletions
from pushserver.store.log import Head, Log, Snapshot
from pushserver.store.store import StoreError
from pushserver.surfaces import heads, turns
from pushserver.surfaces.cache import EXCERPTS_SHARE, SurfaceCache
from pushserver.surfaces.codings import ContentCoding
from pushserver.surfaces.shelf import Copy, CopyKey
from pushserver.surfaces.surface import NEWEST, Surface
from pushserver.surfaces.turns import MAKING, WAITING

from ..support.hubs import running
from ..support.server import LIMIT, entry_append, withdrawal_append

pytestmark = pytest.mark.anyio

IDENTITY, GZIP = ContentCoding.IDENTITY, ContentCoding.GZIP


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store of a busy machine has as long as it needs."""
    monkeypatch.setattr(heads, "LIMIT", LIMIT)


@pytest.fixture
async def hub(log: Log) -> AsyncIterator[Hub]:
    async with running(log) as hub:
        yield hub


class CountedLog(Log):
    """A log that counts the snapshots that are read of it."""

    def __init__(self, log: Log) -> None:
        self.__dict__ |= log.__dict__
        self.snapshots = 0

    async def snapshot(self, *arguments: Any, **options: Any) -> Snapshot | None:
        self.snapshots += 1
        return await super().snapshot(*arguments, **options)


def cache_of(log: Log, hub: Hub, limit_bytes: int = 2**20, **options: Any) -> SurfaceCache:
    defaults: dict[str, Any] = {"page_entries": 100, "stale_pages": 300, "site": NOWHERE, "version": "1"}
    return SurfaceCache(log, hub, limit_bytes=limit_bytes, **defaults | options)


async def read(cache: SurfaceCache, stream: str, surface: Surface = Surface.PAGE) -> str:
    return (await cache.read(stream, surface, IDENTITY)).body.decode()


async def test_a_surface_is_made_once_however_many_ask_for_it(log: Log, hub: Hub, stream: str) -> None:
    counted = CountedLog(log)
    cache = cache_of(counted, hub)
    for number in range(1, 4):
        await log.append(entry_append(stream, f"Headline {number}"))
        copies: list[Copy] = await asyncio.gather(*(cache.read(stream, Surface.PAGE, GZIP) for _ in range(100)))
        assert len({id(copy) for copy in copies}) == 1
        assert copies[0].head.n == number
        assert counted.snapshots == number
    for surface in NEWEST:
        await read(cache, stream, surface)
    assert counted.snapshots == 3


async def test_bytes_of_another_address_name_build_or_version_have_another_tag(log: Log, hub: Hub, stream: str) -> None:
    await log.append(entry_append(stream, "One"))
    named = Masthead(name="The Courier")
    sites = [Site(), Site(public_url="https://news.example"), Site(build="b2"), Site(masthead=named)]
    caches = [*(cache_of(log, hub, site=site) for site in sites), cache_of(log, hub, version="2")]
    for surface in NEWEST:
        copies = [await cache.read(stream, surface, IDENTITY) for cache in caches]
        assert len({copy.etag for copy in copies}) == len(caches)


async def test_the_least_recently_read_stream_makes_room(log: Log, hub: Hub, stream: str) -> None:
    cache = cache_of(log, hub, limit_bytes=100_000)
    names = [f"{stream}-{number}" for number in range(8)]
    for name in names:
        await log.append(entry_append(name, "One", body="words " * 1_000))
    for _ in range(2):
        for name in names:
            assert "One" in await read(cache, name)
            assert cache.size <= 100_000
    assert cache.size > 20_000


async def test_a_name_that_is_no_stream_takes_no_room(log: Log, hub: Hub, stream: str) -> None:
    cache = cache_of(log, hub)
    for number in range(50):
        with pytest.raises(NotFound):
            await read(cache, f"{stream}-{number}")
    assert cache.size == 0


async def test_what_is_withdrawn_leaves_the_cache_also_after_its_stream_was_given_up(
    log: Log, hub: Hub, stream: str
) -> None:
    cache = cache_of(log, hub)
    await log.append(entry_append(stream, "Withdrawn", id="one"))
    await log.append(entry_append(stream, "Stays"))
    assert "Withdrawn" in await read(cache, stream)
    hub._give_up(hub._streams[stream], "as after a pass that fails")
    assert "Withdrawn" in await read(cache, stream)
    size = cache.size
    await log.append(withdrawal_append(stream, "one"))
    async with asyncio.timeout(30):
        while cache.size >= size:
            await asyncio.sleep(0.01)
    assert "Withdrawn" not in await read(cache, stream)


async def test_a_withdrawal_takes_the_pieces_of_its_entry_and_leaves_the_others(
    log: Log, hub: Hub, stream: str
) -> None:
    cache = cache_of(log, hub)
    await log.append(entry_append(stream, "Withdrawn", id="one"))
    await log.append(entry_append(stream, "Names the other", id="two", body='<a href="https://a.example">"one"</a>'))
    await log.append(entry_append(stream, "Stays", id="three"))
    await read(cache, stream)
    shelf = cache._shelves[stream]
    pieces = dict(shelf.pieces._pieces)
    await log.append(withdrawal_append(stream, "one"))
    async with asyncio.timeout(30):
        while not shelf.cleared:
            await asyncio.sleep(0.01)
    assert [entry for entry in shelf.pieces._pieces if b"Withdrawn" in entry] == []
    assert "Withdrawn" not in await read(cache, stream)
    assert sum(pieces.get(entry) is piece for entry, piece in shelf.pieces._pieces.items()) >= 1
    shelf.clear()
    assert (shelf.size, shelf.pieces._pieces) == (0, {})


async def test_a_read_soon_is_a_read_of_bytes_that_are_there(log: Log, hub: Hub, stream: str) -> None:
    """It is refused where the stream was not read yet."""
    cache = cache_of(log, hub)
    await log.append(entry_append(stream, "One"))
    copies: asyncio.Queue[Copy | None] = asyncio.Queue()
    assert not cache.read_soon(stream, Surface.PAGE, IDENTITY, copies.put_nowait)
    copy = await cache.read(stream, Surface.PAGE, IDENTITY)
    assert cache.read_soon(stream, Surface.PAGE, IDENTITY, copies.put_nowait)
    assert await copies.get() is copy


@pytest.mark.parametrize("surface", [Surface.ATOM, Surface.PAGE])
async def test_reads_soon_share_what_one_makes(log: Log, hub: Hub, stream: str, surface: Surface) -> None:
    counted = CountedLog(log)
    cache = cache_of(counted, hub)
    await log.append(entry_append(stream, "One"))
    await read(cache, stream)
    copies: asyncio.Queue[Copy | None] = asyncio.Queue()
    await log.append(entry_append(stream, "Two"))
    for _ in range(20):
        assert cache.read_soon(stream, surface, GZIP, copies.put_nowait)
    first, *others = [await copies.get() for _ in range(20)]
    assert first
    assert (first.head.n, counted.snapshots) == (2, 2)
    assert all(copy is first for copy in others)


async def test_a_read_soon_leaves_to_the_read_what_it_cannot_answer(log: Log, hub: Hub, stream: str) -> None:
    cache = cache_of(log, hub)
    copies: asyncio.Queue[Copy | None] = asyncio.Queue()

    async def answered() -> Copy | None:
        assert cache.read_soon(stream, Surface.PAGE, GZIP, copies.put_nowait)
        return await copies.get()

    await log.append(entry_append(stream, "One"))
    await read(cache, stream)
    await log.append(entry_append(stream, "Two"))
    cache._turns.queued = MAKING + WAITING
    assert await answered() is None  # as many pages are being made as may wait
    cache._turns.queued = 0
    shelf = cache._shelves[stream]
    former = await cache.read(stream, Surface.PAGE, GZIP)
    await log.append(entry_append(stream, "Three"))
    shelf.making[CopyKey(Surface.PAGE, GZIP)] = asyncio.create_task(asyncio.sleep(0, former))
    assert await answered() is None  # what is being made is of the event before
    await Deletions(log).delete(stream)
    assert await answered() is None


async def test_a_read_is_not_answered_with_what_a_reader_of_an_older_event_began(
    log: Log, hub: Hub, stream: str
) -> None:
    cache, key = cache_of(log, hub), CopyKey(Surface.PAGE, GZIP)
    await log.append(entry_append(stream, "One"))
    former = await cache.read(stream, Surface.PAGE, GZIP)
    await log.append(entry_append(stream, "Two"))
    await cache.read(stream, Surface.ENTRIES, GZIP)  # the shelf is of the second event, and has no page of it
    shelf = cache._shelves[stream]
    (second,) = await log.heads([stream])
    await log.append(entry_append(stream, "Three"))
    (third,) = await log.heads([stream])
    assert isinstance(second, Head)
    assert isinstance(third, Head)
    shelf.making[key] = making = asyncio.create_task(asyncio.sleep(0, former))
    making.add_done_callback(lambda _: cache._begin(shelf, key, second))  # before the read goes on
    reading = asyncio.create_task(cache._await_copy(shelf, key, third))
    assert (await reading).head == third


async def test_an_entrys_page_is_made_once_however_many_ask_for_it(log: Log, hub: Hub, stream: str) -> None:
    counted = CountedLog(log)
    cache = cache_of(counted, hub)
    for number in range(1, 4):
        await log.append(entry_append(stream, f"Headline {number}", id="one", rev=number))
        copies: list[Copy] = await asyncio.gather(*(cache.read(stream, Surface.ENTRY, GZIP, "one") for _ in range(100)))
        assert len({id(copy) for copy in copies}) == 1
        assert (copies[0].head.n, counted.snapshots) == (number, number)
        assert f"Headline {number}" in (await cache.read(stream, Surface.ENTRY, IDENTITY, "one")).body.decode()
        counted.snapshots -= 1


async def test_the_tag_of_an_entrys_page_stays_while_other_entries_change(log: Log, hub: Hub, stream: str) -> None:
    cache = cache_of(log, hub)

    async def tag() -> str:
        return (await cache.read(stream, Surface.ENTRY, GZIP, "one")).etag

    await log.append(entry_append(stream, "One", id="one"))
    first = await tag()
    await log.append(entry_append(stream, "Two", id="two"))
    assert await tag() == first
    await log.append(entry_append(stream, "Corrected", id="one", rev=2))
    assert await tag() != first


@pytest.mark.parametrize("id", ["none", "withdrawn"])
async def test_an_entry_that_is_not_published_takes_no_room(log: Log, hub: Hub, stream: str, id: str) -> None:
    cache = cache_of(log, hub)
    await log.append(entry_append(stream, "Withdrawn", id="withdrawn"))
    await log.append(withdrawal_append(stream, "withdrawn"))
    with pytest.raises(NotFound):
        await cache.read(stream, Surface.ENTRY, GZIP, id)
    assert (cache.size, cache._shelves[stream].making) == (0, {})


async def test_excerpts_take_their_part_of_the_room(log: Log, hub: Hub, stream: str) -> None:
    """However many are asked for, the page of their stream stays."""
    cache = cache_of(log, hub, limit_bytes=800_000)
    for number in range(40):
        await log.append(entry_append(stream, "One", body="words " * 1_000, id=f"entry-{number}"))
    page = await cache.read(stream, Surface.PAGE, GZIP)
    size = cache.size
    for number in range(40):
        copy = await cache.read(stream, Surface.ENTRY, IDENTITY, f"entry-{number}")
        assert len(copy.body) > 6_000
        assert cache.size <= size + 800_000 // EXCERPTS_SHARE
    assert cache.size > size + 30_000
    assert await cache.read(stream, Surface.PAGE, GZIP) is page


async def test_excerpts_that_wait_to_be_made_do_not_keep_the_page_waiting(log: Log, hub: Hub, stream: str) -> None:
    cache = cache_of(log, hub)
    await log.append(entry_append(stream, "One", id="one"))
    cache._excerpt_turns.queued = MAKING + WAITING
    with pytest.raises(Unavailable):
        await cache.read(stream, Surface.ENTRY, GZIP, "one")
    assert "One" in await read(cache, stream)


async def test_a_slice_is_made_once_for_each_event(log: Log, hub: Hub, stream: str) -> None:
    counted = CountedLog(log)
    cache = cache_of(counted, hub)
    for number in range(1, 3):
        await log.append(entry_append(stream, f"Headline {number}"))
        for surface in (Surface.PAGE, Surface.ENTRIES):
            copies = [await cache.read(stream, surface, IDENTITY, "9007199254740991.z") for _ in range(3)]
            assert all(copy is copies[0] for copy in copies)
            assert f"Headline {number}" in copies[0].body.decode()
    assert counted.snapshots == 4


async def test_an_excerpt_whose_entry_is_withdrawn_while_it_is_made_is_made_again(
    log: Log, hub: Hub, stream: str
) -> None:
    class Late(CountedLog):
        async def snapshot(self, *arguments: Any, **options: Any) -> Snapshot | None:
            snapshot = await super().snapshot(*arguments, **options)
            if self.snapshots == 1:  # the withdrawal comes between the read and the page
                await log.append(withdrawal_append(stream, "one"))
                async with asyncio.timeout(30):
                    while not cache._shelves[stream].cleared:
                        await asyncio.sleep(0.01)
            return snapshot

    cache = cache_of(Late(log), hub)
    await log.append(entry_append(stream, "Withdrawn", id="one"))
    with pytest.raises(NotFound):
        await cache.read(stream, Surface.ENTRY, IDENTITY, "one")
    assert cache.size == 0


async def test_a_slice_reuses_the_pieces_of_the_one_before_but_of_what_was_withdrawn(
    log: Log, hub: Hub, stream: str
) -> None:
    cache = cache_of(log, hub)
    for number in range(3):
        await log.append(entry_append(stream, f"Headline {number}", id=f"entry-{number}"))
    await cache.read(stream, Surface.PAGE, IDENTITY, "9007199254740991.z")
    shelf = cache._shelves[stream]
    former = set(shelf.older._pieces.values())
    assert len(former) == 3
    await log.append(withdrawal_append(stream, "entry-1"))
    copy = await cache.read(stream, Surface.PAGE, IDENTITY, "9007199254740991.y")
    assert "Headline 1" not in copy.body.decode()
    async with asyncio.timeout(LIMIT):
        while not shelf.cleared:  # the tail may bring the withdrawal after the read
            await asyncio.sleep(0)
    assert len(former & set(shelf.older._pieces.values())) == 2
    assert [entry for entry in shelf.older._pieces if b"Headline 1" in entry] == []


class Silent(CountedLog):
    """A log of a store whose looks fail until it `answers`."""

    def __init__(self, log: Log) -> None:
        super().__init__(log)
        self.answers = False
        self.failed = asyncio.Event()

    async def heads(self, streams: Sequence[str]) -> list[Head | Deletion | None]:
        if not self.answers:
            self.failed.set()
            raise StoreError("silent")
        return await super().heads(streams)


async def in_memory(log: Log, hub: Hub, stream: str, **options: Any) -> tuple[Silent, SurfaceCache]:
    """A cache that has the page of a stream, with one entry, and whose store fell silent then."""
    await log.append(entry_append(stream, "One"))
    silent = Silent(log)
    silent.answers = True
    cache = cache_of(silent, hub, **options)
    assert "One" in await read(cache, stream)
    silent.answers = False
    return silent, cache


@pytest.mark.parametrize(("surface", "excerpt"), [(Surface.PAGE, ""), (Surface.ENTRY, "one"), (Surface.PAGE, "9.z")])
async def test_what_is_not_in_memory_waits_for_a_store_that_is_silent_for_a_moment(
    log: Log, hub: Hub, stream: str, monkeypatch: pytest.MonkeyPatch, surface: Surface, excerpt: str
) -> None:
    monkeypatch.setattr(heads, "AGAIN", 0.0)
    await log.append(entry_append(stream, "One", id="one", at=1))
    silent = Silent(log)
    cache = cache_of(silent, hub)
    monkeypatch.setattr(heads, "AWAITED", 0.0)
    with pytest.raises(Unavailable):
        await cache.read(stream, surface, IDENTITY, excerpt)
    monkeypatch.setattr(heads, "AWAITED", LIMIT)
    reading = asyncio.create_task(cache.read(stream, surface, IDENTITY, excerpt))
    silent.failed.clear()
    await silent.failed.wait()
    silent.answers = True
    assert "One" in (await reading).body.decode()


async def test_a_page_that_is_too_old_to_be_shown_waits_for_the_store_as_well(
    log: Log, hub: Hub, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "AGAIN", 0.0)
    monkeypatch.setattr(heads, "AWAITED", LIMIT)
    silent, cache = await in_memory(log, hub, stream, stale_pages=0)
    reading = asyncio.create_task(read(cache, stream))
    await silent.failed.wait()
    silent.answers = True
    assert "One" in await reading


async def test_a_page_that_is_refused_for_want_of_a_turn_does_not_wait_for_the_store(
    log: Log, hub: Hub, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, cache = await in_memory(log, hub, stream)
    cache._stale_turns.queued = MAKING + WAITING
    monkeypatch.setattr(cache._heads, "back", pytest.fail)
    with pytest.raises(Unavailable, match="Too many"):
        await read(cache, stream)


async def test_a_snapshot_that_fails_while_the_store_answers_is_not_read_again_at_once(
    log: Log, hub: Hub, stream: str
) -> None:
    await log.append(entry_append(stream, "One"))

    class Unread(CountedLog):
        async def snapshot(self, *arguments: Any, **options: Any) -> Snapshot | None:
            await super().snapshot(*arguments, **options)
            raise StoreError("no answer within 5 s")

    unread = Unread(log)
    with pytest.raises(Unavailable, match="The store does not answer"):
        await read(cache_of(unread, hub), stream)
    assert unread.snapshots == 1


class Hanging(Silent):
    """A log of a store that falls silent while snapshots are read: each read hangs until `released`, and fails then."""

    def __init__(self, log: Log) -> None:
        super().__init__(log)
        self.answers = True
        self.hangs = False
        self.released = asyncio.Event()

    async def snapshot(self, *arguments: Any, **options: Any) -> Snapshot | None:
        snapshot = await super().snapshot(*arguments, **options)
        if self.hangs:
            await self.released.wait()
            raise StoreError("no answer within 5 s")
        return snapshot


@pytest.fixture
async def hanging(
    log: Log, hub: Hub, stream: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Hanging, SurfaceCache, list[asyncio.Task[str]]]]:
    """A store that fell silent while as many pages were being made as have a turn, one of them that of `stream`."""
    monkeypatch.setattr(heads, "AWAITED", 0.0)
    hanging = Hanging(log)
    cache = cache_of(hanging, hub)
    names = [stream, *(f"{stream}-{number}" for number in range(1, MAKING + 1))]
    for name in names:
        await log.append(entry_append(name, "One"))
    assert "One" in await read(cache, stream)
    await log.append(entry_append(stream, "Two"))
    hanging.hangs, before = True, hanging.snapshots
    reads = [asyncio.create_task(read(cache, name)) for name in names[:MAKING]]
    while hanging.snapshots < before + MAKING:
        await asyncio.sleep(0)
    reads.append(asyncio.create_task(read(cache, names[MAKING])))
    while cache._turns.queued <= MAKING:
        await asyncio.sleep(0)
    hanging.answers = False
    yield hanging, cache, reads
    hanging.released.set()
    await asyncio.gather(*reads, return_exceptions=True)


async def test_a_page_in_memory_waits_for_no_page_that_waits_for_a_silent_store(
    hanging: tuple[Hanging, SurfaceCache, list[asyncio.Task[str]]], stream: str
) -> None:
    _, cache, _ = hanging
    async with asyncio.timeout(LIMIT):
        for surface in (Surface.PAGE, Surface.JSON_FEED):
            copy = await cache.read(stream, surface, IDENTITY)
            assert copy.stale_since
            assert "One" in copy.body.decode()
            assert "Two" not in copy.body.decode()


async def test_a_page_whose_turn_comes_while_the_store_is_silent_is_not_read_of_it(
    hanging: tuple[Hanging, SurfaceCache, list[asyncio.Task[str]]],
) -> None:
    log, _, (hot, *cold) = hanging
    before = log.snapshots
    log.released.set()
    assert "One" in await hot, "what was in memory is shown when nothing newer can be made"
    for reading in cold:
        with pytest.raises(Unavailable):
            await reading
    assert log.snapshots == before


async def test_a_page_in_memory_that_gets_no_turn_in_time_is_refused(
    log: Log, hub: Hub, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, cache = await in_memory(log, hub, stream)
    async with AsyncExitStack() as others:
        for _ in range(MAKING):
            await others.enter_async_context(cache._stale_turns.turn(pytest.fail))
        monkeypatch.setattr(turns, "MADE_WITHIN", 0.01)
        with pytest.raises(Unavailable, match="Too many pages are being made"):
            await read(cache, stream)


async def test_a_feed_without_an_id_does_not_ask_a_store_that_is_away(
    log: Log, hub: Hub, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent, cache = await in_memory(log, hub, stream)
    snapshot = cache._shelves[stream].snapshot
    assert snapshot is not None
    cache._shelves[stream].snapshot = snapshot._replace(feed_id=None)  # as of a stream of an earlier version
    monkeypatch.setattr(silent, "feed_id", pytest.fail)
    with pytest.raises(Unavailable, match="the feed has no id yet"):
        await read(cache, stream, Surface.ATOM)
