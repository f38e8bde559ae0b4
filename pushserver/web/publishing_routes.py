"""Entries and pages in: publish, correct, withdraw, end. Each is one append to the log, or stores nothing.

A change is made from the revision that is current, and stored only if it still is: two scripts that edit one entry
never overwrite each other unseen. With `If-Match` the second is told; without it, its change is made again from the new
revision.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from .. import model
from ..codec import dumps, read_json
from ..content import schema, validation, warnings
from ..errors import Conflict, Fault, Invalid, NotFound, Refused, TooLarge, Unavailable, shorten, withdrawn
from ..live.receipts import Receipts
from ..model import Append
from ..page import render
from ..store.log import Appended, RevisionConflict
from ..store.store import StoreError
from .request import JSON, MERGE_PATCH, NDJSON, Intake, status_of

ATTEMPTS = 5  # at a revision that others change at the same time
WITHDRAWAL_WAIT = (
    2.0  # seconds for the workers to have let go of what was withdrawn, before the answer says who has not
)

T = TypeVar("T")
Held = dict[str, Any] | None  # what is current, where there is something


async def publish_entry(request: Request) -> Response:
    """`POST /streams/{stream}/entries`: a new entry, in a new stream where there is none by that name; or a batch."""
    intake = await Intake.of(request, "publish")
    dry = intake.query(schema.PublishIn).dry_run == "1"
    if intake.kind == NDJSON:
        if dry:
            fault = Fault("dry_run", f"one entry, as {JSON}", NDJSON)
            raise Invalid("A batch has no dry run.", fault, headers={"Connection": "close"})
        return await _publish_batch(intake)
    value, body_hash = await intake.json(JSON, NDJSON)
    if dry:
        return await _dry_run(intake, value)
    appended = await _publish_one(intake, value, body_hash)
    return intake.answer(appended, created=True)


async def _dry_run(intake: Intake, value: Any) -> Response:
    """The entry as it would be stored and shown, and what is perhaps not meant so. Nothing is stored."""
    at = model.now()
    entry_in = validation.read(schema.NewEntryIn, value)
    entry = schema.entry(entry_in, stream=intake.stream, id=model.new_id(), at=at)
    page = await intake.log.page_of(intake.stream) or model.unwritten_page(intake.stream)
    faults = [fault._asdict() for fault in warnings.warnings(entry, page, at)]
    told = {"entry": entry, "html": render.preview(entry, page), "warnings": faults}
    return Response(f"{dumps(told)}\n", headers={"Cache-Control": "no-store"}, media_type=JSON)


async def _publish_batch(intake: Intake) -> Response:
    """Each line an entry, published or refused by itself, in order; each answer a line, with its status."""
    lines = await intake.lines()
    intake.admission.charge(len(lines))
    limit: int = intake.request.app.state.settings.body_limit
    results: list[dict[str, Any]] = []
    down: Unavailable | None = None
    for number, line in enumerate(lines, 1):
        if down:  # each further line would wait for the store as long as the one before
            results.append({"line": number, **down.problem()})
            continue
        # A key for the batch makes one for each line, so that a batch that was cut short can be sent again.
        line_intake = intake._replace(key=f"{intake.key}.{number}")
        try:
            if len(line) > limit:
                raise TooLarge("The line is too long.", Fault("body", f"at most {limit} bytes", str(len(line))))
            appended = await _publish_one(line_intake, read_json(line), hashlib.sha256(line).hexdigest())
            status = status_of(appended, created=True)
            results.append({"line": number, "status": status, **intake.fields(appended)})
        except Refused as refused:
            down = refused if isinstance(refused, Unavailable) else None
            results.append({"line": number, **refused.problem()})
    body = "".join(f"{dumps(result)}\n" for result in results)
    return Response(body, headers={"Idempotency-Key": intake.key}, media_type=NDJSON)


async def _publish_one(intake: Intake, value: Any, body_hash: str) -> Appended:
    entry_in = validation.read(schema.NewEntryIn, value)

    async def attempt() -> Appended:
        at = model.now()
        entry = schema.entry(entry_in, stream=intake.stream, id=model.new_id(), at=at)
        return await intake.log.append(_entry_append(intake, entry, at, body_hash))

    return await _attempts(attempt)


async def put_entry(request: Request) -> Response:
    """`PUT /streams/{stream}/entries/{id}`: the entry, whole; new where there is none by that id."""
    intake = await Intake.of(request, "publish", "correct")
    value, body_hash = await intake.json()
    entry_in = validation.read(schema.EntryIn, value)
    return await _change_entry(intake, body_hash, lambda held: entry_in)


async def patch_entry(request: Request) -> Response:
    """`PATCH /streams/{stream}/entries/{id}`: a merge patch (RFC 7396) of what the publisher may send."""
    intake = await Intake.of(request, "correct")
    value, body_hash = await intake.json(MERGE_PATCH, JSON)
    return await _change_entry(intake, body_hash, lambda held: schema.patch_entry(_found(intake, held), value))


async def _change_entry(intake: Intake, body_hash: str, change: Callable[[Held], schema.EntryIn]) -> Response:
    id = intake.entry_id()

    async def attempt() -> Response:
        held = await _current(intake, id)
        intake.check_rev(held)
        at = model.now()
        entry = schema.entry(change(held), stream=intake.stream, id=id, at=at, held=held)
        if held and {**entry, "rev": held["rev"]} == held:
            return _unchanged(held)
        appended = await intake.log.append(_entry_append(intake, entry, at, body_hash))
        return intake.answer(appended, created=not held)

    first = await _first_answer(intake, body_hash)
    return intake.answer(first, created=False) if first else await _attempts(attempt)


def _entry_append(intake: Intake, entry: dict[str, Any], at: int, body_hash: str) -> Append:
    return Append(
        stream=intake.stream,
        type="entry.put",
        data={"at": model.instant(at), "entry": entry},
        at=at,
        state=entry,
        rev=entry["rev"],
        shown_at=schema.shown_at(entry, at),
        entry_id=entry["id"],
        order=model.order_of(entry),
        key=intake.key,
        body_hash=body_hash,
    )


async def withdraw_entry(request: Request) -> Response:
    """`DELETE /streams/{stream}/entries/{id}?reason=&note=`: what it said leaves the stream, that it did stays."""
    intake = await Intake.of(request, "withdraw")
    id, withdrawal = intake.entry_id(), intake.query(schema.WithdrawalIn)
    body_hash = json.dumps(dict(request.query_params), sort_keys=True)

    async def attempt() -> Appended:
        held = await _current(intake, id)
        intake.check_rev(held)
        held = _found(intake, held)
        at = model.now()
        told = {"at": model.instant(at), "id": id, "rev": held["rev"] + 1, **withdrawal.model_dump(exclude_none=True)}
        kept = told if withdrawal.reason == "legal" else {**told, "headline": held.get("headline")}
        append = Append(
            stream=intake.stream,
            type="entry.withdraw",
            data=told,
            at=at,
            state=kept,
            rev=told["rev"],
            shown_at=model.instant(at),
            entry_id=id,
            order=at,
            key=intake.key,
            body_hash=body_hash,
        )
        return await intake.log.append(append)

    first = await _first_answer(intake, body_hash)
    appended = first if first else await _attempts(attempt)
    receipts: Receipts = request.app.state.receipts
    try:
        receipt = await receipts.of(intake.stream, id, appended.n, wait=WITHDRAWAL_WAIT)
    except StoreError:  # it is withdrawn all the same
        receipt = None
    return intake.answer(appended, created=False, receipt=receipt)


async def delivery(request: Request) -> Response:
    """`GET /streams/{stream}/entries/{id}/delivery?n=&wait=`: the receipt of an entry's event `n`, or of its newest."""
    intake = await Intake.of(request)
    id, asked = intake.entry_id(), intake.query(schema.DeliveryIn)
    if not any(await intake.log.entry(intake.stream, id)):
        raise NotFound(f"There is no entry {id} in {intake.stream}.")
    receipts: Receipts = request.app.state.receipts
    receipt = await receipts.of(intake.stream, id, asked.n, wait=asked.wait)
    return Response(dumps({"id": id, **receipt}) + "\n", headers={"Cache-Control": "no-store"}, media_type=JSON)


