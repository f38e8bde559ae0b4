"""The program itself: its version, and its exit status for wrong usage."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import pushserver

from .support.commands import DONE, REFUSED, WRONG_USAGE
from .support.keys import create_key
from .support.server import LIMIT, ROOT, Run, Running, clean_environment


def test_the_version_is_that_of_the_package(run: Run) -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (DONE, f"pushserver, version {pushserver.__version__}\n")


@pytest.mark.parametrize("arguments", [["nothing"], ["publish"], ["serve", "--port", "x"], ["serve", "--nothing"]])
def test_wrong_usage_is_told_apart(run: Run, arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (WRONG_USAGE, "")
    assert "Error: " in done.stderr


@pytest.mark.parametrize("present", [(), ("click",)])  # other packages bring click with them
def test_a_command_without_its_packages_ends_with_a_sentence(tmp_path: Path, present: tuple[str, ...]) -> None:
    for name in present:
        (tmp_path / name).symlink_to(Path(str(importlib.import_module(name).__file__)).parent)
    done = subprocess.run(
        [sys.executable, "-S", "-m", "pushserver", "publish", "storm"],  # -S: none of the installed packages is found
        cwd=ROOT,
        env={**clean_environment(), "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (WRONG_USAGE, "", 1), done.stderr
    assert done.stderr.startswith("pushserver: the commands need the whole package: install pushserver without")


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["serve", "--help"], "/dev/full"),
        (["export", "{stream}"], "/dev/full"),
        (["keys", "list"], "/dev/full"),
        (["export", "{stream}"], "a closed pipe"),
        (["tail", "{stream}"], "a closed pipe"),
    ],
)
def test_output_that_cannot_be_written_ends_with_a_sentence(
    server: Running, stream: str, arguments: list[str], output: str
) -> None:
    server.publish_ok(stream, "One")
    create_key(server)
    read, write = (
        os.pipe() if output != "/dev/full" else (os.open("/dev/null", os.O_RDONLY), os.open(output, os.O_WRONLY))
    )
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "pushserver", *(word.format(stream=stream) for word in arguments)],
        cwd=ROOT,
        env={**clean_environment(), "PUSHSERVER_URL": server.url, "PUSHSERVER_DATA": str(server.data)},
        stdin=subprocess.DEVNULL,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    os.close(write)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    if arguments[0] == "tail" and output != "/dev/full":
        assert (done.returncode, done.stderr) == (DONE, "")  # who reads has enough
    else:
        assert done.returncode == REFUSED, done.stderr
        assert "output is not whole" in done.stderr
