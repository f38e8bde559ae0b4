"""The wheel, built from this checkout, in an environment that has it and only some of its dependencies."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from .server import ROOT


def build(kind: str, folder: Path, *, source: Path = ROOT) -> Path:
    """Build the wheel or the sdist of a checkout, without a network."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(folder)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (file,) = folder.iterdir()
    return file


def environment(folder: Path, wheel: Path, requirements: Iterable[str]) -> Path:
    """Make an environment of the wheel and these distributions, with all that they require; return its Python."""
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/*/site-packages")
    zipfile.ZipFile(wheel).extractall(packages)
    for name in closure(requirements) - {"pushserver"}:
        for top in {Path(file).parts[0] for file in metadata.files(name) or () if ".." not in Path(file).parts}:
            if not (packages / top).exists():
                (packages / top).symlink_to(Path(str(metadata.distribution(name).locate_file(top))))
    return folder / "bin" / "python"


def closure(requirements: Iterable[str]) -> set[str]:
    """Return these distributions and all that they require here, by the names that they are installed by."""
    names: set[str] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        distribution = metadata.distribution(requirement.name)
        if distribution.metadata["Name"] not in names:
            names.add(distribution.metadata["Name"])
            inner = [Requirement(text) for text in distribution.requires or ()]
            waiting += [each for each in inner if _applies(each, requirement.extras)]
    return names


def _applies(requirement: Requirement, extras: set[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))
