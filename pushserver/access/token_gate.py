"""The gate lets only readers with a valid token read a private stream.

The gate stands before every operation of readers that names a stream, by the route's own parameter: a handler does not
ask for it, and cannot forget to. Where nothing is private there is no gate.
"""

from __future__ import annotations

from typing import NamedTuple

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from ..errors import BadToken, Fault, Refused
from ..refusal_response import answer
from .tokens import CHALLENGE, Tokens, bad_token

COOKIE = "pushserver_token"
PROTOCOL = "pushserver"  # the WebSocket subprotocol that a client offers beside its token, and the server selects
TOKEN_PROTOCOL = "token."
PERMIT = "pushserver.permit"  # in the scope


class Permit(NamedTuple):
    """A Permit lets a reader read a private stream until an instant, in seconds since 1970.

    `by_cookie` says that the browser sent the token by itself, not the page.
    """

    until: float
    by_cookie: bool


def permit(connection: HTTPConnection) -> Permit | None:
    """The reader's permit; None where the stream is public. After its end nothing may be sent."""
    reading: Permit | None = connection.scope.get(PERMIT)
    return reading


class Gate:
    """Gate is ASGI middleware that requires a reader token for private streams."""

    def __init__(self, app: ASGIApp, tokens: Tokens) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        stream = scope["path_params"]["stream"]
        if not self._tokens.is_private(stream):
            await self._app(scope, receive, send)
            return
        is_http = scope["type"] == "http"
        if is_http:
            send = _private(send)
        try:
            token, by_cookie = _token(HTTPConnection(scope))
            scope[PERMIT] = Permit(self._tokens.admit(token, stream), by_cookie)
            await self._app(scope, receive, send)
        except Refused as refused:  # answered here: a refusal past `_private` would go without its headers, into caches
            if is_http:
                await answer(refused)(scope, receive, send)
            else:
                await WebSocket(scope, receive, send).send_denial_response(answer(refused))


def _private(send: Send) -> Send:
    """Add headers that keep an answer out of shared caches, and apart from answers to other tokens."""

    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["Cache-Control"] = "private, no-store"
            headers.add_vary_header("Authorization, Cookie")
            del headers["Surrogate-Key"]  # of answers that a cache may keep
        await send(message)

    return wrapped


def _token(connection: HTTPConnection) -> tuple[str, bool]:
    """The token, and whether it is the cookie: a browser sends that by itself, and it counts last. Raises BadToken."""
    schemes = [value.partition(" ") for value in connection.headers.getlist("authorization")]
    offered = connection.scope.get("subprotocols", [])
    sources = {
        "Authorization": [token.strip() for scheme, _, token in schemes if scheme.lower() == "bearer"],
        "Sec-WebSocket-Protocol": [
            name.removeprefix(TOKEN_PROTOCOL) for name in offered if name.startswith(TOKEN_PROTOCOL)
        ],
        "Cookie": _cookies(connection),
    }
    for field, values in sources.items():
        if len(values) > 1:
            raise bad_token("The request has more than one token.", field, "one token", str(len(values)))
        if values:
            return values[0], field == "Cookie"
    expected = f"Authorization: Bearer, the cookie {COOKIE}, or the WebSocket subprotocol {TOKEN_PROTOCOL}<token>"
    raise BadToken(
        "This stream is private: its readers need a token.",
        Fault("token", expected, "none"),
        headers={"WWW-Authenticate": CHALLENGE},
    )


def _cookies(connection: HTTPConnection) -> list[str]:
    """The values of the cookie, which may stand in quotes (RFC 6265, 4.1.1)."""
    pairs = [pair.partition("=") for line in connection.headers.getlist("cookie") for pair in line.split(";")]
    return [value.strip().strip('"') for name, _, value in pairs if name.strip() == COOKIE]
