"""A stream that a worker follows: its feed, its page as of the feed's head, who uses it, what is known of an event."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from ..codec import loads
from ..model import Cursor, Event, StoredPage
from ..page import render
from ..store.log import Snapshot
from ..wire import frames
from ..wire.frames import Format, Frame, Notice, View
from .fanout import Feed

HELLOS = 64  # that are kept for others who are greeted the same


class Channel:
    """A followed stream: its feed, its page as of the feed's head, and who uses it.

    `past` is what the feed held before the log was put right: the next failover may be to a replica that has even less.
    `shown` is what readers were shown of it last: those who come before the next event are shown the same.
    """

    def __init__(self, stream: str, feed: Feed, page: StoredPage) -> None:
        self.stream = stream
        self.feed = feed
        self.page = page
        self.users = 0
        self.idle = 0
        self.passing = False
        self.began_at = self.rests_until = 0.0  # the last pass; seconds on the loop's clock
        self.mending: asyncio.Task[None] | None = None
        self.past: Sequence[Event] = ()
        self.shown: tuple[Snapshot, View] | None = None
        self._passed = asyncio.Event()
        self._hellos: dict[tuple[Cursor, int, str | None], Notice] = {}
        # Whatever a reader may still hold and has not sent yet.
        self._frames: WeakSet[Frame] = WeakSet()
        self._views: WeakKeyDictionary[View, Snapshot] = WeakKeyDictionary()

    def hello(self, start: int, reason: str | None, heartbeat: float) -> Notice:
        """The first frame of a reader: the same one for all who start at the same place, so that they share a write."""
        key = (self.feed.head, start, reason)
        found = self._hellos.get(key)
        if found is None:
            if len(self._hellos) >= HELLOS:
                self._hellos.clear()
            head, n = self.feed.head, self.feed.n
            found = frames.hello(self.stream, head, n, start=start, reason=reason, heartbeat=heartbeat)
            self._hellos[key] = found
        return found

    def frame(self, event: Event) -> Frame:
        """What readers are told of an event, with the page as it is now."""
        frame = Frame(event, partial(render.frame, event, self.page))
        self._frames.add(frame)
        return frame

    def view(self, snapshot: Snapshot) -> View:
        """What readers are told of a snapshot."""
        view = View(snapshot.cursor, partial(_shown, snapshot))
        self._views[view] = snapshot
        return view

    def held(self, most: int) -> list[Event]:
        """The newest events that are in memory here, the newest first."""
        return [*(frame.event for frame in self.feed.newest()), *self.past][:most]

    def take(self, event: Event) -> None:
        """Give readers the next event. Raises BrokenChain."""
        self.page = _page_after(self.page, event)
        if event.type == "entry.withdraw":
            self._forget(event)
        self.feed.append(self.frame(event))

    def _forget(self, withdrawal: Event) -> None:
        """Leave nothing of what an entry said: in the feed, in what it held before, in what waits to be sent."""

        def become(frame: Frame) -> None:
            event = frame.event.withdrawn(withdrawal.data)
            frame.become(event, partial(render.frame, event, self.page))

        about = withdrawal.entry_id
        self.feed.withdraw(about, become)
        for frame in tuple(self._frames):
            if frame.event.entry_id == about and frame.event.type == "entry.put":
                become(frame)
        for view, snapshot in tuple(self._views.items()):
            entries = [entry for entry in snapshot.entries if not (about in entry and json.loads(entry)["id"] == about)]
            if len(entries) < len(snapshot.entries):
                self._views[view] = snapshot._replace(entries=entries)
                view.become(partial(_shown, self._views[view]))
        self.past = [event.withdrawn(withdrawal.data) if event.entry_id == about else event for event in self.past]

    def pass_ended(self) -> None:
        """Tell those who wait for a pass."""
        self._passed.set()
        self._passed = asyncio.Event()

    async def until_given(self, n: int) -> None:
        """Wait until every reader that could take it has been given event `n`."""
        while self.feed.given < n:
            await self._passed.wait()

    async def report(self, entry_id: str, n: int | None, *, wait: float) -> dict[str, Any]:
        """What is known here of an entry's event `n`, or of its newest: {state, readers, behind, late}.

        `state` is `waiting` while the event has not come, `reached` when a pass has given it out, `forgotten` when it
        is not in the ring any more. `late` counts readers by milliseconds.
        """
        feed = self.feed
        if n is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self.until_given(n)
            if feed.given < n:
                return report("waiting", feed.readers, behind=feed.readers)
        frame = next((frame for frame in feed.about(entry_id) if n is None or frame.event.n == n), None)
        if frame is None:
            return report("forgotten", feed.readers)
        return report("reached", feed.readers, behind=feed.behind(frame), late=sorted(frame.sent.items()))


def report(state: str, readers: int = 0, *, behind: int = 0, late: Sequence[tuple[int, int]] = ()) -> dict[str, Any]:
    """What a worker tells of an event."""
    return {"state": state, "readers": readers, "behind": behind, "late": late}


def _page_after(page: StoredPage, event: Event) -> StoredPage:
    """The page as of an event, given the page before it."""
    if event.type in ("page.put", "stream.end"):
        page = loads(event.data)["page"]
        return {**page, "updated_at": event.shown_at}
    return {**page, "updated_at": max(page["updated_at"], event.shown_at)}


def _shown(snapshot: Snapshot, format: Format) -> str:
    """A snapshot as readers of a format get it."""
    if format is Format.JSON:
        return frames.snapshot(snapshot.cursor, snapshot.n, page=snapshot.page, entries=snapshot.entries)
    older = render.older_link(snapshot.entries) if snapshot.older else None
    parts = render.parts(snapshot.page, snapshot.entries, older=older)
    return frames.snapshot(snapshot.cursor, snapshot.n, page=render.page_head(snapshot.page), parts=parts)
