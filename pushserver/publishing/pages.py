"""Pages: a stream's own fields, and the end of its coverage. Each is one append to the log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from .. import model
from ..content import changes
from ..content.schema import EndIn, PageIn
from ..errors import NotFound
from ..model import Append, Idempotency, StoredPage
from ..store.log import Log
from .commit import Precondition, Published, changed_once
from .off_loop import off_loop


class Pages:
    """Publishes the pages of a log's streams. Each method raises Changed, Conflict, KeyReused, Unavailable.

    A change that changes nothing stores nothing, and answers with the current page.
    """

    def __init__(self, log: Log) -> None:
        self._log = log

    async def put(
        self, stream: str, page_in: PageIn, *, precondition: Precondition, idempotency: Idempotency
    ) -> Published | StoredPage:
        """Set a page whole."""

        async def append(current: StoredPage | None, at: int) -> Append | None:
            return _put(stream, page_in, current, at, idempotency)

        return await self._change(stream, append, precondition, idempotency)

    async def patch(
        self, stream: str, patch: Any, *, precondition: Precondition, idempotency: Idempotency
    ) -> Published | StoredPage:
        """Change the fields that a merge patch (RFC 7396) names; the first patch of a page needs a headline."""

        async def append(current: StoredPage | None, at: int) -> Append | None:
            page_in = await off_loop(changes.patch_page, current, patch)
            return _put(stream, page_in, current, at, idempotency)

        return await self._change(stream, append, precondition, idempotency)

    async def end(
        self, stream: str, end: EndIn, *, precondition: Precondition, idempotency: Idempotency
    ) -> Published | StoredPage:
        """End the coverage: the stream takes corrections and withdrawals, and no new entries.

        Raises NotFound where there is no such stream: one whose name is misspelt would end in place of the other.
        """

        async def append(current: StoredPage | None, at: int) -> Append | None:
            if current is None and (await self._log.heads([stream]))[0] is None:
                raise NotFound(f"There is no stream {stream}; nothing was ended.")
            change = changes.end_stream(stream, current, end, at=at, idempotency=idempotency)
            page = cast(StoredPage, change.state)
            return None if changes.is_same_page(page, current, keeps=("coverage_end", "updated_at")) else change

        return await self._change(stream, append, precondition, idempotency)

    async def _change(
        self,
        stream: str,
        append: Callable[[StoredPage | None, int], Awaitable[Append | None]],
        precondition: Precondition,
        idempotency: Idempotency,
    ) -> Published | StoredPage:
        async def attempt() -> Published | StoredPage:
            current = await self._log.page_of(stream)
            precondition.check(current)
            change = await append(current, model.now())
            if current and change is None:
                return current
            assert change is not None, "a page that is not stored is not the same as one that is"
            return Published(await self._log.append(change), is_new=current is None)

        return await changed_once(self._log, stream, "", idempotency, attempt)


def _put(stream: str, page_in: PageIn, current: StoredPage | None, at: int, idempotency: Idempotency) -> Append | None:
    """The change of a page; None where it changes nothing. A new `updated_at` is a change if the publisher sent it."""
    page = changes.revise_page(page_in, at=at, current=current)
    keeps = () if page_in.updated_at else ("updated_at",)
    return (
        None
        if changes.is_same_page(page, current, keeps=keeps)
        else changes.put_page(stream, page, at=at, current=current, idempotency=idempotency)
    )
