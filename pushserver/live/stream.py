"""A live stream is a stream that this worker follows: its ring, its readers, its page, and the passes over them."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from sys import getsizeof, maxsize
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from .. import metrics
from ..codec import dumps, loads
from ..model import Cursor, Event, StoredPage
from ..page import render
from ..page.render import MARK, Place
from ..store.log import Snapshot
from ..stretch import in_stretches
from ..wire import frames
from ..wire.accounts import Account, Encodings
from ..wire.codes import Close
from ..wire.frames import FRAME_BYTES, EventFrame, Format, Frame, Notice, SnapshotFrame
from .fanout import Fanout
from .memory_bound import Memory
from .passes import Passes

logger = logging.getLogger(__name__)

HELLOS = 64  # hello frames that are kept for other readers who start at the same place
STRETCH = 0.001  # seconds that a pass runs before the event loop does other work
REST = 1.0  # a pass begins after a rest of so many times what the last one took: events meanwhile share its writes
MAX_REST = 0.02  # seconds
OnLoss = Callable[[str | None], None]  # it is called with the id of an entry, or with None for all of them


class LiveStream:
    """LiveStream is one followed stream: its ring and readers, and its page as of the ring's head.

    `past` is what the ring had before the stream was recovered from a loss: the next failover may be to a replica that
    lacks even more. `give_up` is called when a pass fails, with the stream and the reason. All that the stream keeps
    is counted in `account`, the account of its ring, and in that of the worker, `memory`.
    """

    def __init__(
        self,
        name: str,
        fanout: Fanout,
        page: StoredPage,
        *,
        give_up: Callable[[LiveStream, str], None],
        memory: Memory | None = None,
        passes: Passes | None = None,
    ) -> None:
        self.name = name
        self.fanout = fanout
        self.ring = fanout.ring
        self.account = fanout.ring.account
        self.page: StoredPage = {**page}
        self.past: Sequence[Event] = ()
        # The page without the instants of the entries since: all their frames refer to it. One that came as an event is
        # read from the event's data, since it takes ten times as much memory once it is read.
        self._written: Callable[[], StoredPage] = lambda: page
        self.users = 0  # readers that have a place in it, whether they have joined yet or not
        self.is_open = True  # until the worker stops following it
        self._give_up = give_up
        self._memory = memory
        self._past_account = Account(self.account)
        self._latest_account = Account(self.account)
        self._latest_encodings = Encodings(maxsize, self._latest_account)
        self.idle_beats = 0  # heartbeats since it was last read
        self._watchers: set[OnLoss] = set()
        self._passes = passes or Passes()
        self._is_passing = False
        self._began_at = self._rests_until = 0.0  # of the last pass; seconds on the loop's clock
        self._pass_ended = asyncio.Event()
        self._hellos: dict[tuple[Cursor, int, str | None], Notice] = {}
        self._latest: tuple[Snapshot, SnapshotFrame] | None = None
        # A withdrawal replaces the content of every frame that a reader may have and has not sent yet.
        self._frames: WeakSet[EventFrame] = WeakSet()
        self._snapshots: WeakKeyDictionary[SnapshotFrame, Snapshot] = WeakKeyDictionary()
        if memory is not None:
            memory.add(self)

    # --- readers

    def enter(self) -> None:
        """Take a place for a reader."""
        self.users += 1
        self.touch()

    def leave(self) -> None:
        """Give a reader's place back."""
        self.users -= 1

    def close(self) -> None:
        """Stop: no reader may join any more, and no watcher learns of a withdrawal any more."""
        self.is_open = False
        self._alarm()
        self._forget_latest()
        self.ring.encodings.close()
        if self._memory is not None:
            self._memory.remove(self)

    def watch(self, on_loss: OnLoss) -> None:
        """Call `on_loss` when an entry is withdrawn, with its id; with None when the stream is followed no more.

        A stream that is watched is followed as if it had a reader.
        """
        self._watchers.add(on_loss)

    def unwatch(self, on_loss: OnLoss) -> None:
        """Stop calling it; a second call changes nothing."""
        self._watchers.discard(on_loss)

    def _alarm(self, entry_id: str | None = None) -> None:
        for on_loss in tuple(self._watchers):
            on_loss(entry_id)

    async def drop_all(self, code: Close, farewell: Notice) -> None:
        """Close every reader."""
        await in_stretches(self.fanout.drop_all(code, farewell), STRETCH)

    async def renew(self, at: float, farewell: Callable[[], Notice]) -> None:
        """Close the readers whose lifetime ends before an instant of the loop's clock."""
        await in_stretches(self.fanout.renew(at, farewell), STRETCH)

    async def sweep(self) -> None:
        """Close the readers who take nothing."""
        await in_stretches(self.fanout.sweep(), STRETCH)

    async def beat(self, at: str, stale: str | None, everywhere: int | None = None) -> None:
        """Write a heartbeat to every reader; once the coverage has ended, close those who have everything instead.

        `at` is the instant, `stale` the one since which the log has not been read, `everywhere` counts all readers.
        """
        if self.page["state"] == "ended":
            await in_stretches(self.fanout.dismiss(Close.ENDED), STRETCH)
        here = self.fanout.readers
        head = frames.heartbeat(self.ring.head, self.ring.n, readers=here, everywhere=everywhere, at=at, stale=stale)
        await in_stretches(self.fanout.beat(head), STRETCH)
        self._forget_latest()
        self._hellos.clear()
        self.ring.encodings.age()
        self.idle_beats = 0 if self.users or self._watchers else self.idle_beats + 1

    # --- frames

    def hello(self, start: int, reason: str | None, heartbeat: float) -> Notice:
        """A reader's first frame: the same object for all who start at the same place, so that they share a write."""
        key = (self.ring.head, start, reason)
        hello = self._hellos.get(key)
        if hello is None:
            if len(self._hellos) >= HELLOS:
                self._hellos.clear()
            head, n = self.ring.head, self.ring.n
            hello = frames.hello(self.name, head, n, start=start, reason=reason, heartbeat=heartbeat)
            hello.encodings = self.ring.encodings
            self._hellos[key] = hello
        return hello

    def event_frame(self, event: Event) -> EventFrame:
        """An event as a frame, rendered with the page as it is now."""
        frame = EventFrame(event, self._html(event))
        frame.encodings = self.ring.encodings
        self._frames.add(frame)
        return frame

    def _html(self, event: Event) -> Callable[[], dict[str, Any]]:
        return partial(_html_fields, event, self._written, self.page["updated_at"])

    def snapshot_frame(self, snapshot: Snapshot) -> SnapshotFrame:
        """A snapshot as a frame."""
        size = sum(map(getsizeof, snapshot.entries))  # a character beyond Latin-1 doubles all others of its text
        frame = SnapshotFrame(snapshot.cursor, partial(_snapshot_parts, snapshot), size=size)
        frame.encodings = self.ring.encodings
        self._snapshots[frame] = snapshot
        return frame

    def latest_snapshot(self) -> tuple[Snapshot, SnapshotFrame] | None:
        """The snapshot that was kept since the last event and heartbeat, if it is as of the ring's head."""
        return self._latest if self._latest and self._latest[0].cursor == self.ring.head else None

    def keep_snapshot(self, snapshot: Snapshot, frame: SnapshotFrame) -> None:
        """Keep a snapshot for the readers who come before the next event."""
        self._forget_latest()
        self._latest = snapshot, frame
        # Its encodings are counted apart: among those of events one large snapshot would make all the others go.
        frame.encodings = self._latest_encodings
        self._latest_account.grow(frame.size)

    def _forget_latest(self) -> None:
        if self._latest is not None:
            self._latest = None
            self._latest_encodings.close()
            self._latest_account.close()
            self._latest_account = Account(self.account)
            self._latest_encodings = Encodings(maxsize, self._latest_account)

    # --- memory

    def touch(self) -> None:
        """Note that the stream is read: where memory is short, those that were read before it shrink first."""
        if self._memory is not None:
            self._memory.touch(self)

    def shrink(self, max_bytes: int) -> None:
        """Let go of what can be made or read again, and of the oldest events."""
        self._hellos.clear()
        self._forget_latest()
        self.fanout.shrink(max_bytes - self._past_account.bytes)
        self._frames = WeakSet(self._frames)  # as every set, it keeps the memory of all that it ever had
        if self.account.bytes > max_bytes:
            self._keep_past(())

    def _keep_past(self, past: Sequence[Event]) -> None:
        self.past = past
        self._past_account.close()
        self._past_account = Account(self.account)
        self._past_account.grow(sum(FRAME_BYTES + len(event.data) for event in past))

    def recent_events(self, most: int) -> list[Event]:
        """The newest events that this worker has in memory, the newest first."""
        return [*(frame.event for frame in self.ring.newest()), *self.past][:most]

    # --- events

    def append(self, event: Event) -> None:
        """Give readers the next event. Raises BrokenChain where it does not follow the last one."""
        if not event.is_known:
            metrics.UNKNOWN_EVENTS.inc()
        self._advance_page(event)
        if event.prev == self.ring.head:  # else each event would keep a copy of the cursor before it
            event = event._replace(prev=self.ring.head)
        if event.type == "entry.withdraw":
            self._withdraw(event)
        self.fanout.append(self.event_frame(event))

    def _advance_page(self, event: Event) -> None:
        """Make the page that of after an event, from the page of before it."""
        if event.type in ("page.put", "stream.end"):
            self._written = partial(_page_in, event.data)
            self.page = {**self._written(), "updated_at": event.shown_at}
        else:
            self.page["updated_at"] = max(self.page["updated_at"], event.shown_at)

    def _withdraw(self, withdrawal: Event) -> None:
        """Remove an entry's text from memory: from the ring, from `past`, and from frames that wait to be sent."""

        def replace(frame: EventFrame) -> None:
            event = frame.event.withdrawn(withdrawal.data)
            frame.replace(event, self._html(event))

        id = withdrawal.entry_id
        self.fanout.withdraw(id, replace)
        for frame in tuple(self._frames):
            if frame.event.entry_id == id and frame.event.type != "entry.withdraw":
                replace(frame)
        self._withdraw_from_snapshots(id)
        self._forget_latest()
        self._alarm(id)
        self.past = [event.withdrawn(withdrawal.data) if event.entry_id == id else event for event in self.past]

    def _withdraw_from_snapshots(self, id: str) -> None:
        for frame, snapshot in tuple(self._snapshots.items()):
            entries = [entry for entry in snapshot.entries if not (id in entry and json.loads(entry)["id"] == id)]
            if len(entries) < len(snapshot.entries):
                self._snapshots[frame] = snapshot._replace(entries=entries)
                frame.replace(partial(_snapshot_parts, self._snapshots[frame]))

    def restart(self, snapshot: Snapshot, first: Sequence[Frame], past: Sequence[Event]) -> None:
        """Go on from a snapshot. Every reader receives these frames in place of what it had not received yet."""
        page = snapshot.page
        self._written = lambda: page
        self.page = {**page}
        self._keep_past(past)
        self.fanout.restart(snapshot.cursor, snapshot.n, first)
        self.begin_pass()

    # --- passes

    def begin_pass(self) -> None:
        """Begin a pass after the rest that follows the last one, unless one is under way or about to begin."""
        if self.users:
            self.touch()
        if not self._is_passing:
            loop = asyncio.get_running_loop()
            self._is_passing = True
            self._began_at = max(self._rests_until, loop.time())
            loop.call_at(self._began_at, self._run_pass)

    def _run_pass(self) -> None:
        """Run the pass for a stretch, and again until it has ended."""
        loop = asyncio.get_running_loop()
        self._passes.begin(self)
        try:
            goes_on = self.fanout.run(loop.time, loop.time() + STRETCH)
        except Exception as error:  # a bug; if the pass just ended here, readers would silently receive nothing more
            logger.exception("stream %s: a pass failed", self.name)
            self._passes.end(self)
            self._give_up(self, repr(error))
            return
        if goes_on:
            loop.call_soon(self._run_pass)
            return
        now = loop.time()
        self._passes.end(self)
        self._is_passing = False
        self._rests_until = now + min(REST * (now - self._began_at), MAX_REST)
        self._pass_ended.set()
        self._pass_ended = asyncio.Event()
        if self.fanout.is_pending:
            self.begin_pass()

    async def until_delivered(self, n: int) -> None:
        """Wait until event `n` was written to every reader that could take it."""
        while self.fanout.delivered < n:
            await self._pass_ended.wait()

    async def report(self, entry_id: str, n: int | None, *, wait: float) -> dict[str, Any]:
        """The delivery of an entry's event `n`, or of its newest: {state, readers, behind, late}.

        `state` is `waiting` while the event has not come, for which this waits so many seconds; `reached` when a pass
        has delivered it; `forgotten` when it has left the ring. `late` counts readers by milliseconds.
        """
        fanout = self.fanout
        if n is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self.until_delivered(n)
            if fanout.delivered < n:
                return report("waiting", fanout.readers, behind=fanout.readers)
        frame = next((frame for frame in self.ring.about(entry_id) if n is None or frame.event.n == n), None)
        if frame is None:
            return report("forgotten", fanout.readers)
        return report("reached", fanout.readers, behind=fanout.behind(frame), late=sorted(frame.latencies.items()))


