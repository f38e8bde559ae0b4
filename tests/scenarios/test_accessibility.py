"""axe finds nothing wrong on a live page, in each of its states, light and dark, in both directions."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from ..support.pages import NEEDS_CHROMIUM, PAGE, filled, open_live, put, read
from ..support.server import ROOT, Running

pytestmark = [NEEDS_CHROMIUM, pytest.mark.full]
TABLE = {"type": "table", "head": ["Village", "Level"], "rows": [["Ambleford", "3.1 m"]]}
IMAGE = {
    "type": "image",
    "src": "/static/demo/harbour.svg",
    "width": 1200,
    "height": 800,
    "alt": "A quay",
    "caption": "The quay at noon.",
    "credit": "N. Brook",
}
POST = {"type": "social_post", "platform": "Mastodon", "author_name": "Ada", "text": "Stay in & stay dry"}
CORRECTION = {"body": "As it is.", "correction": {"class": "correction", "note": "It was otherwise."}}


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core."""
    folder = tmp_path_factory.mktemp("npm")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(ROOT / "tests" / "support" / "npm" / name, folder)
    command = [shutil.which("npm") or "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return Path(folder, "node_modules", "axe-core", "axe.min.js").read_text()


@pytest.fixture(params=["light", "dark"])
def page(request: pytest.FixtureRequest, chromium: Browser) -> Iterator[Page]:
    """A page whose CSP lets axe in; nothing fades while its contrast is looked at."""
    options: dict[str, Any] = {"color_scheme": request.param, "reduced_motion": "reduce", "bypass_csp": True}
    with chromium.new_context(timezone_id="Europe/Madrid", **options) as context:
        yield context.new_page()


def live(page: Page, server: Running, stream: str) -> None:
    filled(page, server, stream, 3)
    put(server, stream, "rich", blocks=[TABLE, IMAGE, POST], flags={"key": True, "breaking": True})
    put(server, stream, "pinned", flags={"pinned": True})
    server.send("PATCH", f"/streams/{stream}/entries/e01", CORRECTION)
    expect(page.locator("#since a")).to_be_visible()


def queued(page: Page, server: Running, stream: str) -> None:
    filled(page, server, stream)
    read(page, "e-e05")
    put(server, stream, "new")
    expect(page.locator("#notice")).to_be_visible()


def offline(page: Page, server: Running, stream: str) -> None:
    filled(page, server, stream, 2)
    page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    expect(page.locator("#status")).to_have_attribute("data-state", "waiting")


def ended(page: Page, server: Running, stream: str) -> None:
    filled(page, server, stream, 2)
    server.send("POST", f"/streams/{stream}/end", {"next": {"label": "More", "url": "https://news.example/"}})
    expect(page.locator("#status")).to_have_attribute("data-state", "ended")


def right_to_left(page: Page, server: Running, stream: str) -> None:
    server.put_page(stream, {**PAGE, "lang": "he", "headline": "הכפרים ממתינים"})
    put(server, stream, "one", blocks=[TABLE, IMAGE, POST], flags={"key": True})
    open_live(page, server, stream)


def entry(page: Page, server: Running, stream: str) -> None:
    server.put_page(stream, PAGE)
    put(server, stream, "one", blocks=[TABLE, IMAGE, POST])
    page.goto(f"{server.url}/streams/{stream}/entries/one")


def missing(page: Page, server: Running, stream: str) -> None:
    page.goto(f"{server.url}/streams/{stream}-nowhere")


@pytest.mark.parametrize("state", [live, queued, offline, ended, right_to_left, entry, missing])
def test_axe_finds_nothing_wrong(
    page: Page, server: Running, stream: str, axe: str, state: Callable[[Page, Running, str], None]
) -> None:
    state(page, server, stream)
    page.evaluate(axe)
    violations = page.evaluate("async () => (await axe.run()).violations")
    assert [(found["id"], [node["html"][:120] for node in found["nodes"]]) for found in violations] == []
