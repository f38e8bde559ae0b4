"""Validators that nobody here wrote read the pages: html-validate their HTML, open-graph-scraper their cards."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..support.pages import PAGE, put
from ..support.server import ROOT, Running

NPM = shutil.which("npm")
pytestmark = [pytest.mark.full, pytest.mark.skipif(NPM is None, reason="npm is not installed")]
BLOCKS = [
    {"type": "paragraph", "html": "See <a href='https://a.example/?a=1&b=2'>the report</a>."},
    {"type": "table", "head": ["Village", "Level"], "rows": [["Ambleford", "3.1 m"]]},
    {"type": "list", "ordered": True, "items": ["One", "Two"]},
    {"type": "social_post", "platform": "Mastodon", "author_name": "Ada", "text": "Stay in & stay dry"},
    {
        "type": "image",
        "src": "https://a.example/a.jpg",
        "width": 1200,
        "height": 800,
        "alt": "A quay",
        "caption": "The quay at noon.",
        "credit": "N. Brook",
    },
]
SCRAPER = """
import ogs from "open-graph-scraper";
import { readFileSync } from "node:fs";
const { result } = await ogs({ html: readFileSync(process.argv[2], "utf8") });
console.log(JSON.stringify(result));
"""
STANDARD = '{"extends": ["html-validate:standard"]}'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages from npm."""
    folder = tmp_path_factory.mktemp("npm")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(ROOT / "tests" / "support" / "npm" / name, folder)
    command = [str(NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (folder / ".htmlvalidate.json").write_text(STANDARD)
    (folder / "scrape.mjs").write_text(SCRAPER)
    return folder


@pytest.fixture
def saved(folder: Path, start: Callable[..., Running]) -> dict[str, Path]:
    """The pages of a server as files: live, of an entry, of a withdrawn one, of what is not there, and the index."""
    server = start("--public-url", "https://news.example/", "--site-name", "The Courier")
    server.put_page("floods", {**PAGE, "previous": [{"label": "Monday", "url": "https://news.example/monday"}]})
    put(server, "floods", "one", blocks=BLOCKS, bylines=[{"name": "Ada"}], flags={"key": True})
    put(server, "floods", "two", flags={"pinned": True})
    put(server, "floods", "gone")
    server.send("DELETE", "/streams/floods/entries/gone?note=Wrong", b"")
    paths = {"live": "/streams/floods", "index": "/", "none": "/streams/none"}
    paths |= {name: f"/streams/floods/entries/{name}" for name in ("one", "gone")}
    for name, path in paths.items():
        text = server.http.get(path, headers={"Accept": "text/html"}).text
        (folder / f"{name}.html").write_text(text)
    return {name: folder / f"{name}.html" for name in paths}


def faults(folder: Path, *pages: Path) -> str:
    command = ["node_modules/.bin/html-validate", "--formatter", "text", *map(str, pages)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


def test_every_page_is_html_as_the_standard_has_it(folder: Path, saved: dict[str, Path]) -> None:
    wrong = folder / "wrong.html"
    wrong.write_text(saved["live"].read_text().replace("<h1 ", '<h1 id="local" '))
    assert "Duplicate ID" in faults(folder, wrong)
    assert faults(folder, *saved.values()) == ""


def test_other_sites_show_the_title_the_picture_and_the_newspaper_of_a_link(
    folder: Path, saved: dict[str, Path]
) -> None:
    def card(name: str) -> dict[str, Any]:
        command = ["node", "scrape.mjs", str(saved[name])]
        output = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
        result: dict[str, Any] = json.loads(output)
        return result

    live, one = card("live"), card("one")
    assert (live["ogTitle"], live["ogDescription"]) == (PAGE["headline"], PAGE["dek"])
    assert (live["ogUrl"], one["ogUrl"]) == tuple(
        f"https://news.example/streams/floods{end}" for end in ("", "/entries/one")
    )
    assert one["ogTitle"] == "Entry one"
    assert {live["ogSiteName"], one["ogSiteName"]} == {"The Courier"}
    assert live["ogImage"][0]["url"] == one["ogImage"][0]["url"] == "https://a.example/a.jpg"
    assert {live["twitterCard"], one["twitterCard"]} == {"summary_large_image"}
    assert [live["jsonLD"][0]["@type"], one["jsonLD"][0]["@type"]] == ["LiveBlogPosting", "BlogPosting"]
