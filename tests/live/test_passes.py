"""Work that can wait lets the passes that are under way go first, for a while."""

from __future__ import annotations

import asyncio

import pytest

from pushserver.live import passes
from pushserver.live.passes import Passes

pytestmark = pytest.mark.anyio


async def test_what_can_wait_goes_on_when_the_last_pass_is_over() -> None:
    under_way = Passes()
    await under_way.over()
    under_way.begin("one")
    under_way.begin("two")
    under_way.begin("two")
    waiting = asyncio.create_task(under_way.over())
    for stream in ("one", "two"):
        await asyncio.sleep(0)
        assert not waiting.done()
        under_way.end(stream)
    await waiting


async def test_a_pass_that_does_not_end_is_waited_for_no_longer_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "PASSES_LIMIT", 0.01)
    under_way = Passes()
    under_way.begin("one")
    await under_way.over()
    under_way.end("one")
