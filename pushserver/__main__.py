"""The command line: serve, and the commands that talk to a server.

Exit status: 0 done · 1 refused, with the reason · 2 wrong usage · 3 not reached, or the server could not start.
"""

from __future__ import annotations

import asyncio
import html
import json
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial, wraps
from pathlib import Path
from typing import Any, NoReturn, TextIO

import click
import httpx2

from . import admin, client, demo, embedded, follow, keys, model, server, settings, validate
from .client import Publisher, PublishError
from .errors import Refused

READY_EVERY = 0.05  # seconds between two looks at whether the server is up
LINE_LIMIT = 1_048_576  # characters of one line of an import
REFUSED, NOT_REACHED = 1, 3


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="pushserver", prog_name="pushserver")
def main() -> None:
    """A real-time push server for live updates."""


def _fail(message: str, status: int) -> NoReturn:
    click.echo(f"pushserver: {message}", err=True)
    sys.exit(status)


# --- the server


def _serve(play: bool, **values: Any) -> None:
    """Run the server. Without --redis it starts an embedded store in the data folder, and stops it last."""
    told = settings.Settings(**values)
    _configure_logging(told.log_level)
    try:
        status = asyncio.run(server.serve(told, partial(_greet, play=play)))
    except (embedded.CannotStart, OSError) as error:
        _fail(f"cannot start: {error}", NOT_REACHED)
    sys.exit(status)


def _work(listener: int, lifeline: int, **values: Any) -> None:
    """One worker process; started by `serve`."""
    told = settings.Settings(**values)
    _configure_logging(told.log_level)
    server.work(told, listener, lifeline)


def _configure_logging(level: str) -> None:
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    for name in ("uvicorn", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)


async def _greet(told: settings.Settings, url: str, *, play: bool) -> None:
    """Say where things are, once the server answers; play the demo beside it."""
    async with httpx2.AsyncClient() as http:
        while not await _is_ready(http, url):
            await asyncio.sleep(READY_EVERY)
    stream = await asyncio.to_thread(demo.begin, url, told.key) if play else "demo"
    key_file = Path(told.data).absolute() / keys.FILE
    is_local = keys.local_key(Path(told.data)) == told.key
    lines = [
        f"  pages        {url}/",
        f"  publish key  {key_file if is_local else 'as given in PUSHSERVER_KEY'}",
        f"  publish      {demo.curl(url, stream, f'$(cat {key_file})' if is_local else '$PUSHSERVER_KEY')}",
    ]
    if play:
        lines.insert(0, f"  live demo    {url}/streams/{stream}")
        # A thread that ends with the process: it publishes over HTTP as any script does, and owns nothing.
        threading.Thread(target=demo.go_on, args=(url, told.key, stream), daemon=True).start()
    click.echo("\npushserver is ready\n\n" + "\n".join(lines) + "\n")


async def _is_ready(http: httpx2.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(f"{url}/readyz")).status_code == 200
    except httpx2.TransportError:
        return False


_knobs = [settings.option(field.name) for field in settings.KNOBS]
_demo = click.Option(["play", "--demo"], is_flag=True, help="Play a made-up live page into a new stream.")
_inherited = [click.Argument(["listener"], type=int), click.Argument(["lifeline"], type=int)]
main.add_command(click.Command("serve", callback=_serve, params=[_demo, *_knobs], help=_serve.__doc__))
main.add_command(admin.keys)
main.add_command(click.Command("worker", callback=_work, params=[*_inherited, *_knobs], hidden=True))


# --- commands that talk to a server

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
            _fail(f"expected a publish key in PUSHSERVER_KEY or in {Path(data) / keys.FILE}, found none", REFUSED)
        with Publisher(url, key) as publisher:
            try:
                command(publisher, **values)
            except PublishError as error:
                _fail(str(error), REFUSED if error.status else NOT_REACHED)

    return _url(_key(_data(run)))


