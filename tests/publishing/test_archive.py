"""Streams out and in again: what comes back is what was there, byte for byte, and nothing else is let in."""

from __future__ import annotations

import asyncio
import io
import json
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pushserver.access.keys import SERVER
from pushserver.client import Publisher, Rejected, Unauthorized
from pushserver.errors import Unavailable
from pushserver.model import Append
from pushserver.publishing import archive
from pushserver.store.log import Appended, Log

from ..support.commands import DONE, REFUSED, file_of
from ..support.keys import create_key
from ..support.proxy import Proxy, to_server
from ..support.rests import Rests
from ..support.server import ROOT, Run, Running, entry_append, reader, receive
from ..support.worker import Serve

IMAGE = {
    "type": "image",
    "src": "/a.jpg",
    "width": 3,
    "height": 2,
    "alt": "",
    "caption": "Sea & wall",
    "credit": "B. Ode",
}
ENTRY = {
    "id": "x",
    "rev": 3,
    "headline": "Sea wall holds",
    "blocks": [{"type": "paragraph", "html": "It <b>held</b> &amp; holds."}],
    "bylines": [{"name": "Cy Roe"}],
    "tags": ["wall"],
    "flags": {"key": True},
    "published_at": "2023-07-11T15:53:00.000Z",
    "sort_at": "2023-07-11T15:53:00.000Z",
    "updated_at": "2023-07-11T16:00:00.000Z",
    "correction": {"class": "correction", "note": "It did.", "at": "2023-07-11T16:00:00.000Z"},
}
WITHDRAWAL = {
    "id": "y",
    "rev": 2,
    "at": "2023-07-11T16:00:00.000Z",
    "reason": "error",
    "note": "Wrong.",
    "headline": "Y",
}
PAGE = {
    "rev": 4,
    "headline": "Storm & tide",
    "background": [],
    "timezone": "America/New_York",
    "lang": "en-US",
    "dir": "ltr",
    "state": "ended",
    "coverage_end": "2023-07-11T17:00:00.000Z",
    "previous": [],
    "next": {"label": "Day two", "url": "https://news.example/two"},
    "topics": [],
    "updated_at": "2023-07-11T17:00:00.000Z",
    "began_at": "2023-07-10T08:00:00.000Z",
}


@pytest.fixture
def publisher(server: Running) -> Iterator[Publisher]:
    with Publisher(server.url, server.key) as publisher:
        yield publisher


def exported(publisher: Publisher, stream: str) -> bytes:
    file = io.BytesIO()
    publisher.export(stream, file)
    return file.getvalue()


def restored(publisher: Publisher, stream: str, content: bytes | list[dict[str, Any]]) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in content.splitlines()] if isinstance(content, bytes) else content
    results: list[dict[str, Any]] = publisher.restore(stream, [json.dumps(line).encode() for line in lines])["results"]
    return results


def statuses(results: list[dict[str, Any]]) -> list[int]:
    return [result["status"] for result in results]


def shown(server: Running, stream: str) -> dict[str, Any]:
    """What readers of a stream are shown, but for its address and the numbers of its events."""
    text = server.http.get(f"/streams/{stream}/entries").text.replace(f"/streams/{stream}/", "/streams/…/")
    answer: dict[str, Any] = json.loads(text)
    return {name: answer[name] for name in ("page", "entries", "older")}


