"""nginx as `deploy/nginx.conf` has it, before a server of a test, and what reaches that server."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .server import LIMIT, ROOT, STOP_LIMIT

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
SHIPPED = ROOT / "deploy" / "nginx.conf"

# It stands between the cache and the workers, and has a line for each request that the cache lets through.
COUNTER = """
    log_format reached '$request_method $request_uri $http_accept_encoding';
    server {{
        listen 127.0.0.1:{port};
        access_log {log} reached;
        location / {{
            proxy_pass {server};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $reader_connection;
            proxy_buffering off;
        }}
    }}
"""


class Nginx:
    """An nginx that runs with the configuration in a folder. Its address is `url`."""

    def __init__(self, folder: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._log = folder / "reached.log"

    def reached(self) -> Counter[str]:
        """The number of times that each request, such as `GET /streams/a gzip`, came to the server."""
        return Counter(self._log.read_text().splitlines())


@contextmanager
def shipped(folder: Path, server: str, *changes: tuple[str, str]) -> Iterator[Nginx]:
    """nginx with the shipped file, but for its addresses and folders, and these texts in the place of others."""
    port, counter = unused_ports(2)
    text = SHIPPED.read_text().replace("server 127.0.0.1:8000", f"server 127.0.0.1:{counter}")
    for old, new in (
        ("/run/nginx.pid", f"{folder}/nginx.pid"),
        ("/var/log/nginx/error.log", f"{folder}/error.log"),
        ("/var/cache/nginx/pushserver", f"{folder}/cache"),
        ("listen 80;", f"listen 127.0.0.1:{port};"),
        ("http {\n", "http {\n" + COUNTER.format(port=counter, log=folder / "reached.log", server=server)),
        *changes,
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / "nginx.conf").write_text(text)
    command = [NGINX or "nginx", "-c", str(folder / "nginx.conf"), "-g", "daemon off; user root;"]
    process = subprocess.Popen([*command, "-e", str(folder / "error.log")])
    try:
        deadline = time.monotonic() + LIMIT
        while process.poll() is None and not is_listening(port) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert process.poll() is None, (folder / "error.log").read_text()
        yield Nginx(folder, port)
    finally:
        process.terminate()
        process.wait(STOP_LIMIT)


def unused_ports(count: int) -> list[int]:
    """Ports on which nobody listens."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
