"""`pushserver worker` runs one worker process; `serve` starts it."""

from __future__ import annotations

from typing import Any

import click

from .. import settings
from ..server import worker
from .options import configure_logging


def _work(channel: int, condition: int, **values: Any) -> None:
    """Run one worker process; `serve` starts it."""
    chosen = settings.Settings(**values)
    configure_logging(chosen.log_level, form=chosen.log_format, role="worker", access=chosen.access_log)
    worker.work(chosen, channel, condition)


_inherited = [click.Argument([name], type=int) for name in ("channel", "condition")]
_knobs = [settings.option(field.name) for field in settings.KNOBS]
work = click.Command("worker", callback=_work, params=[*_inherited, *_knobs], hidden=True)
