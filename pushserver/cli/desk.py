"""These commands take things out of a server for good: delete, erase; and show what there is: streams, history."""

from __future__ import annotations

import json

import click

from .. import logs
from ..client import Publisher
from .options import json_option, publishes
from .output import counted, erasure_line, replica_line


def _confirmed(ctx: click.Context, param: click.Parameter, yes: bool) -> None:
    """Ask before a stream is deleted; exit where the answer is no, or where nobody can answer."""
    if yes or ctx.resilient_parsing:
        return
    try:
        click.confirm("This removes the stream with all its entries for good. Delete it?", abort=True)
    except click.Abort as error:
        if isinstance(error.__context__, EOFError):  # as without a terminal: `Aborted!` would not say what to do
            raise click.UsageError("Nothing was deleted: nobody answered. Expected --yes without a terminal.") from None
        raise


@click.command()
@click.argument("stream")
@click.option("--forget", is_flag=True, help="Leave no mark: the name can be used again at once.")
@click.option("--yes", is_flag=True, expose_value=False, callback=_confirmed, help="Delete it without a question.")
@json_option
@publishes
def delete(publisher: Publisher, stream: str, forget: bool, as_json: bool) -> None:
    """Delete STREAM: remove all that is stored of it, and disconnect its readers. The key needs the right delete.

    Its addresses answer 410, and its name is refused, for the time of the server's --gone.
    """
    answer = publisher.delete_stream(stream, forget=forget)
    if as_json:
        click.echo(json.dumps(answer))
        return
    receipt = answer["receipt"]
    count = len(receipt["workers"]) if receipt else 0
    closed = f"its readers are disconnected on {counted(count, 'worker')}"
    workers = closed if receipt else "the workers disconnect its readers by themselves"
    silent = f", {receipt['silent']} did not answer yet" if receipt and receipt["silent"] else ""
    click.echo(f"deleted {stream}: {workers}{silent}")


@click.command()
@click.argument("stream")
@click.argument("id")
@json_option
@publishes
def erase(publisher: Publisher, stream: str, id: str, as_json: bool) -> None:
    """Erase the text of the withdrawn entry ID of STREAM from the records and files of the store.

    A withdrawal for legal reasons does so itself. The key needs the right withdraw.
    """
    answer = publisher.erase(stream, id)
    click.echo(json.dumps(answer) if as_json else erasure_line(stream, id, answer["erased"]))
    if not as_json and (missing := replica_line(answer, f"pushserver erase {stream} {id}")):
        click.echo(missing)


@click.command()
@json_option
@publishes
def streams(publisher: Publisher, as_json: bool) -> None:
    """List the streams that the key is valid for, last changed first: name, state, entries, bytes and last change."""
    for stream in publisher.streams():
        if as_json:
            click.echo(json.dumps(stream))
        else:
            counts = f"{stream['entries']} entries  {stream['bytes']} bytes"
            click.echo(f"{stream['stream']}  {stream['state']}  {counts}  {stream['updated_at']}")


@click.command()
@click.argument("stream")
@click.argument("id")
@json_option
@publishes
def history(publisher: Publisher, stream: str, id: str, as_json: bool) -> None:
    """Show which keys made the newest revisions of the entry ID of STREAM, the oldest first, and no text.

    Each line has the revision, its time, the key's id and name, what was done, and the fields that changed. The key
    needs the right audit.
    """
    answer = publisher.history(stream, id)
    if as_json:
        click.echo(json.dumps(answer))
        return
    for revision in answer["revisions"]:
        key = " ".join(dict.fromkeys([revision["key"]["id"], logs.one_line(revision["key"]["name"])]))
        columns = [str(revision["rev"]), revision["at"], key, revision["action"], ",".join(revision["changed"])]
        click.echo("  ".join(column for column in columns if column))
    if not answer["revisions"]:
        click.echo(f"nothing is known of who made {id}")
