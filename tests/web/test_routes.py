"""Routes are those of the table of operations."""

from __future__ import annotations

import http.client
from typing import NamedTuple

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute
from starlette.types import Message
from starlette.websockets import WebSocket

from pushserver.access.tokens import Tokens
from pushserver.web.route_table import OPERATIONS, Answer, Operation
from pushserver.web.routes import Handler, make_routes

from ..support.server import LIMIT, Running

PUBLIC = Tokens([], [], ["EdDSA"], "pushserver")
PRIVATE = Tokens(["*"], [], ["EdDSA"], "pushserver")

pytestmark = pytest.mark.anyio


def handler(name: str) -> Handler:
    """A handler that answers its operation's name and what the path says."""

    async def handle(request: Request) -> Response:
        return PlainTextResponse(" ".join([name, *request.path_params.values()]))

    return handle


async def follow(websocket: WebSocket) -> None:
    await websocket.send_denial_response(PlainTextResponse(f"follow {websocket.path_params['stream']}"))


HANDLERS = {operation.name: handler(operation.name) for operation in OPERATIONS if not operation.is_websocket}


class Answered(NamedTuple):
    """A response: its status, headers and body."""

    status: int
    headers: dict[str, str]
    body: str


async def ask(method: str, path: str, tokens: Tokens = PUBLIC) -> Answered:
    """The response to a request without a token; the method CONNECT stands for a handshake."""
    return await call(make_routes(HANDLERS, {"follow": follow}, tokens), method, path)


async def call(routes: list[BaseRoute], method: str, path: str) -> Answered:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    kind = "websocket" if method == "CONNECT" else "http"
    scope = {"type": kind, "method": method, "path": path, "headers": [], "extensions": {"websocket.http.response": {}}}
    await Starlette(routes=routes)(scope, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answered(sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent).decode())


def method_of(operation: Operation) -> str:
    return "CONNECT" if operation.is_websocket else operation.method


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
async def test_an_operation_has_a_route(operation: Operation) -> None:
    answer = await ask(method_of(operation), operation.path.format(stream="a", id="b"))
    names = [value for name, value in (("{stream}", "a"), ("{id}", "b")) if name in operation.path]
    assert (answer.status, answer.body) == (200, " ".join([operation.name, *names]))


@pytest.mark.parametrize("id", ["entries", "sse", "ws", "events", "feed.atom", "export", "end", "delivery", "streams"])
async def test_an_entry_may_have_the_name_of_any_address(id: str) -> None:
    assert (await ask("GET", f"/streams/a/entries/{id}")).body == f"showEntry a {id}"
    assert (await ask("GET", f"/streams/a/entries/{id}/delivery")).body == f"showDelivery a {id}"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/streams/a/b", "showPage a/b"),
        ("/streams/a/b/entries", "listEntries a/b"),
        ("/streams/a/b/entries/c", "showEntry a/b c"),
        ("/streams/a/entries/b/c", "showEntry a b/c"),
        ("/streams/", "showPage "),
        ("/streams//events", "listEvents "),
    ],
)
async def test_a_bad_name_reaches_a_handler_which_refuses_it_by_name(path: str, expected: str) -> None:
    assert (await ask("GET", path)).body == expected


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/", "GET, HEAD"),
        ("POST", "/streams/a", "DELETE, GET, HEAD, PATCH, PUT"),
        ("OPTIONS", "/streams/a/entries/b", "DELETE, GET, HEAD, PATCH, PUT"),
        ("GET", "/streams/a/end", "POST"),
        ("HEAD", "/streams/a/restore", "POST"),
        ("BREW", "/streams/a/ws", "GET, HEAD"),
    ],
)
@pytest.mark.parametrize("tokens", [PUBLIC, PRIVATE], ids=["public", "private"])
async def test_an_unknown_method_is_refused_with_those_that_are_known(
    method: str, path: str, allow: str, tokens: Tokens
) -> None:
    answer = await ask(method, path, tokens)
    assert (answer.status, answer.headers["allow"]) == (405, allow)


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/streams/demo/", "/streams/demo"),
        ("/streams/demo/?before=1.a&x=%2F", "/streams/demo?before=1.a&x=%2F"),
        ("/streams/demo//", "/streams/demo"),
        ("/streams/demo/entries/", "/streams/demo/entries"),
        ("/streams/demo/entries/one/", "/streams/demo/entries/one"),
        ("/streams/demo/feed.atom/", "/streams/demo/feed.atom"),
        ("/streams/demo/sse/?cursor=x", "/streams/demo/sse?cursor=x"),
        ("/streams//evil.example/", "/streams//evil.example"),
        ("/streams/%0DSet-Cookie:%20a/", "/streams/%0DSet-Cookie%3A%20a"),
        ("/livez/", "/livez"),
        ("/openapi.json/", "/openapi.json"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_address_with_a_slash_at_its_end_is_redirected(
    server: Running, method: str, path: str, location: str
) -> None:
    answer = server.http.request(method, path)
    assert (answer.status_code, answer.headers["location"]) == (308, location)


@pytest.mark.parametrize("path", ["/", "/streams/", "//evil.example/", "/nothing/", "/static/"])
def test_what_has_no_address_without_the_slash_is_not_redirected(server: Running, path: str) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=LIMIT)
    connection.request("GET", path)
    assert connection.getresponse().status in (200, 404, 422)
    connection.close()


