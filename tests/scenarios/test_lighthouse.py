"""Lighthouse finds nothing to mend on the demo and on a long page; `bench/lighthouse.py` measures their speed too."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import lighthouse

from ..support.pages import NEEDS_CHROMIUM

NPM = shutil.which("npm")
pytestmark = [NEEDS_CHROMIUM, pytest.mark.full, pytest.mark.skipif(NPM is None, reason="npm is not installed")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Lighthouse."""
    folder = tmp_path_factory.mktemp("lighthouse")
    lighthouse.install(folder)
    return folder


@pytest.fixture(scope="module")
def addresses(folder: Path) -> Iterator[dict[str, str]]:
    """The addresses of the demo, of a long page, and of one of its entries."""
    with lighthouse.pages(folder) as (server, addresses):
        (entry,) = server.http.get(f"{addresses['long']}/entries?limit=1").json()["entries"]
        yield {**addresses, "entry": f"{addresses['long']}/entries/{entry['id']}"}


@pytest.mark.parametrize("page", ["demo", "long", "entry"])
def test_lighthouse_finds_nothing_to_mend(folder: Path, addresses: dict[str, str], page: str) -> None:
    report = lighthouse.judge(folder, addresses[page], lighthouse.EXACT)
    assert (report.faults, report.scores) == ({}, dict.fromkeys(lighthouse.EXACT, 100))
