"""The script lets Lighthouse judge the reader's page, as a phone on a slow network has it: the demo, and a long page.

    .venv/bin/python -m bench.lighthouse [ROUNDS]

The long page has 100 entries and ten photographs; it is judged once more while an entry comes each second. The script
prints the scores of the four categories, the sum of the layout shifts, and each audit that is not passed. Lighthouse
comes from npm; its throttling is the one that it calls mobile.
"""

from __future__ import annotations

import base64
import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from playwright.sync_api import sync_playwright

from pushserver.cli import demo
from tests.support.judge import CHROMIUM, FLAGS
from tests.support.server import ROOT, Running, running

STREAM = "long"
ENTRIES, PHOTOGRAPHS = 100, 10
SIZE = 1200, 800
EVERY = 1.0  # seconds between two entries that come
PAGE = {
    "kicker": "River levels",
    "headline": "Villages wait for the crest",
    "dek": "Sandbags are out & pumps are running.",
    "timezone": "Europe/London",
    "lang": "en-GB",
}
TEXT = "The river has risen again since the morning, and the lower road is closed. " * 6
EXACT = ["accessibility", "best-practices", "seo"]  # categories that do not depend on the machine
CATEGORIES = ["performance", *EXACT]
# Colours that run into one another, and grain: it weighs what a photograph does.
PICTURE = """([number, width, height]) => {
    const canvas = new OffscreenCanvas(width, height), context = canvas.getContext("2d");
    const colours = context.createLinearGradient(0, 0, width, height);
    for (const at of [0, 0.3, 0.7, 1]) colours.addColorStop(at, `hsl(${number * 36 + at * 200} 45% ${30 + at * 40}%)`);
    context.fillStyle = colours;
    context.fillRect(0, 0, width, height);
    for (let grain = 0; grain < 40_000; grain++) {
        context.fillStyle = `hsl(0 0% ${Math.random() * 100}% / 20%)`;
        context.fillRect(Math.random() * width, Math.random() * height, 5, 5);
    }
    return canvas.convertToBlob({ type: "image/jpeg", quality: 0.7 }).then((blob) => new Promise((resolve) => {
        const reader = new FileReader();
        reader.onload = () => resolve(reader.result.split(",")[1]);
        reader.readAsDataURL(blob);
    }));
}"""


class Report(NamedTuple):
    """A Report is what Lighthouse said of a page: scores of 100 by category, the layout shifts, what was not passed."""

    scores: Mapping[str, float]
    shift: float
    faults: Mapping[str, str]

    def __str__(self) -> str:
        scores = "".join(f"{score:16.0f}" for score in self.scores.values())
        return f"{scores}{self.shift:8.4f}" + "".join(f"\n    {name}: {text}" for name, text in self.faults.items())


def install(folder: Path) -> None:
    """Install Lighthouse from npm into a folder."""
    for name in ("package.json", "package-lock.json"):
        shutil.copy(ROOT / "tests" / "support" / "lighthouse" / name, folder)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def judge(folder: Path, url: str, categories: list[str]) -> Report:
    """Run Lighthouse from this folder on an address, and return its report."""
    chosen = f"--only-categories={','.join(categories)}"
    command = ["node_modules/.bin/lighthouse", url, "--quiet", "--output=json", chosen]
    flags = f"--chrome-flags=--headless=new {' '.join(FLAGS)}"
    environment = {**os.environ, "CHROME_PATH": str(CHROMIUM)}
    ran = subprocess.run([*command, flags], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    said = json.loads(ran.stdout)
    return Report(
        {name: category["score"] * 100 for name, category in said["categories"].items()},
        said["audits"].get("cumulative-layout-shift", {}).get("numericValue", 0.0),
        dict(_faults(said)),
    )


def _faults(said: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the audits that lower a score, with their details."""
    for category in said["categories"].values():
        for part in category["auditRefs"]:
            audit = said["audits"][part["id"]]
            if part["weight"] and audit["score"] is not None and audit["score"] < 1:
                items = audit.get("details", {}).get("items", [])
                yield audit["id"], json.dumps([audit.get("displayValue", audit["title"]), *items])[:1_000]


@contextmanager
def photographs(folder: Path) -> Iterator[list[str]]:
    """The addresses of photographs that another server has."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        for number in range(PHOTOGRAPHS):
            picture = base64.b64decode(page.evaluate(PICTURE, [number, *SIZE]))
            (folder / f"{number}.jpg").write_bytes(picture)
        browser.close()
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield [f"http://127.0.0.1:{server.server_port}/{number}.jpg" for number in range(PHOTOGRAPHS)]
        server.shutdown()


def entry_of(number: int, picture: str = "") -> dict[str, Any]:
    """The entry of a number, ten minutes after the one before it; the last of ENTRIES is of now."""
    blocks: list[dict[str, Any]] = [{"type": "paragraph", "html": TEXT}] * (1 + number % 3)
    if picture:
        said = {"alt": "A quay", "caption": "The quay at noon.", "credit": "N. Brook"}
        blocks.insert(1, {"type": "image", "src": picture, "width": SIZE[0], "height": SIZE[1], **said})
    at = datetime.now(UTC) - max(timedelta(), timedelta(minutes=10) * (ENTRIES - number))
    return {
        "headline": f"Entry {number}: the river at the bridge",
        "blocks": blocks,
        "bylines": [{"name": "Ada Brook", "org": "The Courier"}],
        "flags": {"key": True} if number % 20 == 0 else {},
        "published_at": at.isoformat(),
    }


def fill(server: Running, pictures: list[str]) -> str:
    """Publish a page of many entries, the newest one with a picture; its address."""
    server.put_page(STREAM, PAGE)
    each = ENTRIES // len(pictures)
    for number in range(1, ENTRIES + 1):
        entry = entry_of(number, "" if number % each else pictures[number // each - 1])
        assert server.publish(STREAM, entry).status_code == 201
    return f"{server.url}/streams/{STREAM}"


@contextmanager
def coming(server: Running, stream: str) -> Iterator[None]:
    """An entry comes again and again."""
    over = threading.Event()

    def publish() -> None:
        for number in itertools.count(ENTRIES + 1):
            if over.wait(EVERY):
                break
            server.publish(stream, entry_of(number))

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def pages(folder: Path) -> Iterator[tuple[Running, dict[str, str]]]:
    """A server, and the addresses of the demo and of the long page, by name."""
    with running(folder / "data") as server, photographs(folder) as pictures:
        stream = demo.begin(server.url, server.key)
        yield server, {"demo": f"{server.url}/streams/{stream}", STREAM: fill(server, pictures)}


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        install(folder)
        print(f"{'':12}" + "".join(f"{category:>16}" for category in CATEGORIES) + "   shift")
        with pages(folder) as (server, addresses):
            for _ in range(rounds):
                for page, url in addresses.items():
                    print(f"{page:12}{judge(folder, url, CATEGORIES)}", flush=True)
                with coming(server, STREAM):
                    print(f"{'it grows':12}{judge(folder, addresses[STREAM], CATEGORIES)}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
