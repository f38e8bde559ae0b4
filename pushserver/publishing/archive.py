"""A stream out and in again, whole: each entry, page and withdrawal as it is stored, one a line.

An export is of one instant. A restore adds only what is missing: a line that was restored before changes nothing, a
line that would change something is refused.
"""

from __future__ import annotations

import asyncio
import json
from tempfile import SpooledTemporaryFile
from typing import Any

from .. import model
from ..content import changes, export, history
from ..errors import Changed, Fault, NotFound, Unavailable, shorten
from ..model import Author
from ..store.history import Histories
from ..store.log import Appended, Contents, Log
from ..stretch import Stretch
from .commit import retried

ATTEMPTS = 5  # at a stream that changes while it is read
SLICE = 10  # entries that are read at once
IN_MEMORY = 2**20  # bytes of an export; a longer one goes to a file until it is sent


class Archive:
    """Exports and restores the streams of a log."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._histories = Histories(log)

    async def export(self, stream: str, *, with_history: bool = False) -> SpooledTemporaryFile[bytes]:
        """All that a stream has at one instant, in a file whose position is at its end.

        The id of the feeds comes first, then entries, the lowest on the page before the others, then withdrawals by id,
        then the page. `with_history`, each entry and withdrawal is followed by who made its revisions.

        Raises NotFound, Deleted, or Unavailable where the stream changed during each of ATTEMPTS reads.
        """
        for _ in range(ATTEMPTS):
            contents = await self._log.contents(stream)
            if contents is None:
                raise NotFound(f"There is no stream {stream}.")
            file = SpooledTemporaryFile(IN_MEMORY)
            if await self._write(file, stream, contents, with_history):
                return file
            file.close()
        raise Unavailable(f"{stream} changed each time that it was read; try again when it changes less often.")

    async def _write(
        self, file: SpooledTemporaryFile[bytes], stream: str, contents: Contents, with_history: bool
    ) -> bool:
        """Write a stream's lines, a slice at a time; False where the stream changed meanwhile."""
        stretch = Stretch()
        file.write(export.line("stream", {"feed_id": await self._log.feed_id(stream)}).encode())
        parts = (("entry", "entries", contents.entries), ("withdrawal", "withdrawn", contents.withdrawals))
        for kind, name, ids in parts:
            for start in range(0, len(ids), SLICE):
                head, values = await self._log.stored(stream, name, ids[start : start + SLICE])
                if head != contents.head:
                    return False
                histories = await self._histories.of(stream, [value["id"] for value in values]) if with_history else {}
                lines = []
                for value in values:
                    lines.append(export.line(kind, value))
                    if rows := histories.get(value["id"]):
                        shown = [revision.shown() for revision in history.revisions(rows)]
                        lines.append(export.line("history", {"id": value["id"], "revisions": shown}))
                    await stretch.rest()
                await asyncio.to_thread(file.write, "".join(lines).encode())  # a disk that is busy keeps nobody waiting
        if contents.page:
            file.write(export.line("page", contents.page).encode())
        return True

    async def restore(self, stream: str, kind: str, value: dict[str, Any], author: Author) -> Appended | None:
        """Store a line's entry, withdrawal or page at its own revision; None where it is stored already.

        Raises Changed where something else is stored in its place, Conflict, Unavailable.
        """

        async def attempt() -> Appended | None:
            current = await self._current(stream, kind, value)
            if current is None:
                return await self._log.append(changes.restore(stream, kind, value, at=model.now(), author=author))
            _check_same(kind, current, value)
            return None

        # A client whose connection broke sends its lines again while the server still works on them: the second request
        # finds the revisions moved, and must look again instead of refusing what it would have stored itself.
        return await retried(attempt)

    async def restore_history(self, stream: str, value: dict[str, Any]) -> bool:
        """Store who made the revisions of an entry, before those that are known; False where they are there already.

        Raises Deleted, Unavailable.
        """
        rows = [revision.row() for revision in history.restored(value)]
        return await self._histories.restore(stream, value["id"], rows)

    async def restore_feed_id(self, stream: str, id: str) -> bool:
        """Store the id of a stream's feeds; False where it is stored already. Raises Changed where it has another."""
        stored, is_new = await self._log.name_feed(stream, id)
        if stored != id:
            fault = Fault("stream.feed_id", stored, shorten(id))
            detail = (
                "This stream already has another feed id, and a feed id never changes. Import into a new stream, or "
                "leave out the line `stream`."
            )
            raise Changed(detail, fault, None)
        return is_new

    async def _current(self, stream: str, kind: str, value: dict[str, Any]) -> dict[str, Any] | None:
        """The entry, withdrawal or page that is stored in the place of a line's."""
        if kind == "page":
            page = await self._log.page_of(stream)
            return dict(page) if page else None
        entry, withdrawal = await self._log.entry(stream, value["id"])
        return dict(withdrawal) if withdrawal else json.loads(entry) if entry else None


def _check_same(kind: str, current: dict[str, Any], value: dict[str, Any]) -> None:
    """Raises Changed where what is stored differs from a line."""
    # A page's `updated_at` moves with its entries, and `began_at` is not part of the page.
    ignored = ("updated_at", "began_at") if kind == "page" else export.OWN
    if _without(current, *ignored) != _without(value, *ignored):
        fault = Fault(kind, "nothing stored, or the same", f"another one, of revision {current['rev']}")
        raise Changed("Something else is stored in its place; nothing was restored.", fault, current)


def _without(value: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: field for name, field in value.items() if field is not None and name not in names}
