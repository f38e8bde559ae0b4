"""Publish keys: who may do what to which streams.

One key has every right: it is given as a setting, or made on the first start and found by the commands on the same
machine. The others are made by `pushserver keys`, kept in the store as digests, and looked up by their id at each
request: one that was revoked is refused from then on, by every worker.
"""

from __future__ import annotations

import fnmatch
import hashlib
import hmac
import math
import os
import re
import secrets
import time
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ..errors import Fault, Forbidden, TooMany, Unauthorized, shorten
from ..model import instant, now

FILE = "publish.key"
RIGHTS = ("publish", "correct", "withdraw", "page")
USE_NOTED_EVERY = 60_000  # milliseconds


class Key(NamedTuple):
    """A key as it is kept. `streams` are patterns of names, `rate` is in requests a second, batches by the line."""

    name: str
    digest: str
    streams: list[str]
    can: list[str]
    rate: float
    created: str
    expires: str | None = None


class Store(Protocol):
    """Where keys are kept; the log is one."""

    async def key(self, id: str) -> dict[str, Any] | None: ...
    async def note_key_use(self, id: str, at: str) -> None: ...


def new_key(name: str, *, streams: list[str], can: list[str], rate: float, expires: str | None) -> tuple[str, str, Key]:
    """A key that did not exist before: its id, what the publisher sends, and what is kept."""
    id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    return id, f"pk_{id}_{secret}", Key(name, _digest(secret), streams, can, rate, instant(now()), expires)


class Keys:
    """Lets requests in by their key. Digests are compared in constant time."""

    def __init__(self, key: str, store: Store) -> None:
        self._digest = _digest(key)
        self._store = store
        self._buckets: dict[str, Bucket] = {}
        self._noted: dict[str, int] = {}

    async def admit(self, authorization: str | None, rights: tuple[str, ...], stream: str) -> Admission:
        """Let a request in, before its body is read; or raise Unauthorized, Forbidden or TooMany."""
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer":
            raise _unauthorized("no key")
        if hmac.compare_digest(_digest(token), self._digest):
            return Admission(None)
        id, key = await self._find(token)
        if key.expires is not None and key.expires <= instant(now()):
            raise _unauthorized(f"a key that expired at {key.expires}")
        missing = [right for right in rights if right not in key.can]
        if missing or not any(fnmatch.fnmatchcase(stream, pattern) for pattern in key.streams):
            fault = Fault(
                "Authorization", f"a key that can {' and '.join(rights)} in {stream}", f"one that can {_scope(key)}"
            )
            raise Forbidden("This key is not for that.", fault, headers={"Connection": "close"})
        bucket = self._buckets.setdefault(id, Bucket(key.rate))
        bucket.take(key.rate)
        await self._note(id)
        return Admission(bucket)

    async def _find(self, token: str) -> tuple[str, Key]:
        parts = re.fullmatch(r"pk_([0-9a-f]{12})_([0-9A-Za-z_-]{20,100})", token)
        found = await self._store.key(parts[1]) if parts else None
        if parts is None or found is None:
            raise _unauthorized("a key that is not known")
        key = Key(**found)
        if not hmac.compare_digest(_digest(parts[2]), key.digest):
            raise _unauthorized("a key that is not known")
        return parts[1], key

    async def _note(self, id: str) -> None:
        at = now()
        if at - self._noted.get(id, 0) >= USE_NOTED_EVERY:
            self._noted[id] = at
            await self._store.note_key_use(id, instant(at))


class Bucket:
    """How much a key may still do: it fills at the key's rate up to two seconds' worth, and may be overdrawn once."""

    def __init__(self, rate: float) -> None:
        self._left = 2 * rate
        self._at = time.monotonic()

    def take(self, rate: float) -> None:
        """One request; raises TooMany where nothing is left."""
        at = time.monotonic()
        self._left = min(2 * rate, self._left + (at - self._at) * rate)
        self._at = at
        if self._left < 1:
            fault = Fault("Authorization", f"at most {rate:g} requests a second", "more")
            raise TooMany(
                "This key is used too often.", fault, headers={"Retry-After": str(math.ceil((1 - self._left) / rate))}
            )
        self._left -= 1

    def charge(self, count: int) -> None:
        """More work than one request's, known only now."""
        self._left -= count


class Admission(NamedTuple):
    """A request that was let in, and what it draws on."""

    bucket: Bucket | None

    def charge(self, count: int) -> None:
        if self.bucket is not None:
            self.bucket.charge(count)


def local_key(data: Path) -> str | None:
    """The key that was made in this data folder, if any."""
    path = data / FILE
    return path.read_text(errors="replace").strip() if path.is_file() else None


def make_local_key(data: Path) -> str:
    """The key of this data folder, made (mode 600) on first use. Raises ValueError where the file holds none."""
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = data / f"{FILE}.{os.getpid()}"
    try:
        # Written whole before it has its name: a second server that starts at the same time reads one or the other.
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"pk_{secrets.token_urlsafe(32)}\n")
        try:
            os.link(draft, data / FILE)
        finally:
            draft.unlink()
    except FileExistsError:
        pass
    made = local_key(data)
    if not re.fullmatch("[\x21-\x7e]+", made or ""):
        raise ValueError(f"expected a key in {data / FILE}, or no such file, got {shorten(made or '')}")
    return str(made)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _scope(key: Key) -> str:
    return f"{', '.join(key.can)} in {', '.join(key.streams)}"


def _unauthorized(got: str) -> Unauthorized:
    return Unauthorized(
        "Publishing needs a key: that in publish.key of the server's data folder, or one that "
        "`pushserver keys create NAME` makes.",
        Fault("Authorization", "Bearer and a publish key", got),
        # The body was not read: the connection cannot carry another request.
        headers={"WWW-Authenticate": 'Bearer realm="pushserver"', "Connection": "close"},
    )
