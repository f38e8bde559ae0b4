"""The exposition of metrics: the totals of all workers in the text format of Prometheus (0.0.4), or in OpenMetrics 1.0.

The writer of prometheus_client takes 4 and 8 ms for as many samples, since it checks again what is fixed here.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

from ..metrics import FAMILIES, Counter, Family, Gauge, Histogram, Labels
from .cluster import WorkerCluster
from .totals import Buckets, Summary

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PROCESS = ("process",)  # the label of usage: `supervisor`, or the place of a worker
USAGE = (
    ("process_cpu_seconds", "counter", "Processor time used, s."),
    ("process_virtual_memory_bytes", "gauge", "Virtual memory, bytes."),
    ("process_resident_memory_bytes", "gauge", "Resident memory, bytes."),
    ("process_start_time_seconds", "gauge", "Start of the process, s since 1970."),
    ("process_open_fds", "gauge", "Open file descriptors, count."),
    ("process_max_fds", "gauge", "File descriptors that may be open, count."),
)  # as the fields of ProcessUsage


class Exposed(NamedTuple):
    """Exposed is one family of a scrape. A sample is the end of its name, its labels as text, and its value."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]
    samples: Sequence[tuple[str, str, float]]


def exposition(cluster: WorkerCluster, version: str, accept: str) -> tuple[bytes, str]:
    """All metrics as they are now, and their content type: OpenMetrics for a client that accepts it."""
    is_open = "application/openmetrics-text" in accept
    lines: list[str] = []
    for family in exposed(cluster, version):
        # In OpenMetrics a counter has a name of its own, without the end of its sample.
        name = family.name if is_open or family.kind != "counter" else f"{family.name}_total"
        lines += (f"# HELP {name} {family.help}\n", f"# TYPE {name} {family.kind}\n")
        lines += [f"{family.name}{end}{labels} {_number(value)}\n" for end, labels, value in family.samples]
    if is_open:
        lines.append("# EOF\n")
    return "".join(lines).encode(), OPENMETRICS if is_open else TEXT


def exposed(cluster: WorkerCluster, version: str) -> Iterator[Exposed]:
    """The families of a scrape."""
    total = cluster.totals.total()
    for family in FAMILIES.values():
        yield _counted(family, total)
    states = cluster.states()
    yield _plain(
        *("pushserver_workers", "gauge", "Worker processes by state, count.", ("state",)),
        {(state,): count for state, count in states.items()},
    )
    yield _plain("pushserver_workers_started", "counter", "Worker processes started, count.", (), {(): cluster.started})
    yield _plain("pushserver_workers_ended", "counter", "Worker processes ended, count.", (), {(): cluster.ended})
    processes = cluster.processes()
    for number, (name, kind, help) in enumerate(USAGE):
        yield _plain(name, kind, help, PROCESS, {(process,): usage[number] for process, usage in processes.items()})
    build: dict[Labels, float] = {(version, platform.python_version()): 1}
    yield _plain("pushserver_build_info", "gauge", "Version of the server, 1.", ("version", "python_version"), build)


def _counted(family: Family, total: Summary) -> Exposed:
    if isinstance(family, Counter):
        return _plain(family.name, "counter", family.help, family.labels, total.counters[family.name])
    if isinstance(family, Gauge):
        return _plain(family.name, "gauge", family.help, family.labels, total.gauges[family.name])
    assert isinstance(family, Histogram)
    return Exposed(family.name, "histogram", family.help, (), _buckets(family, total.histograms[family.name]))


def _plain(name: str, kind: str, help: str, labels: Labels, cells: Mapping[Labels, float]) -> Exposed:
    end = "_total" if kind == "counter" else ""
    return Exposed(name, kind, help, labels, [(end, _labels(labels, cell), value) for cell, value in cells.items()])


def _buckets(family: Histogram, buckets: Buckets) -> list[tuple[str, str, float]]:
    counts = list(accumulate(buckets.counts))
    bounds = (*family.bounds, float("inf"))
    rows = [
        ("_bucket", _labels(("le",), (_number(bound),)), count) for bound, count in zip(bounds, counts, strict=True)
    ]
    return [*rows, ("_sum", "", buckets.sum), ("_count", "", counts[-1])]


@lru_cache(maxsize=4_096)
def _labels(names: Labels, values: Labels) -> str:
    """Labels as they stand behind a name. Their values are the server's own: of lists, places and versions."""
    pairs = ",".join(f'{name}="{value}"' for name, value in zip(names, values, strict=True))
    return f"{{{pairs}}}" if pairs else ""


def _number(value: float) -> str:
    return "+Inf" if value == float("inf") else repr(value)


# --- docs/metrics.md

BEGIN, END = "<!-- families: made by `make docs` -->\n", "<!-- end of families -->"
HEAD = "| name | kind | labels and their values | meaning |\n| --- | --- | --- | --- |\n"


def insert_families(page: str) -> str:
    """The page with a table of all families between its two markers. Raises ValueError where it does not have both."""
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"expected {BEGIN.strip()} and {END} after it")
    families = exposed(WorkerCluster(clock=lambda: 0.0), "")
    return "".join([before, BEGIN, HEAD, *map(_row, families), END, after])


def _row(family: Exposed) -> str:
    name = f"{family.name}_total" if family.kind == "counter" else family.name
    return f"| `{name}` | {family.kind} | {'; '.join(_listed(family))} | {family.help} |\n"


def _listed(family: Exposed) -> Iterator[str]:
    """Each label of a family, with its values where they are the same on every server."""
    counted = FAMILIES.get(family.name)
    for number, label in enumerate(family.labels):
        values = dict.fromkeys(cell[number] for cell in counted.cells) if counted else {}
        yield f"`{label}`{':' if values else ''}{''.join(f' `{value}`' for value in values)}"