async def put_page(request: Request) -> Response:
    """`PUT /streams/{stream}`: the page's own fields, whole."""
    intake = await Intake.of(request, "page")
    value, body_hash = await intake.json()
    page_in = validation.read(schema.PageIn, value)
    return await _change_page(intake, body_hash, lambda held, at: schema.page(page_in, at=at, held=held))


async def patch_page(request: Request) -> Response:
    """`PATCH /streams/{stream}`: a merge patch (RFC 7396) of the page's own fields; its first where there is none."""
    intake = await Intake.of(request, "page")
    value, body_hash = await intake.json(MERGE_PATCH, JSON)

    def patched(held: Held, at: int) -> dict[str, Any]:
        return schema.page(schema.patch_page(held or {}, value), at=at, held=held)

    return await _change_page(intake, body_hash, patched)


async def end_stream(request: Request) -> Response:
    """`POST /streams/{stream}/end`: the coverage is over; `{"next": {label, url}}` says where it goes on."""
    intake = await Intake.of(request, "page")
    value, body_hash = await intake.json(empty=b"{}")
    end = validation.read(schema.EndIn, value).model_dump(exclude_none=True)

    def ended(held: Held, at: int) -> dict[str, Any]:
        now = model.instant(at)
        over = {"state": "ended", "coverage_end": now, "updated_at": now}
        held = held or model.unwritten_page(intake.stream)
        return {**held, "rev": held["rev"] + 1, **over, **end}

    return await _change_page(intake, body_hash, ended, type="stream.end", **end)


