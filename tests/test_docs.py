"""The documentation is true: pages made from code, links, the lines of the README, the changelog."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from pushserver import settings
from pushserver.wire.codes import Close

from .support.server import ROOT, Running

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


def test_the_page_of_settings_is_the_list_of_settings() -> None:
    assert (ROOT / "docs" / "settings.md").read_text() == settings.markdown()


def test_the_changelog_begins_with_what_is_unreleased_and_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[:2] == ["Unreleased", version]


def test_every_line_of_the_changelog_is_added_changed_or_fixed() -> None:
    for part in re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]:
        before, *kinds = re.split(r"^### ", part, flags=re.MULTILINE)
        assert "\n- " not in before
        names = [kind.partition("\n")[0] for kind in kinds]
        assert names == [name for name in ("Added", "Changed", "Fixed") if name in names]


def test_the_protocol_page_has_every_close_code_and_every_frame() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text()
    for code in Close:
        assert f"`{code.value}`" in text
    for frame in ("hello", "snapshot", "entry.put", "entry.withdraw", "page.put", "stream.end", "reset", "head", "bye"):
        assert f"`{frame}`" in text


def test_every_test_that_a_promise_names_is_there() -> None:
    pages = [(ROOT / "docs" / name).read_text() for name in ("guarantees.md", "reader-page.md", "inputs.md")]
    named = [pair for page in pages for pair in re.findall(r"`([\w/]*test_\w+\.py)::(\w+)`", page)]
    assert len(named) > 30
    for file, name in named:
        text = (ROOT / "tests" / file).read_text()
        assert re.search(rf"(def |^|class ){name}\b", text, re.MULTILINE), f"{file}::{name}"


def test_no_file_names_a_registry_or_a_path_of_some_machine() -> None:
    hosts = re.compile(r"py" r"pi\.org|python" r"hosted|registry\.npm" r"js|deb\.debian" r"\.org|/ho" r"me/|/ro" r"ot/")
    for name in TRACKED:
        path = ROOT / name
        if path.is_file() and path.suffix not in (".png",):
            assert not hosts.search(path.read_text()), name


def anchors(page: Path) -> set[str]:
    """The anchors that a forge makes of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_every_link_of_the_docs_leads_somewhere() -> None:
    for page in PAGES:
        for target, _, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#([^)]+))?\)", page.read_text()):
            linked = page.parent / target if target else page
            assert linked.exists(), f"{page.name}: {target}"
            if anchor:
                assert anchor in anchors(linked), f"{page.name}: {target}#{anchor}"


def test_the_index_has_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    for page in (ROOT / "docs").iterdir():
        assert page.name == "index.md" or page.suffix == ".png" or f"]({page.name})" in index, page.name


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_printed_curl_line_works_as_it_stands(start: Callable[..., Running]) -> None:
    server = start()
    found = re.search(r"  publish      (curl .*)\n", server.greeting)
    assert found
    done = subprocess.run(["sh", "-c", found[1]], capture_output=True, text=True, check=True)
    assert '"durability": "disk"' in done.stdout, done
    assert server.snapshot("demo")["entries"][0]["headline"] == "Hello from the command line"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_line_of_the_readme_works_as_it_stands(start: Callable[..., Running]) -> None:
    server = start()
    (line,) = re.findall(r"```sh\n(curl .*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    line = line.replace("http://127.0.0.1:8000", server.url)
    done = subprocess.run(["sh", "-c", line], cwd=server.data.parent, capture_output=True, text=True, check=True)
    assert '"durability": "disk"' in done.stdout, done


def test_the_page_of_the_architecture_names_every_module_and_no_other() -> None:
    rows = re.findall(r"^\| `(\w+)/` \|[^|]*\|([^|]*)\|", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
    assert len(rows) > 10
    for package, named in rows:
        modules = {path.stem for path in (ROOT / "pushserver" / package).glob("*.py")} - {"__init__"}
        assert set(re.findall("`([a-z_]+)`", named)) == modules, package
