"""Entries: publish, correct, withdraw. Each is one append to the log, or stores nothing."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, cast

from .. import model
from ..content import changes, warnings
from ..content.schema import EntryIn, NewEntryIn, WithdrawalIn
from ..errors import NotFound, key_reused, withdrawn
from ..model import Idempotency, StoredEntry, StoredPage
from ..store.log import Appended, Log
from .commit import Precondition, Published, changed_once, retried
from .off_loop import off_loop


class Entries:
    """Publishes entries to the streams of a log. Each method raises Unavailable where the store is away."""

    def __init__(self, log: Log) -> None:
        self._log = log

    async def preview(self, stream: str, entry_in: NewEntryIn) -> tuple[StoredEntry, StoredPage]:
        """The entry as `publish` would store it, and the page that it would be on. Nothing is stored."""
        entry = changes.revise_entry(entry_in, stream=stream, id=model.new_id(), at=model.now())
        return entry, await self._log.page_of(stream) or model.unwritten_page(stream)

    async def publish(self, stream: str, entry_in: NewEntryIn, idempotency: Idempotency) -> Appended:
        """Store a new entry, in a new stream where there is none by the name. Raises Conflict, KeyReused."""

        async def attempt() -> Appended:
            at = model.now()
            entry = changes.revise_entry(entry_in, stream=stream, id=model.new_id(), at=at)
            return await self._log.append(changes.put_entry(stream, entry, at=at, idempotency=idempotency))

        appended = await retried(attempt)
        if not appended.entry_id or appended.rev > 1:  # the key is that of a change, which had the same body
            raise key_reused(idempotency.key)
        return appended

    async def put(
        self, stream: str, id: str, entry_in: EntryIn, *, precondition: Precondition, idempotency: Idempotency
    ) -> Published | StoredEntry:
        """Store an entry whole, under an id of the publisher's own. Answers as `patch` does."""

        async def whole(_: StoredEntry | None) -> EntryIn:
            return entry_in

        return await self._change(stream, id, whole, precondition, idempotency)

    async def patch(
        self, stream: str, id: str, patch: Any, *, precondition: Precondition, idempotency: Idempotency
    ) -> Published | StoredEntry:
        """Change the fields that a merge patch (RFC 7396) names; the current entry where that changes nothing.

        Raises NotFound, Gone, Changed, Invalid, Conflict, KeyReused.
        """

        async def patched(current: StoredEntry | None) -> EntryIn:
            return await off_loop(changes.patch_entry, _existing(stream, id, current), patch)

        return await self._change(stream, id, patched, precondition, idempotency)

    async def withdraw(
        self,
        stream: str,
        id: str,
        withdrawal: WithdrawalIn,
        *,
        precondition: Precondition,
        idempotency: Idempotency,
    ) -> Appended:
        """Take an entry's text out of the stream; a mark of it stays. Raises as `patch` does."""

        async def attempt() -> Published:
            current = await self._current(stream, id)
            precondition.check(current)
            append = changes.withdraw_entry(
                stream, _existing(stream, id, current), withdrawal, at=model.now(), idempotency=idempotency
            )
            return Published(await self._log.append(append), is_new=False)

        return (await changed_once(self._log, stream, id, idempotency, attempt)).appended

    async def _change(
        self,
        stream: str,
        id: str,
        revise: Callable[[StoredEntry | None], Awaitable[EntryIn]],
        precondition: Precondition,
        idempotency: Idempotency,
    ) -> Published | StoredEntry:
        async def attempt() -> Published | StoredEntry:
            current = await self._current(stream, id)
            precondition.check(current)
            at = model.now()
            entry_in = await revise(current)
            entry = changes.revise_entry(entry_in, stream=stream, id=id, at=at, current=current)
            if current and changes.is_unchanged(entry, current):
                return current
            appended = await self._log.append(
                changes.put_entry(stream, entry, at=at, current=current, idempotency=idempotency)
            )
            return Published(appended, is_new=current is None, warnings=warnings.of_input(entry_in, at))

        return await changed_once(self._log, stream, id, idempotency, attempt)

    async def _current(self, stream: str, id: str) -> StoredEntry | None:
        """The current revision, None where there is no entry by this id. Raises Gone where it was withdrawn."""
        entry, withdrawal = await self._log.entry(stream, id)
        if withdrawal:
            raise withdrawn(withdrawal)
        return cast(StoredEntry, json.loads(entry)) if entry else None


def _existing(stream: str, id: str, current: StoredEntry | None) -> StoredEntry:
    if current is None:
        raise NotFound(f"There is no entry {id} in {stream}.")
    return current
