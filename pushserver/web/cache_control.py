"""Cache-Control of what everybody may read: for how long a shared cache answers by itself (RFC 9111, RFC 5861)."""

from __future__ import annotations

STALE_IF_ERROR = 30  # seconds after its time for which a cache may serve its copy while no worker answers
REVALIDATES = 2  # times the setting, in which a cache may serve its copy while it asks for a newer one


def cache_control(seconds: int) -> str:
    """The header for answers that a shared cache may serve for so many seconds without asking; 0: it asks each time.

    A browser asks each time: a reader who publishes an entry and reloads the page sees it.
    """
    if not seconds:
        return "no-cache"
    stale = f"stale-while-revalidate={REVALIDATES * seconds}, stale-if-error={STALE_IF_ERROR}"
    return f"public, max-age=0, s-maxage={seconds}, {stale}"
