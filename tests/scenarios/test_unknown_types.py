"""Events and blocks of a later version, as during a deploy: this version passes over them, and keeps their place."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any
from xml.etree import ElementTree

import pytest
import redis.asyncio as aioredis
from websockets.asyncio.client import ClientConnection

from pushserver import model
from pushserver.client.reader import follow
from pushserver.model import Append
from pushserver.store.log import Appended, Log
from pushserver.store.store import Store

from ..support.logs import put, tag_of, withdraw
from ..support.scrapes import METRICS, scrape, until_scraped
from ..support.server import Run, Running, reader, receive

pytestmark = pytest.mark.anyio

POLL = {"type": "poll", "question": "Will it hold?", "options": ["Yes", "No"], "src": {"not": "a string"}}
PARAGRAPH = {"type": "paragraph", "html": "It holds."}


@pytest.fixture
async def log_of_server(server: Running) -> AsyncIterator[Log]:
    """The log that the server is on, for a publisher of a later version."""
    store = Store(f"unix://{server.data}/valkey.sock", partitions=16)
    yield Log(store, log_events=1_000, entry_limit=500, idempotency=60)
    await store.close()


def poll_open(stream: str, rev: int, **data: Any) -> Append:
    """An event of a type that only a later version knows, about the page: which comes to be at this revision."""
    at = model.now()
    page = {**model.unwritten_page(stream), "headline": "Flood", "rev": rev, "updated_at": model.instant(at)}
    fields = {"at": model.instant(at), "poll": POLL, **data}
    return Append(stream, "poll.open", fields, at, page, rev, model.instant(at))


def put_poll(stream: str, *, blocks: tuple[dict[str, Any], ...] = (POLL, PARAGRAPH)) -> Append:
    """An entry that has a block of a type that only a later version knows."""
    append = put(stream, id="poll")
    entry = {name: value for name, value in append.state.items() if name != "headline"} | {"blocks": list(blocks)}
    return append._replace(state=entry, data={**append.data, "entry": entry})


async def mixed(log: Log, stream: str) -> list[Appended]:
    """A stream that two versions wrote: an entry, the later version's event and entry, an entry."""
    appends = (put(stream, "Before", id="before"), poll_open(stream, 1), put_poll(stream), put(stream, "After"))
    return [await log.append(append) for append in appends]


def metric(server: Running, name: str) -> float:
    return scrape(server)[f"{name}_total"]


async def next_event(socket: ClientConnection) -> dict[str, Any]:
    """The next frame that is no heartbeat: on a busy machine one comes between two events."""
    while (frame := await receive(socket))["type"] == "head":
        pass
    return frame


@pytest.mark.parametrize("format", ["json", "html"])
async def test_readers_get_them_in_their_place_live_and_when_they_resume(
    server: Running, log_of_server: Log, stream: str, format: str
) -> None:
    first = await log_of_server.append(put(stream, "Before", id="before"))
    cursor = str(first.cursor)
    before = metric(server, "pushserver_events_unknown")
    async with reader(server, stream, cursor=cursor, format=format) as socket:
        assert (await receive(socket))["complete"] is True
        later = [await log_of_server.append(each) for each in (poll_open(stream, 1), put_poll(stream), put(stream))]
        live = [await next_event(socket) for _ in later]
    async with reader(server, stream, cursor=cursor, format=format) as socket:
        await receive(socket, "hello")
        assert [await next_event(socket) for _ in later] == live
    assert [frame["type"] for frame in live] == ["poll.open", "entry.put", "entry.put"]
    assert [frame["n"] for frame in live] == [2, 3, 4]
    assert [frame["cursor"] for frame in live] == [str(appended.cursor) for appended in later]
    assert [frame["prev"] for frame in live] == [cursor, *(frame["cursor"] for frame in live[:-1])]
    assert live[0]["poll"] == POLL
    if format == "json":
        assert live[1]["entry"]["blocks"] == [POLL, PARAGRAPH]
    else:
        assert "It holds." in live[1]["html"]
        assert "Will it hold?" not in live[1]["html"]
    now = until_scraped(server, lambda now: now["pushserver_events_unknown_total"] > before)
    assert now["pushserver_events_unknown_total"] == before + 1


