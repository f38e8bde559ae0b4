"""A surface is joined of its pieces in steps: a page of large entries holds up nobody."""

from __future__ import annotations

import json

import pytest

from pushserver import stretch
from pushserver.codec import dumps
from pushserver.page.site import Site
from pushserver.store.log import Snapshot
from pushserver.surfaces import surface as module
from pushserver.surfaces.pieces import Piece
from pushserver.surfaces.surface import Surface, edition_of, make

from ..support.frames import cursor
from ..support.rests import Rests
from ..support.samples import STORED_ENTRY, STORED_PAGE

ENTRIES = [
    dumps({**STORED_ENTRY, "id": f"e{number}", "url": f"/streams/storm/entries/e{number}"}) for number in range(9)
]


@pytest.mark.anyio
@pytest.mark.parametrize("surface", Surface)
async def test_others_come_in_between_each_entry_that_is_made_and_each_that_is_joined(
    surface: Surface, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests = Rests()
    monkeypatch.setattr(module, "Stretch", rests)
    monkeypatch.setattr(stretch, "Stretch", rests)
    feed_id = "urn:uuid:a380d3bd-5f3d-41d4-bdce-485f446d3338"
    snapshot = Snapshot(cursor(9), 9, STORED_PAGE, ENTRIES, False, "2023-07-11T15:53:00.000Z", [], feed_id)
    edition = edition_of(Site(), surface, "storm", snapshot)
    pieces = [Piece(entry) for entry in ENTRIES]
    body = (await make(surface, edition, snapshot, pieces, limit=100, site=Site())).decode()
    assert rests.count > 2 * len(ENTRIES)
    assert body.count("Tom ") >= len(ENTRIES)
    if surface in (Surface.ENTRIES, Surface.JSON_FEED):
        assert len(json.loads(body)["entries" if surface is Surface.ENTRIES else "items"]) == len(ENTRIES)
