"""The routes of a newsroom's desk, for keys alone: the list of streams, deletion, erasure, history.

No cache keeps an answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ..access.keys import Keys
from ..codec import dumps
from ..content import history, schema
from ..errors import Fault, Invalid, NotFound, shorten
from ..live.receipts import Receipts
from ..store.deletion import Deletions
from ..store.erasure import Erasures
from ..store.history import Histories
from ..store.listing import Listing, ListPlace, StreamSize
from ..store.log import Log
from ..store.store import Durability, StoreError
from .request import JSON, QUOTA, PublishRequest, erased_fields, query_of, was_enough

DELETION_WAIT = 5.0  # seconds for all workers to close the readers, until the answer names those that did not
PRIVATE = {"Cache-Control": "private, no-store"}


class DeskRoutes:
    """Handlers of requests that show and remove what is for keys. `purge` is called with a stream that was deleted."""

    def __init__(
        self, log: Log, keys: Keys, receipts: Receipts, *, deletions: Deletions, purge: Callable[[str, str], None]
    ) -> None:
        self._listing = Listing(log)
        self._erasures = Erasures(log)
        self._histories = Histories(log)
        self._log = log
        self._keys = keys
        self._receipts = receipts
        self._deletions = deletions
        self._purge = purge

    async def list_streams(self, request: Request) -> Response:
        """`GET /streams?after=&limit=`: the streams that the key is for, the last changed first, and what they have."""
        quota = request.scope[QUOTA] = await self._keys.admit(request.headers.get("authorization"), (), None)
        query = query_of(request, schema.ListingIn)
        places = await self._listing.places(_place(query.after), limit=query.limit)
        sizes = await self._listing.sizes([place.stream for place in places if quota.is_for(place.stream)])
        streams = [_listed(place.stream, sizes[place.stream]) for place in places if place.stream in sizes]
        after = f"{places[-1].changed}.{places[-1].stream}" if len(places) == query.limit else None
        return _answer({"streams": streams, "after": after})

    async def delete_stream(self, request: Request) -> Response:
        """`DELETE /streams/{stream}?forget=`: all of the stream goes; a mark stays, unless that is forgotten, too."""
        publish = await PublishRequest.admit(request, self._keys, "delete")
        forget = publish.query(schema.DeletionIn).forget == "true"
        stream = publish.stream
        deleted = await self._deletions.delete(stream)
        if deleted is None:
            raise NotFound(f"There is no stream {stream}.")
        deletion, durability = deleted
        try:
            receipt = await self._receipts.deleted(stream, deletion.epoch, wait=DELETION_WAIT)
        except StoreError:  # the stream is deleted all the same; workers notice by themselves
            receipt = None
        finally:
            self._purge(stream, "")
        if forget:
            await self._deletions.forget(stream)
        fields = {"stream": stream, "deleted_at": deletion.at, "forgotten": forget, **_durable(durability)}
        return _answer({**fields, "receipt": receipt}, 200 if was_enough(durability) else 202)

    async def erase_entry(self, request: Request) -> Response:
        """`POST /streams/{stream}/desk/entries/{id}/erase`: the text of a withdrawn entry leaves the store."""
        publish = await PublishRequest.admit(request, self._keys, "withdraw")
        id = publish.entry_id()
        erased = await self._erasures.erase(publish.stream, id, history.by(publish.author, "erase"))
        fields = {"id": id, "erased": erased_fields(erased), **_durable(erased.durability)}
        return _answer(fields, 200 if was_enough(erased.durability) else 202)

    async def show_history(self, request: Request) -> Response:
        """`GET /streams/{stream}/desk/entries/{id}/history`: which keys made the newest revisions, the oldest first."""
        publish = await PublishRequest.admit(request, self._keys, "audit")
        id = publish.entry_id()
        if not any(await self._log.entry(publish.stream, id)):
            raise NotFound(f"There is no entry {id} in {publish.stream}.")
        rows = (await self._histories.of(publish.stream, [id])).get(id)
        return _answer({"id": id, "revisions": [revision.shown() for revision in history.revisions(rows)]})


def _listed(stream: str, size: StreamSize) -> dict[str, Any]:
    """A stream as the list has it."""
    page = size.page
    return {
        "stream": stream,
        "url": f"/streams/{stream}",
        "headline": page["headline"],
        "state": page["state"],
        "entries": size.entries,
        "withdrawals": size.withdrawals,
        "bytes": size.bytes,
        "updated_at": page["updated_at"],
    }


def _answer(fields: Mapping[str, Any], status: int = 200) -> Response:
    return Response(f"{dumps(fields)}\n", status, PRIVATE, JSON)


def _durable(durability: Durability) -> dict[str, Any]:
    level, replicas = durability
    return {"durability": level, **({} if replicas is None else {"replicas": replicas})}


def _place(text: str | None) -> ListPlace | None:
    """The place in the list that the parameter `after` names."""
    if text is None:
        return None
    match = re.fullmatch(schema.PLACE, text)
    if not match:
        fault = Fault("after", "the value that `after` of another answer has", shorten(text))
        raise Invalid("after must be the value that `after` of another answer has.", fault)
    return ListPlace(int(match[1]), match[2])
