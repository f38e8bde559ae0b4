"""The key file of a data folder: one publish key with every right, made at the first start.

Commands that run on the same machine read it, so that they need no other key.
"""

from __future__ import annotations

import os
import secrets
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
    draft = data / f"{KEY_FILE}.{os.getpid()}"
    try:
        # The file gets its name once it is written whole: a second server that starts at the same time would else read
        # an empty key.
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"pk_{secrets.token_urlsafe(32)}\n")
        try:
            os.link(draft, data / KEY_FILE)
        finally:
            draft.unlink()
    except FileExistsError:
        pass
    try:
        return publish_key(local_key(data) or "")
    except ValueError as error:
        raise ValueError(f"{data / KEY_FILE}: {error}; without the file the next start makes a key") from None
