"""What workers count, in the text format of Prometheus: a scrape of any worker answers for all of a server's.

No name of a stream, a reader or a key is in it. The workers of a server share a folder, which their supervisor makes
and names to the library as `PROMETHEUS_MULTIPROC_DIR` (prometheus_client, "Multiprocess Mode"); without it a worker
answers for itself.
"""

from __future__ import annotations

import os

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

CONTENT_TYPE = CONTENT_TYPE_LATEST
FOLDER = "PROMETHEUS_MULTIPROC_DIR"

READERS = Gauge("pushserver_readers", "Readers that are connected.", multiprocess_mode="livesum")
CLOSED = Counter("pushserver_readers_closed", "Readers that the server closed, by close code.", ["code"])
PUT_OFF = Counter("pushserver_readers_put_off", "Readers that were told to come later, because too many came at once.")
PUBLISHED = Counter("pushserver_published", "Publishes by outcome: stored, replayed, unavailable.", ["outcome"])
RESETS = Counter("pushserver_resets", "Times that a stream's readers were told that its log is another.", ["reason"])
LOST = Counter("pushserver_events_lost", "Events that the store had acknowledged and lost, as a worker saw it.")
HEALED = Counter("pushserver_events_healed", "Those that are stored again, by whichever worker.")
TAILS_LOST = Counter("pushserver_tails_lost", "Times that the reading of a partition broke off.")
UNKNOWN_EVENTS = Counter(
    "pushserver_events_unknown", "Events of a type that this version does not know; readers get them as they are."
)
UNKNOWN_BLOCKS = Counter(
    "pushserver_blocks_unknown",
    "Blocks of a type that this version does not know, left out where entries are rendered.",
)
SKIPPED = Counter("pushserver_records_skipped", "Records of a log that are no events.")


def exposition() -> bytes:
    """All of it, as it is now."""
    if FOLDER not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def forget(pid: int, folder: str) -> None:
    """A worker has ended: what it had at the time counts no more, what it counted does."""
    mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]
