"""Static files are read and compressed when a worker starts, and answered from memory, before any routing.

    /static/<hash>/page.js    this build's file, immutable; of another build's hash, this build's file for now
    /static/stream.js         the file, for pages of other sites; shared caches have it as long as a page

One hash stands for the whole set, so that modules import each other by relative names and always get their own build.
"""

from __future__ import annotations

import asyncio
import hashlib
import mimetypes
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import brotli
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import PreconditionFailed
from ..page.site import Site
from ..refusal_response import HEADERS, answer
from ..surfaces.codings import GZIP, LEAST, ContentCoding, accepted
from ..transport.exchange import PreparedAnswer, prepared_head
from .modules import compact, join
from .surface_routes import Fields, Reply, encoded, fields_of, has_current_copy

FIRST = "boot.js"  # the module that a live page names; it imports the page's script
PAGE = "page.js"  # that script; each of the two is sent as one with all that it imports at its top
STYLE = "page.css"
# Qualities of Brotli: the best takes twenty times as long, for a tenth less; every worker compresses at its start.
BEST, QUICK = 11, 5
MEMORIES = (6, 8)  # of zlib; with less it adapts to the text more often, which makes some files shorter
FIXED = {**HEADERS, "Vary": "Accept-Encoding", "Access-Control-Allow-Origin": "*"}
# Of a file of another build: during an upgrade a cache that has it would send it after its own has come, too.
REVALIDATED = "no-cache"
IMMUTABLE = "public, max-age=31536000, immutable"
_HASHED = re.compile(r"/static/([0-9a-f]{16})/(.+)")
_IMPORTED = re.compile(r"""\b(?:from|import)\s*\(?\s*["']\./([\w-]+\.js)["']""")


class StaticFile(NamedTuple):
    """StaticFile is one file in one coding, with the header fields of its answer; those of a 304 have no body."""

    body: bytes
    etag: str
    headers: Fields
    headers_304: Fields
    head: bytes  # the same as bytes
    head_304: bytes


Codings = dict[ContentCoding, StaticFile]


class StaticSet:
    """StaticSet is the files of a folder in every coding. `site` has its hash, and the modules of a live page.

    `cache_control` says how long shared caches may answer under the names that stay.
    """

    def __init__(self, folder: Path, public_url: str = "", *, cache_control: str = REVALIDATED) -> None:
        paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        bodies = _sent({name: paths[name].read_bytes() for name in sorted(paths)})
        self.site = Site(public_url, _hash_of(bodies), _modules(bodies))
        loaded = {PAGE, STYLE, *self.site.modules}
        compressed = {name: _codings(body, BEST if name in loaded else QUICK) for name, body in bodies.items()}
        self._files = {f"/static/{name}": _files(name, each, cache_control) for name, each in compressed.items()}
        self._for_now = {name: _files(name, each, REVALIDATED) for name, each in compressed.items()}
        self._own = {
            f"/static/{self.site.build}/{name}": _files(name, each, IMMUTABLE) for name, each in compressed.items()
        }

    def find(self, path: str) -> Codings | None:
        """The file at an address, None for no such file. A build that is not this one has this one's files."""
        codings = self._own.get(path) or self._files.get(path)
        if codings is None and (match := _HASHED.fullmatch(path)):
            codings = self._for_now.get(match[2])
        return codings


