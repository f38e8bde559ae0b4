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
from ..problems import answer
from .tokens import CHALLENGE, Tokens, bad_token

COOKIE = "pushserver_token"
PROTOCOL = "pushserver"  # of a WebSocket; what a client that offers a token offers beside it
TOKEN_PROTOCOL = "token."
PERMIT = "pushserver.permit"  # in the scope


class Permit(NamedTuple):
    """A Permit lets a reader read a private stream until an instant, in seconds since 1970.

    `by_cookie` says that the browser sent the token by itself, not the page.
    """

    until: float
    by_cookie: bool


def permit(connection: HTTPConnection) -> Permit | None:
    """The reader's permit, None where the stream is public. Nothing may be sent that is later than its end."""
    reading: Permit | None = connection.scope.get(PERMIT)
    return reading


class Gate:
    """An ASGI application before another, which it lets those through to who may read."""

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
        except Refused as refused:  # answered here, so that a refusal has the headers too
            if is_http:
                await answer(refused)(scope, receive, send)
            else:
                await WebSocket(scope, receive, send).send_denial_response(answer(refused))


def _private(send: Send) -> Send:
    """Keep what is sent out of every cache that others share, and every answer to the one who asked."""

    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["Cache-Control"] = "private, no-cache"
            headers.add_vary_header("Authorization, Cookie")
        await send(message)

    return wrapped


def _token(connection: HTTPConnection) -> tuple[str, bool]:
    """The token, and whether a browser sent it by itself. What was said for this request goes before that."""
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
            raise bad_token("More than one token came.", field, "one token", str(len(values)))
        if values:
            return values[0], field == "Cookie"
    expected = f"Authorization: Bearer, the cookie {COOKIE}, or the WebSocket subprotocol {TOKEN_PROTOCOL}<token>"
    raise BadToken("This stream is private.", Fault("token", expected, "none"), headers={"WWW-Authenticate": CHALLENGE})


def _cookies(connection: HTTPConnection) -> list[str]:
    """The values of the cookie, which may stand in quotes (RFC 6265, 4.1.1)."""
    pairs = [pair.partition("=") for line in connection.headers.getlist("cookie") for pair in line.split(";")]
    return [value.strip().strip('"') for name, _, value in pairs if name.strip() == COOKIE]
