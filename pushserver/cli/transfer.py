"""The commands that carry a stream from one place to another: import, export."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, TextIO

import click

from .. import model
from ..client import Publisher, PublishError
from ..client.publisher import content_key, encode
from ..codec import read_json
from ..errors import Refused
from .options import REFUSED, fail, publishes, status_of

LINE_LIMIT = 5 * 2**20  # characters of one line
RESTORED_LINES, RESTORED_CHARACTERS = 100, 2**20  # sent together


class Line(NamedTuple):
    """One line of an import, and where it stands."""

    number: int
    kind: str
    value: dict[str, Any]
    length: int


@click.command(name="import")
@click.argument("stream")
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option(
    "--speed",
    type=click.FloatRange(min=0.001),
    help="Keep the gaps between entries, this many times faster. Else no gaps.",
)
@publishes
def import_(publisher: Publisher, stream: str, file: TextIO, speed: float | None) -> None:
    """Publish the lines of FILE (- for standard input) to STREAM, with their times.

    Each line is {"page": {…}} or {"entry": {…}}. A line that was imported within the last 24 hours adds nothing. A line
    of `pushserver export` is restored as it was, with its revision; one that is there already adds nothing, ever.
    """
    sending = Import(publisher, stream, file.name)
    previous_at: str | None = None
    with click.progressbar(list(_lines(file)), label=stream, file=sys.stderr) as lines:
        for number, text in lines:
            line = _record(text, file.name, number)
            published_at = line.value.get("published_at") if line.kind == "entry" else None
            if speed and isinstance(published_at, str):
                sending.flush()
                _wait_out(previous_at, published_at, speed)
                previous_at = published_at
            sending.send(line)
        sending.flush()
    click.echo(f"{stream}: {sending.added} added, {sending.known} known already")


class Import:
    """Sends lines in their order, and counts what became of them; lines to restore go together."""

    def __init__(self, publisher: Publisher, stream: str, name: str) -> None:
        self.added = self.known = 0
        self._publisher = publisher
        self._stream = stream
        self._name = name
        self._waiting: list[Line] = []

    def send(self, line: Line) -> None:
        """Send a line, now or with those that follow. Ends the import where one is refused: those before it stay."""
        if line.kind == "withdrawal" or "rev" in line.value:
            characters = line.length + sum(other.length for other in self._waiting)
            if len(self._waiting) == RESTORED_LINES or characters > RESTORED_CHARACTERS:
                self.flush()
            self._waiting.append(line)
        else:
            self.flush()
            send = self._publisher.publish if line.kind == "entry" else self._publisher.put_page
            key = content_key(line.kind, line.value)
            try:
                self._count(known=send(self._stream, line.value, idempotency_key=key)["replayed"])
            except PublishError as error:
                self._fail(line, error)

    def flush(self) -> None:
        """Send what waits."""
        if not self._waiting:
            return
        lines, self._waiting = self._waiting, []
        try:
            results = self._publisher.restore(self._stream, [encode({line.kind: line.value}) for line in lines])[
                "results"
            ]
        except PublishError as error:
            self._fail(lines[0], error)
        for line, result in zip(lines, results, strict=False):
            if result["status"] >= 400:
                self._fail(line, PublishError(result["status"], result))
            self._count(known="unchanged" in result)

    def _count(self, *, known: bool) -> None:
        self.known += known
        self.added += not known

    def _fail(self, line: Line, error: PublishError) -> None:
        fail(f"{self._name}, line {line.number}: {error}", status_of(error))


def _lines(file: TextIO) -> Iterator[tuple[int, str]]:
    """The numbered lines that are not blank. What cannot be read as text is left for `_record` to name."""
    file.reconfigure(errors="surrogateescape")  # type: ignore[attr-defined]
    for number, line in enumerate(file, 1):
        if line.strip():
            yield number, line


def _record(text: str, name: str, number: int) -> Line:
    """A line by its kind, or the end of the import: the lines before it stay."""
    try:
        value = read_json(text[:LINE_LIMIT].encode("utf-8", "surrogateescape"))
    except Refused as error:
        fault = error.faults[0]
        said = f"{fault.field}: expected {fault.expected}, got {fault.got}"
        fail(f"{name}, line {number}: {error.detail} {said}", REFUSED)
    if isinstance(value, dict) and len(value) == 1:
        ((kind, held),) = value.items()
        if kind in ("page", "entry", "withdrawal") and isinstance(held, dict):
            return Line(number, kind, held, len(text))
    expected = '{"page": …}, {"entry": …} or {"withdrawal": …}'
    fail(f"{name}, line {number}: expected {expected}, got {text.strip()[:80]}", REFUSED)


def _wait_out(before: str | None, at: str, speed: float) -> None:
    """Wait as long as lay between two entries, at this speed."""
    try:
        gap = (model.milliseconds(at) - model.milliseconds(before)) / 1000 if before else 0.0
    except ValueError:
        return  # the server refuses it by name
    time.sleep(max(0.0, gap / speed))


@click.command()
@click.argument("stream")
@publishes
def export(publisher: Publisher, stream: str) -> None:
    """Write all that STREAM holds to standard output, for `pushserver import`: all of it, or nothing.

    Entries as they are, with revision and correction, what was withdrawn, and the page, one a line. The key has to have
    every right.
    """
    with tempfile.TemporaryFile() as file:
        publisher.export(stream, file)
        file.seek(0)
        shutil.copyfileobj(file, sys.stdout.buffer)


COMMANDS = [import_, export]