async def _change_page(
    intake: Intake, body_hash: str, change: Callable[[Held, int], dict[str, Any]], type: str = "page.put", **told: Any
) -> Response:
    async def attempt() -> Response:
        held = await intake.log.page_of(intake.stream)
        intake.check_rev(held)
        at = model.now()
        page = change(held, at)
        append = Append(
            stream=intake.stream,
            type=type,
            data={"at": model.instant(at), **told, "page": page},
            at=at,
            state=page,
            rev=page["rev"],
            shown_at=page["updated_at"],
            key=intake.key,
            body_hash=body_hash,
        )
        return intake.answer(await intake.log.append(append), created=not held)

    first = await _first_answer(intake, body_hash)
    return intake.answer(first, created=False) if first else await _attempts(attempt)


async def _attempts(attempt: Callable[[], Awaitable[T]]) -> T:
    """Make a change from what is current, again where something else came first."""
    for _ in range(ATTEMPTS):
        try:
            return await attempt()
        except RevisionConflict:
            continue
    raise Conflict("Others are changing it at the same time; send it again.")


async def _first_answer(intake: Intake, body_hash: str) -> Appended | None:
    """What was answered to this idempotency key before: a repeated change would else be judged by its own outcome."""
    if not intake.repeatable:
        return None
    return await intake.log.first_answer(intake.stream, intake.key, body_hash)


async def _current(intake: Intake, id: str) -> Held:
    found, withdrawal = await intake.log.entry(intake.stream, id)
    if withdrawal:
        raise withdrawn(withdrawal)
    return json.loads(found) if found else None


def _found(intake: Intake, held: Held) -> dict[str, Any]:
    if held is None:
        path = intake.request.url.path
        raise NotFound(f"There is nothing to change at {shorten(path)}.")
    return held


def _unchanged(held: dict[str, Any]) -> Response:
    """A change that changes nothing is no event."""
    fields = {"id": held["id"], "rev": held["rev"], "url": held["url"], "unchanged": True}
    return Response(json.dumps(fields) + "\n", 200, {"ETag": f'"{held["rev"]}"'}, JSON)
