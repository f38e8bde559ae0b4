"""docs/troubleshooting.md: its proxy passes WebSockets on, and what it says of a status or a code is in the code."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Origin

from pushserver.page.words import words
from pushserver.wire.codes import Close

from ..support.ports import free_port
from ..support.server import ROOT, Running, receive, until

pytestmark = pytest.mark.anyio

TEXT = (ROOT / "docs" / "troubleshooting.md").read_text()
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_what_the_page_says_is_what_the_table_has() -> None:
    (table,) = re.findall(r"^\| the page says .*\n.*\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    said = {text.partition("{")[0].strip() for text in json.loads(words("en").script).values() if isinstance(text, str)}
    for row in table.splitlines():
        for text in row.split("|")[1].split(" or "):
            assert text.strip().removesuffix(" for ever").removesuffix(" …") in said, text


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
async def test_the_proxy_of_the_page_passes_websockets_on(tmp_path: Path, server: Running, stream: str) -> None:
    piece, *_ = re.findall(r"^```nginx\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    port = free_port()
    site = piece.replace("http://127.0.0.1:8000", server.url).replace("listen 80;", f"listen 127.0.0.1:{port};")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = " ".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in kinds)
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {tmp_path}/nginx.pid; error_log {tmp_path}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off; {folders}\n{site} }}\n"
    )
    server.publish_ok(stream, "Through nginx")
    with subprocess.Popen([str(NGINX), "-c", str(tmp_path / "nginx.conf"), "-e", os.devnull]) as proxy:
        try:
            until(lambda: proxy.poll() is not None or is_listening(port))
            address, origin = f"ws://127.0.0.1:{port}/streams/{stream}/ws", Origin(f"http://127.0.0.1:{port}")
            async with connect(address, origin=origin, proxy=None) as connection:
                assert (await receive(connection, "snapshot"))["entries"][0]["headline"] == "Through nginx"
        finally:
            proxy.terminate()


@pytest.mark.parametrize("code", [Close.TOKEN_EXPIRED, Close.TOO_SLOW, Close.ENDED, Close.BAD_MESSAGE, Close.RESTART])
def test_the_page_has_the_codes_that_clients_ask_about(code: Close) -> None:
    assert f"`{code.value}`" in TEXT


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 410, 412, 413, 415, 422, 426, 429, 500, 503])
def test_the_page_has_every_status_that_refuses(status: int) -> None:
    assert f"| `{status}` |" in TEXT


async def test_the_checks_of_the_page_are_those_of_the_probe(server: Running) -> None:
    answers = [server.http.get(probe).json() for probe in ("/readyz", "/readyz/read")]
    checks = {name for answer in answers for name in answer} - {"ready", "reasons"}
    (section,) = re.findall(r"^## `/readyz` answers 503\n(.*?)^## ", TEXT, re.DOTALL | re.MULTILINE)
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == checks


def test_the_lines_of_the_log_that_the_page_explains_are_logged() -> None:
    code = "".join(path.read_text() for path in (ROOT / "pushserver").rglob("*.py"))
    (section,) = re.findall(r"^## What a line of the log means\n(.*?)^## ", TEXT, re.DOTALL | re.MULTILINE)
    fragments = re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
    assert fragments
    for fragment in [*fragments, *re.findall(r"log: `([^`]+)`", TEXT)]:
        assert fragment in code, fragment


def warnings_of(module: ast.Module) -> set[str]:
    """Return the texts that a module logs as a warning or worse, by itself or through a Trouble or a Tally."""
    named: dict[str, list[ast.expr]] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            named.setdefault(node.targets[0].id, []).append(node.value)
    texts: list[ast.expr] = []
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            said = {"failed": node.args[:1], "note": node.args[1:2]}.get(node.func.attr, [])
            if ast.unparse(node.func.value) == "logger" and node.func.attr not in ("debug", "info"):
                said = node.args[:1]
            for text in said:
                texts += named.get(text.id, []) if isinstance(text, ast.Name) else [text]
    return {text.value for text in texts if isinstance(text, ast.Constant) and isinstance(text.value, str)}


def test_the_page_explains_every_line_that_is_a_warning_or_worse() -> None:
    packages = ("access", "live", "publishing", "server", "store", "surfaces", "transport", "web")
    files = [path for package in packages for path in (ROOT / "pushserver" / package).rglob("*.py")]
    lines = {line for path in files for line in warnings_of(ast.parse(path.read_text()))}
    lines.remove("%s")  # a finding of a check, which says itself what to do
    (section,) = re.findall(r"^## What a line of the log means\n(.*?)^## ", TEXT, re.DOTALL | re.MULTILINE)
    cells = [*re.findall(r"^\| (`.+?) \|", section, re.MULTILINE), *re.findall(r"log: (`[^`]+`)", TEXT)]
    explained = [fragment for cell in cells for fragment in cell.split("`")[1::2]]
    assert [line for line in lines if not any(fragment in line for fragment in explained)] == []
