"""The commands that talk to a server: publish, correct, withdraw, page, import, tail."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, TextIO

import click

from . import client, follow, keys, markup, model, validate
from .client import Publisher, PublishError, Unreached
from .errors import Refused

RESTORED_AT_ONCE = 500_000  # bytes of an export in one request, and one line more: a batch takes that, and the longest
LINE_LIMIT = 1_048_576  # characters of one line of an import
DELIVERY_WAIT = 5.0  # seconds for all workers to have an entry
REFUSED, NOT_REACHED = 1, 3  # exit status


def fail(message: str, status: int) -> NoReturn:
    click.echo(f"pushserver: {message}", err=True)
    sys.exit(status)


def configure_logging(level: str) -> None:
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    for name in ("uvicorn", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)


_url = click.option(
    "--url",
    envvar="PUSHSERVER_URL",
    default="http://127.0.0.1:8000",
    show_default=True,
    show_envvar=True,
    help="The server.",
)
_key = click.option("--key", envvar="PUSHSERVER_KEY", default="", show_envvar=True, help="Publish key.")
_data = click.option(
    "--data", envvar="PUSHSERVER_DATA", default="data", show_default=True, help="Folder that has the publish key, else."
)


def _publishes(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command its options for the server and the key, as a Publisher; say what the server refused."""

    @wraps(command)
    def run(url: str, key: str, data: str, **values: Any) -> None:
        key = key or keys.local_key(Path(data)) or ""
        if not key:
            fail(f"expected a publish key in PUSHSERVER_KEY or in {Path(data) / keys.FILE}, found none", REFUSED)
        try:
            with Publisher(url, key) as publisher:
                command(publisher, **values)
        except PublishError as error:
            fail(str(error), _status(error))

    return _url(_key(_data(run)))


def _status(error: PublishError) -> int:
    return NOT_REACHED if isinstance(error, Unreached) else REFUSED


_json = click.option("--json", "as_json", is_flag=True, help="Print the server's answer as JSON.")


def _told(answer: dict[str, Any], done: str, as_json: bool) -> None:
    """Say what became of it."""
    if as_json:
        click.echo(json.dumps(answer))
    elif answer.get("unchanged"):
        click.echo(f"unchanged: {answer['id']}, revision {answer['rev']}")
    else:
        again = " before" if answer["replayed"] else ""
        what = f"{answer['id']}, " if "id" in answer else ""
        click.echo(f"{done}{again}: {what}revision {answer['rev']}, event {answer['n']}, on {answer['durability']}")
        if answer.get("receipt"):
            click.echo(_delivered(answer["receipt"]))


def _reviewed(answer: dict[str, Any], as_json: bool) -> None:
    """Say what would be published, and what about it looks odd."""
    click.echo(json.dumps(answer) if as_json else _entry_lines(answer["entry"]).lstrip("\n"))
    for warning in answer["warnings"]:
        click.echo(f"warning: {warning['field']}: expected {warning['expected']}, got {warning['got']}", err=True)


def _delivered(receipt: dict[str, Any]) -> str:
    """A receipt in a line."""
    count, missing = receipt["sent"], [f"{receipt[name]} {name}" for name in ("behind", "silent") if receipt[name]]
    times = f", half within {receipt['p50_ms']} ms, 99 of 100 within {receipt['p99_ms']} ms" if count else ""
    workers = len(receipt["workers"])
    return ", ".join([f"given to {count} readers on {workers} workers{times}", *missing])


def _body(file: TextIO) -> str:
    try:
        return file.read(LINE_LIMIT)
    except UnicodeDecodeError as error:
        got = f"byte 0x{error.object[error.start]:02x} at {error.start}"
        fail(f"{file.name}: expected UTF-8, got {got}", REFUSED)


def _entry(
    file: TextIO | None, headline: str | None, bylines: tuple[str, ...], tags: tuple[str, ...]
) -> dict[str, Any]:
    """The entry that the options describe."""
    entry: dict[str, Any] = {"headline": headline} if headline is not None else {}
    if file is not None:
        entry["body"] = _body(file)
    if bylines:
        names = (re.split(r",\s*", byline, maxsplit=1) for byline in bylines)
        entry["bylines"] = [dict(zip(("name", "org"), name, strict=False)) for name in names]
    if tags:
        entry["tags"] = list(tags)
    return entry


@click.command()
@click.argument("stream")
@click.argument("file", type=click.File(encoding="utf-8"), required=False)
@click.option("--headline", help="Plain text, 300 characters at most.")
@click.option("--byline", "bylines", multiple=True, metavar="NAME[, ORG]", help="Who wrote it; may be repeated.")
@click.option("--tag", "tags", multiple=True, help="May be repeated.")
@click.option(
    "--idempotency-key", help="The same key stores one entry, however often it is sent. One is made if none is given."
)
@click.option("--dry-run", is_flag=True, help="Publish nothing: say whether it would be taken, and what looks odd.")
@click.option("--wait", is_flag=True, help="Wait for it to be given to the readers, and say to how many.")
@_json
@_publishes
def publish(
    publisher: Publisher,
    stream: str,
    idempotency_key: str | None,
    dry_run: bool,
    wait: bool,
    as_json: bool,
    **fields: Any,
) -> None:
    """Publish an entry to STREAM. FILE is its body in Markdown, - for standard input."""
    entry = _entry(**fields)
    if dry_run:
        _reviewed(publisher.dry_run(stream, entry), as_json)
        return
    answer = publisher.publish(stream, entry, idempotency_key=idempotency_key)
    if wait:
        answer["receipt"] = publisher.delivery(stream, answer["id"], n=answer["n"], wait=DELIVERY_WAIT)
    _told(answer, "published", as_json)


