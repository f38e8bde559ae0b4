"""The Origin check decides which web pages may read; a browser names the page's origin (RFC 6454, 7).

WebSockets are not subject to the same-origin policy, so the server has to check (RFC 6455, 10.2).
"""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from ipaddress import IPv6Address
from typing import NamedTuple, Self

from starlette.requests import HTTPConnection

from ..errors import Fault, Forbidden, shorten
from .token_gate import permit

logger = logging.getLogger(__name__)

ANY = "*"
DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
HINTS = 8  # hosts about which a worker logs that a proxy may replace `Host`
_SERIALIZED = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[^\s/?#@:\\%*,\[\]]+)(?::([0-9]{0,5}))?", re.I)
_HOST = re.compile(r"[a-z0-9_.-]{1,253}|\[[0-9a-f:.]+\]")


class Origin(NamedTuple):
    """Origin is a scheme, a host and a port, as browsers compare them (RFC 6454, 4 and 5).

    Its port is the scheme's default where none stands there, None for a scheme that has no default.
    """

    scheme: str
    host: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """The origin that a text names, whatever its letter case, default port and final slash. Raises ValueError."""
        match = _SERIALIZED.fullmatch(text.strip().removesuffix("/"))
        if not match or match[1].lower() in ("ws", "wss", "file"):
            raise ValueError(
                f"expected scheme://host or scheme://host:port, such as https://news.example, got {text!r}"
            )
        scheme, port = match[1].lower(), int(match[3]) if match[3] else None
        if port is not None and port > 65_535:
            raise ValueError(f"expected a port up to 65535 in {text!r}")
        return cls(scheme, _canonical_host(match[2], text), DEFAULT_PORTS.get(scheme) if port is None else port)

    def __str__(self) -> str:
        """The text that a browser sends as `Origin`."""
        port = "" if self.port == DEFAULT_PORTS.get(self.scheme) else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}"


def _canonical_host(host: str, text: str) -> str:
    """A host as browsers write it: in lower case, in ASCII, IPv6 in its short form. Raises ValueError."""
    try:
        name = f"[{IPv6Address(host[1:-1])}]" if host.startswith("[") else host.encode("idna").decode("ascii").lower()
    except ValueError:
        name = ""
    if not _HOST.fullmatch(name):
        raise ValueError(f"expected the name or address of a host in {text!r}")
    return name


def parse_public_url(text: str) -> Origin | None:
    """The origin of the address at which people reach the server; None for an empty text. Raises ValueError."""
    if not text.strip():
        return None
    scheme, _, rest = text.partition("://")
    origin = Origin.parse(f"{scheme}://{rest.partition('/')[0]}" if rest else text)
    if origin.scheme not in ("http", "https"):
        raise ValueError(f"expected http or https in {text!r}")
    return origin


def parse_origins(setting: str) -> tuple[frozenset[Origin], bool]:
    """The origins that a setting names, separated by commas, and whether it has `*` for any. Raises ValueError."""
    parts = [part.strip() for part in setting.split(",") if part.strip()]
    return frozenset(Origin.parse(part) for part in parts if part != ANY), ANY in parts


class Origins:
    """Origins are those that a setting allows, besides the server's own; `*` in the setting allows any.

    The server's own origins are that of the request's `Host`, and that of `public_url`. Raises ValueError.
    """

    def __init__(self, setting: str, public_url: str = "") -> None:
        self._named, self.allows_any = parse_origins(setting)
        self._public = parse_public_url(public_url)
        self._hints: set[str] = set()

    @property
    def has_names(self) -> bool:
        """Whether some origins are allowed by name."""
        return bool(self._named)

    def names(self, origin: str) -> bool:
        """Whether the value of an `Origin` header is an origin that is allowed by name."""
        return _parsed(origin) in self._named

    def check(self, connection: HTTPConnection) -> None:
        """Raise Forbidden for a page of an origin that may not read. A request without an origin is from no page.

        A reader with a cookie is not let in by `*`: any page that its visitor opens could then read with that cookie.
        """
        text = connection.headers.get("origin")
        if text is None:
            return
        origin = _parsed(text)
        if origin is not None and (origin in self._named or self._is_own(origin, connection)):
            return
        reading = permit(connection)
        if self.allows_any and not (reading and reading.by_cookie):
            return
        if origin is not None:
            self._hint(origin, connection)
        raise foreign(text)

    def _is_own(self, origin: Origin, connection: HTTPConnection) -> bool:
        """Whether the page is the server's own.

        A proxy that ends TLS may not say so: an https page is accepted where the request looks like http, not the
        other way round.
        """
        if origin == self._public:
            return True
        is_secure = connection.scope.get("scheme") in ("https", "wss")
        own = _parsed(f"{origin.scheme}://{connection.headers.get('host', '')}")
        return origin == own and not (is_secure and origin.scheme == "http")

    def _hint(self, origin: Origin, connection: HTTPConnection) -> None:
        """Log, once for each origin, what a proxy should pass on: readers of such a page see no error."""
        own = _parsed(f"{origin.scheme}://{connection.headers.get('host', '')}")
        if own is None or str(origin) in self._hints or len(self._hints) >= HINTS:
            return
        self._hints.add(str(origin))
        host = str(own).partition("://")[2]
        logger.warning(
            "refused a page of %s, as the request says Host: %s; if it is this server's own page behind a proxy, let "
            "the proxy pass on Host (nginx: proxy_set_header Host $http_host) or set --public-url %s; if it is a page "
            "of another site that may read, name it in --origins",
            *(origin, host, origin),
        )


def foreign(origin: str) -> Forbidden:
    """The refusal of a page whose origin may not read."""
    fault = Fault("Origin", "an allowed origin", shorten(origin))
    says = "Web pages of this origin may not read this server's streams; PUSHSERVER_ORIGINS lists those that may."
    return Forbidden(says, fault)


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Origin | None:
    """The origin that a header names; None for `null` and for what is not an origin."""
    try:
        return Origin.parse(text)
    except ValueError:
        return None
