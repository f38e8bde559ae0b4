"""The routes of people and crawlers: the page, the snapshot as JSON, the events, the feeds, the list of streams."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Coroutine
from functools import cached_property
from importlib import metadata
from typing import Any, Concatenate, ParamSpec

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from .. import model
from ..access.tokens import Tokens
from ..codec import dumps
from ..errors import Fault, Invalid, NotFound, Unavailable, shorten, withdrawn
from ..model import Cursor, StoredWithdrawal
from ..page import render
from ..page.site import Site
from ..page.words import preferred
from ..store.connection import within
from ..store.listing import Listing
from ..store.log import Log, Snapshot
from ..stretch import in_stretches
from ..surfaces.cache import digest
from ..surfaces.heads import LIMIT
from ..surfaces.pieces import Piece
from ..surfaces.surface import MEDIA_TYPES, STRETCH, Surface, edition_of, make, place_of
from ..wire.frames import encode
from .conditions import not_modified, prefers_html
from .openapi import document
from .request import JSON

VERSION = metadata.version("pushserver")

# Scripts and styles are the server's own; pictures come from wherever a newsroom stores them. 'self' covers the
# WebSocket. static/morph.js has the one Trusted Types policy, by which text becomes HTML.
PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' https: http:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'; "
    "require-trusted-types-for 'script'; trusted-types pushserver",
    "Referrer-Policy": "strict-origin-when-cross-origin",
}


TURNS = 2  # snapshots that a worker reads and renders at once
TURN_WAIT = 20.0  # seconds to wait for a turn
P = ParamSpec("P")


def _in_turn(
    handler: Callable[Concatenate[ReadingRoutes, P], Awaitable[Response]],
) -> Callable[Concatenate[ReadingRoutes, P], Coroutine[Any, Any, Response]]:
    """Let few requests at once hold a snapshot: sixty of 5 MB would take 300 MB, and none is rendered sooner for it.

    Raises Unavailable where no turn comes within TURN_WAIT.
    """

    async def wrapped(self: ReadingRoutes, /, *arguments: P.args, **options: P.kwargs) -> Response:
        try:
            async with asyncio.timeout(TURN_WAIT):
                await self.turns.acquire()
        except TimeoutError:
            raise Unavailable("Too many readers ask at once; retry later.") from None
        try:
            return await handler(self, *arguments, **options)
        finally:
            self.turns.release()

    return wrapped


class ReadingRoutes:
    """Handlers of requests that read once: at most `page_entries` entries, or `replay_events` events."""

    def __init__(
        self,
        log: Log,
        tokens: Tokens,
        site: Site,
        *,
        cache_control: str,
        page_entries: int,
        replay_events: int,
        replay_bytes: int,
    ) -> None:
        self._log = log
        self._listing = Listing(log)
        self._tokens = tokens
        self._site = site
        self.turns = asyncio.Semaphore(TURNS)
        self._cache_control = cache_control
        self._page_entries = page_entries
        self._replay_events = replay_events
        self._replay_bytes = replay_bytes

    async def index(self, request: Request) -> Response:
        """`GET /`: every stream that is not private, the one that changed last first."""
        listed = await within(self._listing.streams(), LIMIT)
        streams = [(name, page) for name, page in listed if not self._tokens.is_private(name)]
        html = render.index(streams, preferred(request.headers.get("accept-language", "")), site=self._site)
        return HTMLResponse(html, headers={**PAGE_HEADERS, "Vary": "Accept-Language"})

    async def openapi(self, request: Request) -> Response:
        """`GET /openapi.json`: the description of every operation."""
        return _hashed(request, await asyncio.shield(self._description))

    @cached_property
    def _description(self) -> asyncio.Future[str]:
        """The description. It takes 0.2 s, in a thread, and is made when it is first asked for."""
        return asyncio.ensure_future(asyncio.to_thread(self._describe))

    def _describe(self) -> str:
        most = {"page_entries": self._page_entries, "replay_events": self._replay_events}
        return dumps(document.document(VERSION, **most)) + "\n"

    @_in_turn
    async def page(self, request: Request) -> Response:
        """`GET /streams/{stream}?before=`: the page as HTML, with the cursor from which its script subscribes."""
        limit, before = self._page_entries, _before(request)
        least_n(request.query_params.get("n"))  # what is read of the store is never older
        stream, snapshot = await self._snapshot(request, limit, after=before)
        headers = {**PAGE_HEADERS, **self._cached(stream), "ETag": self._etag(snapshot)}
        unchanged = not_modified(request, headers)
        if unchanged:
            return unchanged
        html = await self._make(Surface.PAGE, stream, snapshot, newer=before is not None)
        return HTMLResponse(html, headers=headers)

    @_in_turn
    async def entries(self, request: Request) -> Response:
        """`GET /streams/{stream}/entries?before=&limit=`: the snapshot, `{page, entries, cursor, n, older}`."""
        limit = _limit(request, self._page_entries)
        least_n(request.query_params.get("n"))
        stream, snapshot = await self._snapshot(request, limit, after=_before(request))
        headers = {**self._cached(stream), "ETag": f'"{snapshot.cursor}"'}
        unchanged = not_modified(request, headers)
        if unchanged:
            return unchanged
        body = await self._make(Surface.ENTRIES, stream, snapshot)
        return Response(body, headers=headers, media_type=JSON)

    async def events(self, request: Request) -> Response:
        """`GET /streams/{stream}/events?after=&limit=`: the events after a cursor, or from the first, in parts.

        No cache answers by itself: an old part would say that there is no more; and few readers ask after one event.
        """
        limit = _limit(request, self._replay_events)
        stream, snapshot = await self._snapshot(request, 0)
        after = _after(request, snapshot.cursor.epoch)
        reading = self._log.resume(stream, after, limit=limit, limit_bytes=self._replay_bytes, in_part=True)
        part = await within(reading, LIMIT)
        if part.reason:
            missing = {"complete": False, "reason": part.reason, "entries": f"/streams/{stream}/entries"}
            return _hashed(request, f"{dumps(missing)}\n")
        last = part.events[-1].cursor if part.events else after
        head = {"complete": True, "from": part.n, "cursor": str(last), "more": part.more}
        frames = ",".join(encode(event) for event in part.events)
        return _hashed(request, f'{dumps(head)[:-1]},"events":[{frames}]}}\n')

    async def entry(self, request: Request) -> Response:
        """`GET /streams/{stream}/entries/{id}`: the entry's own page, or JSON if `Accept` has no HTML; else 410."""
        stream, id = model.check_stream(request.path_params["stream"]), request.path_params["id"]
        is_id = model.ID.fullmatch(id)
        stored, withdrawal = await within(self._log.entry(stream, id), LIMIT) if is_id else (None, None)
        if not stored and not withdrawal:
            raise NotFound(f"There is no entry {shorten(id)} in stream {stream}.")
        if prefers_html(request.headers):
            return await self._entry_page(request, stream, id, stored, withdrawal)
        if not stored:
            assert withdrawal
            raise withdrawn(withdrawal)
        headers = {
            **self._cached(stream),
            "Vary": "Accept",
            "ETag": f'"{json.loads(stored)["rev"]}.{_hash(stored)}"',
        }
        return not_modified(request, headers) or Response(f"{stored}\n", headers=headers, media_type=JSON)

    async def _entry_page(
        self, request: Request, stream: str, id: str, stored: str | None, withdrawal: StoredWithdrawal | None
    ) -> Response:
        _, snapshot = await self._snapshot(request, 0)
        headers = {**PAGE_HEADERS, **self._cached(stream), "Vary": "Accept"}
        if not stored:  # no condition is looked at: RFC 9110, 13.2.1
            gone: dict[str, Any] = {"id": id, "entry_json": None, "withdrawal": withdrawal, "json_ld": ""}
            return HTMLResponse(render.entry_page(snapshot.page, stream, **gone, site=self._site), 410, headers)
        html = (await self._make(Surface.ENTRY, stream, snapshot._replace(entries=[stored]))).decode()
        headers["ETag"] = f'"{_hash(html)}"'
        return not_modified(request, headers) or HTMLResponse(html, headers=headers)

    async def feed_atom(self, request: Request) -> Response:
        """`GET /streams/{stream}/feed.atom`: the newest entries as Atom, with a tombstone for each withdrawal."""
        return await self._feed(request, Surface.ATOM)

    async def feed_json(self, request: Request) -> Response:
        """`GET /streams/{stream}/feed.json`: the newest entries as JSON Feed."""
        return await self._feed(request, Surface.JSON_FEED)

    @_in_turn
    async def _feed(self, request: Request, surface: Surface) -> Response:
        limit = self._page_entries
        stream, snapshot = await self._snapshot(request, limit, after=_before(request), withdrawals=limit)
        headers = {**self._cached(stream), "ETag": self._etag(snapshot)}
        unchanged = not_modified(request, headers)
        if unchanged:
            return unchanged
        snapshot = snapshot._replace(feed_id=snapshot.feed_id or await self._log.feed_id(stream))
        body = await self._make(surface, stream, snapshot)
        return Response(body, headers=headers, media_type=MEDIA_TYPES[surface])

    async def _make(self, surface: Surface, stream: str, snapshot: Snapshot, *, newer: bool = False) -> bytes:
        """A surface that no cache has: of a private stream, or of an address that the cache does not read."""
        edition = edition_of(self._site, surface, stream, snapshot)
        pieces = [Piece(entry.encode()) for entry in snapshot.entries]
        options: dict[str, Any] = {"limit": self._page_entries, "site": self._site, "newer": newer}
        return await in_stretches(make(surface, edition, snapshot, pieces, **options), STRETCH)

    def _cached(self, stream: str) -> dict[str, str]:
        """The headers of an answer that shared caches may serve, and can drop by the name of its stream."""
        return {"Cache-Control": self._cache_control, "Surrogate-Key": stream}

    def _etag(self, snapshot: Snapshot) -> str:
        """The tag of a page or feed. It names the site, of which links and names are, and the static files."""
        site = digest(f"{self._site.build} {self._site.public_url} {self._site.masthead}")
        return f'W/"{VERSION}.{site}.{snapshot.cursor}"'

    async def _snapshot(
        self, request: Request, limit: int, *, after: tuple[int, str] | None = None, withdrawals: int = 0
    ) -> tuple[str, Snapshot]:
        """The stream that the address names, and its newest entries, or those after a place. Raises NotFound."""
        stream = model.check_stream(request.path_params["stream"])
        reading = self._log.snapshot(stream, limit=limit, after=after, withdrawals=withdrawals)
        snapshot = await within(reading, LIMIT)
        if snapshot is None:
            raise NotFound(f"There is no stream {stream}; its first entry creates it.")
        return stream, snapshot


