"""The commands end alike: with these exit statuses, and errors in one form; and say alike what several of them do."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import click

from .. import logs

REFUSED, WRONG_USAGE, NOT_REACHED = 1, 2, 3  # exit status


def fail(message: str, status: int) -> NoReturn:
    """Print an error and exit with a status."""
    click.echo(f"pushserver: {logs.lines(message)}", err=True)
    sys.exit(status)


def discard_output() -> None:
    """Let nothing more be written to standard output, which failed: Python would try again at its end, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def counted(count: int, noun: str) -> str:
    """A number and its noun: 1 reader, 2 readers."""
    return f"{count} {noun}{'s' if count != 1 else ''}"


def replica_line(answer: dict[str, Any], command: str) -> str:
    """Say that fewer replicas have a change than were asked for, and what repeats it; '' where enough have it."""
    if "replicas" not in answer or answer["durability"] == "replica":
        return ""
    return f"fewer replicas than --replicas have it: a failover may bring the text back; to repeat it: {command}"


def erasure_line(stream: str, id: str, erased: dict[str, Any] | None) -> str:
    """Say since when the text of an entry has left the store, and what is left to do; None where it is still there."""
    command = f"pushserver erase {stream} {id}"
    if erased is None:
        return f"its text may still be in the store: {command}"
    files = {
        True: "the store's files have the text no more",
        False: f"the store's files are still being rewritten; to ask again: {command}",
        None: "the files of your Redis or Valkey may still have the text; to rewrite them see "
        "docs/operations.md#take-something-down",
    }
    return f"erased {id} at {erased['at']}; {files[erased['files']]}"
