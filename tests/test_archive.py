"""Export and import: what is stored of a stream, all of it, on another server as it was."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pushserver.archive import SLICE, export_lines
from pushserver.log import Log

from .support import ROOT, Running, clean_environment, entry_append, reader, receive

PAGE = {"headline": "Storm & tide", "timezone": "Asia/Tokyo", "topics": [{"label": "Türkiye"}], "kicker": "Live"}
ENTRIES: list[dict[str, Any]] = [
    {
        "headline": f"Entry {number}",
        "body": 'Some *words* & a [link](https://a.example/?b=1&c="d").',
        "published_at": f"2023-07-{number % 28 + 1:02}T15:53:00Z",
        "bylines": [{"name": "Ada"}],
        "flags": {"pinned": number % 50 == 0},
    }
    for number in range(130)
]


def command(server: Running, *arguments: str, input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "pushserver", *arguments],
        cwd=ROOT,
        env={**clean_environment(), "PUSHSERVER_URL": server.url, "PUSHSERVER_DATA": str(server.data)},
        input=input,
        capture_output=True,
        check=False,
    )


def export(server: Running, stream: str) -> bytes:
    done = command(server, "export", stream)
    assert done.returncode == 0, done.stderr
    return done.stdout


def a_history(server: Running, stream: str) -> None:
    """A stream with all that can happen to one."""
    server.put_page(stream, PAGE)
    for number, entry in enumerate(ENTRIES):
        assert server.send("PUT", f"/streams/{stream}/entries/e{number}", entry).status_code == 201
    correction = {"class": "correction", "note": "It was another."}
    path = f"/streams/{stream}/entries"
    server.send("PATCH", f"{path}/e3", {"headline": "Entry three", "correction": correction})
    server.send("PATCH", f"{path}/e3", {"sort_at": "2023-08-01T00:00:00Z"})
    server.send("PATCH", f"{path}/e4", {"body": None, "blocks": [{"type": "quote", "html": "“Quoted”"}]})
    server.send("DELETE", f"{path}/e5?reason=legal&note=By+order.", b"")
    server.send("DELETE", f"{path}/e6?reason=duplicate", b"")
    server.send("PATCH", f"/streams/{stream}", {"dek": "What is known."})
    server.send("POST", f"/streams/{stream}/end", {"next": {"label": "On", "url": "https://a.example/on"}})


def test_an_export_that_is_imported_elsewhere_is_exported_the_same(
    server: Running, start: Callable[..., Running], stream: str
) -> None:
    a_history(server, stream)
    exported = export(server, stream)
    lines = [json.loads(line) for line in exported.splitlines()]
    assert [next(iter(line)) for line in lines] == ["entry"] * 128 + ["withdrawal"] * 2 + ["page"]
    elsewhere = start()
    done = command(elsewhere, "import", f"{stream}-copy", "-", input=exported)
    assert done.stdout.decode() == f"{stream}-copy: 131 added, 0 known already\n", done.stderr
    assert export(elsewhere, f"{stream}-copy") == exported
    again = command(elsewhere, "import", f"{stream}-copy", "-", input=exported)
    assert again.stdout.decode() == f"{stream}-copy: 0 added, 131 known already\n", again.stderr
    for what in ("", "/entries/e3", "/entries/e5"):
        here, there = (
            running.http.get(f"/streams/{name}{what}", headers={"Accept": "text/html"})
            for running, name in ((server, stream), (elsewhere, f"{stream}-copy"))
        )
        assert here.status_code == there.status_code
        shown = there.text.replace(f"{stream}-copy", stream).replace(elsewhere.url, server.url)
        assert body(shown) == body(here.text)


def body(html: str) -> str:
    """What a page shows, without the cursor."""
    return html.partition("</p>\n")[2]


@pytest.mark.anyio
async def test_readers_see_what_is_restored(server: Running, stream: str) -> None:
    server.send("PUT", f"/streams/{stream}/entries/x", {"headline": "One"})
    exported = export(server, stream)
    server.put_page(f"{stream}-copy", PAGE)
    async with reader(server, f"{stream}-copy") as socket:
        await receive(socket, "snapshot")
        command(server, "import", f"{stream}-copy", "-", input=exported)
        entry = (await receive(socket, "entry.put"))["entry"]
    assert (entry["id"], entry["rev"], entry["url"]) == ("x", 1, f"/streams/{stream}-copy/entries/x")


STORED: dict[str, Any] = {
    "id": "x",
    "rev": 3,
    "headline": "One",
    "blocks": [{"type": "paragraph", "html": "Two"}],
    "bylines": [],
    "tags": [],
    "flags": {},
    "published_at": "2023-07-11T15:53:00.000Z",
    "sort_at": "2023-07-11T15:53:00.000Z",
}
GONE = {"id": "y", "rev": 2, "at": "2023-07-11T15:53:00.000Z", "reason": "error"}


def restore(server: Running, stream: str, *lines: dict[str, Any] | bytes) -> list[dict[str, Any]]:
    content = b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
    path = f"/streams/{stream}/restore"
    response = server.send("POST", path, content, Content_Type="application/x-ndjson")
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


def test_a_line_is_put_back_once_and_replaces_nothing(server: Running, stream: str) -> None:
    assert restore(server, stream, {"entry": STORED}, {"withdrawal": GONE})[1]["status"] == 201
    assert [result["status"] for result in restore(server, stream, {"entry": STORED}, {"withdrawal": GONE})] == [
        200
    ] * 2
    for line in (
        {"entry": {**STORED, "rev": 4}},
        {"withdrawal": {**GONE, "id": "x"}},
        {"entry": {**STORED, "id": "y"}},
    ):
        (result,) = restore(server, stream, line)
        assert result["status"] == 412
    assert server.snapshot(stream)["n"] == 2
    assert server.http.get(f"/streams/{stream}/entries/x").json()["rev"] == 3
    assert server.http.get(f"/streams/{stream}/entries/y").status_code == 410


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ({"entry": {**STORED, "nope": 1}}, "entry.nope"),
        ({"entry": {**STORED, "rev": 0}}, "entry.rev"),
        ({"entry": {**STORED, "rev": "3"}}, "entry.rev"),
        ({"entry": {**STORED, "id": "../x"}}, "entry.id"),
        ({"entry": {**STORED, "blocks": [{"type": "paragraph", "html": "<script>x</script>"}]}}, "entry.blocks.0.html"),
        ({"entry": {**STORED, "headline": " One "}}, "entry.headline"),
        ({"entry": {**STORED, "sort_at": "2023-07-11T17:53:00+02:00"}}, "entry.sort_at"),
        ({"entry": {name: STORED[name] for name in STORED if name != "published_at"}}, "entry.published_at"),
        ({"entry": {**STORED, "body": "x", "blocks": []}}, "entry.blocks"),
        (
            {"entry": {**STORED, "correction": {"class": "minor", "note": "x", "at": STORED["sort_at"]}}},
            "entry.correction.class",
        ),
        ({"entry": STORED, "withdrawal": GONE}, "line"),
        ({}, "line"),
        ({"withdrawal": {**GONE, "reason": "whim"}}, "withdrawal.reason"),
        ({"page": {**PAGE, "rev": 1, "state": "over", "updated_at": GONE["at"]}}, "page.state"),
        ([], "body"),
        (b"{", "body"),
    ],
)
def test_a_line_that_no_export_has_is_refused_and_stores_nothing(
    server: Running, stream: str, line: Any, field: str
) -> None:
    (result,) = restore(server, stream, line, {"entry": STORED})
    assert result["status"] in (400, 422)
    assert field in [fault["field"] for fault in result["errors"]]
    assert server.http.get(f"/streams/{stream}/entries").status_code == 404


def test_import_says_which_line_of_an_export_is_wrong(server: Running, stream: str, tmp_path: Path) -> None:
    lines = [{"entry": STORED}, {"entry": {**STORED, "id": "z", "rev": 0}}]
    file = tmp_path / "export.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    done = command(server, "import", stream, str(file))
    assert done.returncode == 1
    assert b"line 2" in done.stderr
    assert b"entry.rev" in done.stderr
    assert len(server.snapshot(stream)["entries"]) == 1


def test_what_is_not_there_cannot_be_exported(server: Running, stream: str) -> None:
    done = command(server, "export", stream)
    assert (done.returncode, done.stdout) == (1, b"")
    assert stream.encode() in done.stderr


@pytest.mark.anyio
async def test_an_export_says_whether_the_stream_held_still(log: Log, stream: str) -> None:
    for changes in (False, True):
        await log.append(entry_append(stream, "one"))
        first = await log.snapshot(stream, limit=SLICE)
        assert first is not None
        lines = export_lines(log, stream, first)
        await anext(lines)
        if changes:
            await log.append(entry_append(stream, "meanwhile"))
        rest = [json.loads(line) async for line in lines]
        assert rest[-1]["end"] == {"whole": not changes, "cursor": str(first.cursor)}


@pytest.mark.parametrize(("method", "what"), [("GET", "export"), ("POST", "restore")])
def test_both_are_for_keys_that_can_do_everything(server: Running, stream: str, method: str, what: str) -> None:
    assert server.http.request(method, f"/streams/{stream}/{what}").status_code == 401
