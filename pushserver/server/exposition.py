"""The exposition of metrics: the totals of all workers in the text format of Prometheus, or in OpenMetrics."""

from __future__ import annotations

import platform
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from ..metrics import FAMILIES, Counter, Family, Gauge, Histogram
from .cluster import Cluster
from .totals import Buckets, Summary

PROCESS = ("process",)  # the label of usage: `supervisor`, or the place of a worker


class ClusterCollector(Collector):
    """ClusterCollector makes the families of a scrape from a cluster."""

    def __init__(self, cluster: Cluster, version: str) -> None:
        self._cluster = cluster
        self._version = version

    def collect(self) -> Iterator[Metric]:
        total = self._cluster.totals.total()
        for family in FAMILIES.values():
            yield _family(family, total)
        yield from self._workers()
        yield from _usage(self._cluster)
        build = GaugeMetricFamily(
            "pushserver_build_info", "Version of the server, 1.", labels=("version", "python_version")
        )
        build.add_metric((self._version, platform.python_version()), 1)
        yield build

    def _workers(self) -> Iterator[Metric]:
        states = GaugeMetricFamily("pushserver_workers", "Worker processes by state, count.", labels=("state",))
        for state, count in self._cluster.states().items():
            states.add_metric((state,), count)
        yield states
        yield CounterMetricFamily(
            "pushserver_workers_started", "Worker processes started, count.", value=self._cluster.started
        )
        yield CounterMetricFamily(
            "pushserver_workers_ended", "Worker processes ended, for whatever reason, count.", value=self._cluster.ended
        )


def exposition(cluster: Cluster, version: str, accept: str) -> tuple[bytes, str]:
    """All metrics as they are now, and their content type: OpenMetrics for a client that accepts it."""
    registry = CollectorRegistry()
    registry.register(ClusterCollector(cluster, version))
    if "application/openmetrics-text" in accept:
        return openmetrics.generate_latest(registry), openmetrics.CONTENT_TYPE_LATEST  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


def _family(family: Family, total: Summary) -> Metric:
    if isinstance(family, Counter):
        metric: Metric = CounterMetricFamily(family.name, family.help, labels=family.labels)
        for labels, count in total.counters[family.name].items():
            metric.add_sample(f"{family.name}_total", dict(zip(family.labels, labels, strict=True)), count)
        return metric
    if isinstance(family, Gauge):
        metric = GaugeMetricFamily(family.name, family.help, labels=family.labels)
        for labels, value in total.gauges[family.name].items():
            metric.add_sample(family.name, dict(zip(family.labels, labels, strict=True)), value)
        return metric
    assert isinstance(family, Histogram)
    return _histogram(family, total.histograms[family.name])


def _histogram(family: Histogram, buckets: Buckets) -> Metric:
    rows, so_far = [], 0
    for bound, count in zip((*family.bounds, float("inf")), buckets.counts, strict=True):
        so_far += count
        rows.append((floatToGoString(bound), float(so_far)))  # type: ignore[no-untyped-call]
    return HistogramMetricFamily(family.name, family.help, buckets=rows, sum_value=buckets.sum)


def _usage(cluster: Cluster) -> Iterator[Metric]:
    """The usual `process_*` families, by process."""
    cpu = CounterMetricFamily("process_cpu_seconds", "Processor time used, s.", labels=PROCESS)
    gauges = [
        GaugeMetricFamily(name, help, labels=PROCESS)
        for name, help in (
            ("process_virtual_memory_bytes", "Virtual memory, bytes."),
            ("process_resident_memory_bytes", "Resident memory, bytes."),
            ("process_start_time_seconds", "Start of the process, s since 1970."),
            ("process_open_fds", "Open file descriptors, count."),
            ("process_max_fds", "File descriptors that may be open, count."),
        )
    ]
    for name, usage in cluster.processes().items():
        cpu.add_metric((name,), usage.cpu)
        for gauge, value in zip(gauges, usage[1:], strict=True):
            gauge.add_metric((name,), value)
    yield cpu
    yield from gauges


# --- docs/metrics.md

BEGIN, END = "<!-- families: made by `make docs` -->\n", "<!-- end of families -->"


def insert_families(page: str) -> str:
    """The page with a table of all families between its two markers. Raises ValueError where it does not have both."""
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"expected {BEGIN.strip()} and {END} after it")
    cluster = Cluster(version="", clock=lambda: 0.0)
    rows = [_row(metric) for metric in ClusterCollector(cluster, "").collect()]
    return "".join(
        [before, BEGIN, "| name | kind | labels | meaning |\n| --- | --- | --- | --- |\n", *rows, END, after]
    )


def _row(metric: Metric) -> str:
    suffix = "_total" if metric.type == "counter" else ""
    labels = [name for name in metric.samples[0].labels if name != "le"] if metric.samples else []
    shown = " ".join(f"`{name}`" for name in labels)
    return f"| `{metric.name}{suffix}` | {metric.type} | {shown} | {metric.documentation} |\n"
