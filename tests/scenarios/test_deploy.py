"""The files of deploy/ do in front of real servers what they say."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from bench import deploys

from ..support import confined
from ..support.balancers import BALANCERS, DEPLOY, balancer, program
from ..support.ports import free_port
from ..support.processes import eventually
from ..support.server import KEY, LIMIT, ROOT, STOP_LIMIT, Running, clean_environment, reader, receive, until
from ..support.worker import Serve

pytestmark = pytest.mark.anyio

each_balancer = pytest.mark.parametrize("name", BALANCERS)
FEW = 60  # readers


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
@pytest.mark.parametrize("name", ["haproxy", "caddy"])  # nginx asks no server how it is, and its cache answers here
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


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "noticed"),
    [("haproxy", "backend 'live' has no server available"), ("caddy", '"status code out of tolerances"')],
)
async def test_servers_that_are_all_full_take_publishes_and_say_themselves_when_to_come_back(
    name: str, noticed: str, tmp_path: Path, server: Running, serve: Serve, stream: str
) -> None:
    """Each is not ready then: a balancer that leaves out all of them would refuse publishes for a storm of readers."""
    server.publish_ok(stream, "Before")
    both = [serve("--readers", "1"), serve("--readers", "1")]
    key = {"Authorization": f"Bearer {server.key}"}
    async with reader(both[0], stream) as one, reader(both[1], stream) as two:
        for socket in (one, two):
            await receive(socket, "snapshot")
        with balancer(name, tmp_path, [each.url for each in both]) as proxy:
            # HAProxy says it once, Caddy of each server.
            await eventually(lambda: proxy.log.read_text().count(noticed) >= (1 if name == "haproxy" else len(both)))
            async with httpx2.AsyncClient(base_url=proxy.url, timeout=LIMIT) as http:
                answer = await http.post(f"/streams/{stream}/entries", json={"headline": "x"}, headers=key)
                assert answer.status_code == 201
                assert (await http.get(f"/streams/{stream}")).status_code == 200
            address = f"{proxy.url.replace('http', 'ws')}/streams/{stream}/ws"
            with pytest.raises(InvalidStatus) as refused:
                await connect(address, proxy=None, open_timeout=LIMIT)
            headers = refused.value.response.headers
            assert (refused.value.response.status_code, headers["Content-Type"]) == (503, "application/problem+json")
            assert int(headers["Retry-After"]) > 0


class Mute(BaseHTTPRequestHandler):
    """A server that is ready, and ends the connection of each publish without an answer. It notes the keys."""

    keys: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.keys.append(self.headers["Idempotency-Key"])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.full
@pytest.mark.parametrize("name", ["nginx", "haproxy"])  # Caddy sends a body once
def test_a_publish_that_a_server_does_not_answer_is_sent_to_the_next_one_with_a_key(
    name: str, tmp_path: Path, server: Running, stream: str
) -> None:
    Mute.keys.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Mute) as mute:
        thread = threading.Thread(target=mute.serve_forever)
        thread.start()
        try:
            servers: list[Running | str] = [f"http://127.0.0.1:{mute.server_port}", server]
            with balancer(name, tmp_path, servers) as proxy, httpx2.Client(base_url=proxy.url, timeout=LIMIT) as http:
                until(lambda: http.get("/readyz").status_code == 200)
                keys = []
                while not Mute.keys:
                    answer = http.post(
                        f"/streams/{stream}/entries",
                        json={"headline": "Sent again"},
                        headers={"Authorization": f"Bearer {server.key}"},
                    )
                    assert answer.status_code == 201
                    keys.append(answer.headers["Idempotency-Key"])
        finally:
            mute.shutdown()
            thread.join()
    assert Mute.keys[0] == keys[-1]


@pytest.mark.full  # it waits for the delays that are shipped, of three servers
@each_balancer
async def test_servers_that_are_restarted_one_after_another_cost_no_publish_no_page_and_no_event(
    name: str, tmp_path: Path
) -> None:
    """`python -m bench.restarts` does the same with 1,000 readers."""
    with deploys.fleet(tmp_path) as fleet:
        deployed = await deploys.deploy(name, tmp_path, fleet, FEW)
    assert (deployed.published.failures, deployed.pages.failures, deployed.swarm.failures) == ({}, {}, {})
    assert (deployed.swarm.wrong, deployed.swarm.snapshots) == (0, 0)
    assert deployed.returns <= 1, "for each server that a reader was on"
    assert max(deployed.shares) <= 1.1 * FEW / (deploys.SERVERS - 1)


def test_the_units_of_systemd_are_right_and_shut_tight(tmp_path: Path) -> None:
    analyze = program("systemd-analyze")
    unit = tmp_path / "pushserver.service"
    text = (DEPLOY / "pushserver.service").read_text()
    unit.write_text(text.replace("/opt/pushserver/bin/pushserver", program("true")))  # it is not installed here
    socket = tmp_path / "pushserver.socket"
    socket.write_text((DEPLOY / "pushserver.socket").read_text())
    verified = subprocess.run([analyze, "verify", str(unit), str(socket)], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    rated = subprocess.run(
        [analyze, "security", "--offline=true", "--threshold=15", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert rated.returncode == 0, rated.stdout


@pytest.mark.full  # the unit's text is checked above
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a root that is read-only")
def test_the_command_of_the_unit_runs_below_its_limits(tmp_path: Path, stream: str) -> None:
    for name in ("systemd-analyze", "unshare", "setpriv"):
        program(name)
    state, temporary, log, port = tmp_path / "state", tmp_path / "tmp", tmp_path / "log", free_port()
    for folder in (state, temporary):
        folder.mkdir(mode=0o700)
    variables = {"PUSHSERVER_KEY": KEY, "PUSHSERVER_DRAIN_DELAY": "0"}
    with log.open("w") as output:
        server = subprocess.Popen(
            confined.command(state, "--port", str(port)),
            cwd=ROOT,
            env={**clean_environment(), **variables, **confined.environment(state, temporary)},
            stdout=output,
            stderr=output,
        )
    try:
        until(lambda: server.poll() is not None or "pushserver is ready" in log.read_text())
        assert server.poll() is None, log.read_text()
        limits = Path(f"/proc/{server.pid}/status").read_text()
        assert {"CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} <= {*limits.splitlines()}
        root = [line.split() for line in Path(f"/proc/{server.pid}/mounts").read_text().splitlines()]
        assert [mount[3].split(",")[0] for mount in root if mount[1] == "/"][-1] == "ro"
        path, headers = f"http://127.0.0.1:{port}/streams/{stream}", {"Authorization": f"Bearer {KEY}"}
        assert httpx2.post(f"{path}/entries", json={"headline": "Shut tight"}, headers=headers).status_code == 201
        assert "Shut tight" in httpx2.get(path).text
        server.send_signal(signal.SIGHUP)  # systemctl reload
        until(lambda: "all workers have been restarted" in log.read_text())
    finally:
        server.terminate()
        assert server.wait(STOP_LIMIT) == 0
    assert "Traceback" not in log.read_text()
    assert {path.stat().st_mode & 0o077 for path in state.iterdir()} == {0}


def test_each_variable_of_a_file_is_a_setting() -> None:
    settings = (ROOT / "docs" / "settings.md").read_text()
    for path in DEPLOY.iterdir():
        for name in re.findall(r"PUSHSERVER_[A-Z_]+", path.read_text()):
            assert f"`{name}`" in settings, f"{path.name} has {name}"


def test_each_file_that_is_mounted_is_shipped() -> None:
    mounted = re.findall(r'"\./([^:]+):', (DEPLOY / "compose.yaml").read_text())
    assert mounted
    assert all((DEPLOY / name).is_file() for name in mounted), mounted
