"""The command line as tests use it: commands that run beside the test, files for them, and what they stored."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .server import ROOT, Running, clean_environment

DONE, REFUSED, WRONG_USAGE, NOT_REACHED = 0, 1, 2, 3

PAGE: dict[str, Any] = {"headline": "Storm & tide", "timezone": "America/New_York", "lang": "en-US"}
ENTRIES: list[dict[str, Any]] = [
    {"headline": "First flood warning", "published_at": "2023-07-10T19:33:00Z", "bylines": [{"name": "Cy Roe"}]},
    {"headline": "Ferries stop", "published_at": "2023-07-11T04:00:00Z", "body": "All are *in port*."},
    {"headline": "Sea wall holds", "published_at": "2023-07-11T15:53:00Z", "tags": ["wall"]},
]
RECORDS: list[dict[str, Any]] = [{"page": PAGE}, *({"entry": entry} for entry in ENTRIES)]


@contextmanager
def started(url: str, data: Path, *arguments: str, input: bool = False) -> Iterator[subprocess.Popen[str]]:
    """A command that runs beside the test; it is killed where it did not end."""
    with subprocess.Popen(
        [sys.executable, "-m", "pushserver", *arguments],
        cwd=ROOT,
        env={**clean_environment(), "PUSHSERVER_URL": url, "PUSHSERVER_DATA": str(data)},
        stdin=subprocess.PIPE if input else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def lines(records: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)


def file_of(folder: Path, content: bytes, name: str = "updates.jsonl") -> str:
    path = folder / name
    path.write_bytes(content)
    return str(path)


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Return what a command prints up to the line that has a text."""
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if text in line:
            return printed
    raise AssertionError(f"{text!r} was not in {printed!r}")


def headlines(server: Running, stream: str) -> list[str]:
    """The headlines of a stream, the oldest first."""
    return [entry["headline"] for entry in reversed(server.snapshot(stream)["entries"])]


def assert_nothing_stored(server: Running, stream: str) -> None:
    assert server.http.get(f"/streams/{stream}/entries").status_code == 404