@pytest.mark.parametrize("format", ["json", "html"])
async def test_a_snapshot_has_what_can_be_shown(server: Running, log_of_server: Log, stream: str, format: str) -> None:
    last = (await mixed(log_of_server, stream))[-1]
    async with reader(server, stream, format=format) as socket:
        assert (await receive(socket))["complete"] is False
        snapshot = await receive(socket)
    assert (snapshot["n"], snapshot["cursor"]) == (4, str(last.cursor))
    shown = json.dumps(snapshot["parts"]) if format == "html" else json.dumps(snapshot["entries"])
    assert ("It holds." in shown, "Will it hold?" in shown) == (True, format == "json")


async def test_a_client_follows_past_them(server: Running, log_of_server: Log, stream: str) -> None:
    first = (await mixed(log_of_server, stream))[0]
    frames = []
    async with aclosing(follow(server.url, stream, cursor=str(first.cursor))) as following:
        async for frame in following:
            frames.append((frame["type"], frame["n"]))
            if frame["n"] == 4:
                break
    assert frames == [("poll.open", 2), ("entry.put", 3), ("entry.put", 4)]


async def test_the_page_and_every_feed_leave_the_block_out(server: Running, log_of_server: Log, stream: str) -> None:
    await mixed(log_of_server, stream)
    before = metric(server, "pushserver_blocks_unknown")
    pages = [
        server.http.get(f"/streams/{stream}{path}", headers={"Accept": "text/html"})
        for path in ("", "/entries/poll", "/feed.atom", "/feed.json")
    ]
    assert [page.status_code for page in pages] == [200] * 4
    for page in pages:
        assert "It holds." in page.text
        assert "Will it hold?" not in page.text
    assert '</p>\n<p dir="auto">It holds.</p>\n<p class="links">' in pages[1].text, "an empty line stands for the block"
    until_scraped(server, lambda now: now["pushserver_blocks_unknown_total"] > before)


async def test_an_entry_of_nothing_else_is_shown_by_its_time_alone(
    server: Running, log_of_server: Log, stream: str
) -> None:
    await log_of_server.append(put_poll(stream, blocks=(POLL,)))
    for path in ("", "/entries/poll", "/feed.atom", "/feed.json"):
        page = server.http.get(f"/streams/{stream}{path}", headers={"Accept": "text/html"})
        assert page.status_code == 200, page.text
        assert "Will it hold?" not in page.text
    atom = ElementTree.fromstring(server.http.get(f"/streams/{stream}/feed.atom").content)
    assert len(atom.findall("{http://www.w3.org/2005/Atom}entry")) == 1


async def test_a_block_of_the_page_itself_is_left_out(server: Running, log_of_server: Log, stream: str) -> None:
    append = poll_open(stream, 1)
    page = {**append.state, "background": [POLL, PARAGRAPH]}
    await log_of_server.append(append._replace(type="page.put", state=page, data={"at": "x", "page": page}))
    text = server.http.get(f"/streams/{stream}").text
    assert ("It holds." in text, "Will it hold?" in text) == (True, False)


async def test_reads_over_http_and_an_export_have_them_whole(
    server: Running, log_of_server: Log, stream: str, run: Run
) -> None:
    await mixed(log_of_server, stream)
    events = server.http.get(f"/streams/{stream}/events").json()["events"]
    assert [event["type"] for event in events] == ["entry.put", "poll.open", "entry.put", "entry.put"]
    assert events[1]["poll"] == POLL
    entry = server.http.get(f"/streams/{stream}/entries/poll").json()
    assert entry["blocks"] == [POLL, PARAGRAPH]
    done = run("export", stream)
    assert done.returncode == 0, done.stderr
    exported = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["entry"]["blocks"] for line in exported if line.get("entry", {}).get("id") == "poll"] == [
        [POLL, PARAGRAPH]
    ]


