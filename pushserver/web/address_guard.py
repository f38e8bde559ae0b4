"""The limits of addresses are enforced before any route: handshakes, other requests, and readers behind a proxy."""

from __future__ import annotations

import logging
import time

from starlette.types import ASGIApp, Receive, Scope, Send

from .. import metrics
from ..access.addresses import Addresses, AddressPlace
from ..errors import TooMany, shorten
from ..refusal_response import answer
from ..transport.door import PLACE, leave
from .health import PROBES

logger = logging.getLogger(__name__)


class AddressGuard:
    """AddressGuard is ASGI middleware that refuses with 429 what an address asks for beyond its limits.

    The transport counts connections by the peer. Behind a believed proxy the peer is exempt, and the address that
    `X-Forwarded-For` names is counted here: each WebSocket and each stream of Server-Sent Events as one connection.
    """

    def __init__(self, app: ASGIApp, addresses: Addresses) -> None:
        self._app = app
        self._addresses = addresses
        self._has_warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        if not self._has_warned:
            self._warn_of_proxy(scope)
        try:
            place = self._admit(scope)
        except TooMany as refused:
            response = answer(refused)
            if scope["type"] == "http":  # its body was not read: the connection cannot carry another request
                response.headers["Connection"] = "close"
            await response(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            if _place(scope) is place:  # else a reader that took the connection over leaves it
                leave(place)

    def _admit(self, scope: Scope) -> AddressPlace | None:
        """Count a request; return the place that it has to leave. Raises TooMany."""
        host, now = _host(scope), time.monotonic()
        kind = "address_handshakes" if subscribes(scope) else "address_requests"
        try:
            if kind == "address_requests":
                if scope["path"] not in PROBES:  # a balancer that is refused would take the worker for dead
                    self._addresses.take_request(host, now)
                return None
            self._addresses.take_handshake(host, now)
            kind = "address_connections"
            return None if _place(scope) else self._connect(scope, host)
        except TooMany:
            metrics.LIMITED.inc(kind)
            raise

    def _connect(self, scope: Scope, host: str | None) -> AddressPlace | None:
        place = self._addresses.connect(host)
        scope["extensions"] = {**(scope.get("extensions") or {}), PLACE: place}
        return place

    def _warn_of_proxy(self, scope: Scope) -> None:
        """Say once that a peer names other addresses and is not believed: all behind it count as one address.

        Of a believed peer the scope has the address that it names, or its own where it names none.
        """
        forwarded = b", ".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
        host = _host(scope)
        if not forwarded or host is None or host.encode() in forwarded or self._addresses.believes(host):
            return
        self._has_warned = True
        logger.warning(
            "%s sends X-Forwarded-For and is not believed: all its clients count as one address; if it is your proxy, "
            "start the server with --forwarded %s",
            *(shorten(host), shorten(host)),
        )


def subscribes(scope: Scope) -> bool:
    """Whether a request asks for a stream that goes on."""
    return scope["type"] == "websocket" or str(scope["path"]).endswith("/sse")


def _host(scope: Scope) -> str | None:
    client = scope.get("client")
    return client[0] if client else None


def _place(scope: Scope) -> AddressPlace | None:
    place: AddressPlace | None = (scope.get("extensions") or {}).get(PLACE)
    return place
