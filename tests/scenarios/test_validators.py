"""Validators that nobody here wrote read what is served: html-validate the HTML, open-graph-scraper the cards of links,
libxml2 the Atom feed by its grammar, Ajv the JSON Feed by jsonfeed-schema. Structured data: test_structured_data.py.
"""

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
ATOM = """
import { readFileSync } from "node:fs";
import { RelaxNGValidator, XmlDocument } from "libxml2-wasm";
const [grammar, feed] = process.argv.slice(2).map((file) => XmlDocument.fromBuffer(readFileSync(file)));
RelaxNGValidator.fromDoc(grammar).validate(feed);
"""
JSON_FEED = """
import Ajv from "ajv";
import addFormats from "ajv-formats";
import { readFileSync } from "node:fs";
import schema from "jsonfeed-schema/v1.1.js";
const ajv = addFormats.default(new Ajv.default());
if (!ajv.validate(schema, JSON.parse(readFileSync(process.argv[2], "utf8")))) throw new Error(ajv.errorsText());
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
    for name, script in {"scrape": SCRAPER, "atom": ATOM, "json_feed": JSON_FEED}.items():
        (folder / f"{name}.mjs").write_text(script)
    return folder


@pytest.fixture
def saved(folder: Path, start: Callable[..., Running]) -> dict[str, Path]:
    """Files: pages live, of an entry, of a withdrawn one, of what is not there; the index, and the feeds."""
    server = start("--public-url", "https://news.example/", "--site-name", "The Courier")
    server.put_page("floods", {**PAGE, "previous": [{"label": "Monday", "url": "https://news.example/monday"}]})
    put(server, "floods", "one", blocks=BLOCKS, bylines=[{"name": "Ada"}], flags={"key": True})
    put(server, "floods", "two", flags={"pinned": True})
    put(server, "floods", "gone")
    server.send("DELETE", "/streams/floods/entries/gone?note=Wrong", b"")
    paths = {"live": "/streams/floods", "index": "/", "none": "/streams/none"}
    paths |= {name: f"/streams/floods/entries/{name}" for name in ("one", "gone")}
    files = {name: (folder / f"{name}.html", path) for name, path in paths.items()}
    files |= {kind: (folder / f"feed.{kind}", f"/streams/floods/feed.{kind}") for kind in ("atom", "json")}
    for file, path in files.values():
        file.write_text(server.http.get(path, headers={"Accept": "text/html"}).text)
    return {name: file for name, (file, _) in files.items()}


def faults(folder: Path, *pages: Path) -> str:
    command = ["node_modules/.bin/html-validate", "--formatter", "text", *map(str, pages)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


def test_every_page_is_html_as_the_standard_has_it(folder: Path, saved: dict[str, Path]) -> None:
    wrong = folder / "wrong.html"
    wrong.write_text(saved["live"].read_text().replace("<h1 ", '<h1 id="local" '))
    assert "Duplicate ID" in faults(folder, wrong)
    assert faults(folder, *(file for file in saved.values() if file.suffix == ".html")) == ""


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


def complaint(folder: Path, script: str, *files: Path) -> str:
    """Return what a validator complains of."""
    command = ["node", f"{script}.mjs", *map(str, files)]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert bool(ran.returncode) == bool(ran.stderr)
    return ran.stderr


def test_the_atom_feed_has_the_grammar_of_its_specification(folder: Path, saved: dict[str, Path]) -> None:
    grammar = ROOT / "tests" / "support" / "atom.rng"
    text = saved["atom"].read_text()
    assert text.count("<entry>") == 2
    assert "deleted-entry" in text
    assert complaint(folder, "atom", grammar, saved["atom"]) == ""
    wrong = folder / "wrong.atom"
    wrong.write_text(text.replace("<updated>", "<updated>on "))
    assert "updated" in complaint(folder, "atom", grammar, wrong)


def test_the_json_feed_has_the_schema_of_its_version(folder: Path, saved: dict[str, Path]) -> None:
    feed = json.loads(saved["json"].read_text())
    assert (feed["version"], len(feed["items"])) == ("https://jsonfeed.org/version/1.1", 2)
    assert complaint(folder, "json_feed", saved["json"]) == ""
    wrong = folder / "wrong.json"
    wrong.write_text(json.dumps({**feed, "items": [{**feed["items"][0], "id": 1}]}))
    assert "id" in complaint(folder, "json_feed", wrong)
