"""Static files are read and compressed when a worker starts, and answered from memory, before any routing."""

from __future__ import annotations

import hashlib
import mimetypes
import zlib
from pathlib import Path
from typing import NamedTuple

import brotli
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import PreconditionFailed
from ..problems import HEADERS, answer
from ..surfaces.codings import GZIP, LEAST, ContentCoding, accepted
from .modules import compact, join
from .surface_routes import Fields, encoded, fields_of, has_current_copy

# A browser asks each time whether its copy is current: it would else run an old script on a new page.
FIXED = {**HEADERS, "Cache-Control": "no-cache", "Vary": "Accept-Encoding", "Access-Control-Allow-Origin": "*"}
PAGE = "page.js"  # the script of a live page: it and all that it imports are sent as one


class StaticFile(NamedTuple):
    """StaticFile is one file in one coding, with the header fields of its answer; those of a 304 have no body."""

    body: bytes
    etag: str
    headers: Fields
    headers_304: Fields


class StaticFiles:
    """StaticFiles is ASGI middleware that answers GET and HEAD of the files of a folder, and passes all else on."""

    def __init__(self, app: ASGIApp, folder: Path) -> None:
        self._app = app
        self._files = {
            f"/static/{path.relative_to(folder).as_posix()}": _read(path)
            for path in folder.rglob("*")
            if path.is_file()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        codings = self._files.get(scope.get("path", "")) if scope["type"] == "http" else None
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


def _read(path: Path) -> dict[ContentCoding, StaticFile]:
    """A file in every coding."""
    body = path.read_bytes()
    if path.name == PAGE:
        body = join(PAGE, {each.name: each.read_text() for each in path.parent.glob("*.js")}).encode()
    elif path.suffix == ".js":
        body = compact(body.decode()).encode()
    if len(body) < LEAST:
        return dict.fromkeys(ContentCoding, _file(path, body, ContentCoding.IDENTITY))
    gzip = zlib.compressobj(9, zlib.DEFLATED, GZIP)
    bodies = {
        ContentCoding.IDENTITY: body,
        ContentCoding.GZIP: gzip.compress(body) + gzip.flush(),
        ContentCoding.BROTLI: brotli.compress(body),
    }
    return {coding: _file(path, data, coding) for coding, data in bodies.items()}


def _file(path: Path, body: bytes, coding: ContentCoding) -> StaticFile:
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    charset = "; charset=utf-8" if kind.startswith("text/") else ""
    shared = {**FIXED, "ETag": etag}
    about = {"Content-Type": f"{kind}{charset}", "Content-Length": str(len(body))}
    if coding is not ContentCoding.IDENTITY:
        about["Content-Encoding"] = coding.value
    return StaticFile(body, etag, encoded({**shared, **about}), encoded(shared))
