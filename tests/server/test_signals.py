from __future__ import annotations

import asyncio
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pushserver.server.signals import NUMBERS, Signals

from ..support.processes import eventually
from ..support.server import ROOT, STOP_LIMIT, clean_environment

pytestmark = pytest.mark.anyio


HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


def state(signals: Signals) -> tuple[bool, bool, bool, bool]:
    return signals.stop.is_set(), signals.hurry.is_set(), signals.cut.is_set(), signals.restart.is_set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_first_signal_stops_the_second_hurries_and_the_third_cuts(number: int) -> None:
    signals = Signals(in_terminal=False)
    states = []
    for _ in range(4):
        signals.take(number)
        states.append(state(signals)[:3])
    assert states == [(True, False, False), (True, True, False), (True, True, True), (True, True, True)]
    assert not signals.from_terminal


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2])
async def test_a_restart_is_asked_for_by_two_signals(number: int) -> None:
    signals = Signals(in_terminal=False)
    signals.take(number)
    assert state(signals) == (False, False, False, True)


@pytest.mark.parametrize(
    ("number", "stops", "waits_for_nobody"),
    [
        (signal.SIGHUP, True, True),
        (signal.SIGINT, True, True),
        (signal.SIGTERM, True, False),
        (signal.SIGUSR2, False, False),
    ],
)
async def test_what_a_terminal_sends_stops_and_waits_for_no_balancer(
    number: int, stops: bool, waits_for_nobody: bool
) -> None:
    signals = Signals(in_terminal=True)
    signals.take(number)
    assert (signals.stop.is_set(), signals.from_terminal) == (stops, waits_for_nobody)


async def test_a_signal_after_the_end_changes_nothing() -> None:
    before = {number: signal.getsignal(number) for number in NUMBERS}
    try:
        signals = Signals.install()
        signals.ignore()
        os.kill(os.getpid(), signal.SIGTERM)
        assert state(signals) == (False, False, False, False)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def test_a_terminal_that_is_closed_stops_the_server(tmp_path: Path) -> None:
    """The kernel sends SIGHUP to the process that the terminal controls; --drain-delay is not waited out."""
    master, terminal = pty.openpty()
    log = tmp_path / "log"
    command = [sys.executable, "-m", "pushserver", "serve", "--port", "0", "--data", str(tmp_path / "data")]
    with log.open("w") as output:
        process = subprocess.Popen(
            # A process that has no terminal and opens one is controlled by it.
            ["sh", "-c", 'exec "$@" < "$0"', os.ttyname(terminal), *command],
            cwd=ROOT,
            env={**clean_environment(), "PUSHSERVER_DRAIN_DELAY": "300"},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        await eventually(lambda: "pushserver is ready" in log.read_text())
    finally:
        os.close(terminal)
        os.close(master)
    assert process.wait(STOP_LIMIT) == 0
    assert "server stopping" in log.read_text()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGUSR2])
async def test_a_signal_that_was_ignored_at_the_start_stays_ignored(number: int) -> None:
    """`nohup` has SIGHUP ignored, and a shell SIGINT for what runs in the background."""
    before = {each: signal.getsignal(each) for each in (*HANDLED, number)}
    signal.signal(number, signal.SIG_IGN)
    loop = asyncio.get_running_loop()
    try:
        Signals.install()
        assert signal.getsignal(number) is signal.SIG_IGN
        assert [each for each in HANDLED if signal.getsignal(each) is not signal.SIG_IGN] == [
            each for each in HANDLED if each != number
        ]
    finally:
        for each, handler in before.items():
            loop.remove_signal_handler(each)
            signal.signal(each, handler)
