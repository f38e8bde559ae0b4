"""A refusal as an HTTP response: problem+json (RFC 9457), with the headers that every answer has."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from .errors import Refused

# On every answer: it is what its type says, and what is no page runs, loads and frames nothing. Pages have their own.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


def answer(refused: Refused) -> Response:
    """The HTTP response that a refusal is."""
    return JSONResponse(refused.problem(), refused.status, {**HEADERS, **refused.headers}, "application/problem+json")
