"""`pushserver status` shows a running server: once, as JSON, and live in a terminal."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress

import pytest
from click.testing import CliRunner

from pushserver.__main__ import main

from ..support.commands import DONE, NOT_REACHED, WRONG_USAGE
from ..support.scrapes import metrics_url
from ..support.server import ROOT, STOP_LIMIT, Running, clean_environment

DRAWN = b"\x1b[H"  # before each view of a terminal


def test_the_status_is_printed_once_where_there_is_no_terminal(server: Running) -> None:
    done = CliRunner().invoke(main, ["status", metrics_url(server)])
    assert done.exit_code == DONE, done.output
    assert done.stdout.startswith("pushserver ")
    assert "slowest readers" in done.stdout
    assert "serving" in done.stdout


def test_the_status_is_json_for_programs(server: Running) -> None:
    done = CliRunner().invoke(main, ["status", "--json"], env={"PUSHSERVER_METRICS_PORT": metrics_url(server)[17:]})
    assert done.exit_code == DONE, done.output
    status = json.loads(done.stdout)
    assert [worker["place"] for worker in status["workers"]] == [1]
    assert {"totals", "slowest"} <= status.keys()


def test_the_address_that_serve_prints_will_do(server: Running) -> None:
    done = CliRunner().invoke(main, ["status", f"{metrics_url(server)}/metrics"])
    assert done.exit_code == DONE, done.output


@pytest.mark.parametrize("port", ["-1", "0", "port", "99999999"])
def test_a_variable_that_is_no_port_is_named(port: str) -> None:
    done = CliRunner().invoke(main, ["status"], env={"PUSHSERVER_METRICS_PORT": port})
    assert done.exit_code == WRONG_USAGE
    assert f"PUSHSERVER_METRICS_PORT: expected 1 to 65535, or a URL, got {port}." in done.stderr


def test_what_is_no_such_listener_is_a_sentence(server: Running, unused_url: str) -> None:
    for url, says in ((unused_url, "is not reached"), (server.url, "has no status")):
        done = CliRunner().invoke(main, ["status", url])
        assert (done.exit_code, done.stdout) == (NOT_REACHED, "")
        assert f"{url} {says}: " in done.stderr
        assert "--metrics-port" in done.stderr


def test_a_terminal_is_drawn_each_second_until_it_is_interrupted(server: Running) -> None:
    end, its = pty.openpty()
    command = [sys.executable, "-m", "pushserver", "status", metrics_url(server)]
    with subprocess.Popen(command, cwd=ROOT, env=clean_environment(), stdin=its, stdout=its, stderr=its) as process:
        os.close(its)
        shown = b""
        while shown.count(DRAWN) < 3:
            shown += os.read(end, 65_536)
        process.send_signal(signal.SIGINT)
        try:
            while part := os.read(end, 65_536):
                shown += part
        except OSError:  # the other end is closed
            pass
        assert process.wait(STOP_LIMIT) == DONE
    os.close(end)
    assert b"serving" in shown
    assert shown.rstrip().endswith(b"\x1b[?25h")  # the cursor is back
    assert b"Traceback" not in shown


@pytest.mark.parametrize("answer", [b"[]", b"{}", b"no JSON", b"[" * 100_000])
def test_an_answer_of_another_kind_is_refused(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    class Response:
        status = 200

        def read(self, limit: int) -> bytes:
            return answer

    monkeypatch.setattr("http.client.HTTPConnection.request", lambda *_: None)
    monkeypatch.setattr("http.client.HTTPConnection.getresponse", lambda *_: Response())
    done = CliRunner().invoke(main, ["status", "http://127.0.0.1:1"])
    assert done.exit_code == NOT_REACHED
    assert "Traceback" not in done.output


def test_an_answer_that_never_ends_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pushserver.cli.status.LIMIT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=drip, args=(listener,), daemon=True).start()
        done = CliRunner().invoke(main, ["status", f"http://127.0.0.1:{listener.getsockname()[1]}"])
    assert done.exit_code == NOT_REACHED
    assert "Traceback" not in done.output


def drip(listener: socket.socket) -> None:
    """Answer one request, a byte at a time, until the client has left."""
    client, _ = listener.accept()
    with client, suppress(OSError):
        client.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            client.sendall(b"a")
            client.settimeout(0.01)
            with suppress(TimeoutError):
                if not client.recv(65_536):
                    return