def live_day(publisher: Publisher, stream: str, seed: int) -> None:
    """A day of coverage: entries of all kinds, corrected, moved and withdrawn; the page changed and ended."""
    rand = random.Random(seed)
    ids: list[str] = []
    blocks = [IMAGE, {"type": "list", "items": ["<i>a</i> &amp; b"]}, {"type": "quote", "html": "q", "cite": "C"}]
    for number in range(rand.randint(5, 20)):
        entry: dict[str, Any] = {"blocks": rand.sample(blocks, 2), "flags": {"pinned": rand.random() < 0.2}}
        entry |= rand.choice([{}, {"headline": f"Zoë\u2028 {number}"}])
        entry |= rand.choice([{}, {"published_at": f"2023-07-1{rand.randint(0, 9)}T00:00:00+05:30"}])
        ids.append(publisher.publish(stream, entry)["id"])
    for id in rand.sample(ids, 3):
        publisher.correct(stream, id, {"body": "New *words*.", "correction": {"class": "correction", "note": "Old."}})
        publisher.correct(stream, id, {"sort_at": "2023-07-15T00:00:00Z", "correction": {"class": "minor"}})
    for id, reason in zip(gone := rand.sample(ids, 3), ("legal", "error", "moved"), strict=True):
        publisher.withdraw(stream, id, reason=reason, note=rand.choice([None, "See elsewhere."]))
    if rand.random() < 0.7:
        publisher.put_page(
            stream, {"headline": "Day", "topics": [{"label": "A"}], "updated_at": "2023-07-11T00:00:00Z"}
        )
        publisher.patch_page(stream, {"dek": "More", "background": [IMAGE]})
    if rand.random() < 0.7:
        publisher.end(stream, next={"label": "Two", "url": "https://news.example/two"})
        publisher.correct(stream, next(id for id in ids if id not in gone), {"tags": ["late"]})


# --- out and in


@pytest.mark.parametrize("seed", range(6))
def test_what_is_exported_and_restored_is_the_same_stream(
    server: Running, publisher: Publisher, stream: str, seed: int
) -> None:
    other = f"{stream}-again"
    live_day(publisher, stream, seed)
    content = exported(publisher, stream)
    assert set(statuses(restored(publisher, other, content))) == {201}
    assert exported(publisher, other) == content
    assert shown(server, other) == shown(server, stream)
    assert set(statuses(restored(publisher, other, content))) == {200}
    assert set(statuses(restored(publisher, stream, content))) == {200}
    assert exported(publisher, other) == exported(publisher, stream) == content


def test_the_command_line_carries_a_stream_to_an_empty_store(
    server: Running,
    start: Callable[..., Running],
    run: Run,
    tmp_path: Path,
    stream: str,
) -> None:
    demo = [json.loads(line) for line in (ROOT / "pushserver" / "cli" / "demo.jsonl").read_text().splitlines()]
    lines = [{name: line[name]} for line in demo for name in ("page", "entry") if name in line]
    content = b"".join(json.dumps(line).encode() + b"\n" for line in lines * 20)
    assert run("import", stream, "-", input=content).returncode == DONE
    for number in range(120):
        server.publish_ok(stream, str(number))
    server.send("PUT", f"/streams/{stream}/entries/wrong", {"headline": "Wrong"})
    assert run("withdraw", stream, "wrong", "--note", "It was.").returncode == DONE
    one = run("export", stream)
    assert (one.returncode, one.stderr) == (DONE, "")
    empty = start()
    environment = {"PUSHSERVER_URL": empty.url, "PUSHSERVER_DATA": str(empty.data)}
    count = one.stdout.count("\n")
    file = file_of(tmp_path, one.stdout.encode())
    assert run("import", stream, file, **environment).stdout == f"{stream}: {count} added, 0 known already\n"
    assert run("export", stream, **environment).stdout == one.stdout
    assert run("import", stream, file, **environment).stdout == f"{stream}: 0 added, {count} known already\n"
    assert shown(empty, stream) == shown(server, stream)
    for path in ("", "/entries/wrong", f"/entries/{server.snapshot(stream)['entries'][0]['id']}"):
        here, there = (
            running.http.get(f"/streams/{stream}{path}", headers={"Accept": "text/html"}) for running in (server, empty)
        )
        assert (here.status_code, body(here.text)) == (
            there.status_code,
            body(there.text).replace(empty.url, server.url),
        )


def body(html: str) -> str:
    """What a page shows, without the cursor."""
    return html.partition("</p>\n")[2]


