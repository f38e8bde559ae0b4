"""The Origin check decides which web pages may read; a browser names the page's origin (RFC 6454, 7).

WebSockets are not subject to the same-origin policy, so the server has to check (RFC 6455, 10.2).
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from ..errors import Fault, Forbidden, shorten
from .gate import permit

ANY = "*"


class Origins:
    """Origins are those that a setting allows, separated by commas, besides the server's own; `*` allows any."""

    def __init__(self, setting: str) -> None:
        self._allowed = {part.strip() for part in setting.split(",")} - {""}

    def check(self, connection: HTTPConnection) -> str | None:
        """The allowed origin of another site that asks; None for the server's own, and where none is named.

        Raises Forbidden for any other. A reader with a cookie is not let in by `*`: any page that its visitor opens
        could then read with that cookie.
        """
        origin = connection.headers.get("origin")
        if origin is None or urlsplit(origin).netloc == connection.headers.get("host"):
            return None
        reading = permit(connection)
        if origin in self._allowed - {ANY} or (ANY in self._allowed and not (reading and reading.by_cookie)):
            return origin
        fault = Fault("Origin", "an allowed origin", shorten(origin))
        raise Forbidden(
            "Web pages of this origin may not read this server's streams; PUSHSERVER_ORIGINS lists those that may.",
            fault,
        )
