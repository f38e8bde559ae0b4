"""Healing publishes events again that the store had acknowledged and lost, as after a failover to a lagging replica.

A worker that has such an event in memory appends it again with the idempotency key that it came with. So of all workers
one stores it, and a publisher who meanwhile sends it again does not double it. The entry and its revision stay the
same; its place and number in the log are new.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from .. import metrics
from ..codec import loads
from ..content import changes
from ..errors import Deleted, Gone, Refused, Unavailable
from ..log_throttle import Tally, Trouble
from ..model import Append, Event
from ..store.log import Appended, Log, RevisionConflict
from ..store.store import StoreError
from ..wire import frames
from .resume import LogGone, Resumption
from .stream import LiveStream
from .tail import Tails

logger = logging.getLogger(__name__)

LOG_GONE = "the events of this stream are gone from the store"  # why one is given up; a reset for the reason `empty`
LOSSES = {  # what happened to a log, by the reason of the reset
    "rollback": "the store lost acknowledged events",
    "epoch": "another log is in the place of its log, so that nothing is published again",
    "trimmed": "its log begins after this worker's last event, so that nothing is published again",
}
ATTEMPTS = 5  # to append an event again while other publishers change its entry
RETRY_WITHIN = 0.5  # seconds until a recovery that failed is tried again
ROUNDS = 3  # of healing in one recovery, where the store loses more meanwhile


class Healer:
    """Healer recovers streams whose logs lost or replaced events: it heals the log, then restarts the stream from it.

    Readers stay connected: they receive a `reset` and a snapshot. `publish` says whether lost events are published
    again, `memory_events` how many of a stream's newest events may be. `give_up` is called with a stream that cannot be
    recovered, and the reason; `delete` with one that was deleted, of which nothing is published again.
    """

    def __init__(
        self,
        log: Log,
        tails: Tails,
        resumption: Resumption,
        *,
        publish: bool,
        memory_events: int,
        give_up: Callable[[LiveStream, str], None],
        delete: Callable[[LiveStream], object],
    ) -> None:
        self._log = log
        self._tails = tails
        self._resumption = resumption
        self._publish = publish
        self._memory_events = memory_events
        self._give_up = give_up
        self._trouble = Trouble(logger, "streams recover again")
        self._begun = Tally(logger, "recoveries of stream")
        self._delete = delete
        self._recoveries: dict[LiveStream, asyncio.Task[None]] = {}

    async def verify(self, streams: Sequence[tuple[LiveStream, str]]) -> None:
        """Check that each log, read up to this Redis id, still has the ring's head, and recover the streams of others.

        The streams are of one partition. Raises StoreError.
        """
        heads = [(stream.name, stream.ring.head, read_to) for stream, read_to in streams]
        for number in await self._log.missing(heads):
            stream = streams[number][0]
            if stream.ring.head == heads[number][1]:
                self.recover(stream, "the log does not go on from the ring's last event")
            await self.wait(stream)

    def recover(self, stream: LiveStream, why: str) -> None:
        """Begin to recover a stream, unless that is under way or the stream is closed."""
        if stream not in self._recoveries and stream.is_open:
            self._tails.unfollow(stream.name)
            self._recoveries[stream] = asyncio.get_running_loop().create_task(self._recover(stream, why))

    def is_recovering(self, stream: LiveStream) -> bool:
        """Whether a stream is being recovered."""
        return stream in self._recoveries

    async def wait(self, stream: LiveStream) -> None:
        """Wait until a stream is not being recovered."""
        if stream in self._recoveries:
            await asyncio.wait([self._recoveries[stream]])

    async def _recover(self, stream: LiveStream, why: str) -> None:
        self._begun.note(stream.name, "stream %s: recovering: %s", stream.name, why)
        try:
            await self._restart(stream)
            await self._follow(stream)
            self._trouble.over(stream.name)
        except Deleted:
            self._delete(stream)
        except LogGone:
            self._give_up(stream, LOG_GONE)
        except (StoreError, Unavailable) as error:
            # The stream keeps its events: they may be all that is left of them. The tail's next event or check finds
            # the loss again, and begins another recovery.
            metrics.RECOVERIES_FAILED.inc()
            words = "stream %s: recovery failed, will be retried: %r"
            self._trouble.failed(words, stream.name, error, reason=repr(error), key=stream.name)
            await asyncio.sleep(random.uniform(0, RETRY_WITHIN))
            with suppress(StoreError):  # then the tail follows from its next read on
                await self._follow(stream)
        except Exception as error:  # a bug; if the task just ended here, nobody would read the stream any more
            logger.exception("stream %s: recovery failed", stream.name)
            self._give_up(stream, repr(error))
        finally:
            if not stream.is_open:
                self._trouble.over(stream.name)
            del self._recoveries[stream]

    async def _restart(self, stream: LiveStream) -> None:
        """Heal the log and restart the stream from it, if events were lost. Raises Deleted, StoreError, Unavailable."""
        reason = (await self._log.resume(stream.name, stream.ring.head, limit=1, limit_bytes=1)).reason
        if reason in (None, "too_far"):  # the log has the ring's last event: the tail reads on from there
            return
        # In another epoch nothing is published again: someone deleted the log, and may have meant to.
        events = stream.recent_events(self._memory_events) if reason == "rollback" else []
        for _ in range(ROUNDS):
            healed = await heal(self._log, stream.name, events, publish=self._publish)
            snapshot, frame = await self._resumption.snapshot(stream)
            if not await fell_back(self._log, stream.name, healed):
                break
        count(stream.name, str(reason), healed)
        reset = frames.reset(str(reason), sorted({event.entry_id for event in healed.unhealed} - {""}))
        stream.restart(snapshot, [reset, frame], healed.stored)

    async def _follow(self, stream: LiveStream) -> None:
        """Make the tail read on from the ring's last event, unless the stream was closed. Raises StoreError."""
        if stream.is_open:
            await self._tails.follow(stream.name, stream.ring.head.id)


