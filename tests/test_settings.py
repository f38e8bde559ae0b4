"""Settings from flags and from the environment: what is given is made normal, or is refused before anything starts."""

from __future__ import annotations

from typing import Any

import click
import pytest

from pushserver import settings
from pushserver.settings import Settings

from .support.commands import WRONG_USAGE
from .support.server import KEY, Run


def parsed(*arguments: str) -> Settings:
    """The settings of `pushserver serve`, from these flags and the environment."""
    options: list[click.Parameter] = [settings.option(field.name) for field in settings.KNOBS]
    command = click.Command("serve", callback=lambda **chosen: chosen, params=options)
    chosen: dict[str, Any] = command.main([*arguments], standalone_mode=False)
    return Settings(**chosen)


def refusal(*arguments: str) -> str:
    """The sentence with which flags or variables are refused."""
    with pytest.raises(click.UsageError) as refused:
        parsed(*arguments)
    return refused.value.format_message()


def test_a_key_from_a_file_has_no_line_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSHSERVER_KEY", f"{KEY}\r\n")
    assert parsed().key == KEY
    assert parsed("--key", f" {KEY} ").key == KEY


def test_a_key_that_is_too_short_does_not_start(run: Run) -> None:
    done = run("serve", "--key", "my-secret-key")
    assert (done.returncode, done.stdout) == (WRONG_USAGE, "")
    assert "--key" in done.stderr
    assert "openssl rand -hex 24" in done.stderr
    assert "my-secret-key" not in done.stderr


def test_a_key_that_is_refused_names_its_variable_and_not_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSHSERVER_KEY", "ein kurzer Schlüssel")
    said = refusal()
    assert "PUSHSERVER_KEY" in said
    assert "Schlüssel" not in said
