"""The application of a worker is made of parts that are handed over, none of which is looked up in it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from starlette.routing import Mount, WebSocketRoute

from pushserver.live.hub import Hub
from pushserver.settings import Settings
from pushserver.web import app as web_app
from pushserver.web.app import create_app, static_folder

from ..support.server import KEY, ROOT

PACKAGE = ROOT / "pushserver"
MODULES = sorted(PACKAGE.rglob("*.py"))
SETTINGS = Settings(redis="unix:///nowhere", key=KEY)


def looks_up(source: str) -> bool:
    """Whether a module reads or sets the `state` of an `app`."""
    return any(
        isinstance(node, ast.Attribute)
        and node.attr == "state"
        and (node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")) == "app"
        for node in ast.walk(ast.parse(source))
    )


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_but_the_app_s_looks_parts_up(path: Path) -> None:
    name = path.relative_to(PACKAGE).as_posix()
    assert name == "web/app.py" or not looks_up(path.read_text())


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hub = request.app.state.hub", True),
        ("limit: int = self.request.app.state.settings.body_limit", True),
        ("app.state.keys = keys", True),
        ("self._app.state", False),
        ("reader.state = State.OPEN", False),
        ("hub.app.closed", False),
    ],
)
def test_the_search_finds_what_it_is_for(source: str, expected: bool) -> None:
    assert looks_up(source) is expected


def test_the_server_reaches_the_hub_that_it_has_to_drain() -> None:
    app = create_app(SETTINGS)
    assert isinstance(app.hub, Hub)
    assert not app.hub.draining


def test_other_addresses_come_after_those_of_the_table() -> None:
    *routes, nowhere, static = create_app(SETTINGS).routes
    assert isinstance(nowhere, WebSocketRoute)
    assert isinstance(static, Mount)
    assert all(getattr(route, "path", "").startswith("/") for route in routes)
    assert not any(isinstance(route, Mount) for route in routes)


def test_private_streams_without_a_key_do_not_start() -> None:
    with pytest.raises(ValueError, match="TOKEN_KEYS"):
        create_app(Settings(redis="unix:///nowhere", key=KEY, private="desk-*"))


def test_static_files_are_beside_the_package_in_a_checkout() -> None:
    assert static_folder() == ROOT / "static"


def test_static_files_are_inside_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "pushserver"
    (installed / "static").mkdir(parents=True)
    monkeypatch.setattr(web_app, "__file__", str(installed / "web" / "app.py"))
    assert static_folder() == installed / "static"
