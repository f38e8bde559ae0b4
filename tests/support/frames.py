"""Event frames with numbers for identities: event n is the cursor n-0."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pushserver.model import Cursor, Event
from pushserver.wire.frames import EventFrame

EPOCH = "e" * 16


def cursor(n: int) -> Cursor:
    return Cursor(EPOCH, f"{n}-0", f"{n:016x}")


def rendered() -> dict[str, Any]:
    return {"html": "<p>"}


def frame(n: int, *, size: int = 0, html: Callable[[], dict[str, Any]] = rendered) -> EventFrame:
    data = json.dumps({"at": "x" * size}).encode()
    return EventFrame(Event(cursor(n), cursor(n - 1), n, "entry.put", data, ""), html)


def withdrawal(n: int) -> EventFrame:
    """Event `n` as a withdrawal."""
    put = frame(n)
    return EventFrame(put.event._replace(type="entry.withdraw"), rendered)
