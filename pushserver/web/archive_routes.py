"""A stream out and in again, whole: every revision, correction and withdrawal as it is stored, one a line.

What is exported is of one instant, and in one order. What is restored is only what is not there: a line that was
restored before changes nothing, one that would change something is refused.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from tempfile import SpooledTemporaryFile
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from .. import model
from ..access.keys import RIGHTS
from ..codec import dumps, read_json
from ..content import export, schema
from ..errors import Changed, Conflict, Fault, NotFound, Refused, Unavailable
from ..model import Append
from ..store.log import Contents, Log, RevisionConflict
from .request import NDJSON, Intake

ATTEMPTS = 5  # at a stream that does not hold still
SLICE = 50  # entries that are read at once
IN_MEMORY, CHUNK = 2**20, 65_536  # bytes of an export; what is longer goes to a file until it is sent


async def export_stream(request: Request) -> Response:
    """`GET /streams/{stream}/export`: entries, the lowest on the page first, withdrawals by id, the page."""
    intake = await Intake.of(request, *RIGHTS)
    file = await whole(intake.log, intake.stream)
    headers = {"Content-Length": str(file.tell()), "Cache-Control": "no-store"}
    return StreamingResponse(_chunks(file), headers=headers, media_type=NDJSON)


async def whole(log: Log, stream: str) -> SpooledTemporaryFile[bytes]:
    """All that a stream holds at one instant, in a file. Raises NotFound, or Unavailable where it keeps changing."""
    for _ in range(ATTEMPTS):
        contents = await log.contents(stream)
        if contents is None:
            raise NotFound(f"There is no stream {stream}.")
        file = SpooledTemporaryFile(IN_MEMORY)
        if await _write(file, log, stream, contents):
            return file
        file.close()
    raise Unavailable(f"{stream} changed each time that it was read; come back when it is quieter.")


async def _write(file: SpooledTemporaryFile[bytes], log: Log, stream: str, contents: Contents) -> bool:
    """Write what a stream holds, a slice at a time; False where it changed meanwhile."""
    for kind, name, ids in (("entry", "entries", contents.entries), ("withdrawal", "withdrawn", contents.withdrawals)):
        for start in range(0, len(ids), SLICE):
            head, values = await log.stored(stream, name, ids[start : start + SLICE])
            if head != contents.head:
                return False
            file.writelines(export.line(kind, value).encode() for value in values)
    if contents.page:
        file.write(export.line("page", contents.page).encode())
    return True


async def _chunks(file: SpooledTemporaryFile[bytes]) -> AsyncIterator[bytes]:
    with file:
        file.seek(0)
        while chunk := file.read(CHUNK):
            yield chunk


async def restore_stream(request: Request) -> Response:
    """`POST /streams/{stream}/restore`: lines of an export; an answer for each, until the first that is refused."""
    intake = await Intake.of(request, *RIGHTS)
    lines = await intake.lines()
    intake.admission.charge(len(lines))
    results: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        try:
            results.append({"line": number, **await _restore(intake, *export.read_line(read_json(line)))})
        except Refused as refused:
            results.append({"line": number, **refused.problem()})
            break  # what comes after it is to be sent again with it
    return Response("".join(f"{dumps(result)}\n" for result in results), media_type=NDJSON)


async def _restore(intake: Intake, kind: str, value: dict[str, Any]) -> dict[str, Any]:
    """Append what is not there, at its own revision; say so where it is there, and refuse where something else is."""
    held = await _held(intake, kind, value)
    if held is None:
        try:
            appended = await intake.log.append(_append(intake.stream, kind, value))
        except RevisionConflict:
            raise Conflict("Others are changing it at the same time; send it again.") from None
        return {"status": 201, **intake.fields(appended)}
    # When a page was last updated moves with its entries, and when it began is not part of it.
    but = ("updated_at", "began_at") if kind == "page" else ("url",)
    if _without(held, *but) != _without(value, *but):
        fault = Fault(kind, "nothing there, or the same", f"revision {held['rev']}, another one")
        raise Changed("Something else is there already; nothing was restored.", fault, held)
    named = {"id": value["id"]} if "id" in value else {}
    return {"status": 200, **named, "rev": value["rev"], "unchanged": True}


async def _held(intake: Intake, kind: str, value: dict[str, Any]) -> dict[str, Any] | None:
    """What is stored in its place."""
    if kind == "page":
        return await intake.log.page_of(intake.stream)
    found, withdrawal = await intake.log.entry(intake.stream, value["id"])
    return withdrawal or (json.loads(found) if found else None)


def _without(value: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: field for name, field in value.items() if field is not None and name not in names}


def _append(stream: str, kind: str, value: dict[str, Any]) -> Append:
    """The event that brings back what a line holds."""
    at = model.now()
    now = model.instant(at)
    told = {"stream": stream, "at": at, "rev": value["rev"], "replaces": 0, "entry_id": value.get("id", "")}
    if kind == "entry":
        entry = {**value, "url": schema.entry_url(stream, value["id"])}
        data, shown_at, order = {"at": now, "entry": entry}, schema.shown_at(entry, at), model.order_of(entry)
        return Append(type="entry.put", data=data, state=entry, shown_at=shown_at, order=order, **told)
    if kind == "withdrawal":
        data, order = _without(value, "headline"), model.milliseconds(value["at"])
        return Append(type="entry.withdraw", data=data, state=value, shown_at=value["at"], order=order, **told)
    page, began_at = _without(value, "began_at"), value["began_at"]
    ended = page["state"] == "ended"
    data = {"at": now, **({"next": page["next"]} if ended and "next" in page else {}), "page": page}
    kind = "stream.end" if ended else "page.put"
    return Append(type=kind, data=data, state=page, shown_at=page["updated_at"], began_at=began_at, **told)
