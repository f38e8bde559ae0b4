"""Private streams on a real server: no road to them but a token's, and none after its end."""

from __future__ import annotations

import asyncio
import json
import re
import socket as sockets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from starlette.types import Message
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from pushserver.client import TurnedAway, follow
from pushserver.live.fanout import Fanout
from pushserver.live.reader import ReaderState
from pushserver.live.ring import Ring
from pushserver.model import Cursor, milliseconds
from pushserver.transport.asgi import WebSocketReader
from pushserver.web.route_table import OPERATIONS, Operation
from pushserver.wire.codes import Close
from pushserver.wire.frames import Format, Notice

from ..support import issuer
from ..support.issuer import token
from ..support.judge import CHROMIUM, FLAGS
from ..support.server import LIFETIMES, LIMIT, ROOT, Running, Served, clean_environment, reader, receive, running
from ..support.worker import Serve

NAMED = "https://news.example"
CACHED = "public, max-age=0, s-maxage=1, stale-while-revalidate=2, stale-if-error=30"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Its `test-*` are private: every stream of the tests, and `demo` is not."""
    folder = tmp_path_factory.mktemp("gate")
    (folder / "keys").write_bytes(issuer.ALL)
    arguments = ["--private", "test-*", "--token-keys", str(folder / "keys"), "--origins", f"*,{NAMED}"]
    with running(folder / "data", "--heartbeat", "0.5", *arguments) as server:
        yield server


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def cookie(*tokens: str) -> dict[str, str]:
    return {"Cookie": "; ".join(["other=1", *(f"pushserver_token={token}" for token in tokens)])}


def protocols(*names: str) -> list[Subprotocol]:
    return [Subprotocol(name) for name in names]


# --- every operation


READ = [operation for operation in OPERATIONS if operation.path.startswith("/streams/") and operation.method == "GET"]


@pytest.mark.parametrize("operation", READ, ids=lambda operation: operation.name)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_no_operation_shows_a_private_stream_without_a_token(
    server: Served, stream: str, operation: Operation, method: str
) -> None:
    id = server.publish_ok(stream, "Nobody's business")["id"]
    is_keyed = not operation.is_for_readers
    for name, entry_id in ((stream, id), (stream, "none"), (f"{stream}-not-there", id)):
        path = operation.path.format(stream=name, id=entry_id)
        refused = server.http.request(method, path)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, 'Bearer realm="pushserver"')
        assert "Nobody" not in refused.text
        of_others = server.http.request(method, path, headers=bearer(token("other-*")))
        assert of_others.status_code == (401 if is_keyed else 403)
    path = operation.path.format(stream=stream, id=id)
    if is_keyed:
        assert server.http.request(method, path, headers=bearer(token(stream))).status_code == 401
        assert server.http.request(method, path, headers=bearer(server.key)).status_code == 200
        return
    with server.http.stream(method, path, headers=bearer(token(stream))) as shown:
        assert shown.status_code == (426 if operation.is_websocket else 200)
        assert shown.headers["cache-control"] == "private, no-store"
        assert {"Authorization", "Cookie"} <= set(shown.headers["vary"].split(", "))


def test_no_handshake_shows_a_private_stream_without_a_token(server: Served, stream: str) -> None:
    server.publish_ok(stream, "Nobody's business")
    version = {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", **version}
    for name in (stream, f"{stream}-not-there"):
        refused = server.http.get(f"/streams/{name}/ws", headers=upgrade)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, 'Bearer realm="pushserver"')
        of_others = server.http.get(f"/streams/{name}/ws", headers={**upgrade, **bearer(token("other-*"))})
        assert of_others.status_code == 403


def test_few_operations_show_a_stream_for_a_publish_key() -> None:
    """Each has no gate before it: whoever adds one answers for it."""
    for_keys = {operation.name for operation in READ if not operation.is_for_readers}
    assert for_keys == {"showDelivery", "showHistory", "echoRequest", "exportStream"}


def test_a_slice_and_a_page_that_is_held_already_need_the_token_too(server: Served, stream: str) -> None:
    server.publish_ok(stream, "one")
    good = bearer(token(stream))
    etag = server.http.get(f"/streams/{stream}", headers=good).headers["etag"]
    known = {"If-None-Match": etag}
    assert server.http.get(f"/streams/{stream}", headers={**known, **good}).status_code == 304
    assert server.http.get(f"/streams/{stream}", headers=known).status_code == 401
    for path in (f"/streams/{stream}?before=9999999999999.x", f"/streams/{stream}/entries?limit=1"):
        assert server.http.get(path).status_code == 401
        assert server.http.get(path, headers=good).status_code == 200


def test_refusals_to_the_bearer_are_not_shared_by_caches(server: Served, stream: str) -> None:
    id = server.publish_ok(stream, "one")["id"]
    server.send("DELETE", f"/streams/{stream}/entries/{id}?note=secret", b"")
    for path, status in ((f"/streams/{stream}/entries/{id}", 410), (f"/streams/{stream}-no", 404)):
        answer = server.http.get(path, headers=bearer(token("test-*")))
        assert (answer.status_code, answer.headers["cache-control"]) == (status, "private, no-store")


def test_the_index_lists_what_everybody_may_read(server: Served, stream: str) -> None:
    server.publish_ok(stream, "one")
    server.publish_ok("demo", "one")
    index = server.http.get("/", headers=bearer(token("*"))).text
    assert ("/streams/demo" in index, stream in index) == (True, False)


def test_a_public_stream_asks_for_nothing_and_minds_no_token(server: Served) -> None:
    server.publish_ok("demo", "one")
    for headers in ({}, bearer("rubbish"), cookie("rubbish"), bearer(token("other"))):
        answer = server.http.get("/streams/demo", headers=headers)
        assert (answer.status_code, answer.headers["cache-control"]) == (200, CACHED)


def test_publishing_needs_the_publish_key_and_the_publish_key_does_not_read(server: Served, stream: str) -> None:
    assert server.publish(stream, {"headline": "x"}, **bearer(token("*"))).status_code == 401
    assert server.publish(stream, {"headline": "x"}).status_code == 201
    assert server.http.get(f"/streams/{stream}", headers=bearer(server.key)).status_code == 401


# --- the roads of a token


def test_a_token_comes_by_header_or_by_cookie(server: Served, stream: str) -> None:
    server.publish_ok(stream, "one")
    good, bad = token(stream), token("other")
    for headers, status in [
        (bearer(good), 200),
        ({"Authorization": f"bearer  {good}"}, 200),
        (cookie(good), 200),
        (cookie(f'"{good}"'), 200),
        ({**bearer(good), **cookie(bad)}, 200),  # what was said for this request goes first
        ({**bearer(bad), **cookie(good)}, 403),
        ({"Authorization": "Basic eDp5", **cookie(good)}, 200),
        (cookie(good, good), 401),
        (cookie(bad, good), 401),
        (cookie(""), 401),
        ({"Cookie": f"pushserver_token2={good}; xpushserver_token={good}"}, 401),
        ({"Sec-WebSocket-Protocol": f"pushserver, token.{good}"}, 401),
        ({"Authorization": good}, 401),
        (bearer(token(stream, more="x" * 5_000)), 401),
    ]:
        assert server.http.get(f"/streams/{stream}", headers=headers).status_code == status, headers
    two = [("Authorization", f"Bearer {good}"), ("Authorization", f"Bearer {bad}")]
    assert server.http.get(f"/streams/{stream}", headers=two).status_code == 401


@pytest.mark.parametrize("name", ["token", "pushserver_token", "access_token", "jwt", "authorization"])
def test_a_token_in_the_address_is_not_looked_at(server: Served, stream: str, name: str) -> None:
    server.publish_ok(stream, "one")
    for path in (f"/streams/{stream}", f"/streams/{stream}/entries", f"/streams/{stream}/ws"):
        assert server.http.get(path, params={name: token(stream)}).status_code == 401


def test_a_bad_token_is_named_and_not_repeated(server: Served, stream: str) -> None:
    old = token(stream, exp=1_000_000_000)
    refused = server.http.get(f"/streams/{stream}", headers=bearer(old))
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == 'Bearer realm="pushserver", error="invalid_token"'
    assert refused.headers["content-type"] == "application/problem+json"
    (fault,) = refused.json()["errors"]
    assert (fault["field"], fault["got"]) == ("exp", "2001-09-09T01:46:40.000Z")
    assert old not in refused.text
    assert old not in server.log


@pytest.mark.anyio
async def test_a_websocket_takes_the_token_by_every_road_but_its_address(server: Served, stream: str) -> None:
    server.publish_ok(stream, "one")
    good = token(stream)
    for options in (
        {"additional_headers": bearer(good)},
        {"additional_headers": cookie(good)},
        {"additional_headers": {**cookie(good), "Origin": server.url}},
        {"subprotocols": protocols("pushserver", f"token.{good}")},
        {
            "subprotocols": protocols(f"token.{good}", "pushserver"),
            "additional_headers": {"Origin": "https://x.example"},
        },
    ):
        async with reader(server, stream, **options) as socket:
            assert (await receive(socket))["type"] == "hello"
            assert socket.subprotocol == ("pushserver" if "subprotocols" in options else None)
            assert socket.response is not None
            assert good not in str(socket.response.headers)
    assert await refusal(server, stream) == 401
    assert await refusal(server, stream, cursor=f"x&token={good}&pushserver_token={good}") == 401
    assert await refusal(server, stream, subprotocols=protocols("pushserver")) == 401
    assert await refusal(server, stream, subprotocols=protocols("pushserver", "token.x")) == 401
    two = protocols("pushserver", f"token.{good}", f"token.{token(stream, sub='other')}")
    assert await refusal(server, stream, subprotocols=two) == 401
    assert await refusal(server, stream, additional_headers=bearer(token("other"))) == 403


@pytest.mark.anyio
async def test_a_page_of_elsewhere_does_not_read_with_its_visitors_cookie(server: Served, stream: str) -> None:
    server.publish_ok(stream, "one")
    signed_in = cookie(token(stream))
    assert await refusal(server, stream, additional_headers={**signed_in, "Origin": "https://evil.example"}) == 403
    assert await refusal(server, stream, additional_headers={**signed_in, "Origin": "null"}) == 403
    async with reader(server, stream, additional_headers={**signed_in, "Origin": NAMED}) as socket:
        assert (await receive(socket))["type"] == "hello"


async def refusal(server: Served, stream: str, **options: Any) -> int:
    """The status with which a handshake is refused; its body is a problem of the same status."""
    with pytest.raises(InvalidStatus) as refused:
        async with reader(server, stream, **options):
            pass
    response = refused.value.response
    assert json.loads(response.body or b"")["status"] == response.status_code
    return response.status_code


# --- the end of a token


async def read_to_the_end(socket: ClientConnection) -> tuple[list[dict[str, Any]], int]:
    """Every frame until the close, and its code."""
    frames = []
    try:
        while True:
            frames.append(json.loads(await socket.recv()))
    except ConnectionClosed as closed:
        return frames, closed.rcvd.code if closed.rcvd else 1006


@pytest.mark.anyio
async def test_nothing_comes_after_the_token_has_expired(server: Served, stream: str) -> None:
    for lifetime in LIFETIMES:
        exp = time.time() + lifetime
        with suppress(InvalidStatus):  # it expired before its reader was let in
            frames, code = await read_beside_another(server, stream, exp)
            assert code == Close.TOKEN_EXPIRED
            times = [milliseconds(frame["at"]) for frame in frames if frame["type"] == "entry.put"]
            assert all(at <= exp * 1000 for at in times)
            if times:
                return
    pytest.fail("no token lasted until an entry came")


async def read_beside_another(server: Served, stream: str, exp: float) -> tuple[list[dict[str, Any]], int]:
    """The frames that a reader gets until its token expires, and the close code; entries come before that and after."""
    cursor = server.publish_ok(stream, "start")["cursor"]
    stopped = asyncio.Event()

    async def publish() -> None:
        while not stopped.is_set():
            await asyncio.to_thread(server.publish_ok, stream, "more")

    short, long = bearer(token(stream, exp=exp)), bearer(token(stream, exp=exp + LIMIT))
    async with (
        reader(server, stream, cursor=cursor, additional_headers=long) as staying,
        reader(server, stream, cursor=cursor, additional_headers=short) as leaving,
    ):
        publishing = asyncio.create_task(publish())
        frames, code = await read_to_the_end(leaving)
        while milliseconds((await receive(staying, "entry.put"))["at"]) <= exp * 1000:
            pass  # what is later than the token is published, and told to others
        stopped.set()
        await publishing
        return frames, code


@pytest.mark.anyio
async def test_a_token_that_expires_while_the_reader_joins_shows_nothing_late(server: Served, stream: str) -> None:
    server.publish_ok(stream, "start")
    outcomes = set()
    for number in range(40):
        exp = time.time() + number / 4_000
        try:
            async with reader(server, stream, additional_headers=bearer(token(stream, exp=exp))) as socket:
                _, code = await read_to_the_end(socket)
                outcomes.add(code)
        except InvalidStatus as refused:
            outcomes.add(refused.response.status_code)
    assert outcomes <= {401, Close.TOKEN_EXPIRED}
    async with reader(server, stream, additional_headers=bearer(token(stream))) as socket:
        while (await receive(socket, "head"))["readers"] > 1:
            pass  # those that left before they had joined are not among the readers


@pytest.mark.anyio
async def test_what_waits_for_a_slow_reader_is_not_sent_after_the_end(
    serve: Serve, tmp_path: Path, stream: str
) -> None:
    (tmp_path / "keys").write_bytes(issuer.ALL)
    server = serve("--private", "test-*", "--token-keys", f"{tmp_path}/keys", "--replay-bytes", "20000000")
    cursor = server.publish_ok(stream, "start")["cursor"]
    line = json.dumps({"blocks": [{"type": "paragraph", "html": "x" * 19_000}] * 3})
    for _ in range(2):
        batch = "\n".join([line] * 75).encode()
        assert server.publish(stream, batch, Content_Type="application/x-ndjson").status_code == 200
    for lifetime in LIFETIMES:
        with suppress(InvalidStatus):  # it expired before its readers were let in
            taken = await take_after_the_end(server, stream, cursor, token(stream, exp=time.time() + lifetime))
            # It gets what lay in the buffers of the network already. What waited, and a close behind it, it does not.
            assert taken.count(b'"type":"entry.put"') < 150
            if b'"type":"entry.put"' in taken:  # else the token expired before any was written, and a close is right
                assert not taken.endswith(Close.TOKEN_EXPIRED.to_bytes(2, "big"))
                return
    pytest.fail("no token lasted until an entry came")


async def take_after_the_end(server: Served, stream: str, cursor: str, token: str) -> bytes:
    """Return what a reader is sent that takes nothing until its token expires. Raises InvalidStatus before that."""
    host, port = server.url.removeprefix("http://").split(":")
    with sockets.socket() as stalled:
        stalled.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        stalled.connect((host, int(port)))
        stalled.settimeout(LIMIT)
        stalled.sendall(
            f"GET /streams/{stream}/ws?cursor={cursor} HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {token}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        taken = stalled.recv(12)
        async with reader(server, stream, additional_headers=bearer(token)) as socket:
            assert (await read_to_the_end(socket))[1] == Close.TOKEN_EXPIRED
        assert taken == b"HTTP/1.1 101", "it was refused, and the one who came after it was not"
        with suppress(ConnectionResetError):
            while chunk := stalled.recv(65_536):
                taken += chunk
        return taken


@pytest.mark.anyio
@pytest.mark.parametrize("ended", ["by the timer, before it had joined", "by the clock, before the timer"])
async def test_a_reader_whose_time_is_over_is_sent_nothing_whoever_notices_first(ended: str) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    websocket = WebSocket({"type": "websocket", "path": "/", "headers": []}, receive, send)
    await websocket.accept()
    fanout = Fanout(Ring(Cursor("e", "1-1", "n"), 1, max_events=10, max_bytes=1_000))
    by_timer = ended.startswith("by the timer")
    late = WebSocketReader(Format.JSON, fanout, abort=sent.clear, until=time.time() + (60 if by_timer else -1))
    late.websocket = websocket
    sending = asyncio.create_task(late.run())
    if by_timer:
        fanout.drop(late, Close.TOKEN_EXPIRED)
        fanout.join(late, fanout.ring.end, fanout.ring.head, [Notice("opening")])
        assert list(fanout.beat(Notice("heartbeat"))) == [None]
    else:
        fanout.join(late, fanout.ring.end, fanout.ring.head, [Notice("opening")])
        while late.state is not ReaderState.OPEN:
            await asyncio.sleep(0)
        fanout.drop(late, Close.TOKEN_EXPIRED)
    await sending
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.close"]
    assert sent[1]["code"] == Close.TOKEN_EXPIRED


# --- who reads


@pytest.mark.anyio
async def test_a_follower_is_told_that_its_token_is_over(server: Served, stream: str) -> None:
    server.publish_ok(stream, "one")
    for lifetime in LIFETIMES:
        following = follow(server.url, stream, token=token(stream, exp=time.time() + lifetime))
        frames: list[dict[str, Any]] = []
        with pytest.raises(TurnedAway, match="token has expired") as turned_away:
            async for frame in following:
                frames.append(frame)
        if frames:
            assert [frame["type"] for frame in frames] == ["snapshot"]
            assert "the token has expired" in str(turned_away.value)
            return
    pytest.fail("no token lasted until the snapshot came")


def tail(server: Served, stream: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pushserver", "tail", stream, "--url", server.url, *arguments],
        cwd=ROOT,
        env={**clean_environment(), **env},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def test_tail_of_a_private_stream_says_where_a_token_goes(server: Served, stream: str) -> None:
    refused = tail(server, stream)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.endswith("Name it with --token or PUSHSERVER_TOKEN.\n")


def test_tail_reads_a_private_stream_with_a_token(server: Served, stream: str) -> None:
    server.publish_ok(stream, "For the desk")
    server.send("POST", f"/streams/{stream}/end", {})
    refused = tail(server, stream)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "This stream is private: its readers need a token." in refused.stderr
    for shown in (tail(server, stream, "--token", token(stream)), tail(server, stream, PUSHSERVER_TOKEN=token("*"))):
        assert (shown.returncode, "For the desk" in shown.stdout) == (0, True), shown.stderr


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visitor(chromium: Browser) -> Iterator[BrowserContext]:
    with chromium.new_context() as context:
        yield context


def sign_in(visitor: BrowserContext, server: Served, stream: str, *, exp: float) -> None:
    visitor.add_cookies(
        [
            {
                "name": "pushserver_token",
                "value": token(stream, exp=exp),
                "url": server.url,
                "httpOnly": True,
                "sameSite": "Strict",
            }
        ]
    )


@pytest.mark.full
def test_a_page_reads_with_its_cookie_and_asks_to_sign_in_at_its_end(
    visitor: BrowserContext, server: Served, stream: str
) -> None:
    page = visitor.new_page()
    refused = page.goto(f"{server.url}/streams/{stream}")
    assert refused is not None
    assert refused.status == 401
    for number, lifetime in enumerate(LIFETIMES[1:]):
        stream = f"{stream}-{number}"
        if is_live_until_the_end(page, visitor, server, stream, lifetime):
            break
    expect(page.locator("article h3")).to_have_text(["Then live", "There before"])
    server.publish_ok(stream, "Too late")
    sign_in(visitor, server, stream, exp=time.time() + 2 * LIMIT)
    expect(page.locator("article h3")).to_have_count(2)
    page.evaluate("dispatchEvent(new Event('online'))")
    expect(page.locator("#status")).to_have_attribute("data-state", "live")
    expect(page.locator("article h3")).to_have_text(["Too late", "Then live", "There before"])


def is_live_until_the_end(page: Page, visitor: BrowserContext, server: Served, stream: str, lifetime: float) -> bool:
    """Whether a page showed an entry live before the token in its cookie expired; it has expired."""
    server.publish_ok(stream, "There before")
    sign_in(visitor, server, stream, exp=time.time() + lifetime)
    page.goto(f"{server.url}/streams/{stream}")
    expect(page.locator("#status")).to_have_attribute("data-state", re.compile("^(live|expired)$"))
    server.publish_ok(stream, "Then live")
    expect(page.locator("#status")).to_have_text("Sign in again to go on")
    return page.locator("article").count() == 2


@pytest.mark.full
def test_a_page_whose_cookie_went_while_it_was_away_does_not_try_for_ever(
    visitor: BrowserContext, server: Served, stream: str
) -> None:
    server.publish_ok(stream, "one")
    sign_in(visitor, server, stream, exp=time.time() + 60)
    page = visitor.new_page()
    page.goto(f"{server.url}/streams/{stream}")
    expect(page.locator("#status")).to_have_attribute("data-state", "live")
    page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    visitor.clear_cookies()
    page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    expect(page.locator("#status")).to_have_text("Sign in again to go on")
