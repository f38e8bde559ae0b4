"""The metrics of a server, in the text format of Prometheus: any worker answers for all workers of its server.

No metric names a stream, a reader or a key. The workers write to a shared folder, which the supervisor names to them
in `PROMETHEUS_MULTIPROC_DIR` (prometheus_client, "Multiprocess Mode"). Without it a worker answers for itself alone.
"""

from __future__ import annotations

import os

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

CONTENT_TYPE = CONTENT_TYPE_LATEST
FOLDER = "PROMETHEUS_MULTIPROC_DIR"

READERS = Gauge("pushserver_readers", "Readers connected now, count.", multiprocess_mode="livesum")
CLOSED = Counter(
    "pushserver_readers_closed", "Readers disconnected by the server, by WebSocket close code, count.", ["code"]
)
CUT = Counter(
    "pushserver_connections_cut",
    "Connections cut or refused by a limit of HTTP, by reason (head, body, unread, memory, failed, stopping), count.",
    ["reason"],
)
PUT_OFF = Counter("pushserver_readers_put_off", "Readers refused with 503 because too many connected at once, count.")
LIMITED = Counter(
    "pushserver_limited",
    "Connections and requests refused by a limit, by limit (files, address_connections, address_handshakes, "
    "address_requests, unknown_streams), count.",
    ["limit"],
)
PUBLISHED = Counter(
    "pushserver_published", "Events published, by outcome (stored, replayed, unavailable), count.", ["outcome"]
)
PURGES = Counter(
    "pushserver_purges",
    "Addresses purged from caches after withdrawals, by outcome (done, failed, dropped), count.",
    ["outcome"],
)
RESETS = Counter(
    "pushserver_resets", "Streams reset because the log lost or replaced events, by reason, count.", ["reason"]
)
LOST = Counter(
    "pushserver_events_lost", "Acknowledged events lost by the store; each worker that notices a loss counts it, count."
)
HEALED = Counter("pushserver_events_healed", "Lost events stored again, by this or another worker, count.")
TAILS_LOST = Counter("pushserver_tails_lost", "Connections lost while reading a partition from the store, count.")
UNKNOWN_EVENTS = Counter(
    "pushserver_events_unknown", "Events of a type unknown to this version, passed on to readers unchanged, count."
)
UNKNOWN_BLOCKS = Counter(
    "pushserver_blocks_unknown", "Blocks of a type unknown to this version, left out of pages and feeds, count."
)
SKIPPED = Counter("pushserver_records_skipped", "Records in the log skipped because they are not events, count.")


def exposition() -> bytes:
    """All metrics as they are now, in the text format of Prometheus."""
    if FOLDER not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def forget(pid: int, folder: str) -> None:
    """Drop the gauges of a worker that has ended; its counters stay."""
    mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]
