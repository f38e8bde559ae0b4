"""What the project says of itself is so: the pages made from code, the README's lines, the order of the modules."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable

import pytest

from pushserver import settings
from pushserver.wire.codes import Close

from .support.server import ROOT, Running

TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


def test_the_page_of_settings_is_the_list_of_settings() -> None:
    assert (ROOT / "docs" / "settings.md").read_text() == settings.markdown()


def test_the_changelog_begins_with_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    found = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert found
    assert found[1] == version


def test_the_protocol_page_has_every_close_code_and_every_frame() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text()
    for code in Close:
        assert f"`{code.value}`" in text
    for frame in ("hello", "snapshot", "entry.put", "entry.withdraw", "page.put", "stream.end", "reset", "head", "bye"):
        assert f"`{frame}`" in text


def test_every_test_that_a_promise_names_is_there() -> None:
    named = re.findall(r"`([\w/]*test_\w+\.py)::(\w+)`", (ROOT / "docs" / "guarantees.md").read_text())
    assert len(named) > 10
    for file, name in named:
        text = (ROOT / "tests" / file).read_text()
        assert re.search(rf"(def |^|class ){name}\b", text, re.MULTILINE), f"{file}::{name}"


def test_no_file_names_a_registry_or_a_path_of_some_machine() -> None:
    hosts = re.compile(r"py" r"pi\.org|python" r"hosted|registry\.npm" r"js|deb\.debian" r"\.org|/ho" r"me/|/ro" r"ot/")
    for name in TRACKED:
        path = ROOT / name
        if path.is_file() and path.suffix not in (".png",):
            assert not hosts.search(path.read_text()), name


def test_every_link_of_the_docs_leads_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


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
