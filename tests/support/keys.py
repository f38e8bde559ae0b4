"""Publish keys, made and revoked from the command line against a server's own store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from subprocess import CompletedProcess

from click.testing import CliRunner

from pushserver.cli.keys import keys

from .server import Running


def keys_command(server: Running, *arguments: str) -> CompletedProcess[str]:
    """`pushserver keys …`, in a thread of the test's own process: a process for each key would cost a second."""
    environment = {"PUSHSERVER_DATA": str(server.data), "PUSHSERVER_REDIS": None, "REDIS_URL": None}
    run = partial(CliRunner(env=environment).invoke, keys, arguments, prog_name="pushserver keys")
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(run).result()
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def create_key(server: Running, *arguments: str) -> str:
    """The text of a new key, as a publisher sends it."""
    done = keys_command(server, "create", "desk", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def as_key(key: str) -> dict[str, str]:
    """The header that sends a key."""
    return {"Authorization": f"Bearer {key}"}
