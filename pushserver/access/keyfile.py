"""The key file of a data folder: one publish key with every right, made at the first start.

Commands that run on the same machine read it, so that they need no other key.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from ..values import publish_key

KEY_FILE = "publish.key"  # its name in the data folder


def local_key(data: Path) -> str | None:
    """The publish key of a data folder; None where it has none. Raises OSError."""
    path = data / KEY_FILE
    # An editor of Windows begins the file with a byte order mark.
    return path.read_text("utf-8-sig", errors="replace").strip() if path.is_file() else None


def make_local_key(data: Path) -> str:
    """The publish key of a data folder, made (mode 600) where there is none. Raises ValueError, OSError."""
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not (data / KEY_FILE).exists():  # else a server could not start on a disk that is full
        _write_key(data)
    try:
        return publish_key(local_key(data) or "")
    except ValueError as error:
        raise ValueError(f"{data / KEY_FILE}: {error}; restore it, or delete it for a new key") from None


def _write_key(data: Path) -> None:
    """Write a new key, unless another server was first.

    The file gets its name once it is written whole: a second server that starts at the same time would else read an
    empty key.
    """
    draft = data / f"{KEY_FILE}.{os.getpid()}"
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(f"pk_{secrets.token_urlsafe(32)}\n")
        with suppress(FileExistsError):
            os.link(draft, data / KEY_FILE)
    finally:
        draft.unlink(missing_ok=True)
