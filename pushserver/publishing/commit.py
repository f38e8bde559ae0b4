"""Optimistic concurrency: a change is made from the revision that is current, and stored only if it still is.

Two scripts that edit one entry never overwrite each other unseen. With a precondition the second is refused; without
one, its change is made again from the new revision.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar

from .. import metrics
from ..content.warnings import EntryWarning
from ..errors import Changed, Conflict, Fault, key_reused
from ..model import Idempotency, StoredEntry, StoredPage
from ..store.log import Appended, Log, RevisionConflict

ATTEMPTS = 5  # at a revision that others change at the same time

T = TypeVar("T")


class Published(NamedTuple):
    """The outcome of a change; `is_new` where nothing was stored under the name before."""

    appended: Appended
    is_new: bool
    warnings: Sequence[EntryWarning] = ()


class Precondition(NamedTuple):
    """A Precondition says what has to be stored for a change to be made (RFC 9110, 13.1.1 and 13.1.2).

    `rev` is from `If-Match: "3"`, `exists` from `If-Match: *`, `is_new` from `If-None-Match: *`. A refusal has what is
    current, or only its revision where not `shows_text`.
    """

    rev: int | None = None
    exists: bool = False
    is_new: bool = False
    shows_text: bool = True

    def check(self, current: StoredEntry | StoredPage | None) -> None:
        """Raises Changed where the precondition does not hold."""
        actual = f'revision "{current["rev"]}"' if current else "nothing stored"
        shown = current if self.shows_text or not current else {"rev": current["rev"]}
        if self.is_new and current:
            fault = Fault("If-None-Match", "nothing stored", actual)
            raise Changed("The entry or page exists already; leave If-None-Match out to change it.", fault, shown)
        if self.exists and not current:
            raise Changed(
                "The entry or page does not exist; leave If-Match out to create it.",
                Fault("If-Match", "any revision", actual),
                None,
            )
        if self.rev is not None and (not current or current["rev"] != self.rev):
            fault = Fault("If-Match", f'revision "{self.rev}"', actual)
            raise Changed(
                "The entry or page was changed meanwhile; read the current revision and decide again.", fault, shown
            )


async def retried(attempt: Callable[[], Awaitable[T]]) -> T:
    """Try a change from what is current, and again where another change came first. Raises Conflict in the end."""
    began = time.monotonic()
    try:
        for _ in range(ATTEMPTS):
            try:
                return await attempt()
            except RevisionConflict:
                continue
    finally:
        metrics.PUBLISHING.observe(time.monotonic() - began)
    raise Conflict("Others are changing the entry or page at the same time; send the request again.")


async def changed_once(
    log: Log, stream: str, entry_id: str, idempotency: Idempotency, attempt: Callable[[], Awaitable[T]]
) -> T | Published:
    """As `retried`, but a request that was answered before gets the same answer. `entry_id` is "" for the page.

    Without this a repeated change would be judged against the revision that it made itself. Raises KeyReused where the
    key came with another body, or for another entry.
    """
    first = None
    if idempotency.from_client:
        first = await log.first_answer(stream, idempotency.key, idempotency.body_hash)
    answer = Published(first, is_new=False) if first else await retried(attempt)
    # Equal changes of two entries have equal bodies: else a withdrawal would be answered with that of another entry.
    if isinstance(answer, Published) and answer.appended.entry_id != entry_id:
        raise key_reused(idempotency.key)
    return answer
