"""The cache of finished bytes: what people and crawlers read of a stream, in each coding, as of its newest event.

A read asks for the head of the stream (heads.py). If the bytes are of that event, they are the answer. If not, one task
reads the snapshot, joins the surface of its pieces and compresses it, and all who ask meanwhile wait for it.

Excerpts (one entry for its own page, or a slice of older entries) are made in the same way, but each reads its own
snapshot from the store.

While the store is away, the bytes are served as they were, and say since when they may be late.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

from .. import metrics, model
from ..errors import NotFound, Refused, Unavailable, deleted
from ..live.hub import Hub
from ..model import Deletion
from ..page.site import Site
from ..store.connection import within
from ..store.log import Head, Log, Snapshot
from ..store.store import StoreError
from ..stretch import Stretch
from .codings import LEAST, ContentCoding, compress
from .heads import Found, Heads
from .pieces import Piece
from .shelf import Copy, CopyKey, Shelf
from .surface import FEEDS, STRETCH, Surface, edition_of, make, place_of
from .turns import Turns

STREAMS = 1_000  # with bytes in the cache; the one that was asked for least recently goes first
EXCERPTS_SHARE = 16  # copies of a stream's excerpts may take a sixteenth of the cache, pieces of older entries another
ROUNDS = 10  # reads of a snapshot during which an entry was withdrawn


class Material(NamedTuple):
    """Material is what a copy is made of: a snapshot, its pieces, and `Shelf.cleared` as it was before the read."""

    snapshot: Snapshot
    pieces: list[Piece]
    cleared: int
    asked_at: int


class SurfaceCache:
    """SurfaceCache answers reads of the surfaces of streams that are not private.

    `page_entries` is the number of entries of a surface, `limit_bytes` what all shelves may have together. For
    `stale_pages` seconds after the store went away, bytes are served as they were. `site` and `version` name the
    address and the code that make the bytes.
    """

    def __init__(
        self,
        log: Log,
        hub: Hub,
        *,
        page_entries: int,
        limit_bytes: int,
        stale_pages: float,
        site: Site,
        version: str,
    ) -> None:
        self._log = log
        self._hub = hub
        self._heads = Heads(log, yield_to=hub.passes.over)
        self._page_entries = page_entries
        self._limit_bytes = limit_bytes
        self._stale_ms = int(stale_pages * 1_000)
        self._site = site
        self._build = f"{version}.{digest(f'{site.build} {site.public_url} {site.masthead}')}"
        self._shelves: OrderedDict[str, Shelf] = OrderedDict()
        # Excerpts have turns of their own: a client that asks for 1,000 uncached excerpts must not delay the page. What
        # is made of memory has, too: it must not wait for those that wait for a store that is away.
        self._turns, self._excerpt_turns, self._stale_turns = Turns(), Turns(), Turns()

    async def read(self, stream: str, surface: Surface, coding: ContentCoding, excerpt: str = "") -> Copy:
        """A surface as of an event that is not older than this call. Raises NotFound, Deleted, Unavailable.

        While the store is away it is as of the newest event that this worker has made it of. `excerpt` is the id of an
        entry for its own page, the `before` of a slice of older entries, "" for the newest.
        """
        try:
            copy, source = await self._read(stream, CopyKey(surface, coding, excerpt))
        except Refused:
            metrics.PAGE_LOADS.inc(surface.value, "refused")
            raise
        metrics.PAGE_LOADS.inc(surface.value, source)
        return copy

    async def _read(self, stream: str, key: CopyKey) -> tuple[Copy, str]:
        """A copy, and where it comes from, as metrics name it."""
        began_at = asyncio.get_running_loop().time()
        try:
            return await self._read_exact(stream, key)
        except StoreError:
            copy = await self._read_stale(stream, key)
            if copy is not None:
                return copy, "stale"
        # Nothing is there to be shown in its place: a store that is silent for a moment is waited for.
        if not await self._heads.back(stream, began_at):
            raise Unavailable("The store does not answer; retry later.")
        try:
            return await self._read_exact(stream, key)
        except StoreError:
            raise Unavailable("The store does not answer; retry later.") from None

    def measure(self) -> None:
        """Set the metrics of what the cache has now."""
        metrics.PAGES.set(self.size)
        metrics.PAGES_LIMIT.set(self._limit_bytes)

    async def _read_exact(self, stream: str, key: CopyKey) -> tuple[Copy, str]:
        asked_at = model.now()  # an event that comes after it may be missing in the answer
        head = await self._heads.of(stream)
        if head is None:
            self._drop(stream)
            raise NotFound(f"There is no stream {stream}; its first entry creates it.")
        if isinstance(head, Deletion):
            self._drop(stream)
            raise deleted(stream, head.at)
        copy = self._copy(stream, key, head, asked_at)
        if copy is not None:
            return copy, "memory"
        shelf = self._shelves.get(stream) or self._open(stream)
        return await self._await_copy(shelf, key, head), "made"

    def read_soon(
        self,
        stream: str,
        surface: Surface,
        coding: ContentCoding,
        reply: Callable[[Copy | None], None],
        excerpt: str = "",
    ) -> bool:
        """Have `reply` called with a copy as `read` returns it, once it is made; with None where `read` has to do it.

        False where nothing of the stream is in memory: then it is not called. It saves each read a task.
        """
        if stream not in self._shelves:
            return False
        asked_at, key = model.now(), CopyKey(surface, coding, excerpt)

        def looked(look: asyncio.Future[Found]) -> None:
            head = None if look.cancelled() or look.exception() else look.result()
            if not isinstance(head, Head):
                reply(None)
                return
            copy = self._copy(stream, key, head, asked_at)
            if copy is None:
                self._make_soon(stream, key, head, reply)
            else:
                metrics.PAGE_LOADS.inc(surface.value, "memory")
                reply(copy)

        self._heads.ask(stream).add_done_callback(looked)
        return True

    def _make_soon(self, stream: str, key: CopyKey, head: Head, reply: Callable[[Copy | None], None]) -> None:
        """Have `reply` called with a copy of this event once it is made, with None where it is not."""
        shelf = self._shelves.get(stream)
        try:
            making = (shelf.making.get(key) or self._begin(shelf, key, head)) if shelf else None
        except Unavailable:
            making = None
        if making is None:
            reply(None)
            return

        def made(task: asyncio.Task[Copy]) -> None:
            copy = None if task.cancelled() or task.exception() else task.result()
            if copy is not None and _is_late_enough(copy, head):
                metrics.PAGE_LOADS.inc(key.surface.value, "made")
                reply(copy)
            else:
                reply(None)

        making.add_done_callback(made)

    def _copy(self, stream: str, key: CopyKey, head: Head, asked_at: int) -> Copy | None:
        """The copy of this event, None where it has to be made."""
        shelf = self._shelves.get(stream)
        if shelf is None:
            return None
        if shelf.head == head:
            shelf.verified_at = asked_at
        copy = shelf.copy(key)
        if copy is None or copy.head != head:
            return None
        self._shelves.move_to_end(stream)
        return copy

    # --- making

    async def _await_copy(self, shelf: Shelf, key: CopyKey, head: Head) -> Copy:
        """A copy of this event or a later one: one that is being made, else a new one."""
        for _ in range(2):  # the next one may have been begun by a reader who knows of an older event
            making = shelf.making.get(key)
            if making is None:
                break
            copy = await asyncio.shield(making)
            if _is_late_enough(copy, head):
                return copy
        return await asyncio.shield(self._begin(shelf, key, head))

    def _turns_of(self, key: CopyKey) -> Turns:
        if key.stale_since is not None:
            return self._stale_turns
        return self._excerpt_turns if key.excerpt else self._turns

    def _begin(self, shelf: Shelf, key: CopyKey, head: Head) -> asyncio.Task[Copy]:
        self._turns_of(key).enter()
        shelf.making[key] = making = asyncio.get_running_loop().create_task(self._make(shelf, key, head))
        making.add_done_callback(lambda _: self._end(shelf, key, making))
        return making

    def _end(self, shelf: Shelf, key: CopyKey, making: asyncio.Task[Copy]) -> None:
        self._turns_of(key).leave()
        if not making.cancelled():
            making.exception()  # those who wait for it are told; where nobody does any more, nobody has to be
        if shelf.making.get(key) is making:
            del shelf.making[key]

    async def _make(self, shelf: Shelf, key: CopyKey, head: Head) -> Copy:
        """Make a surface. If an entry is withdrawn meanwhile, which may be in it, make it again."""
        async with self._turns_of(key).turn(lambda: self._check(shelf, key)):
            for _ in range(ROUNDS):
                # A store that does not answer costs each turn no more than one command, however many are sent.
                material = await within(self._excerpt(shelf, key) if key.excerpt else self._newest(shelf, key, head))
                copy = await self._finish(shelf, key, material) if material else None
                if copy is not None:
                    return copy
        raise Unavailable("Entries are withdrawn faster than the page can be made; retry.")

    async def _check(self, shelf: Shelf, key: CopyKey) -> None:
        """Raises StoreError where the store does not answer, of which a copy is to be made."""
        if key.stale_since is None:
            await self._heads.of(shelf.name)

    async def _newest(self, shelf: Shelf, key: CopyKey, head: Head) -> Material | None:
        """The newest entries as of an event or a later one; None where an entry was withdrawn meanwhile."""
        if key.stale_since is None:  # else nothing is read, and nobody who reads is waited for
            async with shelf.reading:
                if shelf.head != head:
                    await self._refresh(shelf)
        snapshot = shelf.snapshot
        return Material(snapshot, shelf.newest, shelf.cleared, shelf.verified_at) if snapshot else None

    async def _excerpt(self, shelf: Shelf, key: CopyKey) -> Material | None:
        """The entry, or the slice of older ones, that a copy is made of, as of now. Raises NotFound, Deleted.

        None where an entry was withdrawn meanwhile.
        """
        await self._watch(shelf)
        cleared, asked_at = shelf.cleared, model.now()
        is_entry = key.surface is Surface.ENTRY
        which: dict[str, Any] = {"entry": key.excerpt} if is_entry else {"after": place_of(key.excerpt)}
        snapshot = await self._log.snapshot(shelf.name, limit=self._page_entries, **which)
        if snapshot is None or (is_entry and not snapshot.entries):
            raise NotFound(f"There is no entry {key.excerpt} in stream {shelf.name}.")
        if shelf.cleared != cleared:
            return None
        if is_entry:
            return Material(snapshot, [Piece(snapshot.entries[0].encode())], cleared, asked_at)
        return Material(snapshot, shelf.older.renew(snapshot.page, snapshot.entries), cleared, asked_at)

    async def _refresh(self, shelf: Shelf) -> None:
        """Read the snapshot. An entry that is withdrawn meanwhile may be in it: it is read again then."""
        await self._watch(shelf)
        for _ in range(ROUNDS):
            cleared, asked_at = shelf.cleared, model.now()
            limit = self._page_entries
            snapshot = await self._log.snapshot(shelf.name, limit=limit, withdrawals=limit)
            if snapshot is None:
                raise NotFound(f"There is no stream {shelf.name}; its first entry creates it.")
            if shelf.cleared == cleared:
                shelf.show(snapshot)
                shelf.verified_at = asked_at
                await asyncio.sleep(0)  # to read a snapshot takes a stretch by itself
                return
        raise Unavailable("The stream changes faster than it can be read; retry.")

    async def _finish(self, shelf: Shelf, key: CopyKey, material: Material) -> Copy | None:
        """Join and compress a surface, and put it on the shelf if it is still of the newest event.

        None if the text of the copy may be gone, as an entry was withdrawn meanwhile.
        """
        stretch, snapshot = Stretch(STRETCH), material.snapshot
        if key.surface in FEEDS:
            snapshot = await self._with_feed_id(shelf, key, snapshot)
        edition = edition_of(self._site, key.surface, shelf.name, snapshot)
        options: dict[str, Any] = {"limit": self._page_entries, "site": self._site, "stale": key.stale_since}
        steps = make(key.surface, edition, snapshot, material.pieces, newer=bool(key.excerpt), **options)
        body = await stretch.take(steps)
        coding = key.coding if len(body) >= LEAST else ContentCoding.IDENTITY
        data = await stretch.take(compress(body, coding))
        # Most events change nothing of an entry's own page.
        version = hashlib.sha256(body).hexdigest()[:32] if key.surface is Surface.ENTRY else snapshot.cursor
        etag = self._etag(version, coding, key.stale_since)
        copy = Copy(data, coding, etag, Head(snapshot.cursor, snapshot.n), key.stale_since, material.asked_at)
        if shelf.cleared != material.cleared:
            return None
        shelf.put(key, copy)
        self._make_room(shelf)
        return copy

    def _etag(self, version: object, coding: ContentCoding, stale_since: str | None) -> str:
        mark = f".{digest(stale_since)}" if stale_since else ""
        return f'"{self._build}.{version}.{coding.value}{mark}"'

    async def _with_feed_id(self, shelf: Shelf, key: CopyKey, snapshot: Snapshot) -> Snapshot:
        """The snapshot with the id of the stream's feeds. Raises Unavailable where the store has none and is away."""
        if snapshot.feed_id is None:
            away = Unavailable("The store does not answer, and the feed has no id yet; retry later.")
            if key.stale_since is not None:  # to ask a store that is away would use up the turns of pages in memory
                raise away
            try:
                snapshot = snapshot._replace(feed_id=await self._log.feed_id(shelf.name))
            except StoreError:
                raise away from None
            if shelf.snapshot is not None and shelf.head == Head(snapshot.cursor, snapshot.n):
                shelf.snapshot = snapshot
        return snapshot

    # --- the store is away

    async def _read_stale(self, stream: str, key: CopyKey) -> Copy | None:
        """A surface made of what is in memory; None where that is nothing, or too old. Raises Unavailable."""
        shelf = self._shelves.get(stream)
        if shelf and key.excerpt:
            return self._stale_excerpt(shelf, key)
        if not shelf or not shelf.head:
            return None
        since = self._stale_since(stream, shelf.head, shelf.verified_at)
        if since is None:
            return None
        key = key._replace(stale_since=since)
        copy = shelf.copy(key)
        if copy is None:
            making = shelf.making.get(key) or self._begin(shelf, key, shelf.head)
            try:
                copy = await asyncio.shield(making)
            except StoreError:  # it was not made in time
                raise Unavailable("Too many pages are being made; retry later.") from None
        return copy

    def _stale_excerpt(self, shelf: Shelf, key: CopyKey) -> Copy | None:
        """The copy of an excerpt, which is all that is in memory of it; None where there is none, or it is too old."""
        copy = shelf.copy(key)
        if copy is None:
            return None
        verified_at = shelf.verified_at if copy.head == shelf.head else copy.asked_at
        since = self._stale_since(shelf.name, copy.head, verified_at)
        return copy._replace(etag=f'{copy.etag[:-1]}.{digest(since)}"', stale_since=since) if since else None

    def _stale_since(self, stream: str, head: Head, verified_at: int) -> str | None:
        """The last instant at which this head was the stream's, None where it is too long ago."""
        since = max(self._hub.current_until(stream, head.cursor) or 0, verified_at)
        return model.instant(since) if model.now() - since <= self._stale_ms else None

    # --- shelves

    def _open(self, stream: str) -> Shelf:
        shelf = self._shelves[stream] = Shelf(stream, self._limit_bytes // EXCERPTS_SHARE)
        while len(self._shelves) > STREAMS:
            self._drop(next(iter(self._shelves)))
        return shelf

    async def _watch(self, shelf: Shelf) -> None:
        """Follow the stream, so that what is withdrawn from it leaves the shelf. Raises NotFound, StoreError.

        A worker may have stopped following it since the last snapshot.
        """
        if self._shelves.get(shelf.name) is shelf:
            await self._hub.watch(shelf.name, shelf.clear)
            if self._shelves.get(shelf.name) is not shelf:  # dropped meanwhile: the stream must not keep it alive
                self._hub.unwatch(shelf.name, shelf.clear)

    def _drop(self, stream: str) -> None:
        shelf = self._shelves.pop(stream, None)
        if shelf is not None:
            self._hub.unwatch(stream, shelf.clear)

    def _make_room(self, shelf: Shelf) -> None:
        """Drop shelves, the least recently asked first, until all fit; the newest stays, whatever its size."""
        shelf.measure()
        if shelf.name in self._shelves:
            self._shelves.move_to_end(shelf.name)
        total = sum(other.size for other in self._shelves.values())
        while total > self._limit_bytes and len(self._shelves) > 1:
            oldest = next(iter(self._shelves.values()))
            total -= oldest.size
            self._drop(oldest.name)

    @property
    def size(self) -> int:
        """Bytes in the cache, nearly."""
        return sum(shelf.size for shelf in self._shelves.values())


def _is_late_enough(copy: Copy, head: Head) -> bool:
    """Whether a copy has all that a reader has to be shown who knows this head."""
    return copy.head.cursor.epoch == head.cursor.epoch and copy.head.n >= head.n


def digest(text: str) -> str:
    """Eight hexadecimal digits that stand for a text in an ETag."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]
