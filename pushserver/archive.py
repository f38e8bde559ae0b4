"""A stream as lines that another server can read back: all that is stored of it, revisions and withdrawals too.

Lines are `{"entry": …}`, `{"withdrawal": …}` and `{"page": …}`, each in its stored form. The last line of an export is
not of the stream: it says that the export is whole, or that the stream changed while it was read.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from . import model, schema, stored, validate
from .errors import Changed, Fault, NotFound, Refused, TooLarge
from .frames import dumps
from .intake import NDJSON, Intake
from .keys import RIGHTS
from .log import Append, Log, Moved, Snapshot

SLICE = 100  # entries that are read at once
LINE_BYTES = 2**20  # a stored entry is longer than what was sent for it


async def export_stream(request: Request) -> Response:
    """`GET /streams/{stream}/export`: the entries in the order of the page, the withdrawals, the page, an end."""
    intake = await Intake.of(request, *RIGHTS)
    first = await intake.log.snapshot(intake.stream, limit=SLICE)
    if first is None:
        raise NotFound(f"There is no stream {intake.stream}.")
    return StreamingResponse(export_lines(intake.log, intake.stream, first), media_type=NDJSON)


async def export_lines(log: Log, stream: str, first: Snapshot) -> AsyncIterator[str]:
    """The lines of a stream whose first slice is known."""
    snapshot, cursor = first, first.cursor
    while snapshot.cursor == cursor:
        for text in snapshot.entries:
            yield _line(entry=_without_url(json.loads(text)))
        if not snapshot.older:
            break
        last = json.loads(snapshot.entries[-1])
        snapshot = await _read(log, stream, limit=SLICE, after=(model.order_of(last), last["id"]))
    for withdrawal in await log.withdrawals(stream):
        yield _line(withdrawal=withdrawal)
    page = await log.page_of(stream)
    if page:
        yield _line(page={**page, "updated_at": first.page["updated_at"]})
    is_whole = (await _read(log, stream, limit=0)).cursor == cursor
    yield _line(end={"whole": is_whole, "cursor": str(cursor)})


async def _read(log: Log, stream: str, *, limit: int, after: tuple[int, str] | None = None) -> Snapshot:
    snapshot = await log.snapshot(stream, limit=limit, after=after)
    if snapshot is None:
        raise NotFound(f"There is no stream {stream} any more.")
    return snapshot


def _line(**fields: Any) -> str:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"), sort_keys=True) + "\n"


def _without_url(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != "url"}


async def restore_stream(request: Request) -> Response:
    """`POST /streams/{stream}/restore`: the lines of an export, each judged by itself, as a batch is.

    What is there already, as the line has it, stays as it is; what is there otherwise is refused.
    """
    intake = await Intake.of(request, *RIGHTS)
    lines = await intake.lines()
    intake.admission.charge(len(lines))
    results: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        try:
            results.append({"line": number, **await _restore(intake, line)})
        except Refused as refused:
            results.append({"line": number, **refused.problem()})
            break  # what comes after it is to be sent again with it
    return Response("".join(f"{dumps(result)}\n" for result in results), media_type=NDJSON)


async def _restore(intake: Intake, line: bytes) -> dict[str, Any]:
    if len(line) > LINE_BYTES:
        raise TooLarge("The line is too long.", Fault("body", f"at most {LINE_BYTES} bytes", str(len(line))))
    kind, fields = stored.read_line(validate.read_json(line))
    held = await _held(intake, kind, fields)
    if held is not None:
        if held != fields:
            raise _changed(kind, fields, held)
        return {"status": 200, "unchanged": True}
    try:
        appended = await intake.log.append(_append(intake.stream, kind, fields))
    except Moved:
        raise _changed(kind, fields, None) from None
    return {"status": 201, **intake.fields(appended)}


def _changed(kind: str, fields: dict[str, Any], held: dict[str, Any] | None) -> Changed:
    got = f"revision {held['rev']}" if held and "rev" in held else "another"
    return Changed("There is another one.", Fault(kind, f"none, or this revision {fields['rev']}", got), held)


async def _held(intake: Intake, kind: str, fields: dict[str, Any]) -> dict[str, Any] | None:
    """What is stored in this one's place."""
    if kind == "page":
        page = await intake.log.page_of(intake.stream)
        return page and {**page, "updated_at": fields["updated_at"]}
    found, withdrawal = await intake.log.entry(intake.stream, fields["id"])
    return withdrawal or (_without_url(json.loads(found)) if found else None)


def _append(stream: str, kind: str, fields: dict[str, Any]) -> Append:
    """The event that a line is, in place of nothing."""
    at, rev = model.now(), fields["rev"]
    if kind == "page":
        type = "stream.end" if fields["state"] == "ended" else "page.put"
        told = {"next": fields["next"]} if type == "stream.end" and "next" in fields else {}
        data = {"at": model.instant(at), **told, "page": fields}
        return Append(stream, type, data, at, fields, rev, fields["updated_at"], replaces=0)
    if kind == "withdrawal":
        gone_at = model.milliseconds(fields["at"])
        told = {name: value for name, value in fields.items() if name != "headline"}
        return Append(
            stream, "entry.withdraw", told, gone_at, fields, rev, fields["at"], entry_id=fields["id"], replaces=0
        )
    entry = {**fields, "url": schema.entry_url(stream, fields["id"])}
    return Append(
        stream,
        "entry.put",
        {"at": model.instant(at), "entry": entry},
        at,
        entry,
        rev,
        schema.shown_at(entry, at),
        entry_id=entry["id"],
        order=model.order_of(entry),
        replaces=0,
    )
