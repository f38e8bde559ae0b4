"""The routes that carry a whole stream out and in again: export, restore."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from tempfile import SpooledTemporaryFile
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ..access.keys import WHOLE, Keys
from ..codec import read_json
from ..content import export, schema
from ..errors import Refused
from ..publishing.archive import Archive
from ..publishing.off_loop import off_loop
from ..store.log import Log
from ..stretch import Stretch
from .request import NDJSON, PublishRequest, batch_answer, outcome

CHUNK = 65_536  # bytes of an export that are sent at once


class ArchiveRoutes:
    """Handlers of export and restore, which need a key with the rights of WHOLE."""

    def __init__(self, log: Log, keys: Keys) -> None:
        self._archive = Archive(log)
        self._keys = keys

    async def export_stream(self, request: Request) -> Response:
        """`GET /streams/{stream}/export?history=`: all that the stream has at one instant, one line each."""
        publish = await PublishRequest.admit(request, self._keys, *WHOLE)
        with_history = publish.query(schema.ExportIn).history == "true"
        if with_history:
            await publish.require("audit")
        file = await self._archive.export(publish.stream, with_history=with_history)
        headers = {"Content-Length": str(file.tell()), "Cache-Control": "no-store"}
        return StreamingResponse(_chunks(file), headers=headers, media_type=NDJSON)

    async def restore_stream(self, request: Request) -> Response:
        """`POST /streams/{stream}/restore`: lines of an export; an answer for each, until the first that is refused."""
        publish = await PublishRequest.admit(request, self._keys, *WHOLE)
        results: list[dict[str, Any]] = []
        lines, stretch = await publish.lines(), Stretch()
        for number, line in lines:
            await stretch.rest()
            try:
                results.append({"line": number, **await self._restore(publish, line)})
            except Refused as refused:
                results.append({"line": number, **refused.problem()})
                break  # the client sends the lines after it again, together with it
        return batch_answer(results)

    async def _restore(self, publish: PublishRequest, line: bytes) -> dict[str, Any]:
        stream, (kind, value) = publish.stream, await off_loop(export.read_line, read_json(line))
        if kind == "stream":
            is_new = await self._archive.restore_feed_id(stream, value["feed_id"])
            return {"status": 201, **value} if is_new else {"status": 200, **value, "unchanged": True}
        if kind == "history":
            is_new = await self._archive.restore_history(stream, value)
            return {"status": 201 if is_new else 200, "id": value["id"], **({} if is_new else {"unchanged": True})}
        appended = await self._archive.restore(stream, kind, value, publish.author)
        if appended:
            return {"status": 201, **outcome(stream, appended)}
        name = {"id": value["id"]} if "id" in value else {}
        return {"status": 200, **name, "rev": value["rev"], "unchanged": True}


async def _chunks(file: SpooledTemporaryFile[bytes]) -> AsyncIterator[bytes]:
    with file:
        file.seek(0)
        while chunk := await asyncio.to_thread(file.read, CHUNK):
            yield chunk
