"""A store of an older major version, or of any minor one, is used; a newer major version is refused."""

from __future__ import annotations

import pytest
import redis.asyncio as aioredis

from pushserver.store.format import FORMAT_KEY, OWN, misfit
from pushserver.store.store import Store, StoreUnfit


@pytest.mark.parametrize("version", [b"0.9", b"0.0", b"1.0", b"1.1", b"1.999999999", OWN.encode()])
def test_an_older_major_or_a_newer_minor_version_fits(version: bytes) -> None:
    assert misfit(version) == ""


def test_a_newer_major_version_is_named_with_what_to_do() -> None:
    assert misfit(b"2.0") == (
        "expected a store of format 1, got 2.0, which a newer version of pushserver made: upgrade this server, "
        "or use another store"
    )


@pytest.mark.parametrize("nonsense", [b"", b"1", b"1.", b"1.0.0", b"-1.0", b"one", b"\xff", b"1.0\n", b"9" * 5_000])
def test_a_version_that_cannot_be_read_is_shown_in_short(nonsense: bytes) -> None:
    said = misfit(nonsense)
    assert said.startswith("expected pushserver:format to be a version such as 1.1, got ")
    assert len(said) < 300


@pytest.mark.anyio
@pytest.mark.parametrize(("version", "fits"), [(b"1.999999999", True), (b"2.0", False), (b"one", False)])
async def test_a_start_uses_a_store_that_fits_and_leaves_its_version_as_it_is(
    store: aioredis.Redis, log_store: Store, version: bytes, fits: bool
) -> None:
    await store.set(FORMAT_KEY, version)
    try:
        if fits:
            await log_store.check()
        else:
            with pytest.raises(StoreUnfit):
                await log_store.check()
        assert await store.get(FORMAT_KEY) == version
    finally:
        await store.set(FORMAT_KEY, "1.0")
