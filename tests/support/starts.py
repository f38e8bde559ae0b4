"""Servers that cannot start, each a process: one that has loaded the program forks for each of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .server import ROOT, clean_environment

PROGRAM = """
import json, os, sys
from pushserver.__main__ import main
from pushserver.cli import serve

for line in sys.stdin:
    arguments, *files = json.loads(line)
    child = os.fork()
    if not child:
        for descriptor, path in enumerate(files, 1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        main(["serve", *arguments], prog_name="pushserver")
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Starts:
    """Starts is the process that has loaded the program."""

    def __init__(self, folder: Path) -> None:
        self._files = [folder / "stdout", folder / "stderr"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            cwd=ROOT,
            env=clean_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def serve(self, *arguments: str) -> tuple[int, str]:
        """The exit status of a server that does not start, and what it said, its settings aside."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([arguments, *map(str, self._files)]) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        printed, said = (file.read_text() for file in self._files)
        assert printed == ""
        return status, said

    def close(self) -> None:
        self._process.communicate()


@contextmanager
def starts(folder: Path) -> Iterator[Starts]:
    process = Starts(folder)
    try:
        yield process
    finally:
        process.close()
