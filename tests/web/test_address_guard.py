"""Limits of addresses: what is beyond them gets 429, and other addresses notice nothing.

A loopback peer is believed by default, so the tests name addresses in `X-Forwarded-For`. Connections of peers that are
no proxy are counted by the transport (tests/transport/test_door.py).
"""

from __future__ import annotations

from contextlib import AsyncExitStack

import httpx2
import pytest
from websockets.exceptions import InvalidStatus

from pushserver import metrics

from ..support.processes import eventually
from ..support.server import Served, reader, receive
from ..support.worker import Serve

pytestmark = pytest.mark.anyio

ONE, OTHER = "203.0.113.7", "203.0.113.8"
SAME_64 = ["2001:db8:1:2::3", "2001:db8:1:2:9::9"]


def is_limited(answer: httpx2.Response) -> bool:
    """Whether an answer is a refusal for its address; all that such an answer has to have is checked."""
    if answer.status_code != 429:
        return False
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["connection"] == "close"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["type"] == "urn:pushserver:problem:too-many"
    assert answer.json()["errors"][0]["field"] == "address"
    return True


def get(server: Served, path: str, address: str) -> httpx2.Response:
    return server.http.get(path, headers={"X-Forwarded-For": address})


async def refusal(server: Served, stream: str, address: str) -> int:
    """The status with which a handshake is refused; 101 where it is not."""
    try:
        async with reader(server, stream, additional_headers={"X-Forwarded-For": address}):
            return 101
    except InvalidStatus as refused:
        assert int(refused.response.headers.get("Retry-After", "0")) > 0
        assert b"urn:pushserver:problem:too-many" in (refused.response.body or b"")
        return refused.response.status_code


async def test_an_address_gets_as_many_requests_as_its_rate_allows(serve: Serve, stream: str) -> None:
    server = serve("--address-requests", "1")
    server.publish_ok(stream, "one")
    before = metrics.LIMITED.value("address_requests")
    while not is_limited(get(server, f"/streams/{stream}/entries", ONE)):
        pass  # a burst of two, and one more for each second that passes
    assert [get(server, probe, ONE).status_code for probe in ("/livez", "/readyz", "/readyz/read")] == [200, 200, 200]
    assert get(server, "/", OTHER).status_code == 200
    assert get(server, "/", SAME_64[0]).status_code == 200
    while not is_limited(get(server, "/nothing", SAME_64[1])):
        pass
    assert server.publish_ok(stream, "two")["n"] == 2  # over loopback
    while not is_limited(server.publish(stream, {"headline": "three"}, X_Forwarded_For=ONE)):
        pass
    assert metrics.LIMITED.value("address_requests") > before
    assert await refusal(server, stream, ONE) == 101


async def test_an_address_gets_as_many_handshakes_as_its_rate_allows(serve: Serve, stream: str) -> None:
    server = serve("--address-handshakes", "1")
    server.publish_ok(stream, "one")
    while await refusal(server, stream, ONE) != 429:
        pass
    while server.http.head(f"/streams/{stream}/sse", headers={"X-Forwarded-For": ONE}).status_code != 429:
        pass
    assert await refusal(server, stream, OTHER) == 101
    for _ in range(9):
        assert get(server, f"/streams/{stream}/entries", ONE).status_code == 200


async def test_a_proxied_address_has_as_many_readers_as_connections(serve: Serve, stream: str) -> None:
    server = serve("--address-connections", "2")
    server.publish_ok(stream, "one")
    headers = {"X-Forwarded-For": ONE}
    before = {**metrics.READERS.values}
    for _ in range(2):  # the second time, the places of the first time are free again
        async with AsyncExitStack() as readers:
            socket = await readers.enter_async_context(reader(server, stream, additional_headers=headers))
            await receive(socket)
            with server.http.stream("GET", f"/streams/{stream}/sse", headers=headers) as events:
                assert events.status_code == 200
                assert await refusal(server, stream, ONE) == 429
                assert '"reason":"too-many"' in get(server, f"/streams/{stream}/sse", ONE).text
                assert await refusal(server, stream, OTHER) == 101
                assert get(server, f"/streams/{stream}/entries", ONE).status_code == 200
        server.http.close()
        server.http = httpx2.Client(base_url=server.url)
        await eventually(lambda: metrics.READERS.values == before)


async def test_a_refused_handshake_leaves_its_place(serve: Serve, stream: str) -> None:
    server = serve("--address-connections", "1")
    server.publish_ok(stream, "one")
    for _ in range(3):
        assert get(server, "/streams/nothing/sse", ONE).status_code == 404
        assert server.http.head(f"/streams/{stream}/sse", headers={"X-Forwarded-For": ONE}).status_code == 200
        with pytest.raises(InvalidStatus, match="404"):
            async with reader(server, "nothing", additional_headers={"X-Forwarded-For": ONE}):
                pass
    assert await refusal(server, stream, ONE) == 101


def test_a_proxy_that_is_not_believed_is_named_once(serve: Serve) -> None:
    server = serve("--forwarded", "192.0.2.1")
    for _ in range(3):
        assert get(server, "/livez", ONE).status_code == 200
    assert server.log.count("127.0.0.1 sends X-Forwarded-For and is not believed") == 1
    assert "--forwarded 127.0.0.1" in server.log


def test_a_believed_proxy_is_not_named(serve: Serve) -> None:
    server = serve()
    for chain in (ONE, f"{OTHER}, {ONE}", f"{ONE}:4711", "2001:db8::7", "[2001:db8::7]:4711", "unknown", ",", ""):
        assert get(server, "/livez", chain).status_code == 200
    assert "X-Forwarded-For" not in server.log