def test_an_export_is_in_the_order_of_the_page(publisher: Publisher, stream: str) -> None:
    at = "2023-07-11T00:00:00Z"
    for number in random.Random(1).sample(range(120), 120):
        entry = {"headline": "x", "published_at": at, "flags": {"pinned": number == 7}}
        publisher.put_entry(stream, f"e{number:03d}", entry)
    for id in ("e100", "e003"):
        publisher.withdraw(stream, id)
    lines = [json.loads(line) for line in exported(publisher, stream).splitlines()]
    ids = [line["entry"]["id"] for line in lines if "entry" in line]
    assert ids == [f"e{number:03d}" for number in range(120) if number not in (3, 7, 100)] + ["e007"]
    assert [line["withdrawal"]["id"] for line in lines[119:]] == ["e003", "e100"]


def test_an_export_of_nothing_is_refused(run: Run, stream: str) -> None:
    done = run("export", stream)
    assert (done.returncode, done.stdout) == (REFUSED, "")
    assert f"There is no stream {stream}" in done.stderr


class Restless(Log):
    """A log of streams that change while they are read, so many times."""

    changes = 0

    async def stored(self, stream: str, name: str, ids: list[str]) -> tuple[str, list[dict[str, Any]]]:
        if self.changes:
            self.changes -= 1
            await self.append(entry_append(stream, "late"))
        return await super().stored(stream, name, ids)


@pytest.mark.anyio
async def test_an_export_is_begun_again_where_the_stream_changed_and_given_up_in_the_end(log: Log, stream: str) -> None:
    restless = Restless(log.store, log_events=1_000, entry_limit=500, idempotency=60)
    for number in range(60):
        await log.append(entry_append(stream, str(number)))
    restless.changes = archive.ATTEMPTS - 1
    with await archive.Archive(restless).export(stream) as file:
        file.seek(0)
        assert len(file.readlines()) == 1 + 60 + archive.ATTEMPTS - 1  # the first one has the id of the feeds
    restless.changes = archive.ATTEMPTS
    with pytest.raises(Unavailable, match="changed each time"):
        await archive.Archive(restless).export(stream)


