"""What people and crawlers GET: the page, the snapshot as JSON, the feeds, the list of streams."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from importlib import metadata
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from .. import model
from ..access.tokens import Tokens
from ..codec import dumps
from ..errors import Fault, Invalid, NotFound, shorten, withdrawn
from ..model import Cursor
from ..page import feeds, render
from ..settings import Settings
from ..store.log import Log, Snapshot
from ..wire.frames import encode
from .conditions import not_modified

VERSION = metadata.version("pushserver")

# Scripts and styles are the server's own; pictures come from where a newsroom keeps them. 'self' is the WebSocket too.
# static/page.js owns the one policy by which text becomes HTML.
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' https: http:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'; "
    "require-trusted-types-for 'script'; trusted-types pushserver",
    "Referrer-Policy": "strict-origin-when-cross-origin",
}


async def index(request: Request) -> Response:
    """`GET /`: every stream that is not private, the one that changed last first."""
    log: Log = request.app.state.log
    tokens: Tokens = request.app.state.tokens
    streams = [(name, page) for name, page in await log.streams() if not tokens.is_private(name)]
    return HTMLResponse(render.index(streams), headers=_HEADERS)


async def openapi(request: Request) -> Response:
    """`GET /openapi.json`: every address, what it takes and answers."""
    return _unless_known(request, request.app.state.openapi)


async def page(request: Request) -> Response:
    """`GET /streams/{stream}?before=`: the page, whole, carrying the cursor that its live part goes on from."""
    limit = request.app.state.settings.page_entries
    stream, snapshot, before = await _snapshot(request, limit)
    etag = f'W/"{VERSION}.{snapshot.cursor}"'
    headers = {**_HEADERS, "ETag": etag}
    known = not_modified(request, headers)
    if known:
        return known
    parts = render.parts(snapshot.page, snapshot.entries, older=_older(snapshot))
    issue = _issue(request, stream, snapshot)
    html = render.page(
        stream,
        snapshot.page,
        parts,
        cursor=str(snapshot.cursor),
        limit=limit,
        newer=before is not None,
        url=issue.url,
        json_ld=feeds.live_blog(issue),
    )
    return HTMLResponse(html, headers=headers)


async def entries(request: Request) -> Response:
    """`GET /streams/{stream}/entries?before=&limit=`: the snapshot, `{page, entries, cursor, n, older}`."""
    most = request.app.state.settings.page_entries
    _, snapshot, _ = await _snapshot(request, _limit(request.query_params.get("limit"), most))
    headers = {"Cache-Control": "no-cache", "ETag": f'"{snapshot.cursor}"'}
    tail = {"cursor": str(snapshot.cursor), "n": snapshot.n, "older": _older(snapshot)}
    body = f'{{"page":{dumps(snapshot.page)},"entries":[{",".join(snapshot.entries)}],{dumps(tail)[1:]}\n'
    return not_modified(request, headers) or Response(body, headers=headers, media_type="application/json")


async def events(request: Request) -> Response:
    """`GET /streams/{stream}/events?after=&limit=`: what came after a cursor, or all from the beginning, in parts."""
    stream = model.check_stream(request.path_params["stream"])
    settings: Settings = request.app.state.settings
    log: Log = request.app.state.log
    limit = _limit(request.query_params.get("limit"), settings.replay_events)
    snapshot = await log.snapshot(stream, limit=0)
    if snapshot is None:
        raise NotFound(f"There is no stream {stream}.")
    given = request.query_params.get("after")
    after = Cursor.parse(given) if given else Cursor.beginning(snapshot.cursor.epoch)
    if after is None:
        raise Invalid("That is not a cursor.", Fault("after", "a cursor, as frames have it", shorten(given)))
    found = await log.resume(stream, after, limit=limit, limit_bytes=settings.replay_bytes, in_part=True)
    if found.reason:
        told = {"complete": False, "reason": found.reason, "entries": f"/streams/{stream}/entries"}
        return _unless_known(request, f"{dumps(told)}\n")
    last = found.events[-1].cursor if found.events else after
    told = {"complete": True, "from": found.n, "cursor": str(last), "more": found.more}
    frames = ",".join(encode(event) for event in found.events)
    return _unless_known(request, f'{dumps(told)[:-1]},"events":[{frames}]}}\n')


def _unless_known(request: Request, body: str) -> Response:
    """An answer that is the same for all who ask, unless the one who asks has it.

    A part of the log does not change, but that what was withdrawn since is told as that: a cache has to ask each time.
    """
    etag = f'"{hashlib.sha256(body.encode()).hexdigest()[:32]}"'
    headers = {"Cache-Control": "no-cache", "ETag": etag}
    return not_modified(request, headers) or Response(body, headers=headers, media_type="application/json")


async def entry(request: Request) -> Response:
    """`GET /streams/{stream}/entries/{id}`: an entry's own page, or JSON if none is asked for; 410 once withdrawn."""
    stream, id = model.check_stream(request.path_params["stream"]), request.path_params["id"]
    log: Log = request.app.state.log
    found, withdrawal = await log.entry(stream, id) if model.ID.fullmatch(id) else (None, None)
    if not found and not withdrawal:
        raise NotFound(f"There is no entry {shorten(id)} in {stream}.")
    if "text/html" in request.headers.get("accept", ""):
        snapshot = await log.snapshot(stream, limit=0)
        if snapshot is None:
            raise NotFound(f"There is no stream {stream}.")
        issue = _issue(request, stream, snapshot)
        head = {"url": issue.entry_url(id), "json_ld": feeds.posting(issue, json.loads(found)) if found else ""}
        html = render.entry_page(snapshot.page, stream, entry_json=found, withdrawal=withdrawal, **head)
        return HTMLResponse(html, 200 if found else 410, headers={**_HEADERS, "Vary": "Accept"})
    if withdrawal:
        raise withdrawn(withdrawal)
    return Response(
        f"{found}\n", headers={"Cache-Control": "no-cache", "Vary": "Accept"}, media_type="application/json"
    )