def report(state: str, readers: int = 0, *, behind: int = 0, late: Sequence[tuple[int, int]] = ()) -> dict[str, Any]:
    """One worker's report on an event, as other workers read it."""
    return {"state": state, "readers": readers, "behind": behind, "late": late}


def _page_in(data: bytes) -> StoredPage:
    """The page in the data of an event that changed it."""
    page: StoredPage = loads(data)["page"]
    return page


def _html_fields(event: Event, written: Callable[[], StoredPage], updated_at: str) -> dict[str, Any]:
    """The fields of an event's frame in the html format; the page was updated last at the instant `updated_at`."""
    return render.frame(event, {**written(), "updated_at": updated_at})


def _snapshot_parts(snapshot: Snapshot, format: Format) -> Iterator[str]:
    """A snapshot frame's text in a format, in parts, none of which takes long to make."""
    if format is Format.JSON:
        yield frames.snapshot(snapshot.cursor, snapshot.n, page=snapshot.page, entries=snapshot.entries)
        return
    items, place, page = [], Place.of(snapshot.page), snapshot.page
    for entry in snapshot.entries:
        items.append(render.item(entry, place))
        yield ""
    older = render.older_link(snapshot.entries) if snapshot.older else None

    parts = render.parts(page, [item._replace(html=MARK) for item in items], older=older)
    frame = frames.snapshot(snapshot.cursor, snapshot.n, page=render.page_head(page), parts=parts)
    before, *behind = frame.split(MARK)
    yield before
    for item, following in zip(items, behind, strict=True):
        yield dumps(item.html)[1:-1] + following