class StaticFiles:
    """StaticFiles is ASGI middleware that answers GET and HEAD of static files, and passes all else on."""

    def __init__(self, app: ASGIApp, files: StaticSet) -> None:
        self._app = app
        self._files = files

    def prepare(self, scope: Scope, fields: Mapping[bytes, bytes], reply: Reply) -> bool:
        """Answer without a task, as `transport/http.py` says; the application answers whom `If-Match` concerns."""
        codings = self._files.find(scope["path"])
        if codings is None or b"if-match" in fields:
            return False
        file = codings[accepted(fields.get(b"accept-encoding", b""))]
        is_unchanged = b"if-none-match" in fields and has_current_copy(fields, file.etag)
        prepared = (
            PreparedAnswer(304, file.head_304, b"") if is_unchanged else PreparedAnswer(200, file.head, file.body)
        )
        asyncio.get_running_loop().call_soon(reply, prepared)
        return True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        codings = self._files.find(scope.get("path", "")) if scope["type"] == "http" else None
        if codings is None or scope["method"] not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        fields = fields_of(scope["headers"])
        file = codings[accepted(fields.get(b"accept-encoding", b""))]
        try:
            unchanged = has_current_copy(fields, file.etag)
        except PreconditionFailed as refused:
            await answer(refused)(scope, receive, send)
            return
        status, headers = (304, file.headers_304) if unchanged else (200, file.headers)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if unchanged else file.body})


async def no_such_file(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse what is no static file."""
    known = scope["method"] in ("GET", "HEAD")
    raise HTTPException(404) if known else HTTPException(405, headers={"Allow": "GET, HEAD"})


def _hash_of(bodies: dict[str, bytes]) -> str:
    """Sixteen hexadecimal digits that stand for the names and the content of all files."""
    whole = hashlib.sha256()
    for name, body in bodies.items():
        whole.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(body).digest())
    return whole.hexdigest()[:16]


def _sent(bodies: dict[str, bytes]) -> dict[str, bytes]:
    """The files as they are sent: scripts are made small, and that of the live page has all that it imports."""
    scripts = {name: body.decode() for name, body in bodies.items() if name.endswith(".js")}
    whole = (FIRST, PAGE)
    sent = {name: join(name, scripts) if name in whole else compact(text) for name, text in scripts.items()}
    return {**bodies, **{name: text.encode() for name, text in sent.items()}}


def _modules(bodies: dict[str, bytes]) -> tuple[str, ...]:
    """The first module and all that are imported, which a browser would else learn of one after the other."""
    names = [FIRST] if FIRST in bodies else []
    for name in names:  # it grows meanwhile
        imported = _IMPORTED.findall(bodies[name].decode())
        names += [other for other in dict.fromkeys(imported) if other in bodies and other not in names]
    return tuple(names)


def _codings(body: bytes, quality: int) -> dict[ContentCoding, bytes]:
    """A body in every coding; a short one stays as it is. `quality` is that of Brotli."""
    if len(body) < LEAST:
        return {ContentCoding.IDENTITY: body}
    return {
        ContentCoding.IDENTITY: body,
        ContentCoding.GZIP: min((_gzip(body, memory) for memory in MEMORIES), key=len),
        ContentCoding.BROTLI: brotli.compress(body, quality=quality),
    }


def _gzip(body: bytes, memory: int) -> bytes:
    """A body in gzip."""
    gzip = zlib.compressobj(9, zlib.DEFLATED, GZIP, memory)
    return gzip.compress(body) + gzip.flush()


def _files(name: str, bodies: dict[ContentCoding, bytes], cache_control: str) -> Codings:
    """A file in every coding, with the header fields of its answers."""
    files = {coding: _file(name, body, coding, cache_control) for coding, body in bodies.items()}
    return {coding: files.get(coding, files[ContentCoding.IDENTITY]) for coding in ContentCoding}


def _file(name: str, body: bytes, coding: ContentCoding, cache_control: str) -> StaticFile:
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    charset = "; charset=utf-8" if kind.startswith("text/") else ""
    shared = {**FIXED, "Cache-Control": cache_control, "ETag": etag}
    about = {"Content-Type": f"{kind}{charset}", "Content-Length": str(len(body))}
    if coding is not ContentCoding.IDENTITY:
        about["Content-Encoding"] = coding.value
    headers, headers_304 = encoded({**shared, **about}), encoded(shared)
    return StaticFile(body, etag, headers, headers_304, prepared_head(200, headers), prepared_head(304, headers_304))
