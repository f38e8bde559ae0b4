"""`pushserver serve --help` is the list of settings."""

from __future__ import annotations

from pushserver import settings

from ..support.commands import DONE
from ..support.server import Run


def test_the_help_of_serve_lists_every_setting(run: Run) -> None:
    done = run("serve", "--help")
    assert done.returncode == DONE
    shown = " ".join(done.stdout.split())
    for field in settings.KNOBS:
        assert f"--{field.name.replace('_', '-')} " in shown
        assert field.metadata["help"] in shown
        for variable in settings.variables(field.name):
            assert variable in shown
