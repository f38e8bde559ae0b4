"""A subscription begins at a cursor, over WebSocket or as Server-Sent Events, or is refused by status."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from pushserver.web.static_files import StaticSet

from ..support.server import ROOT, Running, reader, receive

REFUSED = [
    ("no-such-stream", "", {}, 404),
    ("UPPER", "", {}, 422),
    ("{stream}", "format=xml", {}, 422),
    ("{stream}", "", {"Origin": "https://elsewhere.example"}, 403),
]
FLOOD = 20  # requests of a kind
HANDSHAKE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


def first_frames(server: Running, stream: str, query: str, count: int, **headers: str) -> list[dict[str, Any]]:
    """The frames that Server-Sent Events begin with, without heartbeats."""
    frames: list[dict[str, Any]] = []
    with server.http.stream("GET", f"/streams/{stream}/sse?{query}", headers=headers) as response:
        for line in response.iter_lines():
            if line.startswith("data: "):
                frames.append(json.loads(line.removeprefix("data: ")))
                frames = [frame for frame in frames if frame["type"] != "head"]
            if len(frames) == count:
                break
    return frames


def test_last_event_id_wins_over_the_cursor(server: Running, stream: str) -> None:
    cursors = [server.publish_ok(stream, str(number))["cursor"] for number in range(4)]
    for query, headers, expected in [
        (f"cursor={cursors[0]}", {}, [2, 3, 4]),
        (f"cursor={cursors[0]}", {"Last-Event-ID": cursors[2]}, [4]),
        ("cursor=nonsense", {"Last-Event-ID": cursors[1]}, [3, 4]),
        (f"lastEventId={cursors[2]}", {}, [4]),
        (f"lastEventID={cursors[2]}&cursor={cursors[0]}", {}, [4]),
        (f"Last-Event-ID={cursors[1]}", {}, [3, 4]),
        (f"lastEventId=&cursor={cursors[1]}", {}, [3, 4]),
        (f"lastEventId={cursors[0]}", {"Last-Event-ID": cursors[2]}, [4]),
    ]:
        hello, *events = first_frames(server, stream, query, 1 + len(expected), **headers)
        assert hello["complete"] is True
        assert [event["n"] for event in events] == expected


@pytest.mark.parametrize("cursor", ["", "nonsense", "v1.0.0-0.0"])
def test_a_cursor_that_is_not_valid_gets_the_snapshot(server: Running, stream: str, cursor: str) -> None:
    server.publish_ok(stream, "one")
    hello, snapshot = first_frames(server, stream, f"cursor={cursor}", 2)
    assert (hello["complete"], hello["reason"], snapshot["type"]) == (False, "no_cursor", "snapshot")


@pytest.mark.anyio
@pytest.mark.parametrize("cursor", ["", "nonsense"])
async def test_so_it_does_over_websocket(server: Running, stream: str, cursor: str) -> None:
    server.publish_ok(stream, "one")
    async with reader(server, stream, cursor=cursor) as socket:
        assert (await receive(socket))["reason"] == "no_cursor"
        assert (await receive(socket))["type"] == "snapshot"


@pytest.mark.parametrize(("name", "query", "headers", "status"), REFUSED)
def test_a_refusal_of_server_sent_events_is_a_problem(
    server: Running, stream: str, name: str, query: str, headers: dict[str, str], status: int
) -> None:
    server.publish_ok(stream, "one")
    response = server.http.get(f"/streams/{name.replace('{stream}', stream)}/sse?{query}", headers=headers)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")


@pytest.mark.anyio
@pytest.mark.parametrize(("name", "query", "headers", "status"), REFUSED)
async def test_a_refusal_of_a_handshake_is_a_problem(
    server: Running, stream: str, name: str, query: str, headers: dict[str, str], status: int
) -> None:
    server.publish_ok(stream, "one")
    format = query.removeprefix("format=") or "json"
    with pytest.raises(InvalidStatus) as refused:
        async with reader(server, name.replace("{stream}", stream), format=format, additional_headers=headers):
            pass
    response = refused.value.response
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")


def test_a_head_request_has_an_end(server: Running, stream: str) -> None:
    server.publish_ok(stream, "one")
    response = server.http.head(f"/streams/{stream}/sse")
    assert (response.status_code, response.headers["x-accel-buffering"]) == (200, "no")
    assert response.headers["content-type"] == "text/event-stream"
    assert server.http.head("/streams/no-such-stream/sse").status_code == 404


def test_who_has_all_of_an_ended_stream_is_told_to_stop(server: Running, stream: str) -> None:
    first = server.publish_ok(stream, "one")["cursor"]
    last = server.send("POST", f"/streams/{stream}/end", {}).json()["cursor"]
    assert server.http.get(f"/streams/{stream}/sse?cursor={last}").status_code == 204
    assert first_frames(server, stream, f"cursor={first}", 2)[1]["type"] == "stream.end"


REFUSED_FLOODS = [
    ("no-such-stream", "", {}, {404, 503}),  # 503 where there are too many unknown names
    ("UPPER", "", {}, {422}),
    ("{stream}", "format=xml", {}, {422}),
    ("{stream}", "", {"Origin": "https://elsewhere.example"}, {403}),
    ("desk-{stream}", "", {}, {401}),
    ("no-such-stream-{number}", "", {}, {404, 503}),
]


@pytest.mark.anyio
async def test_handshakes_that_are_refused_use_up_no_reader_s_place(
    start: Callable[..., Running], stream: str, tmp_path: Path
) -> None:
    """One reader a second is admitted, and one at once: it would have to wait if one of a flood had been counted."""
    (tmp_path / "secret").write_text("s" * 32)
    private = ["--private", "desk-*", "--token-keys", str(tmp_path / "secret"), "--token-algorithms", "HS256"]
    server = start("--admit", "1", *private)
    server.publish_ok(stream, "one")
    for name, query, headers, expected in REFUSED_FLOODS:
        for number in range(FLOOD):
            path = f"/streams/{name.format(stream=stream, number=number)}"
            for end, upgrade in (("sse", {}), ("ws", HANDSHAKE)):
                response = server.http.get(f"{path}/{end}?{query}", headers={**upgrade, **headers})
                assert response.status_code in expected
    async with reader(server, stream) as socket:
        assert (await receive(socket))["type"] == "hello"


@pytest.mark.anyio
async def test_another_address_has_no_websocket(server: Running) -> None:
    address = server.url.replace("http", "ws", 1)
    with pytest.raises(InvalidStatus) as refused:
        async with connect(f"{address}/nothing", proxy=None):
            pass
    response = refused.value.response
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")


# --- a page of another build


@pytest.fixture(scope="module")
def own_build() -> str:
    return StaticSet(ROOT / "static").site.build


def assert_to_reload(frames: list[dict[str, Any]]) -> None:
    hello, bye = frames
    assert (hello["type"], hello["protocol"], hello["complete"]) == ("hello", 1, True)
    assert (bye["type"], bye["reason"], bye["retry_ms"]) == ("bye", "build", 1_000)
    assert 0 <= bye["reload_ms"] < 60_000


@pytest.mark.anyio
@pytest.mark.parametrize("build", ["0123456789abcdef", "", "%00"])
async def test_a_page_of_another_build_is_to_be_loaded_anew(server: Running, stream: str, build: str) -> None:
    server.publish_ok(stream, "One")
    async with reader(server, stream, format=f"html&build={build}") as socket:
        assert_to_reload([await receive(socket), await receive(socket)])
        await socket.wait_closed()
        assert socket.close_code == 1012
    assert_to_reload(first_frames(server, stream, f"format=html&build={build}", 2))


@pytest.mark.anyio
async def test_a_page_of_this_build_and_a_program_are_readers(server: Running, stream: str, own_build: str) -> None:
    server.publish_ok(stream, "One")
    for query in ("html", f"html&build={own_build}", "json"):
        async with reader(server, stream, format=query) as socket:
            assert [(await receive(socket))["type"] for _ in range(2)] == ["hello", "snapshot"]
    kinds = [frame["type"] for frame in first_frames(server, stream, f"build={own_build}", 2)]
    assert kinds == ["hello", "snapshot"]
