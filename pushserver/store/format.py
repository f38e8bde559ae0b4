"""The format is the version of what is stored, as MAJOR.MINOR in a key of its own. Pure.

A minor version adds what an older server can pass over: types of events and of blocks; since 1.1 the mark of a
deletion, the history of entries, and the field `b` of a record. A major version changes what an older server would
misread: it must not start on such a store.
"""

from __future__ import annotations

import re

from ..errors import shorten

FORMAT_KEY = "pushserver:format"
MAJOR, MINOR = 1, 1  # what this code writes
OWN = f"{MAJOR}.{MINOR}"


def misfit(stored: bytes) -> str:
    """Why a store of this format must not be used; '' where it may be."""
    version = re.fullmatch(rb"([0-9]{1,9})\.([0-9]{1,9})", stored)
    if version is None:
        got = shorten(stored.decode(errors="backslashreplace"))
        return f"expected {FORMAT_KEY} to be a version such as {OWN}, got {got}"
    if int(version[1]) > MAJOR:
        got = f"{stored.decode()}, which a newer version of pushserver made"
        return f"expected a store of format {MAJOR}, got {got}: upgrade this server, or use another store"
    return ""
