"""Readers get a snapshot when the page has another language, direction or zone, also those who come back after it."""

from __future__ import annotations

from typing import Any

import pytest

from pushserver import model
from pushserver.content import changes, schema, validation
from pushserver.live import renewal
from pushserver.model import StoredPage
from pushserver.store.log import Appended, Log
from pushserver.wire.frames import Format

from ..support.hubs import RecordingReader, append, append_and_read, reading, running

pytestmark = pytest.mark.anyio


async def put_page(
    log: Log, stream: str, current: StoredPage | None = None, **fields: Any
) -> tuple[Appended, StoredPage]:
    page_in = validation.read(schema.PageIn, {"headline": "H", **fields})
    page = changes.revise_page(page_in, at=model.now(), current=current)
    change = changes.put_page(stream, page, at=model.now(), current=current)
    return await log.append(change._replace(replaces=current["rev"] if current else None)), page


async def until_snapshots(reader: RecordingReader, count: int) -> None:
    await reader.until(lambda: reader.kinds().count("snapshot") == count)


@pytest.mark.parametrize("fields", [{"timezone": "Asia/Kolkata"}, {"lang": "he"}, {"dir": "rtl"}])
async def test_every_reader_gets_a_snapshot_with_its_reason_and_then_what_comes(
    log: Log, stream: str, fields: dict[str, Any]
) -> None:
    await append(log, stream)
    async with running(log) as hub, reading(hub, stream, format=Format.HTML) as html, reading(hub, stream) as json:
        await put_page(log, stream, **fields)
        for reader in (html, json):
            await until_snapshots(reader, 2)
            assert reader.kinds() == ["hello", "snapshot", "page.put", "reset", "snapshot"]
            assert reader.frames_of("reset") == [{"type": "reset", "reason": "page", "withdrawn": []}]
            assert reader.frames_of("snapshot")[1]["n"] == 2
        await append_and_read(log, stream, html, 3)
        assert html.frames_of("entry.put")[-1]["prev"] == html.frames_of("snapshot")[1]["cursor"]


async def test_events_that_come_meanwhile_follow_the_snapshot_once_and_in_order(log: Log, stream: str) -> None:
    await append(log, stream)
    async with running(log) as hub, reading(hub, stream, format=Format.HTML) as reader:
        _, page = await put_page(log, stream, timezone="Asia/Kolkata")
        for _ in range(20):
            await append(log, stream)
        await put_page(log, stream, page, timezone="Asia/Tokyo")
        await append(log, stream)
        await reader.until(lambda: reader.frames_of("snapshot")[-1]["page"]["timezone"] == "Asia/Tokyo")
        await reader.beats(1)
        last = max(at for at, frame in enumerate(reader.frames) if frame["type"] == "snapshot")
        shown, after = reader.frames[last], [frame["n"] for frame in reader.frames[last:] if "prev" in frame]
        assert after == list(range(shown["n"] + 1, 25))


async def test_a_page_that_changes_again_and_again_sends_no_snapshot_for_each_change(
    log: Log, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "PAUSE", 3600)
    await append(log, stream)
    async with running(log) as hub, reading(hub, stream, format=Format.HTML) as reader:
        _, page = await put_page(log, stream, timezone="Asia/Kolkata")
        await until_snapshots(reader, 2)
        for zone in ("Asia/Tokyo", "Asia/Kolkata", "Asia/Tokyo"):
            _, page = await put_page(log, stream, page, timezone=zone)
        await append_and_read(log, stream, reader, 6)
        assert reader.kinds()[-4:] == ["page.put", "page.put", "page.put", "entry.put"]
        assert reader.kinds().count("snapshot") == 2


async def test_who_comes_back_after_the_change_gets_a_snapshot_of_the_html_and_the_event_of_the_json(
    log: Log, stream: str
) -> None:
    first = await append(log, stream)
    await put_page(log, stream, lang="he")
    async with running(log) as hub:
        async with reading(hub, stream, first.cursor, format=Format.HTML) as html:
            assert html.frames[0]["reason"] == "page"
            assert html.kinds() == ["hello", "snapshot"]
        async with reading(hub, stream, first.cursor) as json:
            assert json.kinds() == ["hello", "page.put"]
            assert json.frames[1]["changed"] == ["lang", "dir"]


async def test_another_headline_is_an_event_alone(log: Log, stream: str) -> None:
    _, page = await put_page(log, stream)
    async with running(log) as hub, reading(hub, stream, format=Format.HTML) as reader:
        await put_page(log, stream, page, headline="Another")
        await reader.until_read(2)
        await reader.beats(2)
        assert reader.kinds() == ["hello", "snapshot", "page.put"]
        assert "changed" not in reader.frames_of("page.put")[0]
