"""The application around the routes: headers of every response, limits of addresses, a response to every exception."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Sequence
from functools import partial

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import Lifespan, Message, Receive, Scope, Send

from ..access.addresses import Addresses
from ..access.origins import Origins
from ..access.tokens import Tokens
from ..errors import Fault, NotAllowed, NotFound, Refused, Unavailable, shorten
from ..live.hub import Hub
from ..log_throttle import Tally
from ..logs import REQUEST
from ..refusal_response import HEADERS, answer
from ..store.store import StoreError
from ..surfaces.cache import SurfaceCache
from .address_guard import AddressGuard
from .cors import Cors
from .measures import Measures
from .refusals import Refusals
from .static_files import StaticFiles, StaticSet
from .surface_routes import Reply, SurfaceRoutes, fields_of

logger = logging.getLogger(__name__)
_away = Tally(logger, "requests without an answer of the store")


class App(Starlette):
    """App is the ASGI application of a worker: it completes response headers, and enforces the limits of addresses.

    The headers are added before Starlette's own middleware, so that they cover the answer to a bug. `hub`,
    `addresses` and `measures` are for the server, which drains the hub before it stops, counts the connections of an
    address, and reports what is measured.
    """

    measures: Measures  # set once all parts are made

    def __init__(
        self,
        routes: Sequence[BaseRoute],
        *,
        hub: Hub,
        addresses: Addresses,
        origins: Origins,
        surfaces: SurfaceCache,
        cache_control: str,
        tokens: Tokens,
        static: StaticSet,
        lifespan: Lifespan[Starlette],
    ) -> None:
        reads = partial(SurfaceRoutes, cache=surfaces, cache_control=cache_control, tokens=tokens)
        middleware = [Middleware(AddressGuard, addresses=addresses), Middleware(partial(reads, refuse=answer))]
        super().__init__(routes=routes, lifespan=lifespan, middleware=middleware, exception_handlers=EXCEPTION_HANDLERS)
        self.router.redirect_slashes = False
        self.hub = hub
        self.addresses = addresses
        self._outer = Cors(Refusals(super().__call__, static.site), origins)
        self._reads = reads(
            self._complete,
            refuse=lambda refused: Cors(Refusals(answer(refused), static.site), origins),
            granted=self._outer.grant("/streams/", ""),
        )
        self._files = StaticFiles(self._reads, static)

    def prepare(self, scope: Scope, reply: Reply) -> bool:
        """Have a GET or HEAD answered from memory, as `transport/http.py` says. What concerns a middleware is not."""
        fields = fields_of(scope["headers"])
        if self.addresses.limit_requests or b"origin" in fields:
            return False
        return self._files.prepare(scope, fields, reply) or self._reads.prepare(scope, fields, reply)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer. A page load that no middleware concerns does not go through them: they cost more than it does."""
        mark, client = REQUEST.get(), scope.get("client")
        if mark is not None and client:
            mark.client = client[0]  # as a believed proxy names it
        if self.addresses.limit_requests or any(name == b"origin" for name, _ in scope.get("headers", ())):
            await self._complete(scope, receive, send)
        else:
            await self._files(scope, receive, send)

    async def _complete(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            send = _with_headers(send)
        await self._outer(scope, receive, send)


def _with_headers(send: Send) -> Send:
    def wrapped(message: Message) -> Awaitable[None]:  # a plain function: a coroutine would cost on each event sent
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        return send(message)

    return wrapped


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return answer(error)


async def _http(request: Request, error: Exception) -> Response:
    """Answer what the router refuses: an unknown address or method."""
    assert isinstance(error, HTTPException)
    path, method = shorten(request.scope["path"]), shorten(request.method)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        fault = Fault("method", allowed, method)
        hint = "; leave out the slash at its end" if path.endswith("/") and path != "/" else ""
        return answer(
            NotAllowed(f"{path} does not allow the method {method}{hint}.", fault, headers={"Allow": allowed})
        )
    return answer(NotFound(f"There is no resource at {path}."))


async def _store(request: Request, error: Exception) -> Response:
    path = request.scope["path"]
    _away.note("", "%s %s: the store does not answer: %s", request.method, path, error)
    return answer(Unavailable("The store does not answer; retry later."))


async def _gone(request: Request, error: Exception) -> Response:
    """Let go of a publisher that went in the middle of its body: nothing was stored, and nobody reads the answer."""
    logger.info("a client disconnected before the end of its %s request", shorten(request.method))
    return Response(status_code=400)


async def _bug(request: Request, error: Exception) -> Response:
    """Answer an unexpected exception, whose traceback is logged: Starlette raises it again after this answer."""
    # uvicorn closes the connection after this answer; without the header a client would send its next request into it.
    refused = Refused(
        "The server failed on this request; the server's log has the reason.", headers={"Connection": "close"}
    )
    refused.status, refused.title, refused.kind = 500, "Server error", "server-error"
    return answer(refused)


EXCEPTION_HANDLERS = {
    Refused: _refused,
    HTTPException: _http,
    StoreError: _store,
    ClientDisconnect: _gone,
    Exception: _bug,
}
