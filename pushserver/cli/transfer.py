"""These commands copy a stream from one server to another: import, export."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TextIO

import click

from .. import model
from ..client import Gone, NotFound, Publisher, PublishError
from ..client.publisher import content_key, encode
from ..codec import read_json
from ..errors import Refused
from .options import exit_status, publishes
from .output import REFUSED, counted, fail

SUFFIX = ".jsonl"  # of a file with one stream, behind its name
LINE_LIMIT = 5 * 2**20  # characters of one line
RESTORED_LINES, RESTORED_CHARACTERS = 100, 2**20  # of one request, at most


class ImportLine(NamedTuple):
    """ImportLine is one line of an import: `kind` is its member, such as entry, `length` is in characters."""

    number: int
    kind: str
    value: dict[str, Any]
    length: int


@click.command(name="import")
@click.argument("stream", required=False)
@click.argument("file", type=click.File(encoding="utf-8-sig"), required=False)
@click.option(
    "--all", "folder", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder to import."
)
@click.option(
    "--speed",
    type=click.FloatRange(min=0.001),
    help="Keep the time between entries, divided by this. Default: do not wait.",
)
@publishes
def import_(
    publisher: Publisher, stream: str | None, file: TextIO | None, folder: Path | None, speed: float | None
) -> None:
    """Publish the lines of FILE (- for standard input) to STREAM, with their times; with --all, each file of a folder.

    Each line is {"page": {…}} or {"entry": {…}}, or a line of `pushserver export`, which also writes {"stream": {…}},
    {"withdrawal": {…}} and {"history": {…}}. A line that was imported within the last 24 hours adds nothing. A line of
    an export is restored with its revision; it adds nothing if that revision is stored already. The import ends at the
    first line that is refused; what came before it stays.
    """
    if folder is not None and stream is None:
        paths = sorted(folder.glob(f"*{SUFFIX}"))
        if not paths:
            fail(f"expected files STREAM{SUFFIX} in {folder}, found none", REFUSED)
        for path in paths:
            with path.open(encoding="utf-8-sig") as lines:
                _import(publisher, path.name.removesuffix(SUFFIX), lines, speed)
    elif folder is None and stream is not None and file is not None:
        _import(publisher, stream, file, speed)
    else:
        raise click.UsageError("Expected STREAM and FILE, or --all and a folder.")


def _import(publisher: Publisher, stream: str, file: TextIO, speed: float | None) -> None:
    sending = Import(publisher, stream, file.name)
    previous_at: str | None = None
    with click.progressbar(list(_lines(file)), label=stream, file=sys.stderr, hidden=not sys.stderr.isatty()) as lines:
        for number, text in lines:
            try:
                line = _record(text, number)
            except ValueError as error:
                sending.flush()
                sending.fail(number, str(error), REFUSED)
            published_at = line.value.get("published_at") if line.kind == "entry" else None
            if speed and isinstance(published_at, str):
                sending.flush()
                _wait_out(previous_at, published_at, speed)
                previous_at = published_at
            sending.send(line)
        sending.flush()
    click.echo(f"{stream}: {sending.added} added, {sending.known} known already")


class Import:
    """Import sends lines in their order and counts what they added; lines to restore are sent together."""

    def __init__(self, publisher: Publisher, stream: str, name: str) -> None:
        self.added = self.known = 0
        self._publisher = publisher
        self._stream = stream
        self._name = name
        self._batch: list[ImportLine] = []

    def send(self, line: ImportLine) -> None:
        """Send a line, now or with the next ones. A refused line ends the program; the lines before it stay."""
        if line.kind in ("stream", "withdrawal", "history") or "rev" in line.value:
            characters = line.length + sum(other.length for other in self._batch)
            if len(self._batch) == RESTORED_LINES or characters > RESTORED_CHARACTERS:
                self.flush()
            self._batch.append(line)
        else:
            self.flush()
            send = self._publisher.publish if line.kind == "entry" else self._publisher.put_page
            key = content_key(line.kind, line.value)
            try:
                answer = send(self._stream, line.value, idempotency_key=key)
                self._count(known=answer["replayed"] or "unchanged" in answer)
            except PublishError as error:
                self.fail(line.number, str(error), exit_status(error))

    def flush(self) -> None:
        """Send the lines that wait to be restored."""
        if not self._batch:
            return
        lines, self._batch = self._batch, []
        try:
            results = self._publisher.restore(self._stream, [encode({line.kind: line.value}) for line in lines])[
                "results"
            ]
        except PublishError as error:
            self.fail(lines[0].number, str(error), exit_status(error))
        for line, result in zip(lines, results, strict=False):
            if result["status"] >= 400:
                self.fail(line.number, str(PublishError(result["status"], result)), REFUSED)
            self._count(known="unchanged" in result)

    def _count(self, *, known: bool) -> None:
        self.known += known
        self.added += not known

    def fail(self, number: int, reason: str, status: int) -> NoReturn:
        """End the program at a line; say what is stored of those before it, and that they do not stand in the way."""
        stored = f"stored before it: {counted(self.added + self.known, 'line')}"
        again = (
            "correct what is wrong, and run the command again soon: what is stored adds nothing for 24 hours by default"
        )
        fail(f"{self._name}, line {number}: {reason}\n  {stored}; {again}", status)


def _lines(file: TextIO) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines that are not blank. Bytes that are not UTF-8 are left to `_record`, which names them."""
    file.reconfigure(errors="surrogateescape")  # type: ignore[attr-defined]
    for number, line in enumerate(file, 1):
        if line.strip():
            yield number, line