@pytest.mark.anyio
async def test_others_come_in_between_the_lines_of_an_export(
    log: Log, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests = Rests()
    monkeypatch.setattr(archive, "Stretch", rests)
    for number in range(12):
        await log.append(entry_append(stream, str(number)))
    (await archive.Archive(log).export(stream)).close()
    assert rests.count == 12


class Doubled(Log):
    """A log where another request has stored the same just before: the first append meets a moved revision."""

    is_first = True

    async def append(self, append: Append) -> Appended:
        if self.is_first:
            self.is_first = False
            await super().append(append)
        return await super().append(append)


@pytest.mark.anyio
async def test_lines_that_two_requests_restore_at_once_are_restored_once(log: Log, stream: str) -> None:
    await log.append(entry_append(stream, "first", id="e1"))
    entry, _ = await log.entry(stream, "e1")
    value = {name: field for name, field in json.loads(str(entry)).items() if name != "url"}
    doubled = Doubled(log.store, log_events=1_000, entry_limit=500, idempotency=60)
    assert await archive.Archive(doubled).restore(f"{stream}-copy", "entry", value, SERVER) is None
    snapshot = await log.snapshot(f"{stream}-copy", limit=10)
    assert snapshot
    assert (snapshot.n, len(snapshot.entries)) == (1, 1)


def test_an_export_during_publishing_is_of_one_instant(server: Running, publisher: Publisher, stream: str) -> None:
    headlines = [f"{number:03d}" for number in range(150)]

    def publish() -> None:
        with Publisher(server.url, server.key) as other:
            for headline in headlines:
                other.publish(stream, {"headline": headline})

    publisher.put_page(stream, {"headline": "Page"})
    thread = threading.Thread(target=publish)
    thread.start()
    seen = 0
    while thread.is_alive():
        _, *entries, page = (json.loads(line) for line in exported(publisher, stream).splitlines())
        assert [entry["entry"]["headline"] for entry in entries] == headlines[: len(entries)]
        if entries:
            assert page["page"]["updated_at"] == max(entry["entry"]["published_at"] for entry in entries)
        seen += 1
    thread.join()
    assert seen


def test_an_import_through_a_network_that_cuts_is_whole(server: Running, publisher: Publisher, stream: str) -> None:
    live_lines: list[dict[str, Any]] = [{"entry": {**ENTRY, "id": f"e{number:03d}"}} for number in range(60)]
    live_lines += [{"withdrawal": WITHDRAWAL}, {"page": PAGE}]

    def send(url: str) -> None:
        with Publisher(url, server.key) as other:
            for start in range(0, len(live_lines), 5):
                assert max(statuses(restored(other, stream, live_lines[start : start + 5]))) < 300

    async def meanwhile() -> None:
        async with Proxy(to_server(server.url)).running() as proxy:
            proxy.cut_at_random(seed=5, chance=0.1)
            await asyncio.to_thread(send, proxy.url)
            assert proxy.cuts

    asyncio.run(meanwhile())
    assert [json.loads(line) for line in exported(publisher, stream).splitlines()[1:]] == live_lines
    assert publisher.put_entry(stream, "e000", {"headline": "Four"})["n"] == len(live_lines) + 1


# --- live


@pytest.mark.anyio
@pytest.mark.parametrize("format", ["json", "html"])
async def test_readers_get_what_is_restored_as_events(
    server: Running, publisher: Publisher, stream: str, format: str
) -> None:
    cursor = server.publish_ok(stream, "start")["cursor"]
    async with reader(server, stream, cursor=cursor, format=format) as socket:
        lines = [{"entry": ENTRY}, {"withdrawal": WITHDRAWAL}, {"page": PAGE}]
        assert statuses(await asyncio.to_thread(restored, publisher, stream, lines)) == [201] * 3
        entry = await receive(socket, "entry.put")
        assert (entry["entry"]["id"], entry["entry"]["rev"]) == ("x", 3)
        withdrawal = await receive(socket, "entry.withdraw")
        assert (withdrawal["id"], withdrawal["rev"], "headline" in withdrawal) == ("y", 2, False)
        assert (await receive(socket, "stream.end"))["n"] == 4
    found = server.http.get(f"/streams/{stream}/entries/x", headers={"Accept": "application/json"}).json()
    assert found == {**ENTRY, "url": f"/streams/{stream}/entries/x"}
    assert server.http.get(f"/streams/{stream}/entries/y").status_code == 410


def test_what_was_restored_can_be_corrected_from_its_revision(publisher: Publisher, stream: str) -> None:
    restored(publisher, stream, [{"entry": ENTRY}, {"page": {**PAGE, "state": "live"}}])
    assert publisher.correct(stream, "x", {"headline": "Four"}, rev=3)["rev"] == 4
    assert publisher.withdraw(stream, "x", rev=4)["rev"] == 5
    assert publisher.patch_page(stream, {"headline": "Five"}, rev=4)["rev"] == 5


# --- what is not let in


def test_what_is_there_is_never_changed(server: Running, publisher: Publisher, stream: str) -> None:
    lines: list[dict[str, Any]] = [{"entry": ENTRY}, {"withdrawal": WITHDRAWAL}, {"page": {**PAGE, "state": "live"}}]
    restored(publisher, stream, lines)
    before = exported(publisher, stream)
    others = [
        {"entry": {**ENTRY, "rev": 4}},
        {"entry": {**ENTRY, "headline": "Another"}},
        {"withdrawal": {**WITHDRAWAL, "id": "x", "rev": 4}},
        {"withdrawal": {**WITHDRAWAL, "note": "Another."}},
        {"entry": {**ENTRY, "id": "y"}},
        {"page": {**PAGE, "rev": 5}},
        {"page": PAGE},
    ]
    results = [restored(publisher, stream, [line])[0] for line in others]
    assert statuses(results) == [412] * 7
    assert results[0]["current"]["headline"] == "Sea wall holds"
    assert results[0]["errors"] == [
        {"field": "entry", "expected": "nothing stored, or the same", "got": "another one, of revision 3"}
    ]
    assert exported(publisher, stream) == before
    assert server.snapshot(stream)["n"] == 3


def test_a_stream_that_is_over_takes_no_entries(publisher: Publisher, stream: str) -> None:
    lines: list[dict[str, Any]] = [{"page": PAGE}, {"withdrawal": WITHDRAWAL}, {"entry": ENTRY}]
    assert statuses(restored(publisher, stream, lines)) == [201, 201, 409]


def test_a_stream_that_is_full_takes_no_entries(serve: Serve, stream: str) -> None:
    server = serve("--entry-limit", "2")
    with Publisher(server.url, server.key) as publisher:
        lines = [{"entry": {**ENTRY, "id": id}} for id in "abc"]
        assert statuses(restored(publisher, stream, lines)) == [201, 201, 409]


PARAGRAPH = {"type": "paragraph", "html": "x"}


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ({}, "line"),
        ([], "body"),
        ({"entry": None}, "line"),
        ({"entry": ENTRY, "withdrawal": WITHDRAWAL}, "line"),
        ({"entry": {**ENTRY, "url": "/elsewhere"}}, "entry.url"),
        ({"entry": {**ENTRY, "body": "Markdown"}}, "entry"),
        ({"entry": {**ENTRY, "blocks": [], "body": "Markdown"}}, "entry.blocks"),
        ({"entry": {**ENTRY, "id": "-x"}}, "entry.id"),
        ({"entry": {**ENTRY, "id": "x" * 65}}, "entry.id"),
        ({"entry": {**ENTRY, "rev": 0}}, "entry.rev"),
        ({"entry": {**ENTRY, "rev": 10**9}}, "entry.rev"),
        ({"entry": {**ENTRY, "rev": True}}, "entry.rev"),
        ({"entry": {**ENTRY, "rev": 3.0}}, "entry.rev"),
        ({"entry": {**ENTRY, "headline": " Sea"}}, "entry.headline"),
        ({"entry": {**ENTRY, "headline": None, "blocks": []}}, "entry"),
        ({"entry": {**ENTRY, "headline": "\u202e"}}, "entry.headline"),
        ({"entry": {**ENTRY, "blocks": [{**PARAGRAPH, "html": "<script>x</script>"}]}}, "entry.blocks.0.html"),
        ({"entry": {**ENTRY, "blocks": [{**PARAGRAPH, "html": "a & b"}]}}, "entry.blocks.0.html"),
        ({"entry": {**ENTRY, "blocks": [{"type": "list", "items": ["x"]}]}}, "entry.blocks.0.ordered"),
        ({"entry": {**ENTRY, "flags": {"key": False}}}, "entry.flags.key"),
        ({"entry": {**ENTRY, "body": None}}, "entry.body"),
        ({"entry": {**ENTRY, "bylines": [{"name": "Cy Roe", "org": None}]}}, "entry.bylines.0.org"),
        ({"withdrawal": {**WITHDRAWAL, "headline": None}}, "withdrawal.headline"),
        ({"page": {**PAGE, "dek": None}}, "page.dek"),
        ({"entry": {**ENTRY, "published_at": "2023-07-11T15:53:00Z"}}, "entry.published_at"),
        ({"entry": {name: ENTRY[name] for name in ENTRY if name != "published_at"}}, "entry.published_at"),
        ({"entry": {name: ENTRY[name] for name in ENTRY if name != "tags"}}, "entry.tags"),
        ({"entry": {**ENTRY, "correction": {"class": "minor"}}}, "entry.correction.class"),
        ({"withdrawal": {**WITHDRAWAL, "rev": 1}}, "withdrawal.rev"),
        ({"withdrawal": {**WITHDRAWAL, "reason": "legal"}}, "withdrawal.headline"),
        ({"withdrawal": {**WITHDRAWAL, "reason": "mood"}}, "withdrawal.reason"),
        ({"page": {**PAGE, "rev": 0}}, "page.rev"),
        ({"page": {**PAGE, "state": "over"}}, "page.state"),
        ({"page": {name: PAGE[name] for name in PAGE if name != "began_at"}}, "page.began_at"),
        ({"page": {**PAGE, "timezone": "Mars/Olympus"}}, "page.timezone"),
    ],
)
def test_what_could_not_have_been_stored_is_refused_by_name(
    server: Running, publisher: Publisher, stream: str, line: Any, field: str
) -> None:
    (result,) = restored(publisher, stream, [line])
    assert result["status"] == 422, result
    assert result["errors"][0]["field"] == field, result
    assert server.http.get(f"/streams/{stream}/entries").status_code == 404


