"""The client works without the server's dependencies, and a type checker sees its types from outside."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ..support.installed import build, closure, environment
from ..support.server import LIMIT, ROOT, Running, clean_environment

pytestmark = pytest.mark.full  # pip makes an environment

REQUIRED = ("httpx2", "websockets")  # as docs/publishing.md says
SECTION = (ROOT / "docs" / "publishing.md").read_text().partition("\n## The client alone\n")[2]
LOADED = """
import sys
from importlib import metadata
before = set(sys.modules)
import pushserver.client

inside = {name for name in sys.modules if name.startswith("pushserver.")}
assert all(f"{name}.".startswith("pushserver.client.") for name in inside), inside
owners = metadata.packages_distributions()
tops = {name.partition(".")[0] for name in sys.modules.keys() - before}
print(*sorted({owner for top in tops for owner in owners.get(top, ())} - {"pushserver"}))
"""
TYPED = """
from pushserver import __version__
from pushserver.client import AsyncPublisher, Publisher, PublishError, TurnedAway, Unreached, follow

reveal_type(__version__)
reveal_type(Publisher("http://127.0.0.1:8000", "key").publish)
reveal_type(Unreached(0, {}).idempotency_key)
Publisher("http://127.0.0.1:8000", 7)

async def main(publisher: AsyncPublisher) -> None:
    reveal_type(await publisher.end("storm"))
    async for frame in follow("http://127.0.0.1:8000", "storm"):
        reveal_type(frame)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has the wheel, what the client needs, and nothing else."""
    folder = tmp_path_factory.mktemp("alone")
    return environment(folder / "venv", build("wheel", folder / "dist"), REQUIRED)


def run(python: Path, code: str, *arguments: str, cwd: Path | None = None, **env: str) -> str:
    """Run a script, by default outside of the checkout; what it prints."""
    variables = {**clean_environment(), **env}
    variables.pop("PYTHONPATH", None)
    done = subprocess.run(
        [str(python), "-c", code, *arguments],
        cwd=cwd or python.parent,
        env=variables,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_script_of_the_docs_publishes_and_reads_with_the_client_alone(
    python: Path, start: Callable[..., Running]
) -> None:
    server = start()
    (script,) = re.findall(r"^```python\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
    printed = run(python, script, PUSHSERVER_URL=server.url, PUSHSERVER_KEY=server.key)
    assert printed == "snapshot ['Ferries stop']\n"


def test_the_client_loads_nothing_but_itself_and_what_it_requires(python: Path) -> None:
    assert set(run(python, LOADED).split()) <= closure(REQUIRED)
    # Where the server's dependencies are installed, an import of one of them would not fail. httpx2 itself takes brotli
    # where it finds it.
    assert set(run(Path(sys.executable), LOADED, cwd=ROOT).split()) <= closure(REQUIRED) | {"brotli", "_brotli"}


def test_a_type_checker_sees_the_types_of_the_client(python: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(TYPED)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python), "script.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line.partition(": ")[2] for line in done.stdout.splitlines()]
    assert [line for line in lines if line.startswith("error: ")] == [
        'error: Argument 2 to "Publisher" has incompatible type "int"; expected "str"  [arg-type]'
    ]
    revealed = [line.partition("Revealed type is ")[2] for line in lines if "Revealed type" in line]
    assert len(revealed) == 5
    assert not [text for text in revealed if text == '"Any"'], done.stdout
