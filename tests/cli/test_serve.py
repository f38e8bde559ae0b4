"""`pushserver serve --help` is the list of settings."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from pushserver import settings

from ..support.commands import DONE
from ..support.processes import Start
from ..support.server import Run


def test_the_help_of_serve_lists_every_setting(run: Run) -> None:
    done = run("serve", "--help")
    assert done.returncode == DONE
    shown = " ".join(done.stdout.split())
    for field in settings.KNOBS:
        assert re.search(rf"--{field.name.replace('_', '-')}[ ,/]", shown)
        assert field.metadata["help"] in shown
        for variable in settings.variables(field.name):
            assert variable in shown


@pytest.mark.parametrize("name", ["My Project", 'it\'s $HOME `x` "y"', "news#1", "100%?"])
def test_the_printed_lines_work_when_they_are_pasted(start: Start, name: str, tmp_path: Path) -> None:
    server = start(name=name)
    (line,) = re.findall(r"^  publish  +(curl .+)$", server.greeting, re.MULTILINE)
    done = subprocess.run(
        ["bash", "-c", f"{line} --silent --fail"], capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    assert server.snapshot("demo")["entries"][0]["headline"] == "Hello from the command line"
    (path,) = re.findall(r"^  publish key  (.+)$", server.greeting, re.MULTILINE)
    assert shlex.split(path) == [str(tmp_path / name / "publish.key")]


def test_a_path_that_is_not_utf_8_is_printed_as_it_is(start: Start, tmp_path: Path) -> None:
    server = start(name=os.fsdecode(b"latin-\xe9"))
    assert server.publish_ok("demo", "one")["n"] == 1
