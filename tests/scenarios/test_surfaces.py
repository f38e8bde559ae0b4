"""What was withdrawn is gone from every surface. A new surface joins the table, or the last test fails."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Callable, Iterator

import pytest

from pushserver.access.keyfile import KEY_FILE
from pushserver.store.folder import SOCKET
from pushserver.web.route_table import OPERATIONS
from pushserver.wire.frames import Format

from ..support.server import Running, reader, receive, running

PICTURE = {"src": "/static/demo/harbour.svg", "width": 12, "height": 8, "alt": "xq-alt", "credit": "xq-credit"}
SAID = {
    "headline": "xq-headline & more",
    "blocks": [
        {"type": "paragraph", "html": "<b>xq-text</b> of it"},
        {"type": "image", "caption": "xq-caption", **PICTURE},
        {"type": "social_post", "platform": "Mastodon", "author_name": "xq-author", "text": "xq-post"},
    ],
    "bylines": [{"name": "xq-byline", "org": "xq-org"}],
    "tags": ["xq-tag"],
}
ID = "told-too-soon"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Running]]:
    """Two workers on one store, each of a server of its own, so that it can be asked alone. Pages hold few entries."""
    folder = tmp_path_factory.mktemp("two")
    with running(folder / "one", "--page-entries", "5") as one:
        (folder / "other").mkdir()
        shutil.copy(folder / "one" / KEY_FILE, folder / "other")
        with running(folder / "other", "--page-entries", "5", "--redis", f"unix://{one.data / SOCKET}") as other:
            yield one, other


def get(path: str, accept: str = "*/*", coding: str = "gzip, br") -> Callable[[Running, str, str], str]:
    """What a GET answers."""

    def ask(server: Running, stream: str, cursor: str) -> str:
        headers = {"Accept": accept, "Accept-Encoding": coding, "Authorization": f"Bearer {server.key}"}
        response = server.http.get(path.replace("{stream}", stream).replace("{id}", ID), headers=headers)
        assert response.status_code in (200, 410), response.text
        return response.text

    return ask


def listen(format: str, *, replay: bool) -> Callable[[Running, str, str], str]:
    """The frames that a reader is opened with: everything after the oldest cursor, or the snapshot."""

    async def hear(server: Running, stream: str, cursor: str) -> str:
        async with reader(server, stream, format=format, cursor=cursor if replay else "") as socket:
            hello = await receive(socket)
            assert hello["complete"] is replay
            frames = [hello]
            while frames[-1].get("n", 0) < hello["head"]["n"]:
                frames.append(await receive(socket))
        return json.dumps(frames, ensure_ascii=False)

    return lambda server, stream, cursor: asyncio.run(hear(server, stream, cursor))


def listen_sse(format: str, *, replay: bool) -> Callable[[Running, str, str], str]:
    """The same as Server-Sent Events."""

    def hear(server: Running, stream: str, cursor: str) -> str:
        query = f"format={format}&cursor={cursor if replay else ''}"
        lines: list[str] = []
        with server.http.stream("GET", f"/streams/{stream}/sse?{query}", headers={"Connection": "close"}) as response:
            for line in response.iter_lines():
                if line.startswith("data: "):
                    frame = json.loads(line.removeprefix("data: "))
                    lines.append(line)
                    first = json.loads(lines[0].removeprefix("data: "))
                    if frame.get("n", 0) == first["head"]["n"]:
                        break
        return "\n".join(lines)

    return hear


def json_ld(server: Running, stream: str, cursor: str) -> str:
    """The page's structured data, its escapes read."""
    html = get("/streams/{stream}")(server, stream, cursor)
    (script,) = re.findall(r'<script id="json-ld" type="application/ld\+json">(.*?)</script>', html, re.DOTALL)
    return str(json.loads(script))


def sent_again(server: Running, stream: str, cursor: str) -> str:
    """The answer to the request that first told it."""
    path, key = f"/streams/{stream}/entries/{ID}", {"Idempotency_Key": f"first-{stream}"}
    return server.send("PUT", path, SAID, **key).text


def changed_again(server: Running, stream: str, cursor: str) -> str:
    """What a script is told that would change it."""
    path = f"/streams/{stream}/entries/{ID}"
    answers = [server.send("PATCH", path, {"headline": "y"}, If_Match=rev) for rev in ('"1"', '"9"')]
    assert {answer.status_code for answer in answers} == {410}
    return "".join(answer.text for answer in answers)


