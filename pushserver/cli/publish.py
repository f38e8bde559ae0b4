"""These commands publish to a server and read from it: publish, correct, withdraw, page, tail."""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import re
import select
import stat
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any, TextIO

import click

from ..client import Gone, Publisher, PublishError, Rejected, TurnedAway, Unreachable, follow
from ..content import markup
from .options import (
    configure_logging,
    exit_status,
    idempotency_option,
    json_option,
    publishes,
    token_option,
    url_option,
)
from .output import NOT_REACHED, REFUSED, counted, discard_output, erasure_line, fail

BODY_LIMIT = 1_048_576  # characters of a body that are read; the server accepts fewer
QUIET = 1.0  # seconds without a byte on standard input, after which it is said what is waited for
DELIVERY_WAIT = 5.0  # seconds to wait until all workers have an entry


def _print_answer(answer: dict[str, Any], done: str, as_json: bool, url: str = "") -> None:
    """Print the server's answer to a change; `done` is the change in the past tense.

    Below it stands the address of what changed, where the server's is passed as `url`.
    """
    id = f"{answer['id']}, " if "id" in answer else ""
    if as_json:
        click.echo(json.dumps(answer))
    elif answer.get("unchanged"):
        click.echo(f"unchanged: {id}revision {answer['rev']}")
    else:
        before = " before" if answer["replayed"] else ""
        click.echo(f"{done}{before}: {id}revision {answer['rev']}, event {answer['n']}, on {answer['durability']}")
        if url and "url" in answer:
            click.echo(f"{url}{answer['url']}")
        if answer.get("receipt"):
            click.echo(receipt_line(answer["receipt"]))


def _print_dry_run(answer: dict[str, Any], as_json: bool) -> None:
    """Print the entry as it would be published, and the warnings."""
    if as_json:
        click.echo(json.dumps(answer))
    else:
        entry = answer["entry"]
        click.echo(_entry_lines(entry, entry["published_at"]).lstrip("\n"))
        click.echo("nothing was published: this is a dry run")
    for warning in answer["warnings"]:
        click.echo(f"warning: {warning['field']}: expected {warning['expected']}, got {warning['got']}", err=True)


def receipt_line(receipt: dict[str, Any]) -> str:
    """Return a delivery receipt in one line."""
    count, behind, silent = receipt["sent"], receipt["behind"], receipt["silent"]
    times = f", half within {receipt['p50_ms']} ms, 99 of 100 within {receipt['p99_ms']} ms" if count else ""
    missing = [f"not yet to {counted(behind, 'slow reader')}"] if behind else []
    unknown = [f"no answer from {counted(silent, 'worker')}"] if silent else []
    sent = f"delivered to {counted(count, 'reader')} on {counted(len(receipt['workers']), 'worker')}{times}"
    return ", ".join([sent, *missing, *unknown])


def _piped() -> TextIO | None:
    """Return standard input where something is piped into it or it is a file; None for a terminal or /dev/null."""
    if sys.stdin is None or stat.S_ISCHR(os.fstat(sys.stdin.fileno()).st_mode):
        return None
    if not select.select([sys.stdin], [], [], QUIET)[0]:
        click.echo("pushserver: waiting for the body on standard input; `</dev/null` leaves it out", err=True)
    sys.stdin.reconfigure(encoding="utf-8-sig", errors="strict")  # type: ignore[union-attr]
    return sys.stdin


def _body(file: TextIO) -> str:
    """Read a body; exit with an error where it is not UTF-8."""
    try:
        return file.read(BODY_LIMIT)
    except UnicodeDecodeError as error:
        fail(f"{file.name}: {_utf8_error(error)}", REFUSED)


def _given_body(file: TextIO | None) -> str | None:
    """Return the body in a file, or else what is piped in; None where that is blank."""
    if file is not None:
        return _body(file)
    piped = _piped()
    body = _body(piped) if piped else ""
    return body if body.strip() else None


def _utf8_error(error: UnicodeDecodeError) -> str:
    return f"expected UTF-8, got byte 0x{error.object[error.start]:02x} at {error.start}"


def _entry(
    file: TextIO | None,
    headline: str | None,
    bylines: tuple[str, ...],
    tags: tuple[str, ...],
    *,
    each_line: bool = False,
) -> dict[str, Any]:
    """Return the entry that the options describe."""
    entry: dict[str, Any] = {"headline": headline} if headline is not None else {}
    body = None if each_line else _given_body(file)
    if body is not None:
        entry["body"] = body
    if bylines:
        names = (re.split(r",\s*", byline, maxsplit=1) for byline in bylines)
        entry["bylines"] = [dict(zip(("name", "org"), name, strict=False)) for name in names]
    if tags:
        entry["tags"] = list(tags)
    return entry