async def feed_atom(request: Request) -> Response:
    """`GET /streams/{stream}/feed.atom`: the newest entries as Atom, with a tombstone for each that was withdrawn."""
    return await _feed(request, feeds.atom, "application/atom+xml")


async def feed_json(request: Request) -> Response:
    """`GET /streams/{stream}/feed.json`: the same as JSON Feed."""
    return await _feed(request, feeds.json_feed, "application/feed+json")


async def _feed(request: Request, make: Callable[[feeds.Issue], bytes | str], media_type: str) -> Response:
    limit = request.app.state.settings.page_entries
    stream, snapshot, _ = await _snapshot(request, limit, withdrawals=limit)
    issue = _issue(request, stream, snapshot)
    etag = f'W/"{VERSION}.{snapshot.cursor}.{request.base_url.netloc}"'
    headers = {"Cache-Control": "no-cache", "ETag": etag}
    return not_modified(request, headers) or Response(make(issue), headers=headers, media_type=media_type)


def _issue(request: Request, stream: str, snapshot: Snapshot) -> feeds.Issue:
    base, entries = str(request.base_url).rstrip("/"), [json.loads(entry) for entry in snapshot.entries]
    return feeds.Issue(base, stream, snapshot.page, entries, snapshot.withdrawals, snapshot.began_at)


async def _snapshot(
    request: Request, limit: int, *, withdrawals: int = 0
) -> tuple[str, Snapshot, tuple[int, str] | None]:
    stream = model.check_stream(request.path_params["stream"])
    before = _before(request.query_params.get("before"))
    log: Log = request.app.state.log
    snapshot = await log.snapshot(stream, limit=limit, after=before, withdrawals=withdrawals)
    if snapshot is None:
        raise NotFound(f"There is no stream {stream}; its first entry creates it.")
    return stream, snapshot, before


def _older(snapshot: Snapshot) -> str | None:
    return render.older_link(snapshot.entries) if snapshot.older else None


def _limit(given: str | None, most: int) -> int:
    if given is None:
        return most
    if not (given.isascii() and given.isdecimal() and len(given) < 6 and 1 <= int(given) <= most):
        raise Invalid("That is not a limit.", Fault("limit", f"1 to {most}", shorten(given)))
    return int(given)


def _before(given: str | None) -> tuple[int, str] | None:
    """Where a slice begins, as `older` of the slice before gave it."""
    if given is None:
        return None
    found: Any = re.fullmatch(r"(-?[0-9]{1,16})\.([0-9A-Za-z_-]{1,64})", given)
    if not found:
        raise Invalid("That is not a place in the stream.", Fault("before", "what `older` said", shorten(given)))
    return int(found[1]), found[2]
