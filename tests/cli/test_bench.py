"""`pushserver bench`: what it prints, and its exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..support.server import LIMIT, Run, Running, clean_environment


def test_it_measures_a_server_that_runs_and_shows_how_far_it_is(server: Running) -> None:
    shown, terminal = os.openpty()
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "pushserver", "bench", server.url, "--data", str(server.data)),
            *("--pid", str(server.process.pid), "--readers", "20", "--entries", "30", "--rate", "50"),
            *("--pages", "2"),
        ],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
    ) as process:
        printed, _ = process.communicate(timeout=LIMIT)
    os.close(terminal)
    live = os.read(shown, 65_536).decode()
    os.close(shown)
    assert process.returncode == 0, printed + live
    assert "600 of 600" in printed
    assert "a processor; its store" in printed
    assert "a second, 0 refused; p50" in printed
    assert "connecting" in live
    assert "delivering" in live
    streams = server.http.get("/", headers={"Accept": "application/json"}).text
    assert "Measured by pushserver bench" in streams


def test_it_measures_a_server_of_its_own(run: Run) -> None:
    done = run("bench", "--local", "--readers", "40", "--entries", "20", "--pages", "4", "--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert (printed["deliveries"], printed["missing"], printed["twice"], printed["whole"]) == (800, 0, 0, True)
    assert 0 < printed["late_ms"]["p50"] <= printed["late_ms"]["p99"] <= printed["late_ms"]["max"]
    assert printed["server"]["us_per_delivery"] > 0
    assert 0 < printed["server"]["writes_per_delivery"] < 3
    assert printed["store"]["us_per_entry"] > 0
    assert printed["page_loads"]["statuses"].keys() == {"200"}
    assert 0 < printed["page_loads"]["wait_ms"]["p50"] <= printed["page_loads"]["wait_ms"]["max"]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ((), 2, "Expected URL or --local"),
        (("http://127.0.0.1:1", "--local"), 2, "Expected URL or --local"),
        (("--local", "--readers", "30000"), 2, "1<=x<=20000"),
        (("--local", "--entries", "10000"), 2, "1<=x<=9000"),
        (("--local", "--limit", "601"), 2, "1<=x<=600"),
        (("ftp://127.0.0.1",), 2, "http:// or https://"),
        (("http://127.0.0.1:1",), 3, "expected a server at 127.0.0.1:1"),
    ],
)
def test_it_refuses_with_a_word(run: Run, arguments: tuple[str, ...], status: int, words: str) -> None:
    done = run("bench", *arguments)
    assert done.returncode == status
    assert words in done.stderr


def test_it_says_who_may_not_publish(run: Run, server: Running) -> None:
    done = run("bench", server.url, "--key", "not-a-key")
    assert done.returncode == 1
    assert "was refused: 401" in done.stderr


def test_it_says_that_files_are_too_few(tmp_path: Path) -> None:
    command = f"ulimit -n 300; exec {sys.executable} -m pushserver bench --local --readers 1000"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 1
    assert "expected a limit of at least 1064 open files, got 300" in done.stderr
