"""A script that publishes on one worker and then reads on another sees what it published."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..support.server import Running, running
from .reads import TRIES, own_writes

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("two") / "data", "--workers", "2") as server:
        yield server


@pytest.mark.parametrize("tries", [400, pytest.param(TRIES, marks=pytest.mark.full)])
async def test_twenty_clients_see_what_they_published_on_another_worker(two: Running, tries: int) -> None:
    reads = await own_writes(two, tries)
    assert reads.wrong == []
    assert reads.total() == tries
    assert min(reads[kind] for kind in ("publish", "correct", "withdraw")) >= tries // 5