def test_a_blank_line_of_a_restore_is_passed_over(server: Running, stream: str) -> None:
    body = b"\n" + json.dumps({"entry": ENTRY}).encode() + b"\n"
    answer = server.send("POST", f"/streams/{stream}/restore", body, Content_Type="application/x-ndjson")
    results = [json.loads(line) for line in answer.text.splitlines()]
    assert [(result["line"], result["status"]) for result in results] == [(2, 201)]


@pytest.mark.parametrize("content", [b"{", b"\xff", b'{"entry": {"id": "x", "id": "y"}}', b"[" * 50])
def test_what_is_not_a_line_is_refused_and_what_follows_not_read(server: Running, stream: str, content: bytes) -> None:
    body = content + b"\n" + json.dumps({"entry": ENTRY}).encode() + b"\n"
    answer = server.send("POST", f"/streams/{stream}/restore", body, Content_Type="application/x-ndjson")
    assert [json.loads(line)["status"] for line in answer.text.splitlines()] == [400]
    assert server.http.get(f"/streams/{stream}/entries").status_code == 404


def test_a_restore_has_the_limits_of_a_batch(publisher: Publisher, server: Running, stream: str) -> None:
    with pytest.raises(Rejected, match="1000 lines"):
        restored(publisher, stream, [{"entry": ENTRY}] * 1_001)
    path = f"/streams/{stream}/restore"
    assert server.send("POST", path, b"x" * (5 * 2**20 + 1), Content_Type="application/x-ndjson").status_code == 413
    assert server.send("POST", path, {"entry": ENTRY}).status_code == 415
    assert server.http.get(f"/streams/{stream}/entries").status_code == 404


