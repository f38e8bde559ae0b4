"""A refusal as an HTTP response: problem+json (RFC 9457), with the headers that every answer has."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from . import metrics
from .errors import Refused

# On every answer that is not a page: a browser must not guess another content type, run anything or show it in a frame.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


def answer(refused: Refused) -> Response:
    """The problem+json response of a refusal, which is counted.

    Without its Cache-Control a cache might keep a 404 or 410 for minutes.
    """
    metrics.REFUSED.inc(str(refused.status), refused.kind)
    headers = {**HEADERS, "Cache-Control": "no-cache", **refused.headers}
    return JSONResponse(refused.problem(), refused.status, headers, "application/problem+json")
