"""The routes that publish: entries, pages, the end of a stream, and receipts of delivery."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from .. import model
from ..access.keys import Keys
from ..codec import dumps, read_json
from ..content import history, schema, validation, warnings
from ..content.warnings import EntryWarning
from ..errors import Fault, Invalid, NotFound, Refused, TooLarge, Unavailable
from ..live.receipts import Receipts
from ..model import StoredEntry, StoredPage
from ..page import render
from ..publishing.commit import Published
from ..publishing.entries import Entries
from ..publishing.off_loop import off_loop
from ..publishing.pages import Pages
from ..store.erasure import Erasures
from ..store.log import Log
from ..store.store import StoreError
from ..stretch import Stretch
from .idempotency_key import of_line
from .request import (
    JSON,
    MERGE_PATCH,
    NDJSON,
    PublishRequest,
    batch_answer,
    erased_fields,
    outcome,
    status_of,
    was_enough,
)

logger = logging.getLogger(__name__)

WITHDRAWAL_WAIT = 2.0  # seconds for all workers to forget a withdrawn text, until the answer names those that did not


class PublishingRoutes:
    """Handlers of requests that publish. `body_limit` is in bytes, of a body or of a line of a batch.

    `purge` is called with the stream and the id of an entry that was withdrawn.
    """

    def __init__(
        self, log: Log, keys: Keys, receipts: Receipts, *, purge: Callable[[str, str], None], body_limit: int
    ) -> None:
        self._log = log
        self._entries = Entries(log)
        self._pages = Pages(log)
        self._erasures = Erasures(log)
        self._keys = keys
        self._receipts = receipts
        self._purge = purge
        self._body_limit = body_limit

    # --- entries

    async def publish_entry(self, request: Request) -> Response:
        """`POST /streams/{stream}/entries`: a new entry, or a batch. The first entry creates the stream."""
        publish = await PublishRequest.admit(request, self._keys, "publish")
        is_dry_run = publish.query(schema.PublishIn).dry_run == "1"
        if publish.kind == NDJSON:
            if is_dry_run:
                fault = Fault("dry_run", f"one entry, as {JSON}", NDJSON)
                raise Invalid("A batch has no dry run.", fault, headers={"Connection": "close"})
            return await self._publish_batch(publish)
        value = await publish.json(JSON, NDJSON, limit=self._body_limit)
        entry_in = await off_loop(validation.read, schema.NewEntryIn, value)
        if is_dry_run:
            return await self._dry_run(publish.stream, entry_in)
        appended = await self._entries.publish(publish.stream, entry_in, publish.idempotency)
        return publish.answer(appended, is_new=True, **_unusual(warnings.of_input(entry_in, model.now())))

    async def _dry_run(self, stream: str, entry_in: schema.NewEntryIn) -> Response:
        """The entry as it would be stored and shown, and warnings about it. Nothing is stored."""
        entry, page = await self._entries.preview(stream, entry_in)
        unusual = [*warnings.of_input(entry_in, model.now()), *warnings.of_page(page)]
        listed = [warning._asdict() for warning in unusual]
        body = {"entry": entry, "html": render.preview(entry, page), "warnings": listed}
        return Response(f"{dumps(body)}\n", headers={"Cache-Control": "no-store"}, media_type=JSON)

    async def _publish_batch(self, publish: PublishRequest) -> Response:
        """Publish or refuse each line by itself, in order; the answer has a line with a status for each."""
        results: list[dict[str, Any]] = []
        down: Unavailable | None = None
        lines, stretch = await publish.lines(), Stretch()
        for number, line in lines:
            await stretch.rest()  # a line that is refused awaits nothing else
            if down:  # each further line would wait for the store as long as the one before
                results.append({"line": number, **down.problem()})
                continue
            try:
                published = await self._publish_line(publish, number, line)
                appended = published.appended
                result = {"status": status_of(appended, is_new=True), **outcome(publish.stream, appended)}
                result |= _unusual(published.warnings)
                results.append({"line": number, **result})
            except Refused as refused:
                down = refused if isinstance(refused, Unavailable) else None
                results.append({"line": number, **refused.problem()})
        return batch_answer(results, {"Idempotency-Key": publish.idempotency.key})

    async def _publish_line(self, publish: PublishRequest, number: int, line: bytes) -> Published:
        if len(line) > self._body_limit:
            fault = Fault("body", f"at most {self._body_limit} bytes", str(len(line)))
            raise TooLarge("The line is too long.", fault)
        entry_in = await off_loop(validation.read, schema.NewEntryIn, read_json(line))
        appended = await self._entries.publish(publish.stream, entry_in, of_line(publish.idempotency, number, line))
        return Published(appended, is_new=True, warnings=warnings.of_input(entry_in, model.now()))

    async def put_entry(self, request: Request) -> Response:
        """`PUT /streams/{stream}/entries/{id}`: the entry, whole; new where there is none by the id."""
        publish = await PublishRequest.admit(request, self._keys, "publish", "correct")
        entry_in = await off_loop(validation.read, schema.EntryPut, await publish.json(limit=self._body_limit))
        result = await self._entries.put(
            publish.stream,
            publish.entry_id(),
            entry_in,
            precondition=publish.precondition(),
            idempotency=publish.idempotency,
        )
        return _entry_answer(publish, result)

    async def patch_entry(self, request: Request) -> Response:
        """`PATCH /streams/{stream}/entries/{id}`: a merge patch (RFC 7396) of the fields that a publisher may send."""
        publish = await PublishRequest.admit(request, self._keys, "correct")
        patch = await publish.json(MERGE_PATCH, JSON, limit=self._body_limit)
        result = await self._entries.patch(
            publish.stream,
            publish.entry_id(),
            patch,
            precondition=publish.precondition(),
            idempotency=publish.idempotency,
        )
        return _entry_answer(publish, result)

    async def withdraw_entry(self, request: Request) -> Response:
        """`DELETE /streams/{stream}/entries/{id}?reason=&note=`: the entry's text leaves the stream, a mark stays."""
        publish = await PublishRequest.admit(request, self._keys, "withdraw")
        id, withdrawal = publish.entry_id(), publish.query(schema.WithdrawalIn)
        appended = await self._entries.withdraw(
            publish.stream,
            id,
            withdrawal,
            # The stream may be private, and a key that can only withdraw is no reader's.
            precondition=publish.precondition(text_needs="correct"),
            idempotency=publish.idempotency._replace(body_hash=publish.query_hash()),
        )
        try:
            receipt = await self._receipts.of(publish.stream, id, appended.n, wait=WITHDRAWAL_WAIT)
        except StoreError:  # the withdrawal is stored all the same
            receipt = None
        finally:  # after the workers: a cache would fetch the text again from one that has it
            self._purge(publish.stream, id)
        erased = {"erased": await self._erase(publish, id)} if withdrawal.reason == "legal" else {}
        return publish.answer(appended, is_new=False, receipt=receipt, **erased)

    async def _erase(self, publish: PublishRequest, id: str) -> dict[str, Any] | None:
        """Erase the text at rest of an entry that was withdrawn.

        None where the store does not let that happen now, or where a failover could bring the text back.
        """
        try:
            erased = await self._erasures.erase(publish.stream, id, history.by(publish.author, "erase"))
        except (Refused, StoreError) as error:
            words = "stream %s: the store may still have the text of entry %s (%s); to erase it: pushserver erase %s %s"
            logger.warning(words, publish.stream, id, error, publish.stream, id)
            return None
        if not was_enough(erased.durability):
            words = (
                "stream %s: entry %s was erased, and fewer replicas than --replicas have the erasure: a failover may "
                "bring its text back; to repeat it: pushserver erase %s %s"
            )
            logger.warning(words, publish.stream, id, publish.stream, id)
            return None
        return erased_fields(erased)

    async def delivery(self, request: Request) -> Response:
        """`GET /streams/{stream}/entries/{id}/delivery?n=&wait=`: the receipt of event `n`, or of the newest."""
        publish = await PublishRequest.admit(request, self._keys)
        id, query = publish.entry_id(), publish.query(schema.DeliveryIn)
        entry, withdrawal = await self._log.entry(publish.stream, id)
        if not entry and not withdrawal:
            raise NotFound(f"There is no entry {id} in {publish.stream}.")
        erased_at = withdrawal.get("erased_at") if withdrawal else None
        receipt = await self._receipts.of(publish.stream, id, query.n, wait=query.wait)
        body = dumps({"id": id, **receipt, **({"erased_at": erased_at} if erased_at else {})})
        return Response(f"{body}\n", headers={"Cache-Control": "no-store"}, media_type=JSON)

    # --- pages

    async def put_page(self, request: Request) -> Response:
        """`PUT /streams/{stream}`: the page's own fields, whole."""
        publish = await PublishRequest.admit(request, self._keys, "page")
        page_in = await off_loop(validation.read, schema.PagePut, await publish.json(limit=self._body_limit))
        result = await self._pages.put(
            publish.stream, page_in, precondition=publish.precondition(), idempotency=publish.idempotency
        )
        return _page_answer(publish, result)

    async def patch_page(self, request: Request) -> Response:
        """`PATCH /streams/{stream}`: a merge patch (RFC 7396) of the page; its first needs a headline."""
        publish = await PublishRequest.admit(request, self._keys, "page")
        patch = await publish.json(MERGE_PATCH, JSON, limit=self._body_limit)
        result = await self._pages.patch(
            publish.stream, patch, precondition=publish.precondition(), idempotency=publish.idempotency
        )
        return _page_answer(publish, result)

    async def end_stream(self, request: Request) -> Response:
        """`POST /streams/{stream}/end`: the coverage is over; the body `{"next": {label, url}}` is optional."""
        publish = await PublishRequest.admit(request, self._keys, "page")
        end = validation.read(schema.EndIn, await publish.json(limit=self._body_limit, empty=b"{}"))
        result = await self._pages.end(
            publish.stream, end, precondition=publish.precondition(), idempotency=publish.idempotency
        )
        return _page_answer(publish, result)


def _unusual(unusual: Sequence[EntryWarning]) -> dict[str, Any]:
    """The member of an answer that has the warnings, where there are any."""
    return {"warnings": [warning._asdict() for warning in unusual]} if unusual else {}


def _entry_answer(publish: PublishRequest, result: Published | StoredEntry) -> Response:
    """The answer to a change of an entry. A change that changes nothing is no event: it has no place in the log."""
    if isinstance(result, Published):
        return publish.answer(result.appended, is_new=result.is_new, **_unusual(result.warnings))
    return _unchanged({"id": result["id"], "rev": result["rev"], "url": result["url"]})


def _page_answer(publish: PublishRequest, result: Published | StoredPage) -> Response:
    if isinstance(result, Published):
        return publish.answer(result.appended, is_new=result.is_new)
    return _unchanged({"rev": result["rev"], "url": f"/streams/{publish.stream}"})


def _unchanged(fields: dict[str, Any]) -> Response:
    return Response(dumps({**fields, "unchanged": True}) + "\n", 200, {"ETag": f'"{fields["rev"]}"'}, JSON)
