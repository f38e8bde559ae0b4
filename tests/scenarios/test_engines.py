"""The live page in three engines: Chromium, Firefox and WebKitGTK.

A harness in the page, `support/engines.js`, does all and reports to the server. So a browser is only started with an
address, and no driver is needed. WebKit has no scroll anchoring of its own: there the page's is all.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pushserver.web import app

from ..support.judge import CHROMIUM, FLAGS
from ..support.pages import PAGE, put
from ..support.server import LIMIT, ROOT, STOP_LIMIT, Running
from ..support.worker import Serve, Worker

pytestmark = pytest.mark.full

HARNESS = ROOT / "tests" / "support" / "engines.js"
MINI_BROWSER = "/usr/lib/x86_64-linux-gnu/webkit2gtk-4.1/MiniBrowser"
CHECKS = ("anchoring", "queue", "merging", "focus", "healing")
ENGINES = {
    "chromium": [CHROMIUM, "--headless", *FLAGS, "--user-data-dir={profile}", "--window-size=1000,700"],
    "firefox": [shutil.which("firefox-esr"), "--headless", "--no-remote", "--profile", "{profile}"],
    "webkit": [shutil.which("xvfb-run"), "-a", MINI_BROWSER, "--geometry=1000x700"],
}
ENVIRONMENT = {
    "WEBKIT_DISABLE_COMPOSITING_MODE": "1",
    "WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS": "1",
    "LC_ALL": "C.UTF-8",
}


@contextmanager
def opened(engine: str, address: str, profile: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A browser that shows an address, and all its processes, until the test is over."""
    command = [str(part).format(profile=profile) for part in ENGINES[engine]]
    environment = {**os.environ, **ENVIRONMENT, "HOME": str(profile)}
    with (profile / "log").open("wb") as log:
        browser = subprocess.Popen([*command, address], env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            yield browser
        finally:
            os.killpg(browser.pid, signal.SIGTERM)
            browser.wait(STOP_LIMIT)


def with_harness(folder: Path) -> Path:
    """The static files, with the harness beside the page's script."""
    static = folder / "static"
    shutil.copytree(ROOT / "static", static)
    shutil.copy(HARNESS, static / "harness.js")
    boot = static / "boot.js"
    boot.write_text(f'{boot.read_text()}\nimport("./harness.js");\n')
    return static


def report(server: Worker, stream: str, browser: subprocess.Popen[bytes]) -> dict[str, str]:
    """Return what the harness says of each check, once it has ended."""
    end = time.monotonic() + LIMIT * 4
    while time.monotonic() < end and browser.poll() is None:
        answer = server.http.get(f"/streams/{stream}-report/entries")
        said = {entry["id"]: entry["headline"] for entry in answer.json().get("entries", [])}
        if "end" in said:
            return said
        time.sleep(0.2)
    raise AssertionError(f"the harness did not come to its end, with the browser's status {browser.poll()}")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_live_page_keeps_its_promises_in_every_engine(
    engine: str, server: Running, serve: Serve, stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not all(part and (part[0] != "/" or Path(part).exists()) for part in ENGINES[engine]):
        pytest.skip(f"{engine} is not installed")
    static = with_harness(tmp_path)
    monkeypatch.setattr(app, "static_folder", lambda: static)
    own = serve()
    own.put_page(stream, PAGE)
    for number in range(1, 13):
        put(own, stream, f"e{number:02}", published_at=f"2026-03-01T{number:02}:00:00Z")
    profile = tmp_path / "profile"
    profile.mkdir()
    with opened(engine, f"{own.url}/streams/{stream}#{own.key}", profile) as browser:
        said = report(own, stream, browser)
    assert {name: said.get(name) for name in CHECKS} == dict.fromkeys(CHECKS, "right"), said
