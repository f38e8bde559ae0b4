from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ..support.keys import keys_command
from ..support.server import ROOT, Running, clean_environment


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "x", "--can", "everything"),
        ("create", "x", "--expires", "soon"),
        ("create", "x", "--expires", "2026-07-01T00:00:00Z"),  # past: nothing would accept the key
        ("create", "x", "--streams", "Desk-*"),
        ("create", "x", "--streams", "desk-*,desk_*"),
        ("list", "--redis", "redis://u:p/w@localhost"),
        ("create", "two\nlines"),
        ("create", "\x1b[2J"),
        ("create", " "),
        ("create", "x" * 101),
        ("revoke", "none"),
        ("create", "x", "--rate", "0"),
        ("list", "--redis", "localhost:6379"),
        ("list", "--redis", "redis://localhost:port"),
    ],
)
def test_a_bad_command_says_what_was_expected(server: Running, arguments: tuple[str, ...]) -> None:
    done = keys_command(server, *arguments)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "expected" in done.stderr or "not in the range" in done.stderr


def test_a_new_key_is_all_of_standard_output_and_said_to_be_shown_once(server: Running) -> None:
    done = keys_command(server, "create", "desk")
    assert re.fullmatch(r"pk_\S+\n", done.stdout)
    assert "shown only once" in done.stderr


def test_without_a_store_the_command_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pushserver", "keys", "list", "--data", f"{tmp_path}/none"],
        cwd=ROOT,
        env={**clean_environment(), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "expected a running server" in done.stderr) == (1, True)
