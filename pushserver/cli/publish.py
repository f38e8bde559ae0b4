"""The commands that talk to a server: publish, correct, withdraw, page, tail."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from functools import partial
from typing import Any, TextIO

import click

from ..client import Publisher, PublishError, Rejected, TurnedAway, follow
from ..content import markup
from .options import REFUSED, configure_logging, fail, json_option, publishes, status_of, url_option

BODY_LIMIT = 1_048_576  # characters of a body that is read; the server takes fewer
DELIVERY_WAIT = 5.0  # seconds for all workers to have an entry


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
        return file.read(BODY_LIMIT)
    except UnicodeDecodeError as error:
        fail(f"{file.name}: {_not_text(error)}", REFUSED)


def _not_text(error: UnicodeDecodeError) -> str:
    return f"expected UTF-8, got byte 0x{error.object[error.start]:02x} at {error.start}"


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
@click.option("--each-line", is_flag=True, help="Publish each line of FILE, as it comes, as an entry's headline.")
@click.option("--wait", is_flag=True, help="Wait for it to be given to the readers, and say to how many.")
@json_option
@publishes
def publish(
    publisher: Publisher,
    stream: str,
    idempotency_key: str | None,
    dry_run: bool,
    each_line: bool,
    wait: bool,
    as_json: bool,
    **fields: Any,
) -> None:
    """Publish an entry to STREAM. FILE is its body in Markdown, - for standard input.

    With --each-line, FILE (standard input, if not given) is read until it ends, and a line that is refused is passed
    over. An idempotency key counts for each line by its number: what is read again from the beginning adds nothing.
    """
    if each_line:
        if wait or dry_run or fields["headline"] is not None:
            raise click.UsageError("Expected --each-line without --headline, --dry-run and --wait.")
        _publish_lines(publisher, stream, fields.pop("file"), _entry(None, **fields), idempotency_key, as_json)
        return
    entry = _entry(**fields)
    if dry_run:
        _reviewed(publisher.dry_run(stream, entry), as_json)
        return
    answer = publisher.publish(stream, entry, idempotency_key=idempotency_key)
    if wait:
        answer["receipt"] = publisher.delivery(stream, answer["id"], n=answer["n"], wait=DELIVERY_WAIT)
    _told(answer, "published", as_json)


def _publish_lines(
    publisher: Publisher, stream: str, file: TextIO | None, entry: dict[str, Any], key: str | None, as_json: bool
) -> None:
    """Publish each line as it comes; exit status 1 where one was refused."""
    status = 0
    lines = iter(partial((file or sys.stdin).buffer.readline, BODY_LIMIT), b"")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        line_key = f"{key}.{number}" if key else None
        try:
            headline = line.decode().strip()
            answer = publisher.publish(stream, {**entry, "headline": headline}, idempotency_key=line_key)
        except (Rejected, UnicodeDecodeError) as error:
            why = _not_text(error) if isinstance(error, UnicodeDecodeError) else error
            click.echo(f"pushserver: line {number}: {why}", err=True)
            status = REFUSED
        except PublishError as error:
            fail(f"line {number}: {error}", status_of(error))
        else:
            _told(answer, "published", as_json)
    sys.exit(status)


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
@json_option
@publishes
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
@json_option
@publishes
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
@json_option
@publishes
def page(publisher: Publisher, stream: str, end: bool, as_json: bool, **fields: str | None) -> None:
    """Change the page of STREAM: only what is given. The first time it needs a headline."""
    patch = {name: value for name, value in fields.items() if value is not None}
    if patch:
        _told(publisher.patch_page(stream, patch), "changed", as_json)
    if end:
        _told(publisher.end(stream), "ended", as_json)
    if not patch and not end:
        raise click.UsageError("Expected something to change, got no option.")


@click.command()
@click.argument("stream")
@click.option("--cursor", default="", help="Where to go on, as --json shows it. Else the newest entries come first.")
@click.option("--json", "as_json", is_flag=True, help="Print each frame as it came, one a line.")
@click.option("--token", envvar="PUSHSERVER_TOKEN", default="", show_envvar=True, help="To read a private stream.")
@url_option
def tail(url: str, stream: str, cursor: str, as_json: bool, token: str) -> None:
    """Show the entries of STREAM as they are published. Ctrl-C ends it."""

    async def show() -> None:
        async for frame in follow(url, stream, cursor=cursor, token=token):
            click.echo(json.dumps(frame, ensure_ascii=False) if as_json else _readable(frame))

    configure_logging("warning")
    try:
        asyncio.run(show())
    except TurnedAway as error:
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


COMMANDS = [publish, correct, withdraw, page, tail]