def _hashed(request: Request, body: str) -> Response:
    """JSON with its hash as ETag.

    A part of the log may change: an event of an entry that was withdrawn since becomes a withdrawal. So a cache has to
    revalidate each time.
    """
    headers = {"Cache-Control": "no-cache", "ETag": f'"{_hash(body)}"'}
    return not_modified(request, headers) or Response(body, headers=headers, media_type=JSON)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


# --- parameters of the query


def _limit(request: Request, most: int) -> int:
    text = request.query_params.get("limit")
    if text is None:
        return most
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and 1 <= int(text) <= most):
        raise Invalid(f"limit must be a number from 1 to {most}.", Fault("limit", f"1 to {most}", shorten(text)))
    return int(text)


def least_n(text: str | None) -> int:
    """The number of an event that an answer must not be older than, by the parameter `n`; 0 where it is missing."""
    if text is None:
        return 0
    if not re.fullmatch(r"[0-9]{1,16}", text):
        raise Invalid("n must be the number of an event.", Fault("n", "the number of an event", shorten(text)))
    return int(text)


def _before(request: Request) -> tuple[int, str] | None:
    """The place after which a slice begins, as `older` of the slice before names it."""
    text = request.query_params.get("before")
    if text is None:
        return None
    place = place_of(text)
    if place is None:
        fault = Fault("before", "the value that `older` has", shorten(text))
        raise Invalid("before must be the value that `older` of another answer has.", fault)
    return place


def _after(request: Request, epoch: str) -> Cursor:
    """The cursor after which events are asked for; the beginning of the log where none is."""
    text = request.query_params.get("after")
    if not text:
        return Cursor.beginning(epoch)
    cursor = Cursor.parse(text)
    if cursor is None:
        raise Invalid("after must be the cursor of a frame.", Fault("after", "the cursor of a frame", shorten(text)))
    return cursor