async def test_a_change_of_such_an_entry_is_refused_by_name_and_its_withdrawal_is_not(
    server: Running, log_of_server: Log, stream: str
) -> None:
    await mixed(log_of_server, stream)
    path = f"/streams/{stream}/entries/poll"
    refused = server.send("PATCH", path, {"headline": "Other"})
    assert refused.status_code == 422, refused.text
    assert "blocks.0" in refused.json()["errors"][0]["field"]
    assert server.send("DELETE", path, b"").status_code == 200
    assert "poll" not in {entry["id"] for entry in server.snapshot(stream)["entries"]}


async def test_what_an_unknown_event_says_of_an_entry_goes_with_the_entry(
    server: Running, log_of_server: Log, stream: str
) -> None:
    """Only a later version knows where in it the text stands."""
    first = await log_of_server.append(put(stream, "Before"))
    entry = put(stream, "Secret", id="secret")
    async with reader(server, stream, cursor=str(first.cursor)) as socket:
        await receive(socket, "hello")
        # About the entry, at a revision of its own.
        about = entry._replace(type="poll.open", rev=2, state={**entry.state, "rev": 2})
        withdrawal = withdraw(stream, "secret", model.now())
        withdrawal = withdrawal._replace(rev=3, state={**withdrawal.state, "rev": 3})
        frames = []
        for append in (entry, about, withdrawal):  # each is read before the next: a withdrawal replaces what waits
            await log_of_server.append(append)
            frames.append(await receive(socket, append.type))
        assert [frame["n"] for frame in frames] == [2, 3, 4]
    async with reader(server, stream, cursor=str(first.cursor)) as socket:  # from the ring
        await receive(socket, "hello")
        replayed = [await receive(socket) for _ in range(3)]
    events = server.http.get(f"/streams/{stream}/events").json()["events"][1:]  # from the log
    for frames in (replayed, events):
        assert [(frame["type"], frame["n"]) for frame in frames] == [("entry.withdraw", n) for n in (2, 3, 4)]
        assert "Secret" not in json.dumps(frames)


async def test_one_that_the_store_lost_is_not_published_again(start: Callable[..., Running], stream: str) -> None:
    """The version that knows it does that: this one does not know what else belongs to it."""
    server = start(*METRICS)
    url = f"unix://{server.data}/valkey.sock"
    store = Store(url, partitions=16)
    log = Log(store, log_events=1_000, entry_limit=500, idempotency=60)
    first = await log.append(put(stream, "Before"))
    names = [f"{tag_of(stream)}:{stream}:{name}" for name in ("log", "entries", "order", "page")]
    async with aioredis.Redis.from_url(url) as redis, reader(server, stream, cursor=str(first.cursor)) as socket:
        await receive(socket, "hello")
        for name in names:
            await redis.copy(name, f"{name}:before")
        lost = [await log.append(append) for append in (put(stream, "Healed"), poll_open(stream, 1))]
        assert [(await receive(socket))["n"] for _ in lost] == [2, 3]
        async with redis.pipeline(transaction=True) as pipeline:  # as by a failover to a replica that lagged
            for name in names:
                pipeline.rename(f"{name}:before", name)
            await pipeline.execute()
        await log.append(put(stream, "After"))
        assert (await receive(socket, "reset"))["reason"] == "rollback"
        await receive(socket, "snapshot")
    events = server.http.get(f"/streams/{stream}/events").json()["events"]
    assert [event["type"] for event in events] == ["entry.put"] * 3
    assert {event["entry"]["headline"] for event in events} == {"Before", "Healed", "After"}
    until_scraped(
        server, lambda now: (now["pushserver_events_lost_total"], now["pushserver_events_healed_total"]) == (2, 1)
    )
    await store.close()


async def test_a_tail_on_the_command_line_goes_on(server: Running, log_of_server: Log, stream: str, run: Run) -> None:
    last = (await mixed(log_of_server, stream))[-1]
    at = model.now()
    page = {**model.unwritten_page(stream), "rev": 2, "state": "ended", "updated_at": model.instant(at)}
    end = Append(stream, "stream.end", {"at": model.instant(at), "page": page}, at, page, 2, model.instant(at))
    assert (await log_of_server.append(end)).n == last.n + 1
    done = run("tail", stream)
    assert ("It holds." in done.stdout, "Will it hold?" in done.stdout, done.returncode) == (True, False, 0)