@click.command()
@click.argument("stream")
@click.argument("file", type=click.File(encoding="utf-8-sig"), required=False)
@click.option("--headline", help="Headline: plain text, at most 300 characters.")
@click.option("--byline", "bylines", multiple=True, metavar="NAME[, ORG]", help="Author; may be repeated.")
@click.option("--tag", "tags", multiple=True, help="Tag; may be repeated.")
@idempotency_option
@click.option("--dry-run", is_flag=True, help="Publish nothing: show the entry as it would be, and warnings.")
@click.option("--each-line", is_flag=True, help="Publish each line of FILE, as it arrives, as a headline.")
@click.option("--wait", is_flag=True, help="Wait, at most 5 s, until readers were sent the entry; print to how many.")
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
    """Publish an entry to STREAM. FILE has its body in Markdown.

    Without FILE, or with -, the body is what is piped in.

    With --each-line, FILE (default: standard input) is read until it ends; a refused line is reported and skipped. If
    --idempotency-key is given too, the key of a line is this key and the line's number: a second run stores only the
    lines that the first one did not.
    """
    if each_line:
        if wait or dry_run or fields["headline"] is not None:
            raise click.UsageError("Expected --each-line without --headline, --dry-run and --wait.")
        _publish_lines(
            publisher, stream, fields.pop("file"), _entry(None, **fields, each_line=True), idempotency_key, as_json
        )
        return
    entry = _entry(**fields)
    if dry_run:
        _print_dry_run(publisher.dry_run(stream, entry), as_json)
        return
    answer = publisher.publish(stream, entry, idempotency_key=idempotency_key)
    if wait:
        answer["receipt"] = publisher.delivery(stream, answer["id"], n=answer["n"], wait=DELIVERY_WAIT)
    _print_answer(answer, "published", as_json, publisher.url)


def _publish_lines(
    publisher: Publisher, stream: str, file: TextIO | None, entry: dict[str, Any], key: str | None, as_json: bool
) -> None:
    """Publish each line as it arrives; exit with status 1 where a line was refused."""
    status = 0
    source = file or sys.stdin
    for number, line in enumerate(iter(partial(source.buffer.readline, BODY_LIMIT), b"") if source else (), 1):
        if not line.removeprefix(codecs.BOM_UTF8).strip():
            continue
        line_key = f"{key}.{number}" if key else None
        try:
            headline = line.decode("utf-8-sig").strip()
            answer = publisher.publish(stream, {**entry, "headline": headline}, idempotency_key=line_key)
        except (Rejected, UnicodeDecodeError) as error:
            reason = _utf8_error(error) if isinstance(error, UnicodeDecodeError) else error
            click.echo(f"pushserver: line {number}: {reason}", err=True)
            status = REFUSED
        except PublishError as error:
            fail(f"line {number}: {error}", exit_status(error))
        else:
            _print_answer(answer, "published", as_json)
    sys.exit(status)


@click.command()
@click.argument("stream")
@click.argument("id")
@click.argument("file", type=click.File(encoding="utf-8-sig"), required=False)
@click.option("--headline", help="The new headline.")
@click.option(
    "--class",
    "kind",
    type=click.Choice(["minor", "update", "correction"]),
    default="update",
    show_default=True,
    help="Kind of change.",
)
@click.option("--note", help="What was wrong; required for --class correction.")
@click.option("--if-rev", "rev", type=int, help="Change the entry only if this is its current revision.")
@idempotency_option
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
    as_json: bool,
    **options: Any,
) -> None:
    """Correct entry ID of STREAM. FILE has its new body in Markdown.

    Without FILE, or with -, the new body is what is piped in. If nothing is piped in, the body stays.
    """
    patch: dict[str, Any] = {"correction": {"class": kind, **({"note": note} if note else {})}}
    if headline is not None:
        patch["headline"] = headline
    body = _given_body(file)
    if body is not None:
        patch["body"] = body
    _print_answer(publisher.correct(stream, id, patch, **options), "corrected", as_json)


@click.command()
@click.argument("stream")
@click.argument("id")
@click.option(
    "--reason",
    type=click.Choice(["error", "legal", "duplicate", "moved"]),
    default="error",
    show_default=True,
    help="Why the entry is withdrawn.",
)
@click.option("--note", help="Text that the entry's URL shows from now on.")
@idempotency_option
@json_option
@publishes
def withdraw(
    publisher: Publisher,
    stream: str,
    id: str,
    reason: str,
    note: str | None,
    idempotency_key: str | None,
    as_json: bool,
) -> None:
    """Withdraw entry ID of STREAM: its text is removed from every page and every answer."""
    try:
        answer = publisher.withdraw(stream, id, reason=reason, note=note, idempotency_key=idempotency_key)
    except Gone as gone:
        if reason == "legal" and [error["field"] for error in gone.errors] == ["id"]:  # else it is of the stream
            erase = f"pushserver erase {stream} {id}"
            fail(f"{gone}\n  To erase its text from the store: {erase}", exit_status(gone))
        raise
    _print_answer(answer, "withdrawn", as_json)
    if "erased" in answer and not as_json:
        click.echo(erasure_line(stream, id, answer["erased"]))


