"""The commands end alike: with these exit statuses, and errors in one form."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from .. import logs

REFUSED, NOT_REACHED = 1, 3  # exit status


def fail(message: str, status: int) -> NoReturn:
    """Print an error and exit with a status."""
    click.echo(f"pushserver: {logs.lines(message)}", err=True)
    sys.exit(status)


def discard_output() -> None:
    """Let nothing more be written to standard output, which failed: Python would try again at its end, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
