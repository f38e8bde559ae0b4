"""Pages: a stream's own fields, and the end of its coverage. Each is one append to the log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from .. import model
from ..content import changes
from ..content.schema import EndIn, PageIn
from ..model import Append, Idempotency, StoredPage
from ..store.log import Log
from .aside import aside
from .commit import Precondition, Published, changed_once


class Pages:
    """Publishes the pages of a log's streams. Each method raises Changed, Conflict, KeyReused, Unavailable."""

    def __init__(self, log: Log) -> None:
        self._log = log

    async def put(
        self, stream: str, page_in: PageIn, *, precondition: Precondition, idempotency: Idempotency
    ) -> Published:
        """Set a page whole."""

        async def append(current: StoredPage | None, at: int) -> Append:
            page = changes.revise_page(page_in, at=at, current=current)
            return changes.put_page(stream, page, at=at, idempotency=idempotency)

        return await self._change(stream, append, precondition, idempotency)

    async def patch(
        self, stream: str, patch: Any, *, precondition: Precondition, idempotency: Idempotency
    ) -> Published:
        """Change the fields that a merge patch (RFC 7396) names; the first patch of a page needs a headline."""

        async def append(current: StoredPage | None, at: int) -> Append:
            page_in = await aside(changes.patch_page, current, patch)
            page = changes.revise_page(page_in, at=at, current=current)
            return changes.put_page(stream, page, at=at, idempotency=idempotency)

        return await self._change(stream, append, precondition, idempotency)

    async def end(self, stream: str, end: EndIn, *, precondition: Precondition, idempotency: Idempotency) -> Published:
        """End the coverage: the stream takes corrections and withdrawals, and no new entries."""

        async def append(current: StoredPage | None, at: int) -> Append:
            return changes.end_stream(stream, current, end, at=at, idempotency=idempotency)

        return await self._change(stream, append, precondition, idempotency)

    async def _change(
        self,
        stream: str,
        append: Callable[[StoredPage | None, int], Awaitable[Append]],
        precondition: Precondition,
        idempotency: Idempotency,
    ) -> Published:
        async def attempt() -> Published:
            current = await self._log.page_of(stream)
            precondition.check(current)
            appended = await self._log.append(await append(current, model.now()))
            return Published(appended, is_new=current is None)

        return await changed_once(self._log, stream, idempotency, attempt)
