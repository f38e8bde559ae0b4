"""The options of a hub: those settings of the server that the streams of a worker follow."""

from __future__ import annotations

from typing import NamedTuple

from ..settings import Settings


class HubOptions(NamedTuple):
    """HubOptions are the settings of the same names, as far as the hub and its parts need them."""

    readers: int
    ring_events: int
    ring_bytes: int
    rings_bytes: int
    page_entries: int
    replay_events: int
    replay_bytes: int
    heartbeat: float  # seconds
    patience: float  # seconds
    lifetime: float  # seconds; 0 is without end
    heal: bool
    show_readers: bool

    @classmethod
    def of(cls, settings: Settings) -> HubOptions:
        return cls(*(getattr(settings, name) for name in cls._fields))
