"""Ended streams are deleted after their time, and no others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from pushserver import model
from pushserver.content import changes, schema
from pushserver.errors import Deleted
from pushserver.live import stream_expiry
from pushserver.live.stream_expiry import Expiry
from pushserver.store.deletion import Deletions
from pushserver.store.embedded import embedded
from pushserver.store.log import Log

from ..support.logs import put

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def store_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A store of this test alone: expiry deletes what other tests ended, too."""
    async with embedded(tmp_path_factory.mktemp("store")) as url:
        yield url


class Notices:
    """Notices takes the place of the receipts, and notes which streams the workers would be told of."""

    def __init__(self) -> None:
        self.streams: list[str] = []

    async def deleted(self, stream: str, epoch: str, *, wait: float) -> dict[str, Any]:
        self.streams.append(stream)
        return {}


async def test_streams_that_ended_expire_behind_any_number_that_go_on(
    log: Log, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_expiry, "AT_ONCE", 2)
    partition = model.partition_of(stream, 16)
    same = [name for number in range(200) if model.partition_of(name := f"{stream}-{number}", 16) == partition][:5]
    for number, name in enumerate([*same, stream]):
        await log.append(put(name)._replace(at=number))
    await log.append(changes.end_stream(stream, None, schema.EndIn(), at=7))
    notices = Notices()
    looks = Expiry(Deletions(log), notices, partitions=16, after=1_000)  # type: ignore[arg-type]
    for _ in range(4):
        await looks.look()
    assert notices.streams == [stream]
    with pytest.raises(Deleted):
        await log.snapshot(stream, limit=1)
    assert all([await log.snapshot(name, limit=1) for name in same])
