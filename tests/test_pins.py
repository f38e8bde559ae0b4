"""The pinned requirements are those of pyproject.toml, and what installs without them stays within tried versions."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from .support.server import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUN = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
BUILD = [Requirement(text) for text in PROJECT["build-system"]["requires"]]
DEV = [Requirement(text) for text in PROJECT["project"]["optional-dependencies"]["dev"]]
# Versions that are dates say nothing of what they break.
NAMED_BY_DATE = {"tzdata"}


def pins(file: str) -> dict[str, Version]:
    """The pinned versions of a file, by name."""
    lines = re.findall(r"^([a-z0-9-]+)==([^ ;]+)", (ROOT / file).read_text(), re.MULTILINE)
    return {canonicalize_name(name): Version(version) for name, version in lines}


@pytest.mark.parametrize("requirement", RUN + BUILD + DEV, ids=lambda requirement: requirement.name)
def test_a_dependency_has_a_bound_below_and_above(requirement: Requirement) -> None:
    operators = {specifier.operator for specifier in requirement.specifier}
    assert operators == ({">="} if requirement.name in NAMED_BY_DATE else {">=", "<"})


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-dev.txt"])
def test_every_dependency_is_pinned_within_its_bounds(file: str) -> None:
    pinned = pins(file)
    for requirement in RUN + BUILD + (DEV if "dev" in file else []):
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_the_tests_run_on_the_pins_of_the_server() -> None:
    assert pins("requirements.txt").items() <= pins("requirements-dev.txt").items()


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-dev.txt"])
def test_every_pin_has_hashes_and_no_address(file: str) -> None:
    text = (ROOT / file).read_text()
    assert "://" not in text
    assert "\n--" not in text
    for pin in re.split(r"\n(?=[a-z])", text)[1:]:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}$", pin, re.MULTILINE), pin
