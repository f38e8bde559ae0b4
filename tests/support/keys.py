"""Publish keys, made and revoked from the command line against a server's own store."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from subprocess import CompletedProcess
from typing import Any

import redis
from click.testing import CliRunner

from pushserver.access.keystore import KEYS
from pushserver.cli.keys import keys
from pushserver.store.folder import SOCKET

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


def expired_key(server: Running, expires: str) -> str:
    """The text of a key that expired at an instant that is past: no command makes one."""
    key = create_key(server)
    id = key.split("_")[1]
    with redis.Redis(unix_socket_path=str(server.data / SOCKET)) as store:
        stored: Any = store.hget(KEYS, id)
        store.hset(KEYS, id, json.dumps({**json.loads(stored), "expires": expires}))
    return key


def as_key(key: str) -> dict[str, str]:
    """The header that sends a key."""
    return {"Authorization": f"Bearer {key}"}