def _record(text: str, number: int) -> ImportLine:
    """Parse a line. Raises ValueError where it is not valid."""
    try:
        value = read_json(text[:LINE_LIMIT].encode("utf-8", "surrogateescape"))
    except Refused as error:
        fault = error.faults[0]
        reason = f"{fault.field}: expected {fault.expected}, got {fault.got}"
        raise ValueError(f"{error.detail} {reason}") from None
    if isinstance(value, dict) and len(value) == 1:
        ((kind, fields),) = value.items()
        if kind in ("stream", "page", "entry", "withdrawal", "history") and isinstance(fields, dict):
            return ImportLine(number, kind, fields, len(text))
    expected = '{"page": …}, {"entry": …}, {"withdrawal": …}, {"stream": …} or {"history": …}'
    raise ValueError(f"expected {expected}, got {text.strip()[:80]}")


def _wait_out(before: str | None, at: str, speed: float) -> None:
    """Wait for the time between two entries, divided by the speed."""
    try:
        gap = (model.milliseconds(at) - model.milliseconds(before)) / 1000 if before else 0.0
    except ValueError:
        return  # the server refuses an invalid time, and names the field
    time.sleep(max(0.0, gap / speed))


@click.command()
@click.argument("stream", required=False)
@click.option("--all", "folder", type=click.Path(file_okay=False, path_type=Path), help="Folder for every stream.")
@click.option("--history", is_flag=True, help="Also write who made each revision; the key needs the right audit, too.")
@publishes
def export(publisher: Publisher, stream: str | None, folder: Path | None, history: bool) -> None:
    """Write all of STREAM to standard output, for `pushserver import`. On an error nothing is written.

    With --all FOLDER each stream that the key is for becomes a file FOLDER/STREAM.jsonl, which `pushserver import --all
    FOLDER` reads. The lines are the id of the feeds, the entries with revision and correction, the withdrawals, and the
    page. The key needs the rights publish, correct, withdraw and page.
    """
    if (stream is None) == (folder is None):
        raise click.UsageError("Expected STREAM, or --all and a folder.")
    if folder is not None:
        _export_all(publisher, folder, history=history)
        return
    assert stream is not None
    if sys.stdout is None:
        fail("standard output is closed", REFUSED)
    with tempfile.TemporaryFile() as file:
        publisher.export(stream, file, history=history)
        file.seek(0)
        shutil.copyfileobj(file, sys.stdout.buffer)


def _export_all(publisher: Publisher, folder: Path, *, history: bool) -> None:
    """Write a file for each stream. A file gets its name once it is whole; one that was there is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for stream in publisher.streams():
        path = folder / f"{stream['stream']}{SUFFIX}"
        draft = path.with_suffix(".part")
        try:
            with draft.open("w+b") as file:
                publisher.export(stream["stream"], file, history=history)
            draft.replace(path)
            count += 1
        except (Gone, NotFound):  # it was deleted meanwhile
            pass
        finally:
            draft.unlink(missing_ok=True)
    click.echo(f"{folder}: {count} streams")