def test_an_archive_is_for_keys_that_have_every_right(server: Running, publisher: Publisher, stream: str) -> None:
    server.publish_ok(stream, "One")
    every = ["publish", "correct", "withdraw", "page"]
    for missing in every:
        key = create_key(server, "--can", ",".join(right for right in every if right != missing))
        with Publisher(server.url, key) as other:
            with pytest.raises(Unauthorized, match="lacks the right"):
                exported(other, stream)
            with pytest.raises(Unauthorized, match="lacks the right"):
                restored(other, stream, [{"entry": ENTRY}])
    with Publisher(server.url, create_key(server, "--can", ",".join(every))) as other:
        assert statuses(restored(other, stream, [{"entry": ENTRY}])) == [201]
        assert exported(other, stream).count(b"\n") == 3


def test_an_import_says_which_line_is_refused(server: Running, run: Run, stream: str) -> None:
    lines = [{"entry": {"headline": "New"}}, {"entry": ENTRY}, {"entry": {**ENTRY, "rev": 2}}, {"page": PAGE}]
    done = run("import", stream, "-", input=b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    assert done.returncode == REFUSED
    assert "line 3: Something else is stored in its place" in done.stderr
    assert {entry["rev"] for entry in server.snapshot(stream)["entries"]} == {1, 3}