def test_a_publisher_is_refused_where_a_redirect_would_look_like_success(server: Running, stream: str) -> None:
    refused = server.send("POST", f"/streams/{stream}/entries/", {"headline": "One"})
    assert refused.status_code == 405
    assert "leave out the slash at its end" in refused.json()["detail"]
    assert server.http.get(f"/streams/{stream}/entries").status_code == 404


async def test_a_get_answers_head_too() -> None:
    assert (await ask("HEAD", "/streams/a/entries")).body == "listEntries a"


async def test_the_route_of_the_websocket_is_the_first() -> None:
    """Readers come in storms: none of them waits for twenty other patterns."""
    assert type(make_routes(HANDLERS, {"follow": follow}, PUBLIC)[0]).__name__ == "WebSocketRoute"


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
async def test_an_operation_of_a_private_stream_has_a_gate_unless_it_needs_a_key(operation: Operation) -> None:
    answer = await ask(method_of(operation), operation.path.format(stream="a", id="b"), PRIVATE)
    assert answer.status == (401 if "/streams/" in operation.path and operation.right is None else 200)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "OPTIONS"])
async def test_a_new_operation_has_a_gate_before_anybody_thinks_of_it(method: str) -> None:
    new = Operation(method, "/streams/{stream}/new", "new", "", {200: Answer("")})
    answer = await call(make_routes({"new": handler("new")}, {}, PRIVATE, [new]), method, "/streams/a/new")
    assert answer.status == 401


@pytest.mark.parametrize("kind", ["GET", "HEAD"])
def test_the_address_of_a_websocket_needs_the_upgrade(server: Running, stream: str, kind: str) -> None:
    refused = server.http.request(kind, f"/streams/{stream}/ws")
    assert (refused.status_code, refused.headers["content-type"]) == (426, "application/problem+json")


@pytest.mark.parametrize("name", HANDLERS)
def test_an_operation_without_a_handler_is_refused_at_start(name: str) -> None:
    others = {other: handler for other, handler in HANDLERS.items() if other != name}
    with pytest.raises(LookupError, match=name):
        make_routes(others, {"follow": follow}, PUBLIC)


def test_a_websocket_without_a_handler_is_refused_at_start() -> None:
    with pytest.raises(LookupError, match="follow"):
        make_routes(HANDLERS, {}, PUBLIC)


def test_a_handler_without_an_operation_is_refused_at_start() -> None:
    with pytest.raises(LookupError, match="brewCoffee"):
        make_routes({**HANDLERS, "brewCoffee": handler("brewCoffee")}, {"follow": follow}, PUBLIC)
    with pytest.raises(LookupError, match="brewTea"):
        make_routes(HANDLERS, {"follow": follow, "brewTea": follow}, PUBLIC)


@pytest.mark.parametrize("path", ["/streams/a%0A", "/streams/a%0Ab/entries", "/streams/a/entries/x%0Ay"])
def test_a_name_with_a_line_feed_is_refused_as_a_name(server: Running, path: str) -> None:
    method = "POST" if path.endswith("entries") else "PUT"
    refused = server.send(method, path, {"headline": "One"})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) in {(422, "stream"), (422, "id")}
