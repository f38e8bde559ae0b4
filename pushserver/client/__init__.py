"""The client publishes to a server and reads its streams; it needs httpx2 and websockets, and nothing of the server.

>>> from pushserver.client import Publisher, follow

Publisher and AsyncPublisher raise a subclass of PublishError; `follow` raises TurnedAway, or its subclass Unreachable.
"""

from .errors import (
    Changed,
    Conflict,
    Gone,
    NotFound,
    PublishError,
    Rejected,
    TurnedAway,
    Unauthorized,
    Unreachable,
    Unreached,
)
from .publisher import AsyncPublisher, Publisher
from .reader import follow

__all__ = [
    "AsyncPublisher",
    "Changed",
    "Conflict",
    "Gone",
    "NotFound",
    "PublishError",
    "Publisher",
    "Rejected",
    "TurnedAway",
    "Unauthorized",
    "Unreachable",
    "Unreached",
    "follow",
]
