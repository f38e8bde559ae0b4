from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import redis.asyncio as aioredis


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[aioredis.Redis]:
    """The store, to be read and harmed past the log."""
    async with aioredis.Redis.from_url(store_url) as store:
        yield store
