"""The route that says what the server believes of a request, so that an operator can compare it with what was sent."""

from __future__ import annotations

import json
import secrets

from starlette.requests import Request
from starlette.responses import Response

from ..access.keys import Keys
from ..errors import shorten
from ..model import instant, now
from .request import JSON, PublishRequest

# Headers by which a proxy tells about the client, or shows that it changes a request.
SHOWN = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "via", "accept-encoding")
_HEADERS = {"Cache-Control": "private, no-store"}


class EchoRoutes:
    """The handler of the echo, which needs a key. `worker` is the name of this worker, as receipts have it."""

    def __init__(self, keys: Keys, *, worker: str) -> None:
        self._keys = keys
        self._worker = worker

    async def echo(self, request: Request) -> Response:
        """`GET /streams/{stream}/desk/echo`: scheme, host and address of this request, and who answers it."""
        await PublishRequest.admit(request, self._keys)
        client = request.client
        body = {
            "id": secrets.token_hex(8),  # two answers with the same one are one, from a cache
            "at": instant(now()),
            "worker": self._worker,
            "scheme": request.url.scheme,
            "host": shorten(request.headers.get("host", "")),
            "address": client.host if client else "",
            "port": client.port if client else 0,
            "headers": {name: shorten(value) for name in SHOWN if (value := request.headers.get(name)) is not None},
        }
        return Response(json.dumps(body) + "\n", headers=_HEADERS, media_type=JSON)
