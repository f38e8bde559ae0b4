"""The key file of a data folder: one publish key with every right, made at the first start.

Commands that run on the same machine read it, so that they need no other key.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

KEY_FILE = "publish.key"  # its name in the data folder


def local_key(data: Path) -> str | None:
    """The publish key of a data folder; None where it has none. Raises OSError."""
    path = data / KEY_FILE
    return path.read_text(errors="replace").strip() if path.is_file() else None


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
    key = local_key(data)
    if not re.fullmatch("[\x21-\x7e]+", key or ""):
        raise ValueError(
            f"{data / KEY_FILE} must have one line of visible ASCII characters; restore it, or delete it for a new key"
        )
    return str(key)
