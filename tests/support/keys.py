"""Publish keys, made and revoked from the command line against a server's own store."""

from __future__ import annotations

import subprocess
import sys

from .server import ROOT, Running, clean_environment


def keys_command(server: Running, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`pushserver keys …`."""
    return subprocess.run(
        [sys.executable, "-m", "pushserver", "keys", *arguments],
        cwd=ROOT,
        env={**clean_environment(), "PUSHSERVER_DATA": str(server.data)},
        capture_output=True,
        text=True,
        check=False,
    )


def create_key(server: Running, *arguments: str) -> str:
    """The text of a new key, as a publisher sends it."""
    done = keys_command(server, "create", "desk", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def as_key(key: str) -> dict[str, str]:
    """The header that sends a key."""
    return {"Authorization": f"Bearer {key}"}
