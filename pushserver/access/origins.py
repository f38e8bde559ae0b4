"""The Origin check decides which web pages may read (RFC 6454): the server's own, and those of allowed origins."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from ..errors import Fault, Forbidden, shorten
from .gate import permit

ANY = "*"


def check_origin(connection: HTTPConnection, origins: str) -> str | None:
    """The request's Origin where it is one of these, comma separated, and None where CORS headers are not needed.

    A request without Origin comes from no browser, and passes. `*` allows any origin for public streams and for tokens
    that a page itself sends; not for a cookie, with which any page could read as its visitor. Raises Forbidden.
    """
    origin = connection.headers.get("origin")
    if origin is None or urlsplit(origin).netloc == connection.headers.get("host"):
        return None
    allowed = {part.strip() for part in origins.split(",")}
    reading = permit(connection)
    if reading and reading.by_cookie:
        allowed.discard(ANY)
    if ANY in allowed or origin in allowed:
        return origin
    raise Forbidden(
        "Pages of this origin may not read from this server; PUSHSERVER_ORIGINS allows them.",
        Fault("Origin", "an allowed origin", shorten(origin)),
    )
