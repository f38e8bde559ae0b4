"""The program itself: its version, and its exit status for wrong usage."""

from __future__ import annotations

import pytest

import pushserver

from .support.commands import DONE, WRONG_USAGE
from .support.server import Run


def test_the_version_is_that_of_the_package(run: Run) -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (DONE, f"pushserver, version {pushserver.__version__}\n")


@pytest.mark.parametrize("arguments", [["nothing"], ["publish"], ["serve", "--port", "x"], ["serve", "--nothing"]])
def test_wrong_usage_is_told_apart(run: Run, arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (WRONG_USAGE, "")
    assert "Error: " in done.stderr
