"""Real load balancers before servers, with the files of deploy/ and nothing changed but names and addresses."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from .ports import free_port
from .server import ROOT, STOP_LIMIT, Running, until

DEPLOY = ROOT / "deploy"
BALANCERS = ("nginx", "haproxy", "caddy")


class Balancer(NamedTuple):
    """A Balancer is a running proxy: its own address, and the file of what it says."""

    url: str
    log: Path


def program(name: str) -> str:
    """The path of a program of Debian's; the test is skipped where it is not installed."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


@contextmanager
def balancer(name: str, folder: Path, servers: Sequence[Running | str]) -> Iterator[Balancer]:
    """A proxy before servers."""
    port = free_port()
    addresses = [(server if isinstance(server, str) else server.url).removeprefix("http://") for server in servers]
    start = {"nginx": _nginx, "haproxy": _haproxy, "caddy": _caddy}[name]
    command, environment = start(folder, port, addresses)
    log = folder / f"{name}.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=output, stderr=output)
    try:
        until(lambda: process.poll() is not None or is_listening_on(port))
        assert process.poll() is None, log.read_text()
        yield Balancer(f"http://127.0.0.1:{port}", log)
    finally:
        process.terminate()
        process.wait(STOP_LIMIT)


def _nginx(folder: Path, port: int, addresses: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    text = (DEPLOY / "nginx.conf").read_text()
    for old, new in (
        ("/run/nginx.pid", f"{folder}/nginx.pid"),
        ("/var/log/nginx/error.log", f"{folder}/nginx.error.log"),
        ("/var/cache/nginx/pushserver", f"{folder}/cache"),
        ("listen 80;", f"listen 127.0.0.1:{port};"),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    text = re.sub(
        r"( +server )127\.0\.0\.1:8000( .*)",
        lambda line: "\n".join(f"{line[1]}{address}{line[2]}" for address in addresses),
        text,
    )
    file = folder / "nginx.conf"
    file.write_text(text)
    own = ["-g", "daemon off; user root;", "-e", str(folder / "nginx.error.log")]
    return [program("nginx"), "-c", str(file), *own], {}


def _haproxy(folder: Path, port: int, addresses: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    text = (DEPLOY / "haproxy.cfg").read_text()
    for number, word in enumerate(("ONE", "TWO", "THREE"), 1):
        line = next((line for line in text.splitlines() if f"SERVER_{word}" in line), None)
        if line is None and len(addresses) >= number:  # the file has two servers: one more is one more line
            text = text.replace(_server_line(2), f"{_server_line(2)}\n{_server_line(number)}")
        if line is not None and len(addresses) < number:
            text = text.replace(f"{line}\n", "")
    file = folder / "haproxy.cfg"
    file.write_text(text)
    names = dict(zip(("SERVER_ONE", "SERVER_TWO", "SERVER_THREE"), addresses, strict=False))
    return [program("haproxy"), "-db", "-f", str(file)], {"LISTEN": f"127.0.0.1:{port}", **names}


def _server_line(number: int) -> str:
    word, address = {2: ("two", "10.0.0.12:8000"), 3: ("three", "10.0.0.13:8000")}[number]
    return f'    server {word} "${{SERVER_{word.upper()}-{address}}}"'


def _caddy(folder: Path, port: int, addresses: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    # The administration's own port is taken where two run; the storage of certificates is not needed.
    file = folder / "Caddyfile"
    file.write_text("{\n\tadmin off\n}\n" + (DEPLOY / "Caddyfile").read_text())
    command = [program("caddy"), "run", "--config", str(file), "--adapter", "caddyfile"]
    names = {"SITE": f"http://127.0.0.1:{port}", "SERVERS": " ".join(addresses)}
    return command, {**names, "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}


def is_listening_on(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