FROM_MEMORY = {  # by the address, and what `Accept` asks for; a worker has each of them in every coding
    "/streams/{stream}": "",
    "/streams/{stream}?before=9007199254740991.zzz": "",
    "/streams/{stream}/entries": "",
    "/streams/{stream}/entries?before=9007199254740991.zzz": "",
    "/streams/{stream}/entries/{id}": "html",
    "/streams/{stream}/feed.atom": "",
    "/streams/{stream}/feed.json": "",
}
CODED = {
    f"{path.partition('=')[0]} {kind} {coding}": get(path, f"text/{kind or '*'},*/*;q=0.1", coding)
    for path, kind in FROM_MEMORY.items()
    for coding in ("identity", "gzip", "br")
}
SURFACES: dict[str, Callable[[Running, str, str], str]] = {
    **CODED,
    "/": get("/"),
    "/streams": get("/streams"),
    "/streams/{stream}": get("/streams/{stream}"),
    "/streams/{stream} json-ld": json_ld,
    "/streams/{stream}?before": get("/streams/{stream}?before=9007199254740991.zzz"),
    "/streams/{stream}/entries": get("/streams/{stream}/entries"),
    "/streams/{stream}/entries?before": get("/streams/{stream}/entries?before=9007199254740991.zzz&limit=5"),
    "/streams/{stream}/entries/{id}": get("/streams/{stream}/entries/{id}"),
    "/streams/{stream}/entries/{id} html": get("/streams/{stream}/entries/{id}", "text/html"),
    "/streams/{stream}/entries/{id}/delivery": get("/streams/{stream}/entries/{id}/delivery"),
    "/streams/{stream}/desk/entries/{id}/history": get("/streams/{stream}/desk/entries/{id}/history"),
    "/streams/{stream}/desk/echo": get("/streams/{stream}/desk/echo"),
    "/streams/{stream}/feed.atom": get("/streams/{stream}/feed.atom"),
    "/streams/{stream}/feed.json": get("/streams/{stream}/feed.json"),
    "/streams/{stream}/ws json": listen("json", replay=False),
    "/streams/{stream}/ws html": listen("html", replay=False),
    "/streams/{stream}/ws json replay": listen("json", replay=True),
    "/streams/{stream}/ws html replay": listen("html", replay=True),
    "/streams/{stream}/sse json": listen_sse("json", replay=False),
    "/streams/{stream}/sse html": listen_sse("html", replay=False),
    "/streams/{stream}/sse json replay": listen_sse("json", replay=True),
    "/streams/{stream}/sse html replay": listen_sse("html", replay=True),
    "/streams/{stream}/events": get("/streams/{stream}/events"),
    "/streams/{stream}/export": get("/streams/{stream}/export"),
    "the first request again": sent_again,
    "a change of it": changed_again,
}
KEEP_THE_HEADLINE = {  # unless the law has it go
    "/streams/{stream}/export",
    *(name for name in SURFACES if name.startswith("/streams/{stream}/entries/{id} html")),
}
TEXTLESS = {"/streams", *(name for name in SURFACES if name.endswith("/delivery") or "/desk/" in name)}
NO_SURFACES = {"/livez", "/readyz", "/readyz/read", "/openapi.json"}


def tell(server: Running, stream: str) -> str:
    """A stream with the entry, told and corrected, among others; the cursor of before."""
    cursor: str = server.publish_ok(stream, "before")["cursor"]
    path = f"/streams/{stream}/entries/{ID}"
    assert server.send("PUT", path, SAID, Idempotency_Key=f"first-{stream}").status_code == 201
    correction = {"class": "correction", "note": "xq-note"}
    assert server.send("PATCH", path, {"headline": "xq-second", "correction": correction}).status_code == 200
    server.publish_ok(stream, "after")
    return cursor


@pytest.fixture(
    scope="module",
    params=["error", "legal", *(pytest.param(reason, marks=pytest.mark.full) for reason in ("duplicate", "moved"))],
)
def withdrawn(request: pytest.FixtureRequest, two: tuple[Running, Running]) -> tuple[str, str]:
    """A stream whose entry every surface showed, withdrawn; its oldest cursor.

    One worker followed it from the start and has all in its ring, the other has to ask the log.
    """
    stream = f"surfaces-{request.param}"
    one, _ = two
    one.publish_ok(stream, "first of all")
    SURFACES["/streams/{stream}/ws json"](one, stream, "")
    cursor = tell(one, stream)
    for server in two:
        for surface in SURFACES.values():
            if surface not in (sent_again, changed_again):
                surface(server, stream, cursor)
    answer = one.send("DELETE", f"/streams/{stream}/entries/{ID}?reason={request.param}&note=Taken+back.", b"")
    assert answer.json()["receipt"]["reached"] is True
    return stream, cursor


@pytest.mark.parametrize("name", SURFACES)
def test_what_was_withdrawn_is_told_by_no_surface(
    two: tuple[Running, Running], withdrawn: tuple[str, str], name: str
) -> None:
    stream, cursor = withdrawn
    for server in two:
        text = SURFACES[name](server, stream, cursor)
        if "legal" not in stream and name in KEEP_THE_HEADLINE:
            assert "xq-second" in text
            text = text.replace("xq-second", "")
        assert "xq-" not in text


@pytest.fixture(scope="module")
def published(two: tuple[Running, Running]) -> tuple[str, str]:
    """The same stream before the withdrawal."""
    return "surfaces-before", tell(two[0], "surfaces-before")


@pytest.mark.parametrize("name", [name for name in SURFACES if name.startswith("/streams") and name not in TEXTLESS])
def test_every_surface_told_it_before(two: tuple[Running, Running], published: tuple[str, str], name: str) -> None:
    for server in two:
        assert "xq-second" in SURFACES[name](server, *published)


@pytest.mark.parametrize("name", ["/streams/{stream}/feed.atom", "/streams/{stream}/feed.json"])
def test_feeds_tell_that_it_was_withdrawn(two: tuple[Running, Running], withdrawn: tuple[str, str], name: str) -> None:
    for server in two:
        text = SURFACES[name](server, *withdrawn)
        assert ID in text
        assert "Taken back." in text


def test_every_address_that_can_be_read_is_in_the_table() -> None:
    readable = {operation.path for operation in OPERATIONS if operation.method == "GET"}
    covered = {name.partition(" ")[0].partition("?")[0] for name in SURFACES}
    assert readable - NO_SURFACES <= covered
    assert {f"/streams/{{stream}}/ws {format.value}" for format in Format} <= set(SURFACES)
