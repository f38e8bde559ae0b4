"""The measures of a worker: what its metrics show of now, taken when it reports to its supervisor."""

from __future__ import annotations

from typing import Any

from .. import metrics
from ..live.hub import Hub
from ..surfaces.cache import SurfaceCache
from .health import Health


class Measures:
    """Measures takes what a worker counts from its parts."""

    def __init__(self, hub: Hub, health: Health, surfaces: SurfaceCache) -> None:
        self._hub = hub
        self._health = health
        self._surfaces = surfaces

    def take(self) -> dict[str, Any]:
        """The summary of now: all metrics, and the slowest readers."""
        for part in (self._hub, self._health, self._surfaces):
            part.measure()
        return {**metrics.summary(), "slowest": self._hub.slowest()}
