"""Debian's nginx, for what stands between browsers and servers."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .server import STOP_LIMIT

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
UPGRADES = (  # for a location that passes WebSockets on
    "proxy_http_version 1.1;",
    "proxy_set_header Upgrade $http_upgrade;",
    "proxy_set_header Connection $connection_upgrade;",
    "proxy_set_header Host $http_host;",
)
MAP = "map $http_upgrade $connection_upgrade { default upgrade; '' close; }"


@contextmanager
def nginx(folder: Path, *server: str, http: str = "") -> Iterator[str]:
    """nginx with these directives of one server, and of its http block. Its address."""
    if NGINX is None:
        pytest.skip("nginx is not installed")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    temporary = [f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")]
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off; {' '.join(temporary)}\n{http}\n"
        f"server {{ listen 127.0.0.1:{port};\n" + "\n".join(server) + "\n} }\n"
    )
    process = subprocess.Popen([NGINX, "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")])
    try:
        while process.poll() is None and not is_listening(port):
            time.sleep(0.02)
        assert process.poll() is None, (folder / "error.log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(STOP_LIMIT)


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
