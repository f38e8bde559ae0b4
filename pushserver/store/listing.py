"""The listing of a store: its streams, those that changed last first, with their pages and what they weigh."""

from __future__ import annotations

from typing import Any, NamedTuple

from .. import model
from ..model import StoredPage
from .connection import Node, within
from .log import Log
from .records import shown_page

STREAMS_LISTED = 100  # in one part of the list
TIES = 100  # streams of a partition that changed in the same millisecond, at most
WEIGHED = ("log", "entries", "order", "page", "withdrawn", "gone", "history")  # the keys that bytes are counted of


class ListPlace(NamedTuple):
    """A place in the list: a stream that changed last at an instant, in milliseconds since 1970."""

    changed: int
    stream: str


class StreamSize(NamedTuple):
    """StreamSize is what a stream has: its page, how many entries and withdrawals, and bytes in the store, nearly."""

    page: StoredPage
    entries: int
    withdrawals: int
    bytes: int


class Listing:
    """Listing reads which streams a store has."""

    def __init__(self, log: Log) -> None:
        self._log = log

    async def streams(self) -> list[tuple[str, StoredPage]]:
        """The streams that changed last, STREAMS_LISTED at most, and their pages; the newest first.

        One that was deleted meanwhile is left out.
        """
        places = await self.places()
        pages: dict[str, StoredPage] = {}
        for node, names in (await self._by_node([place.stream for place in places])).items():
            pipeline = node.redis.pipeline(transaction=False)
            for name in names:
                pipeline.hmget(self._log.key(name, "page"), "json", "updated_at")
            rows = await within(pipeline.execute())
            for name, (page, updated_at) in zip(names, rows, strict=True):
                if updated_at is not None:
                    pages[name] = shown_page(name, page, updated_at)
        return [(place.stream, pages[place.stream]) for place in places if place.stream in pages]

    async def places(self, after: ListPlace | None = None, *, limit: int = STREAMS_LISTED) -> list[ListPlace]:
        """The streams that changed last, or those that follow a place in the list. Raises StoreError."""
        most: Any = "+inf" if after is None else after.changed
        places: list[ListPlace] = []
        for node, partitions in (await self._log.store.primaries()).items():
            pipeline = node.redis.pipeline(transaction=False)
            for partition in partitions:
                key = f"{model.tag(partition)}:streams"
                pipeline.zrevrangebyscore(key, most, "-inf", start=0, num=limit + TIES, withscores=True)
            parts = await within(pipeline.execute())
            places += [ListPlace(int(score), name.decode()) for part in parts for name, score in part]
        places.sort(key=_order)
        return [place for place in places if after is None or _order(place) > _order(after)][:limit]

    async def sizes(self, streams: list[str]) -> dict[str, StreamSize]:
        """The sizes of streams; one that was deleted meanwhile is left out. Raises StoreError."""
        sizes: dict[str, StreamSize] = {}
        for node, names in (await self._by_node(streams)).items():
            pipeline = node.redis.pipeline(transaction=False)
            for name in names:
                pipeline.hmget(self._log.key(name, "page"), "json", "updated_at")
                pipeline.hlen(self._log.key(name, "entries"))
                pipeline.hlen(self._log.key(name, "withdrawn"))
                for part in WEIGHED:
                    pipeline.memory_usage(self._log.key(name, part))
            rows, each = await within(pipeline.execute()), 3 + len(WEIGHED)
            for number, name in enumerate(names):
                (page, updated_at), entries, withdrawals, *bytes = rows[number * each : (number + 1) * each]
                if updated_at is not None:
                    total = sum(weight or 0 for weight in bytes)
                    sizes[name] = StreamSize(shown_page(name, page, updated_at), entries, withdrawals, total)
        return sizes

    async def _by_node(self, streams: list[str]) -> dict[Node, list[str]]:
        names: dict[Node, list[str]] = {}
        for name in streams:
            names.setdefault(await self._log.store.node(self._log.tag(name)), []).append(name)
        return names


def _order(place: ListPlace) -> tuple[int, str]:
    return -place.changed, place.stream
