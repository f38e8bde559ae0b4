"""Values are the texts of settings as the server uses them: each function returns the normal form, or refuses a text.

A text that is refused raises ValueError with what was expected and what came; a secret is never repeated.
"""

from __future__ import annotations

import re

KEY_LEAST, KEY_MOST = 16, 512  # characters of a publish key
NEW_KEY = "openssl rand -hex 24"  # the command that makes one


def publish_key(text: str) -> str:
    """A publish key without white space around it. Raises ValueError where it is too short, or fits into no header."""
    key = text.strip()
    if not re.fullmatch("[\x21-\x7e]*", key):
        got = "others"
    elif not KEY_LEAST <= len(key) <= KEY_MOST:
        got = str(len(key))
    else:
        return key
    raise ValueError(f"expected {KEY_LEAST} to {KEY_MOST} visible ASCII characters, as `{NEW_KEY}` makes, got {got}")
