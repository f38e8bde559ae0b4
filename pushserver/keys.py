"""Publish keys: who may publish. The local one is made on the first start and found by the commands on the
same machine."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from .errors import Fault, Unauthorized

FILE = "publish.key"


class Keys:
    """The keys that are accepted. Only their digests are kept, and compared in constant time."""

    def __init__(self, key: str) -> None:
        self._digest = hashlib.sha256(key.encode()).digest()

    def check(self, authorization: str | None) -> None:
        """Let an `Authorization: Bearer` header pass, or raise Unauthorized. Asked before the body is read."""
        scheme, _, token = (authorization or "").partition(" ")
        given = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
        if scheme.lower() != "bearer" or not hmac.compare_digest(given, self._digest):
            got = "a key that is not known" if scheme.lower() == "bearer" else "no key"
            raise Unauthorized(
                "Publishing needs a key: in publish.key of the server's data folder, or what it got as PUSHSERVER_KEY.",
                Fault("Authorization", "Bearer and a publish key", got),
                # The body was not read: the connection cannot carry another request.
                headers={"WWW-Authenticate": 'Bearer realm="pushserver"', "Connection": "close"},
            )


def local_key(data: Path) -> str | None:
    """The key that was made in this data folder, if any."""
    path = data / FILE
    return path.read_text().strip() if path.is_file() else None


def make_local_key(data: Path) -> str:
    """The key of this data folder, made (mode 600) on first use."""
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = f"pk_{secrets.token_urlsafe(32)}"
    try:
        # Written whole before it has its name: a second server that starts at the same time reads one or the other.
        draft = data / f"{FILE}.{os.getpid()}"
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(key + "\n")
        try:
            os.link(draft, data / FILE)
        finally:
            draft.unlink()
    except FileExistsError:
        pass
    made = local_key(data)
    assert made, "the key file was just linked"
    return made