class Healed(NamedTuple):
    """Healed is the outcome of healing: how many events were lost, which are lost for good, which the log has.

    The stored ones are the newest first.
    """

    lost: int
    unhealed: list[Event]
    stored: list[Event]


async def heal(log: Log, stream: str, events: Sequence[Event], *, publish: bool) -> Healed:
    """Publish those of a stream's newest events again that the log lacks, in their order.

    `events` are the newest first. Raises Deleted, StoreError, and Unavailable where the store takes no writes; it may
    then be called again.
    """
    missing = set(await log.missing([(stream, event.cursor, event.cursor.id) for event in events]))
    lost = next((number for number in range(len(events)) if number not in missing), len(events))
    unhealed, stored = [], list(events[lost:])
    for event in reversed(events[:lost]):
        try:
            if publish and event.is_known:  # an unknown type may change more in the store than this version would write
                appended = await _publish(log, changes.publish_again(stream, event))
                stored.append(event._replace(cursor=appended.cursor, n=appended.n))
            else:
                unhealed.append(event)
        except Gone:  # the entry was withdrawn: by this event itself, or after it
            continue
        except (Deleted, Unavailable):
            raise
        except (RevisionConflict, Refused) as error:
            logger.warning("stream %s: event %d was not healed: %r", stream, event.n, error)
            unhealed.append(event)
    stored.sort(key=lambda event: event.n, reverse=True)
    return Healed(lost, unhealed, stored)


async def fell_back(log: Log, stream: str, healed: Healed) -> bool:
    """Whether the log has lost again what it had when it was healed. Raises StoreError."""
    if not healed.stored:
        return False
    return (await log.resume(stream, healed.stored[0].cursor, limit=1, limit_bytes=1)).reason == "rollback"


def count(stream: str, reason: str, healed: Healed) -> None:
    """Log and count the lost and the healed events."""
    words = "stream %s: %s (%s); events lost of those in this worker's memory: %d, of which not stored again: %d"
    logger.warning(words, stream, LOSSES.get(reason, reason), reason, healed.lost, len(healed.unhealed))
    metrics.RESETS.inc(reason)
    metrics.LOST.inc(by=healed.lost)
    metrics.HEALED.inc(by=healed.lost - len(healed.unhealed))


async def _publish(log: Log, append: Append) -> Appended:
    """Append an event in place of whatever older revision the store has, while others publish too. Raises Moved."""
    for _ in range(ATTEMPTS):
        try:
            return await log.append(append)
        except RevisionConflict:
            current = await _current_rev(log, append)
            if current >= append.rev:
                break
            append = append._replace(replaces=current)
    raise RevisionConflict


async def _current_rev(log: Log, append: Append) -> int:
    """The revision that the store has of the entry or the page; 0 for none."""
    if append.entry_id:
        text, _ = await log.entry(append.stream, append.entry_id)
        return int(loads(text.encode())["rev"]) if text else 0
    page = await log.page_of(append.stream)
    return page["rev"] if page else 0
