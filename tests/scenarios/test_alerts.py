"""The alerts and the board of deploy/: what they name is in a scrape, and each alert's times are as they are meant.

`test_alerts_caused.py` causes each alert for real.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ..support.prometheus import PROMTOOL, needs_promtool
from ..support.scrapes import ask
from ..support.server import LIMIT, ROOT, Running

RULES, BOARD = ROOT / "deploy" / "alerts.yml", ROOT / "deploy" / "grafana.json"
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
    "PushserverLogGone": {
        'pushserver_resets_total{reason="epoch"}': ("0", "0"),
        'pushserver_resets_total{reason="empty"}': ("0", "+1"),
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
        'pushserver_workers{state="serving"}': ("1", "0"),
        'pushserver_workers{state="starting"}': ("0", "1"),
        'pushserver_workers{state="leaving"}': ("0", "0"),
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


def labelled(series: str) -> str:
    """A series with the labels that Prometheus adds to it: an expression has to match series with them, too."""
    name, _, labels = series.rstrip("}").partition("{")
    added = [label for label in ('job="pushserver"', 'instance="one:9600"') if label not in labels]
    return f"{name}{{{','.join(filter(None, [labels, *added]))}}}"


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
                "input_series": [{"series": labelled(name), "values": values(*pair)} for name, pair in series.items()],
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


def test_every_alert_that_a_page_names_is_there() -> None:
    named = {
        name for page in (ROOT / "docs").glob("*.md") for name in re.findall(r"Pushserver[A-Z]\w+", page.read_text())
    }
    assert named <= set(ALERTS)
    assert {"PushserverStoreAway", "PushserverDiskFull"} <= named


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