@click.command()
@click.argument("stream")
@click.argument("id")
@click.argument("file", type=click.File(encoding="utf-8"), required=False)
@click.option("--headline", help="The new headline.")
@click.option(
    "--class", "kind", type=click.Choice(["minor", "update", "correction"]), default="update", show_default=True
)
@click.option("--note", help="What was wrong; a correction needs it.")
@click.option("--if-rev", "rev", type=int, help="Only if this revision is the current one.")
@_json
@_publishes
def correct(
    publisher: Publisher,
    stream: str,
    id: str,
    file: TextIO | None,
    headline: str | None,
    kind: str,
    note: str | None,
    rev: int | None,
    as_json: bool,
) -> None:
    """Correct entry ID of STREAM. FILE is its new body in Markdown, - for standard input."""
    patch: dict[str, Any] = {"correction": {"class": kind, **({"note": note} if note else {})}}
    if headline is not None:
        patch["headline"] = headline
    if file is not None:
        patch["body"] = _body(file)
    _told(publisher.correct(stream, id, patch, rev=rev), "corrected", as_json)


@click.command()
@click.argument("stream")
@click.argument("id")
@click.option(
    "--reason", type=click.Choice(["error", "legal", "duplicate", "moved"]), default="error", show_default=True
)
@click.option("--note", help="What readers of its address are told.")
@_json
@_publishes
def withdraw(publisher: Publisher, stream: str, id: str, reason: str, note: str | None, as_json: bool) -> None:
    """Withdraw entry ID of STREAM: its text is gone from every page and every answer."""
    _told(publisher.withdraw(stream, id, reason=reason, note=note), "withdrawn", as_json)


@click.command()
@click.argument("stream")
@click.option("--headline")
@click.option("--kicker")
@click.option("--dek")
@click.option("--timezone", help="IANA name, as America/New_York.")
@click.option("--lang", help="As en-US.")
@click.option("--end", is_flag=True, help="The coverage is over.")
@_json
@_publishes
def page(publisher: Publisher, stream: str, end: bool, as_json: bool, **fields: str | None) -> None:
    """Change the page of STREAM: only what is given. The first time it needs a headline."""
    patch = {name: value for name, value in fields.items() if value is not None}
    if patch:
        _told(publisher.patch_page(stream, patch), "changed", as_json)
    if end:
        _told(publisher.end(stream), "ended", as_json)
    if not patch and not end:
        raise click.UsageError("Expected something to change, got no option.")


@click.command(name="import")
@click.argument("stream")
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option(
    "--speed",
    type=click.FloatRange(min=0.001),
    help="Keep the gaps between entries, this many times faster. Else no gaps.",
)
@_publishes
def import_(publisher: Publisher, stream: str, file: TextIO, speed: float | None) -> None:
    """Publish the lines of FILE (- for standard input) to STREAM, with their times.

    Each line is {"page": {…}} or {"entry": {…}}. A line that was imported within the last 24 hours adds nothing. The
    lines of an export are put back as they were, with their ids and revisions.
    """
    counts: Counter[bool] = Counter()  # whether a line was known
    previous_at: str | None = None
    stored: dict[int, bytes] = {}  # by the number of their line
    with click.progressbar(list(_lines(file)), label=stream, file=sys.stderr) as lines:
        for number, text in lines:
            kind, value = _record(text, file.name, number)
            if "rev" in value:
                stored[number] = client.encode({kind: value})
            if stored and ("rev" not in value or sum(map(len, stored.values())) > RESTORED_AT_ONCE):
                counts += _restore(publisher, stream, file.name, stored)
                stored.clear()
            if "rev" in value:
                continue
            published_at = value.get("published_at") if kind == "entry" else None
            if speed and isinstance(published_at, str):
                _wait_out(previous_at, published_at, speed)
                previous_at = published_at
            send = publisher.publish if kind == "entry" else publisher.put_page
            try:
                answer = send(stream, value, idempotency_key=client.content_key(kind, value))
            except PublishError as error:
                fail(f"{file.name}, line {number}: {error}", _status(error))
            counts[answer["replayed"]] += 1
        if stored:
            counts += _restore(publisher, stream, file.name, stored)
    click.echo(f"{stream}: {counts[False]} added, {counts[True]} known already")


