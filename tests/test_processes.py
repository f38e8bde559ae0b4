from __future__ import annotations

import asyncio
import signal
import sys

import pytest

from pushserver import processes

READY = "print('ready', flush=True)"


async def started(code: str) -> asyncio.subprocess.Process:
    """A Python process that has printed `ready`."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.anyio
async def test_a_process_that_ends_when_asked_is_not_killed() -> None:
    process = await started(f"import signal; {READY}; signal.pause()")
    assert await processes.stop(process, 60) is False
    assert process.returncode == -signal.SIGTERM


@pytest.mark.anyio
async def test_a_process_that_does_not_end_is_killed() -> None:
    process = await started(f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {READY}; signal.pause()")
    assert await processes.stop(process, 0.1) is True
    assert process.returncode == -signal.SIGKILL


@pytest.mark.anyio
async def test_a_process_that_has_ended_is_left_alone() -> None:
    process = await started(READY)
    await process.wait()
    assert await processes.stop(process, 60) is False
    assert process.returncode == 0


@pytest.mark.anyio
async def test_a_process_that_says_much_at_its_end_is_not_killed() -> None:
    """More than a pipe and its reader hold: it could not end if nobody read."""
    wait = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])"
    last_words = "signal.sigwait([signal.SIGTERM]); print('x' * 2**20); sys.exit(3)"
    process = await started(f"import signal, sys; {wait}; {READY}; {last_words}")
    assert await processes.stop(process, 60) is False
    assert process.returncode == 3
