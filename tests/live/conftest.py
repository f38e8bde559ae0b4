from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from pushserver.live.hub import Hub
from pushserver.store.log import Log

from ..support.hubs import running


@pytest.fixture
async def hub(log: Log) -> AsyncIterator[Hub]:
    async with running(log) as hub:
        yield hub
