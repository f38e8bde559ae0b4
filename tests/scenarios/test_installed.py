"""The sdist makes the wheel, and a server that is installed from the wheel works outside of the checkout."""

from __future__ import annotations

import re
import subprocess
import zipfile
from pathlib import Path

import httpx2
import pytest

from ..support.installed import build, environment
from ..support.server import ROOT, STOP_LIMIT, clean_environment

pytestmark = pytest.mark.full  # pip makes an environment

DATA = {".lua", ".html", ".jsonl", ".js", ".css", ".svg", ".typed"}  # what a wheel has beside modules


def data_files() -> set[str]:
    """The files that a wheel must have, by their names in it."""
    static = {f"pushserver/static/{path.relative_to(ROOT / 'static')}" for path in (ROOT / "static").rglob("*.*")}
    return static | {str(path.relative_to(ROOT)) for path in (ROOT / "pushserver").rglob("*.*") if path.suffix in DATA}


def test_an_installed_server_serves_its_demo(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    subprocess.run(["tar", "-xf", build("sdist", tmp_path / "sdist"), "-C", tmp_path / "source"], check=True)
    (source,) = (tmp_path / "source").iterdir()
    wheel = build("wheel", tmp_path / "wheel", source=source)
    assert data_files() <= set(zipfile.ZipFile(wheel).namelist())
    python = environment(tmp_path / "venv", wheel, ["pushserver"])
    with subprocess.Popen(
        [str(python), "-m", "pushserver", "serve", "--port", "0", "--data", str(tmp_path / "data"), "--demo"],
        cwd=tmp_path,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            match = next(filter(None, (re.search(r"live demo +(http://\S+)", line) for line in process.stdout)))
            page = httpx2.get(match[1], headers={"Accept": "text/html"})
            assert (page.status_code, "<article" in page.text) == (200, True)
            assert httpx2.get(httpx2.URL(match[1]).join("/static/page.js")).status_code == 200
        finally:
            process.terminate()
            process.communicate(timeout=STOP_LIMIT)
    assert process.returncode == 0
