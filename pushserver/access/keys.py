"""Publish keys: what a key is, and whether a request that publishes is accepted.

One key has every right: the one in the settings, or else in the data folder's key file. The others are made by
`pushserver keys`, and looked up in the key store at each request: a revoked key is refused from the next request on.
"""

from __future__ import annotations

import fnmatch
import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from typing import NamedTuple

from ..errors import Fault, Forbidden, Unauthorized, shorten
from ..model import Author, instant, now
from .keystore import KeyStore
from .rates import Bucket

RIGHTS = ("publish", "correct", "withdraw", "page", "delete", "audit")  # a key has those alone that it was made with
WHOLE = ("publish", "correct", "withdraw", "page")  # to export a stream, and to restore one
USE_NOTED_EVERY = 60_000  # milliseconds


class PublishKey(NamedTuple):
    """A publish key as it is stored: the digest of its secret, patterns of streams, rights, requests a second.

    A line of a batch counts as a request. `created` and `expires` are instants.
    """

    name: str
    digest: str
    streams: list[str]
    can: list[str]
    rate: float
    created: str
    expires: str | None = None


SERVER = Author("server", "server")  # the key that has every right, which has neither


class Quota(NamedTuple):
    """Quota is what an accepted request may do: its key, its rights, and patterns of the streams that it is for.

    The request draws on the bucket, which is None for the key that has every right.
    """

    bucket: Bucket | None
    rights: tuple[str, ...] = RIGHTS
    author: Author = SERVER
    streams: tuple[str, ...] = ("*",)

    def is_for(self, stream: str) -> bool:
        """Whether the key is for a stream."""
        return _matches(self.streams, stream)

    def fields(self) -> dict[str, str]:
        """The header fields of an answer that tell the limit of the key; none where it has none."""
        return self.bucket.fields() if self.bucket is not None else {}

    def charge(self, count: int) -> None:
        """Draw `count` requests more, as for the lines of a batch."""
        if self.bucket is not None:
            self.bucket.charge(count)


def new_key(
    name: str, *, streams: list[str], can: list[str], rate: float, expires: str | None
) -> tuple[str, str, PublishKey]:
    """Make a key: its id, the text that a publisher sends, and the key as it is stored."""
    id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    return id, f"pk_{id}_{secret}", PublishKey(name, _digest(secret), streams, can, rate, instant(now()), expires)


class Keys:
    """Keys accepts requests by their publish key. Digests are compared in constant time."""

    def __init__(self, key: str, store: KeyStore) -> None:
        self._digest = _digest(key) if key else ""  # no digest is empty: '' is no request's key
        self._store = store
        self._buckets: dict[str, Bucket] = {}
        self._noted: dict[str, int] = {}  # by a key's id, when its use was noted, in milliseconds since 1970

    async def admit(self, authorization: str | None, rights: tuple[str, ...], stream: str | None) -> Quota:
        """Accept a request before its body is read; `stream` is None where it names none.

        Raises Unauthorized, Forbidden, TooMany, StoreError.
        """
        stored = await self.check(authorization, rights, stream)
        if stored is None:
            return Quota(None)
        id, key = stored
        bucket = self._buckets.setdefault(id, Bucket(key.rate))
        bucket.take(key.rate)
        await self._note_use(id)
        return Quota(bucket, tuple(key.can), Author(id, key.name), tuple(key.streams))

    async def check(
        self, authorization: str | None, rights: tuple[str, ...], stream: str | None
    ) -> tuple[str, PublishKey] | None:
        """The stored key of a request and its id, None for the key that has every right; it counts as no request.

        Raises Unauthorized, Forbidden, StoreError.
        """
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer":  # what came may be the key alone: it is not repeated
            raise _unauthorized("a header that does not begin with Bearer" if authorization else "no key")
        if hmac.compare_digest(_digest(token), self._digest):
            return None
        id, key = await self._look_up(token)
        if key.expires is not None and key.expires <= instant(now()):
            raise _unauthorized(f"a key that expired at {key.expires}")
        if stream is not None:
            _check_scope(key, rights, stream)
        return id, key

    async def _look_up(self, token: str) -> tuple[str, PublishKey]:
        """The id and the key of a token. Raises Unauthorized where no stored key has its secret."""
        parts = re.fullmatch(r"pk_([0-9a-f]{12})_([0-9A-Za-z_-]{20,100})", token)
        stored = await self._store.get(parts[1]) if parts else None
        if parts is None or stored is None:
            raise _unauthorized("an unknown key")
        key = PublishKey(**stored)
        if not hmac.compare_digest(_digest(parts[2]), key.digest):
            raise _unauthorized("an unknown key")
        return parts[1], key

    async def _note_use(self, id: str) -> None:
        """Note that a key is in use, once in USE_NOTED_EVERY: a write for each request would double their cost."""
        at = now()
        if at - self._noted.get(id, 0) >= USE_NOTED_EVERY:
            self._noted[id] = at
            await self._store.note_use(id, instant(at))


def fingerprint(key: str) -> str:
    """Eight characters by which two keys can be told apart. They are too few to find a key by them."""
    return _digest(f"fingerprint {key}")[:8]


def _check_scope(key: PublishKey, rights: tuple[str, ...], stream: str) -> None:
    """Raises Forbidden where a key lacks a right, or is for other streams."""
    is_for_stream = _matches(key.streams, stream)
    missing = [right for right in rights if right not in key.can or not is_for_stream]
    if is_for_stream and not missing:
        return
    name, can = shorten(stream), " and ".join(rights)
    lacks = f"lacks the right {' and '.join(f'`{right}`' for right in missing)}" if missing else "is not valid"
    expected = f"a key that can {can} in {name}" if can else f"a key for {name}"
    fault = Fault("Authorization", expected, f"one that can {', '.join(key.can)} in {', '.join(key.streams)}")
    # The body was not read: the connection cannot carry another request.
    raise Forbidden(f"This publish key {lacks} for stream {name}.", fault, headers={"Connection": "close"})


def _matches(patterns: Sequence[str], stream: str) -> bool:
    return any(fnmatch.fnmatchcase(stream, pattern) for pattern in patterns)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _unauthorized(got: str) -> Unauthorized:
    return Unauthorized(
        "Publishing requires a publish key: the one in publish.key of the server's data folder, or one that "
        "`pushserver keys create NAME` makes.",
        Fault("Authorization", "Bearer and a publish key", got),
        # The body was not read: the connection cannot carry another request.
        headers={"WWW-Authenticate": 'Bearer realm="pushserver"', "Connection": "close"},
    )