def _restore(publisher: Publisher, stream: str, name: str, stored: dict[int, bytes]) -> Counter[bool]:
    """Put lines of an export back; how many of them were known."""
    try:
        results = publisher.restore(stream, list(stored.values()))["results"]
    except PublishError as error:
        fail(f"{name}, line {next(iter(stored))}: {error}", _status(error))
    for number, result in zip(stored, results, strict=False):
        if result["status"] not in (200, 201):
            refused = PublishError(result["status"], result)
            fail(f"{name}, line {number}: {refused}", NOT_REACHED if result["status"] == 503 else REFUSED)
    return Counter(result["status"] == 200 for result in results)


@click.command(name="export")
@click.argument("stream")
@_publishes
def export(publisher: Publisher, stream: str) -> None:
    """Write all that is stored of STREAM, as lines that `import` puts back: revisions and withdrawals too."""
    with tempfile.TemporaryFile() as file:
        publisher.export(stream, file)
        file.seek(0)
        shutil.copyfileobj(file, sys.stdout.buffer)


def _lines(file: TextIO) -> Iterator[tuple[int, str]]:
    """The numbered lines that are not blank. What cannot be read as text is left for `_record` to name."""
    file.reconfigure(errors="surrogateescape")  # type: ignore[attr-defined]
    for number, line in enumerate(file, 1):
        if line.strip():
            yield number, line


def _record(text: str, name: str, number: int) -> tuple[str, dict[str, Any]]:
    """A line's kind and value, or the end of the import: the lines before it stay."""
    try:
        value = validate.read_json(text[:LINE_LIMIT].encode("utf-8", "surrogateescape"))
    except Refused as error:
        fault = error.faults[0]
        said = f"{fault.field}: expected {fault.expected}, got {fault.got}"
        fail(f"{name}, line {number}: {error.detail} {said}", REFUSED)
    match value:
        case {"page": dict() as page} if len(value) == 1:
            return "page", page
        case {"entry": dict() as entry} if len(value) == 1:
            return "entry", entry
        case {"withdrawal": {"rev": _} as withdrawal} if len(value) == 1:
            return "withdrawal", withdrawal
    fail(f'{name}, line {number}: expected {{"page": …}} or {{"entry": …}}, got {text.strip()[:80]}', REFUSED)


def _wait_out(before: str | None, at: str, speed: float) -> None:
    """Wait as long as lay between two entries, at this speed."""
    try:
        gap = (model.milliseconds(at) - model.milliseconds(before)) / 1000 if before else 0.0
    except ValueError:
        return  # the server refuses it by name
    time.sleep(max(0.0, gap / speed))


@click.command()
@click.argument("stream")
@click.option("--cursor", default="", help="Where to go on, as --json shows it. Else the newest entries come first.")
@click.option("--json", "as_json", is_flag=True, help="Print each frame as it came, one a line.")
@click.option("--token", envvar="PUSHSERVER_TOKEN", default="", show_envvar=True, help="To read a private stream.")
@_url
def tail(url: str, stream: str, cursor: str, as_json: bool, token: str) -> None:
    """Show the entries of STREAM as they are published. Ctrl-C ends it."""

    async def show() -> None:
        async for frame in follow.follow(url, stream, cursor=cursor, token=token):
            click.echo(json.dumps(frame, ensure_ascii=False) if as_json else _readable(frame))

    configure_logging("warning")
    try:
        asyncio.run(show())
    except follow.TurnedAway as error:
        fail(str(error), REFUSED)
    except (KeyboardInterrupt, BrokenPipeError):
        pass


def _readable(frame: dict[str, Any]) -> str:
    match frame["type"]:
        case "snapshot":
            entries = "\n".join(_entry_lines(entry) for entry in reversed(frame["entries"]))
            return f"# {frame['page']['headline']}\n{entries}"
        case "entry.put":
            return _entry_lines(frame["entry"])
        case "page.put":
            return f"# {frame['page']['headline']}"
        case "entry.withdraw":
            return f"\n{frame['at']}  withdrawn: {frame['id']} {frame.get('note', '')}"
        case "reset":
            return f"\n(the server lost what it had acknowledged: {frame['reason']}; what is there follows)"
        case "stream.end":
            return f"\n{frame['at']}  the coverage has ended"
        case kind:
            return f"({kind})"


def _entry_lines(entry: dict[str, Any]) -> str:
    lines = [f"\n{entry['published_at']}  {entry.get('headline', '')}"]
    for block in entry["blocks"]:
        match block["type"]:
            case "paragraph" | "quote":
                lines.append(_text(block["html"]))
            case "list":
                lines += [f"- {_text(item)}" for item in block["items"]]
            case "image":
                lines.append(f"[{block['caption']} {block['credit']}]")
            case "social_post":
                lines.append(f"{block['author_name']} on {block['platform']}: {block['text']}")
            case "heading":
                lines.append(block["text"])
            case "embed":
                lines.append(f"{block['title']} {block['url']}")
    names = [byline["name"] for byline in entry["bylines"]]
    return "\n  ".join([*lines, *([f"- {', '.join(names)}"] if names else [])])


def _text(inline: str) -> str:
    return "\n  ".join(markup.text(line) for line in inline.split("<br>"))


COMMANDS = [publish, correct, withdraw, page, import_, export, tail]