@click.command(name="page")
@click.argument("stream")
@click.option("--headline", help="Headline of the page.")
@click.option("--kicker", help="Short text above the headline.")
@click.option("--dek", help="Summary below the headline.")
@click.option("--timezone", help="IANA time zone, such as America/New_York.")
@click.option("--lang", help="Language tag, such as en-US.")
@click.option("--end", is_flag=True, help="End the stream.")
@json_option
@publishes
def change_page(publisher: Publisher, stream: str, end: bool, as_json: bool, **fields: str | None) -> None:
    """Change the page of STREAM: only the fields in the options. A new page needs a headline."""
    patch = {name: value for name, value in fields.items() if value is not None}
    if patch:
        answer = publisher.patch_page(stream, patch)
        is_new = answer.get("n") == 1  # the first event of the stream
        _print_answer(answer, "created" if is_new else "changed", as_json)
    if end:
        _print_answer(publisher.end(stream), "ended", as_json)
    if not patch and not end:
        raise click.UsageError("Expected an option with a field to change, or --end.")


@click.command()
@click.argument("stream")
@click.option("--cursor", default="", help="Start after this cursor. Default: show the newest entries.")
@click.option("--json", "as_json", is_flag=True, help="Print each frame as JSON, one a line.")
@token_option
@url_option
def tail(url: str, stream: str, cursor: str, as_json: bool, token: str) -> None:
    """Show the entries of STREAM as they are published, until Ctrl-C."""

    async def show() -> None:
        last = ""
        async for frame in follow(url, stream, cursor=cursor, token=token):
            click.echo(json.dumps(frame, ensure_ascii=False) if as_json else _as_text(frame))
            last = frame["type"]
        if last != "stream.end" and not as_json:  # it had ended before: the command would stop without a word
            click.echo("\nthe stream has ended")

    configure_logging("warning")
    try:
        asyncio.run(show())
    except TurnedAway as error:
        hint = " Name it with --token or PUSHSERVER_TOKEN." if str(error).startswith("status 401") else ""
        fail(f"{error}{hint}", NOT_REACHED if isinstance(error, Unreachable) else REFUSED)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:  # as in `tail … | head`: who reads has enough
        discard_output()


def _as_text(frame: dict[str, Any]) -> str:
    """Return a frame for people."""
    match frame["type"]:
        case "snapshot":
            entries = "\n".join(_put_lines(entry, "") for entry in reversed(frame["entries"]))
            return f"# {frame['page']['headline']}\n{entries}"
        case "entry.put":
            return _put_lines(frame["entry"], frame["at"])
        case "page.put":
            return f"# {frame['page']['headline']}"
        case "entry.withdraw":
            return f"\n{frame['at']}  withdrawn: {frame['id']} {frame.get('note', '')}"
        case "reset" if frame["reason"] == "page":
            return "\n(the page has another language, direction or zone; what is stored now follows)"
        case "reset":
            return f"\n(the server lost events: {frame['reason']}; what is stored now follows)"
        case "stream.end":
            return f"\n{frame['at']}  the stream has ended"
        case kind:
            return f"({kind})"


def _put_lines(entry: dict[str, Any], at: str) -> str:
    """An entry with its id and its correction; `at` is when it was put, '' where what it was before is not known."""
    correction = entry.get("correction", {})
    done = "corrected" if correction.get("at") == at else "changed"
    is_new = not at or entry["rev"] == 1
    lines = _entry_lines(entry, f"{entry['published_at']}  {entry['id']}" if is_new else f"{at}  {done}: {entry['id']}")
    return f"{lines}\n  correction: {correction['note']}" if "note" in correction else lines


def _entry_lines(entry: dict[str, Any], begin: str) -> str:
    """The text of an entry; its first line begins with `begin`, the others are further in."""
    lines = [f"\n{begin}  {entry.get('headline', '')}".rstrip(" ")]
    for block in entry["blocks"]:
        match block["type"]:
            case "paragraph" | "quote":
                lines.append(_text(block["html"]))
            case "list":
                lines += _item_lines(block)
            case "table":
                lines += [" | ".join(map(markup.text, row)) for row in (block["head"], *block["rows"])]
            case "break":
                lines.append("---")
            case "image":
                lines.append(f"[{block['caption']} {block['credit']}]")
            case "social_post":
                lines.append(f"{block['author_name']} on {block['platform']}: {block['text']}")
            case "heading":
                lines.append(block["text"])
            case "embed":
                lines.append(f"{block['title']} {block['url']}")
    names = [", ".join(filter(None, (byline["name"], byline.get("org")))) for byline in entry["bylines"]]
    return "\n  ".join([*lines, *([f"- {'; '.join(names)}"] if names else [])])


def _item_lines(fields: dict[str, Any], indent: str = "") -> Iterator[str]:
    """A line for each item of a list, and further in for the items of the lists in it."""
    for item in fields["items"]:
        yield f"{indent}- {_text(item if isinstance(item, str) else item['html'])}"
        if not isinstance(item, str):
            yield from _item_lines(item["list"], f"{indent}  ")


def _text(inline: str) -> str:
    return "\n  ".join(markup.text(line) for line in inline.split("<br>"))
