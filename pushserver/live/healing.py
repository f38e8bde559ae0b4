"""Publishing again what the store had acknowledged and lost, as after a failover to a replica that lagged behind.

Whoever still holds the event sends it through the same script, under the idempotency key that it came with: of all
workers one wins, and a publisher who meanwhile sent it again loses nothing either. Entry and revision stay what they
were; place and number in the order are new.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from .. import metrics
from ..codec import loads
from ..content import changes
from ..errors import Gone, Refused, Unavailable
from ..model import Append, Event
from ..store.log import Appended, Log, RevisionConflict

logger = logging.getLogger(__name__)

ATTEMPTS = 5  # at what others change at the same time


class Healed(NamedTuple):
    """What came of it: how many were lost, which of them for good, and those that the log has, the newest first."""

    lost: int
    left: list[Event]
    held: list[Event]


async def heal(log: Log, stream: str, events: Sequence[Event], *, publish: bool) -> Healed:
    """Of a stream's newest events, the newest first, publish again those that the log does not hold, in their order.

    Raises StoreError, and Unavailable where the store takes nothing now: then it can be done again from the beginning.
    """
    missing = set(await log.missing([(stream, event.cursor, event.cursor.id) for event in events]))
    lost = next((number for number in range(len(events)) if number not in missing), len(events))
    left, held = [], list(events[lost:])
    for event in reversed(events[:lost]):
        try:
            if publish:
                found = await _publish(log, changes.publish_again(stream, event))
                held.append(event._replace(cursor=found.cursor, n=found.n))
            else:
                left.append(event)
        except Gone:  # withdrawn, which is what the event says, or outlived by it
            continue
        except Unavailable:
            raise
        except (RevisionConflict, Refused) as error:
            logger.warning("stream %s: event %d was not healed: %r", stream, event.n, error)
            left.append(event)
    held.sort(key=lambda event: event.n, reverse=True)
    return Healed(lost, left, held)


async def fell_back(log: Log, stream: str, healed: Healed) -> bool:
    """Whether the log has lost again what it had then. Raises StoreError."""
    if not healed.held:
        return False
    return (await log.resume(stream, healed.held[0].cursor, limit=1, limit_bytes=1)).reason == "rollback"


def count(stream: str, reason: str, healed: Healed) -> None:
    """Say what was lost and healed, to who reads the log and the metrics."""
    logger.warning("stream %s: %s, %d events lost, %d for good", stream, reason, healed.lost, len(healed.left))
    metrics.RESETS.labels(reason).inc()
    metrics.LOST.inc(healed.lost)
    metrics.HEALED.inc(healed.lost - len(healed.left))


async def _publish(log: Log, append: Append) -> Appended:
    """Store it in the place of what it replaced, or of whatever older revision there is, while others publish too."""
    for _ in range(ATTEMPTS):
        try:
            return await log.append(append)
        except RevisionConflict:
            held = await _held_rev(log, append)
            if held >= append.rev:
                break
            append = append._replace(replaces=held)
    raise RevisionConflict


async def _held_rev(log: Log, append: Append) -> int:
    """The revision of an entry or a page that the store has; 0 for none."""
    if append.entry_id:
        text, _ = await log.entry(append.stream, append.entry_id)
        return int(loads(text.encode())["rev"]) if text else 0
    page = await log.page_of(append.stream)
    return page["rev"] if page else 0
