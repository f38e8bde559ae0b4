"""Entries and pages in: key, size, validity, then one append to the log. Whatever is refused stores nothing."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from . import model
from .errors import Conflict, Fault, Malformed, TooLarge, UnsupportedType, shorten
from .log import Append, Appended, Log, Moved

ATTEMPTS = 5  # at a revision that others change at the same time


async def publish_entry(request: Request) -> Response:
    """`POST /streams/{stream}/entries`: a new entry, in a new stream where there is none by that name."""
    stream, log = _admit(request), _log(request)
    key = _idempotency_key(request)
    body = await _read_body(request)
    entry_in = model.read(model.EntryIn, model.read_json(body))
    at = model.now()
    for _ in range(ATTEMPTS):
        entry = model.entry(entry_in, stream=stream, id=model.new_id(), rev=1, at=at)
        data = {"at": model.instant(at), "entry": entry.json}
        shown_at = min(entry.shown_at, model.instant(at))
        append = Append(stream, "entry.put", data, at, entry.json, 1, shown_at, entry, key, _hash(body))
        try:
            return _answer(await log.append(append), stream, log)
        except Moved:  # the id is taken, which the clock and 20 random bits make all but impossible
            continue
    raise Conflict("No free entry id was found; send it again.")


async def put_page(request: Request) -> Response:
    """`PUT /streams/{stream}`: the page's own fields, whole."""
    stream, log = _admit(request), _log(request)
    key = _idempotency_key(request)
    body = await _read_body(request)
    page_in = model.read(model.PageIn, model.read_json(body))
    at = model.now()
    for _ in range(ATTEMPTS):
        current = await log.page_of(stream)
        page = model.page(page_in, rev=current["rev"] + 1 if current else 1, at=at)
        data = {"at": model.instant(at), "page": page}
        append = Append(stream, "page.put", data, at, page, page["rev"], page["updated_at"], None, key, _hash(body))
        try:
            return _answer(await log.append(append), stream, log)
        except Moved:
            continue
    raise Conflict("The page is being changed by others too; send it again.")


def _admit(request: Request) -> str:
    """The stream, once the key and the name are good; the body has not been touched."""
    request.app.state.keys.check(request.headers.get("authorization"))
    return model.check_stream(request.path_params["stream"])


def _log(request: Request) -> Log:
    log: Log = request.app.state.log
    return log


def _answer(appended: Appended, stream: str, log: Log) -> Response:
    fields: dict[str, Any] = {"rev": appended.rev, "n": appended.n, "cursor": str(appended.cursor)}
    url = f"/streams/{stream}"
    if appended.entry_id:
        url = f"{url}#e-{appended.entry_id}"
        fields = {"id": appended.entry_id, **fields}
    headers = {"Location": url}
    if appended.replayed:
        headers["Idempotent-Replayed"] = "true"
    body = json.dumps({**fields, "url": url, "durability": log.durability}) + "\n"
    return Response(body, 200 if appended.replayed else 201, headers, "application/json")


def _idempotency_key(request: Request) -> str:
    """The publisher's key for this request, '' for none: a token, or a string in quotes as the IETF draft has it."""
    given = request.headers.get("idempotency-key")
    if given is None:
        return ""
    key = re.fullmatch(r'"([\x21\x23-\x5b\x5d-\x7e]{1,200})"|([\x21\x23-\x5b\x5d-\x7e]{1,200})', given)
    if not key:
        fault = Fault("Idempotency-Key", "1 to 200 visible ASCII characters, no quote or backslash", shorten(given))
        raise Malformed("That is not an idempotency key.", fault)
    return key[1] or key[2]


def _hash(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


async def _read_body(request: Request) -> bytes:
    """The body, up to the limit, which stops an upload that says too little about its length as well."""
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "application/json":
        fault = Fault("Content-Type", "application/json", shorten(kind) or "none")
        raise UnsupportedType("Entries and pages are JSON.", fault, headers={"Connection": "close"})
    limit: int = request.app.state.settings.body_limit
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit, f"{declared} bytes")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise _too_large(limit, "more")
    return bytes(body)


def _too_large(limit: int, got: str) -> TooLarge:
    return TooLarge(
        "The body is too large.", Fault("body", f"at most {limit} bytes", got), headers={"Connection": "close"}
    )
