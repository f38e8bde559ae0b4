"""The files of deploy/ do in front of real servers what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Origin

from ..support.balancers import BALANCERS, DEPLOY, balancer, program
from ..support.server import LIMIT, ROOT, Running, receive, until

pytestmark = pytest.mark.anyio

each_balancer = pytest.mark.parametrize("name", BALANCERS)
HOSTILE = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}


@pytest.mark.full
@each_balancer
async def test_a_balancer_passes_on_what_readers_and_scripts_need(
    name: str, tmp_path: Path, server: Running, stream: str
) -> None:
    server.publish_ok(stream, "Before")
    with balancer(name, tmp_path, [server]) as proxy, httpx2.Client(base_url=proxy.url, timeout=LIMIT) as http:
        until(lambda: http.get("/readyz").status_code == 200)  # it has asked the server how it is
        origin = Origin(proxy.url)
        async with connect(
            f"{proxy.url.replace('http', 'ws')}/streams/{stream}/ws", origin=origin, proxy=None
        ) as socket:
            await receive(socket, "snapshot")
            answer = http.post(
                f"/streams/{stream}/entries",
                json={"headline": "Through it"},
                headers={"Authorization": f"Bearer {server.key}"},
            )
            assert answer.status_code == 201
            assert (await receive(socket, "entry.put"))["entry"]["headline"] == "Through it"
        assert "Through it" in http.get(f"/streams/{stream}").text
        with http.stream("GET", f"/streams/{stream}/sse") as events:
            assert any("Through it" in line for line in events.iter_lines() if line.startswith("data:"))
        assert http.get("/metrics").status_code == 404, "metrics are not for readers"


@pytest.mark.full
@each_balancer
async def test_a_balancer_leaves_out_a_server_that_is_not_ready(
    name: str, tmp_path: Path, start: Callable[..., Running], stream: str, server: Running
) -> None:
    other = start()
    server.publish_ok(stream, "Here")
    with balancer(name, tmp_path, [server, other]) as proxy, httpx2.Client(base_url=proxy.url, timeout=LIMIT) as http:
        until(lambda: {http.get(f"/streams/{stream}").status_code for _ in range(4)} == {200, 404})  # both take part
        other.stop()
        until(lambda: {http.get(f"/streams/{stream}").status_code for _ in range(4)} == {200})
        assert {http.get(f"/streams/{stream}").status_code for _ in range(40)} == {200}


def test_a_unit_of_systemd_is_right_and_shut_tight(tmp_path: Path) -> None:
    analyze = program("systemd-analyze")
    unit = tmp_path / "pushserver.service"
    text = (DEPLOY / "pushserver.service").read_text()
    unit.write_text(text.replace("/opt/pushserver/bin/pushserver", program("true")))  # it is not installed here
    verified = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    rated = subprocess.run(
        [analyze, "security", "--offline=true", "--threshold=20", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert rated.returncode == 0, rated.stdout


def test_each_variable_of_a_file_is_a_setting() -> None:
    settings = (ROOT / "docs" / "settings.md").read_text()
    for path in DEPLOY.iterdir():
        for name in re.findall(r"PUSHSERVER_[A-Z_]+", path.read_text()):
            assert f"`{name}`" in settings, f"{path.name} has {name}"


def test_each_command_and_setting_of_the_page_exists() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    settings = (ROOT / "docs" / "settings.md").read_text()
    commands = set(re.findall(r"pushserver ([a-z]+) [A-Za-z-]", text))
    assert {"withdraw", "backup", "export"} <= commands
    for command in commands:
        help_ = subprocess.run(
            [sys.executable, "-m", "pushserver", command, "--help"], capture_output=True, check=False
        )
        assert help_.returncode == 0, command
    for flag in re.findall(r"`(--[a-z-]+)`", text):
        assert f"`{flag}`" in settings, flag
