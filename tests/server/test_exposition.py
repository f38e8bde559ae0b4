"""What a scrape has: the linter of Prometheus and both parsers of its client agree with it."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from pushserver.metrics import FAMILIES
from pushserver.server.cluster import WorkerCluster
from pushserver.server.exposition import OPENMETRICS, TEXT, exposition, insert_families

from ..support.server import ROOT
from .test_cluster import Worker, cluster_of, take

PROMTOOL = shutil.which("promtool")


def scraped(accept: str = "") -> tuple[str, str]:
    worker = Worker(1)
    cluster, _ = cluster_of(worker)
    take(cluster, worker, stored=5, lag=4)
    body, content_type = exposition(cluster, "1.0", accept)
    return body.decode(), content_type


@pytest.mark.parametrize(
    ("accept", "content_type", "families"),
    [("", TEXT, text_families), ("application/openmetrics-text;version=1.0.0,*/*", OPENMETRICS, open_families)],
)
def test_both_formats_say_the_same(accept: str, content_type: str, families: object) -> None:
    text, answered = scraped(accept)
    assert answered == content_type
    assert callable(families)
    samples = {
        (sample.name, *sample.labels.values()): sample.value for family in families(text) for sample in family.samples
    }
    assert samples["pushserver_published_total", "stored"] == 5
    assert samples["pushserver_written_lag_seconds_bucket", "0.001"] == 4
    assert samples["pushserver_written_lag_seconds_bucket", "+Inf"] == 4
    assert samples["pushserver_written_lag_seconds_count",] == 4
    assert samples["pushserver_build_info", "1.0", next(key[2] for key in samples if "build_info" in key[0])] == 1
    assert samples["process_resident_memory_bytes", "1"] > 0
    assert {name for name in FAMILIES if not any(key[0].startswith(name) for key in samples)} == set()


@pytest.mark.full
@pytest.mark.skipif(PROMTOOL is None, reason="promtool is missing")
def test_the_linter_of_prometheus_has_nothing_to_say() -> None:
    done = subprocess.run(
        [str(PROMTOOL), "check", "metrics"], input=scraped()[0], text=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_page_of_metrics_lists_every_family() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert insert_families(page) == page, "make docs"
    with pytest.raises(ValueError, match="families"):
        insert_families("# Metrics\n")


def test_a_server_without_workers_has_every_family() -> None:
    body, _ = exposition(WorkerCluster(clock=lambda: 0.0), "1", "")
    assert body.count(b"# TYPE ") == len(FAMILIES) + 10