@main.command()
@click.argument("stream")
@click.argument("file", type=click.File(encoding="utf-8"), required=False)
@click.option("--headline", help="Plain text, 300 characters at most.")
@click.option("--byline", "bylines", multiple=True, metavar="NAME[, ORG]", help="Who wrote it; may be repeated.")
@click.option("--tag", "tags", multiple=True, help="May be repeated.")
@click.option(
    "--idempotency-key", help="The same key stores one entry, however often it is sent. One is made if none is given."
)
@click.option("--json", "as_json", is_flag=True, help="Print the server's answer as JSON.")
@_publishes
def publish(
    publisher: Publisher,
    stream: str,
    file: TextIO | None,
    headline: str | None,
    bylines: tuple[str, ...],
    tags: tuple[str, ...],
    idempotency_key: str | None,
    as_json: bool,
) -> None:
    """Publish an entry to STREAM. FILE is its body in Markdown, - for standard input."""
    entry: dict[str, Any] = {"headline": headline} if headline is not None else {}
    if file is not None:
        try:
            entry["body"] = file.read(LINE_LIMIT)
        except UnicodeDecodeError as error:
            _fail(f"{file.name}: expected UTF-8, got byte 0x{error.object[error.start]:02x} at {error.start}", REFUSED)
    if bylines:
        entry["bylines"] = [
            dict(zip(("name", "org"), re.split(r",\s*", byline, maxsplit=1), strict=False)) for byline in bylines
        ]
    if tags:
        entry["tags"] = list(tags)
    answer = publisher.publish(stream, entry, idempotency_key=idempotency_key)
    done = "was published already" if answer["replayed"] else "published"
    click.echo(
        json.dumps(answer) if as_json else f"{done}: {answer['id']}, event {answer['n']}, on {answer['durability']}"
    )


@main.command(name="import")
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

    Each line is {"page": {…}} or {"entry": {…}}. A line that was imported within the last 24 hours adds nothing.
    """
    added = known = 0
    previous_at: str | None = None
    with click.progressbar(list(_lines(file)), label=stream, file=sys.stderr) as lines:
        for number, text in lines:
            kind, value = _record(text, file.name, number)
            published_at = value.get("published_at") if kind == "entry" else None
            if speed and isinstance(published_at, str):
                _wait_out(previous_at, published_at, speed)
                previous_at = published_at
            send = publisher.publish if kind == "entry" else publisher.put_page
            try:
                answer = send(stream, value, idempotency_key=client.content_key(kind, value))
            except PublishError as error:
                _fail(f"{file.name}, line {number}: {error}", REFUSED if error.status else NOT_REACHED)
            known, added = (known + 1, added) if answer["replayed"] else (known, added + 1)
    click.echo(f"{stream}: {added} added, {known} known already")


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
        _fail(f"{name}, line {number}: {error.detail} {said}", REFUSED)
    match value:
        case {"page": dict() as page} if len(value) == 1:
            return "page", page
        case {"entry": dict() as entry} if len(value) == 1:
            return "entry", entry
    _fail(f'{name}, line {number}: expected {{"page": …}} or {{"entry": …}}, got {text.strip()[:80]}', REFUSED)


def _wait_out(before: str | None, at: str, speed: float) -> None:
    """Wait as long as lay between two entries, at this speed."""
    try:
        gap = (model.milliseconds(at) - model.milliseconds(before)) / 1000 if before else 0.0
    except ValueError:
        return  # the server refuses it by name
    time.sleep(max(0.0, gap / speed))


@main.command()
@click.argument("stream")
@click.option("--cursor", default="", help="Where to go on, as --json shows it. Else the newest entries come first.")
@click.option("--json", "as_json", is_flag=True, help="Print each frame as it came, one a line.")
@_url
def tail(url: str, stream: str, cursor: str, as_json: bool) -> None:
    """Show the entries of STREAM as they are published. Ctrl-C ends it."""

    async def show() -> None:
        async for frame in follow.follow(url, stream, cursor=cursor):
            click.echo(json.dumps(frame, ensure_ascii=False) if as_json else _readable(frame))

    _configure_logging("warning")
    try:
        asyncio.run(show())
    except follow.Refused as error:
        _fail(str(error), REFUSED)
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
    return html.unescape(re.sub(r"<[^>]*>", "", inline.replace("<br>", "\n  ")))


if __name__ == "__main__":
    main()
