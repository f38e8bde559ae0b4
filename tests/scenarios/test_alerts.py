"""The alerts and the board of deploy/: each expression runs on what a server says, and each alert fires and clears."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ..support.processes import free_port
from ..support.scrapes import METRICS, ask, metrics_url
from ..support.server import LIMIT, ROOT, STOP_LIMIT, Running, running, until
from ..support.stores import Server

RULES, BOARD = ROOT / "deploy" / "alerts.yml", ROOT / "deploy" / "grafana.json"
PROMTOOL, PROMETHEUS = shutil.which("promtool"), shutil.which("prometheus")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
ALERTS = re.findall(r"alert: (\w+)", RULES.read_text())
NAME = re.compile(r"\b(?:pushserver|process)_[a-z_]+\b")

# For each alert: series, with their values while all is well and while it is not; `+` marks a counter that grows.
Series = dict[str, tuple[str, str]]


def seconds_of(name: str) -> Series:
    """A histogram of which every observation is between one and two seconds."""
    bounds = {"0.5": ("0", "0"), "1.0": ("0", "0"), "2.0": ("0", "+10"), "+Inf": ("0", "+10")}
    return {f'{name}_bucket{{le="{bound}"}}': values for bound, values in bounds.items()}


CAUSES: dict[str, Series] = {
    "PushserverDown": {'up{job="pushserver"}': ("1", "0")},
    "PushserverStoreAway": {"pushserver_store_up": ("1", "0")},
    "PushserverStoreSlow": {'pushserver_check{check="fast"}': ("1", "0"), "pushserver_store_up": ("1", "1")},
    "PushserverFrozenTail": {'pushserver_check{check="tail"}': ("1", "0"), "pushserver_store_up": ("1", "1")},
    "PushserverNoWorker": {'pushserver_workers{state="serving"}': ("3", "0")},
    "PushserverDataFolder": {'pushserver_store_condition{condition="folder_lost"}': ("0", "1")},
    "PushserverDiskFull": {
        'pushserver_store_condition{condition="disk_reserve"}': ("0", "1"),
        'pushserver_store_condition{condition="disk_full"}': ("0", "0"),
    },
    "PushserverEventsLost": {
        "pushserver_events_lost_total": ("0", "+3"),
        "pushserver_events_healed_total": ("0", "+1"),
    },
    "PushserverLate": seconds_of("pushserver_written_lag_seconds"),
    "PushserverFull": {
        'pushserver_readers{transport="websocket"}': ("20", "80"),
        'pushserver_readers{transport="sse"}': ("5", "15"),
        "pushserver_readers_limit": ("100", "100"),
    },
    "PushserverFiles": {'process_open_fds{process="1"}': ("50", "95"), 'process_max_fds{process="1"}': ("100", "100")},
    "PushserverNoReplicas": {'pushserver_check{check="replicas"}': ("1", "0")},
    "PushserverPublishSlow": seconds_of("pushserver_publish_seconds"),
    "PushserverRefusesPublishers": {'pushserver_refused_total{status="401",cause="unauthorized"}': ("0", "+30")},
    "PushserverWorkersEnd": {
        "pushserver_workers_ended_total": ("0", "+1"),
        'process_start_time_seconds{process="1"}': ("1", "1"),
        'process_start_time_seconds{process="supervisor"}': ("1", "1"),
    },
    "PushserverSlowReaders": {'pushserver_readers_closed_total{reason="too_slow"}': ("0", "+60")},
}
WELL, BAD, AFTER = 9, 20, 50  # samples, half a minute apart


def values(well: str, bad: str) -> str:
    """The values of a series, well, bad, and well again, as promtool reads them; a counter stays where it is."""
    if bad.startswith("+"):
        step = int(bad)
        return f"{well}x{WELL} {step}+{step}x{BAD} {step * (BAD + 1)}x{AFTER}"
    return f"{well}x{WELL} {bad}x{BAD} {well}x{AFTER}"


@pytest.mark.full
@needs_promtool
def test_every_alert_fires_while_its_cause_lasts_and_clears(tmp_path: Path) -> None:
    tests = []
    for alert, series in CAUSES.items():
        firing = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})'
        looks = {"4m": [], "14m": [{"labels": "{}", "value": 1}], "35m": []}
        tests.append(
            {
                "interval": "30s",
                "input_series": [{"series": name, "values": values(*pair)} for name, pair in series.items()],
                "promql_expr_test": [
                    {"expr": firing, "eval_time": at, "exp_samples": samples} for at, samples in looks.items()
                ],
            }
        )
    (tmp_path / "tests.yml").write_text(
        json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "10s", "tests": tests})
    )
    for command in (["check", "rules", str(RULES)], ["test", "rules", str(tmp_path / "tests.yml")]):
        done = subprocess.run([str(PROMTOOL), *command], capture_output=True, text=True, check=False, timeout=LIMIT)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_its_cause_here() -> None:
    assert list(CAUSES) == ALERTS


def expressions() -> list[str]:
    """The expressions of the board, as Grafana sends them."""
    board = json.loads(BOARD.read_text())
    texts = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return [text.replace("$__rate_interval", "1m").replace("$instance", ".*") for text in texts]


def test_every_metric_of_the_alerts_and_the_board_is_in_a_scrape(server: Running) -> None:
    families = list(text_string_to_metric_families(ask(server, "/metrics").text))
    names = {sample.name for family in families for sample in family.samples}
    rules = "\n".join(line for line in RULES.read_text().splitlines() if "expr:" in line)
    used = set(NAME.findall(rules)) | {name for text in expressions() for name in NAME.findall(text)}
    assert used <= names, used - names
    labels = {value for family in families for sample in family.samples for value in sample.labels.values()}
    literals = set(re.findall(r'\w+="([\w|]+)"', rules)) - {"pushserver"}
    assert literals <= labels, literals - labels


# --- with Prometheus itself


@contextmanager
def prometheus(folder: Path, server: Running, rules: str) -> Iterator[httpx2.Client]:
    """A Prometheus that scrapes a server every second and evaluates these rules."""
    (folder / "rules.yml").write_text(rules)
    target = metrics_url(server).removeprefix("http://")
    jobs = [{"job_name": "pushserver", "static_configs": [{"targets": [target]}]}]
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
            until(lambda: is_ready(http))
            yield http
    finally:
        process.terminate()
        process.wait(STOP_LIMIT)


def is_ready(http: httpx2.Client) -> bool:
    try:
        return http.get("/-/ready").status_code == 200
    except httpx2.TransportError:
        return False


def query(http: httpx2.Client, expression: str) -> list[Any]:
    answer = http.get("/api/v1/query", params={"query": expression}).json()
    assert answer["status"] == "success", (expression, answer)
    rows: list[Any] = answer["data"]["result"]
    return rows


def is_firing(http: httpx2.Client, alert: str) -> bool:
    return bool(query(http, f'ALERTS{{alertname="{alert}",alertstate="firing"}}'))


def scaled(rules: str) -> str:
    """The rules with seconds in place of minutes: each `for` is 1 s, and a window 5 s."""
    return re.sub(r"\[\d+m\]", "[5s]", re.sub(r"for: \w+", "for: 1s", rules))


@pytest.mark.full
@pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed")
def test_alerts_fire_and_clear_for_real_and_the_board_has_rows(tmp_path: Path) -> None:
    store = Server(tmp_path / "store", "--appendonly", "yes", "--appendfsync", "always")
    flags = ("--redis", f"redis://127.0.0.1:{store.port}", "--slow-store", "500", *METRICS)
    causes: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "PushserverStoreSlow": (
            lambda: store.ask("CLIENT", "PAUSE", 60_000, "WRITE"),
            lambda: store.ask("CLIENT", "UNPAUSE"),
        ),
        "PushserverStoreAway": (store.freeze, store.thaw),
        "PushserverRefusesPublishers": (lambda: None, lambda: None),
    }
    try:
        with (
            running(tmp_path / "data", *flags) as server,
            prometheus(tmp_path, server, scaled(RULES.read_text())) as http,
        ):
            server.publish_ok("storm", "one")
            until(lambda: bool(query(http, "pushserver_build_info")))
            for alert, (begin, end) in causes.items():
                begin()
                try:
                    until(lambda alert=alert: refuse(server) and is_firing(http, alert))  # type: ignore[misc]
                finally:
                    end()
                until(lambda alert=alert: not is_firing(http, alert))  # type: ignore[misc]
            until(lambda: all(query(http, text) or "> 0" in text for text in expressions()))
            server.process.terminate()
            until(lambda: is_firing(http, "PushserverDown"))
    finally:
        store.close()


def refuse(server: Running) -> bool:
    """Publish with a wrong key, in vain."""
    return server.publish("storm", {"headline": "x"}, Authorization="Bearer pk_wrong_0123456789").status_code in (
        401,
        503,
    )
