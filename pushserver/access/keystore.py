"""The key store: publish keys in the store, as digests, for all workers and for `pushserver keys`."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, cast

from ..codec import dumps, loads
from ..store.store import Store

KEYS, KEYS_USED = "pushserver:keys", "pushserver:keys:used"  # hashes by the id of a key
SERVER_KEYS = "pushserver:keys:servers"  # hash: when a server started with a key of its settings, by its fingerprint
SERVER_KEYS_LIMIT = 16  # of them; the oldest go


class KeyStore:
    """KeyStore stores publish keys by their ids. Every method raises StoreError where the store does not answer."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, id: str) -> dict[str, Any] | None:
        """The fields of a key; None where there is no such key."""
        stored = await self._store.call(KEYS, lambda redis: cast(Awaitable[bytes | None], redis.hget(KEYS, id)))
        return loads(stored) if stored else None

    async def all(self) -> dict[str, dict[str, Any]]:
        """Every key by its id; `used` is the instant of its last use that was noted, '' where there is none."""
        keys, used = [await self._hash(name) for name in (KEYS, KEYS_USED)]
        return {id.decode(): {**loads(key), "used": used.get(id, b"").decode()} for id, key in keys.items()}

    async def has_key(self, at: str) -> bool:
        """Whether there is a key that has not expired at an instant."""
        return any(key["expires"] is None or key["expires"] > at for key in (await self.all()).values())

    async def _hash(self, name: str) -> dict[bytes, bytes]:
        return await self._store.call(name, lambda redis: cast(Awaitable[dict[bytes, bytes]], redis.hgetall(name)))

    async def add(self, id: str, key: dict[str, Any]) -> None:
        """Store a new key."""
        await self._store.call(KEYS, lambda redis: redis.hset(KEYS, id, dumps(key)))

    async def revoke(self, id: str) -> bool:
        """Delete a key: every worker refuses it from its next request on. False where there is no such key."""
        await self._store.call(KEYS_USED, lambda redis: redis.hdel(KEYS_USED, id))
        return bool(await self._store.call(KEYS, lambda redis: redis.hdel(KEYS, id)))

    async def note_use(self, id: str, at: str) -> None:
        """Note the instant at which a key was used, unless an embedded store has no disk for it."""
        if not self._store.condition.may_write():
            return
        await self._store.call(KEYS_USED, lambda redis: redis.hset(KEYS_USED, id, at))

    async def server_keys(self) -> dict[str, str]:
        """The instants at which servers last started with a key of their settings, by its fingerprint."""
        return {print.decode(): at.decode() for print, at in (await self._hash(SERVER_KEYS)).items()}

    async def note_server_key(self, fingerprint: str, at: str) -> None:
        """Note that a server starts with this key, unless an embedded store has no disk for it."""
        if not self._store.condition.may_write():
            return
        await self._store.call(SERVER_KEYS, lambda redis: redis.hset(SERVER_KEYS, fingerprint, at))
        stored = await self.server_keys()
        oldest = sorted(stored, key=stored.__getitem__)[:-SERVER_KEYS_LIMIT]
        if oldest:
            await self._store.call(SERVER_KEYS, lambda redis: redis.hdel(SERVER_KEYS, *oldest))
