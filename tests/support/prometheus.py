"""Prometheus itself, from Debian, beside the servers of a test: it scrapes them and evaluates rules."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from .ports import free_port
from .scrapes import metrics_url
from .server import LIMIT, STOP_LIMIT, Running, until

PROMTOOL, PROMETHEUS = shutil.which("promtool"), shutil.which("prometheus")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
needs_prometheus = pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed")
SCALED_FOR, SCALED_MINUTE = 2, 2  # seconds: of each `for`, and in place of each minute of a window


def scaled(rules: str) -> str:
    """The rules with seconds in place of minutes."""
    rules = re.sub(r"for: \w+", f"for: {SCALED_FOR}s", rules)
    return re.sub(r"\[(\d+)m(:?)\]", lambda window: f"[{SCALED_MINUTE * int(window[1])}s{window[2]}]", rules)


def instance_of(server: Running) -> str:
    """The label `instance` of a server's metrics."""
    return metrics_url(server).removeprefix("http://")


@contextmanager
def prometheus(folder: Path, servers: list[Running], rules: str) -> Iterator[httpx2.Client]:
    """A Prometheus that scrapes the servers every second and evaluates these rules."""
    (folder / "rules.yml").write_text(rules)
    jobs = [{"job_name": "pushserver", "static_configs": [{"targets": [instance_of(server) for server in servers]}]}]
    times = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config = {"global": times, "rule_files": ["rules.yml"], "scrape_configs": jobs}
    (folder / "prometheus.yml").write_text(json.dumps(config))
    port = free_port()
    flags = {"config.file": folder / "prometheus.yml", "storage.tsdb.path": folder / "data"}
    command = [str(PROMETHEUS), *(f"--{name}={value}" for name, value in flags.items())]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log, start_new_session=True
        )
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=LIMIT) as http:
            until(lambda: _is_ready(http))
            yield http
    finally:
        process.terminate()
        process.wait(STOP_LIMIT)


def _is_ready(http: httpx2.Client) -> bool:
    try:
        return http.get("/-/ready").status_code == 200
    except httpx2.TransportError:
        return False


def query(http: httpx2.Client, expression: str) -> list[Any]:
    """The rows of an expression now."""
    answer = http.get("/api/v1/query", params={"query": expression}).json()
    assert answer["status"] == "success", (expression, answer)
    rows: list[Any] = answer["data"]["result"]
    return rows


def firing(http: httpx2.Client, server: Running) -> set[str]:
    """The alerts that fire for a server now."""
    rows = query(http, f'ALERTS{{alertstate="firing",instance="{instance_of(server)}"}}')
    return {row["metric"]["alertname"] for row in rows}
