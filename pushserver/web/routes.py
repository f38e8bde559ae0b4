"""The routes follow from the table of operations: paths, methods, and who may come in.

A path's stream is matched as a path, slashes and all, so that a bad name is refused by name and not as an unknown
address. A valid name has no slash, so the paths of more segments come first: whatever is valid matches its own route.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from urllib.parse import quote

from starlette.convertors import PathConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from ..access.keys import Quota
from ..access.token_gate import Gate
from ..access.tokens import Tokens
from ..errors import Fault, Refused, UpgradeRequired
from .health import PROBES
from .request import QUOTA
from .route_table import OPERATIONS, Operation

_QUERY = "!$%&'()*+,-./:;=?@_~"  # stays as it came (RFC 3986, 3.4)


Handler = Callable[[Request], Awaitable[Response]]
SocketHandler = Callable[[WebSocket], Awaitable[None]]


def make_routes(
    handlers: Mapping[str, Handler],
    sockets: Mapping[str, SocketHandler],
    tokens: Tokens,
    operations: Sequence[Operation] = OPERATIONS,
    *,
    prefix: str = "",
) -> list[BaseRoute]:
    """Make the routes of all operations, from the handlers by their operation's name.

    An operation that needs no publish key is for readers: a gate asks them for a token where the stream is private.
    `prefix` is the path that a proxy in front takes away. Raises LookupError where an operation has no handler, or a
    handler no operation.
    """
    http = [operation for operation in operations if not operation.is_websocket]
    websocket = [operation for operation in operations if operation.is_websocket]
    _check_names("HTTP", http, handlers)
    _check_names("WebSocket", websocket, sockets)
    handlers = {**handlers, **{operation.name: upgrade_required for operation in websocket}}
    resources: dict[str, dict[str, ASGIApp]] = {}
    for operation in operations:
        app = _gated(operation, _application(handlers[operation.name]), tokens)
        resources.setdefault(operation.path, {})[operation.method] = app
    paths = sorted(resources, key=lambda path: path.count("/"), reverse=True)
    open_paths = {operation.path for operation in operations if operation.right is None} - {"/"}
    slashed = ["/streams/{rest:path}/", *(f"{path}/" for path in paths if path.count("/") == 1 and path in open_paths)]
    return [
        *(_socket_route(operation, sockets[operation.name], tokens) for operation in websocket),
        *(Route(path, partial(without_slash, prefix=prefix), methods=["GET"]) for path in slashed),
        *(Route(_pattern(path), Resource(resources[path], options=path in PROBES), name=path) for path in paths),
    ]


class Resource:
    """Resource is an ASGI application that passes a request to the application of its method, or refuses it with 405.

    A GET's application answers HEAD too: the server sends no body then. `options` says whether OPTIONS is answered.
    """

    def __init__(self, methods: Mapping[str, ASGIApp], *, options: bool = False) -> None:
        self._methods = {**({"HEAD": methods["GET"]} if "GET" in methods else {}), **methods}
        if options:
            self._methods["OPTIONS"] = self._options

    async def _options(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {"Allow": ", ".join(sorted(self._methods)), "Cache-Control": "no-store"}
        await Response(None, 204, headers)(scope, receive, send)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._methods.get(scope["method"])
        if app is None:
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(self._methods))})
        await app(scope, receive, send)


async def upgrade_required(request: Request) -> Response:
    """Refuse a plain request for the address of a WebSocket (RFC 9110, 15.5.22)."""
    fault = Fault("Upgrade", "websocket", request.headers.get("upgrade", "none"))
    raise UpgradeRequired("Open this address as a WebSocket.", fault)


async def without_slash(request: Request, prefix: str) -> Response:
    """Redirect to the address without the slashes at its end.

    Publishers are not redirected: many programs would take the redirect for success, and nothing would be stored.
    """
    query = request.scope.get("query_string", b"").decode("latin-1")
    address = prefix + quote(request.scope["path"].rstrip("/")) + (f"?{quote(query, safe=_QUERY)}" if query else "")
    return Response(status_code=308, headers={"Location": address, "Cache-Control": "no-cache"})


def _check_names(kind: str, operations: Sequence[Operation], handlers: Mapping[str, object]) -> None:
    missing = sorted({operation.name for operation in operations} ^ handlers.keys())
    if missing:
        raise LookupError(f"{kind} operations without a handler, or handlers without an operation: {missing}")


class AnyText(PathConvertor):
    """AnyText is what a path has in the place of a name: also a line feed, so that it is refused as a bad name."""

    regex = "(?s:.*)"


register_url_convertor("text", AnyText())


def _pattern(path: str) -> str:
    """The pattern of a path, in which a name or an id has slashes too, so that it is refused as such."""
    pattern = path.replace("{stream}", "{stream:text}")
    return pattern.removesuffix("{id}") + "{id:text}" if pattern.endswith("/{id}") else pattern


def _application(handler: Handler) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await handler(Request(scope, receive, send))
        except Refused as refused:
            refused.headers = {**_limits(scope), **refused.headers}
            raise
        response.headers.update(_limits(scope))
        await response(scope, receive, send)

    return app


def _limits(scope: Scope) -> dict[str, str]:
    """The header fields that tell the limit of the publish key of a request, if it has one."""
    quota: Quota | None = scope.get(QUOTA)
    return quota.fields() if quota is not None else {}


def _gated(operation: Operation, app: ASGIApp, tokens: Tokens) -> ASGIApp:
    return Gate(app, tokens) if operation.is_for_readers and tokens.any_private else app


def _socket_route(operation: Operation, handler: SocketHandler, tokens: Tokens) -> WebSocketRoute:
    route = WebSocketRoute(_pattern(operation.path), handler, name=operation.name)
    route.app = _gated(operation, route.app, tokens)
    return route
