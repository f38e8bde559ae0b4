"""`pushserver keys` makes, lists and revokes publish keys in the store; it needs access to the store, and no key."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from .. import logs, model, settings, values
from ..access.keys import RIGHTS, new_key
from ..access.keystore import KeyStore
from ..content import fields, plaintext
from ..server.secret_files import with_secrets
from ..store.folder import SOCKET, CannotStart, reachable, socket_url
from ..store.store import Store, StoreError

EVERYTHING = "*"
NAME_LIMIT = 100  # characters of a key's name
HELP = {
    "data": "Folder of the embedded store, whose server has to run.",
    "redis": "URL of the Redis or Valkey of the servers: redis://, redis+sentinel:// or redis+cluster://.",
}


@click.group(name="keys")
def keys() -> None:
    """Make, list and revoke publish keys."""


def _opens_store(command: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Pass a command a Store, made from its options."""

    @wraps(command)
    def run(redis: str, redis_file: str, data: str, **values: Any) -> None:
        try:
            redis = with_secrets(settings.Settings(redis=redis, redis_file=redis_file)).redis
        except CannotStart as error:
            raise click.ClickException(str(error)) from None
        socket = Path(data).absolute() / SOCKET
        if not redis and not socket.exists():
            raise click.ClickException(f"expected a running server with its store in {data}, or --redis")

        async def talk(url: str) -> None:
            try:
                store = Store(url, partitions=settings.Settings().partitions)
            except ValueError as error:
                raise click.BadParameter(f"expected the URL of a store: {error}", param_hint="--redis") from None
            try:
                await command(store, **values)
            finally:
                await store.close()

        try:
            with reachable(socket) as path:
                asyncio.run(talk(redis or socket_url(path)))
        except StoreError as error:
            raise click.ClickException(f"the store was not reached: {error}") from None

    for name in ("data", "redis", "redis_file"):
        option = {**settings.option_of(name), "help": HELP.get(name) or settings.option_of(name)["help"]}
        run = click.option(*settings.flags(name), cls=settings.Option, **option)(run)
    return run


@keys.command()
@click.argument("name")
@click.option(
    "--streams",
    default=EVERYTHING,
    show_default=True,
    help="Names or patterns such as nato-*, comma separated.",
)
@click.option(
    "--can", default="publish,correct", show_default=True, help=f"Some of {', '.join(RIGHTS)}, comma separated."
)
@click.option(
    "--rate",
    type=click.FloatRange(0.1, 10_000),
    default=50,
    show_default=True,
    help="Requests a second, and lines of a batch, that each worker accepts with this key.",
)
@click.option("--expires", help="When the key expires, such as 2027-01-01T00:00:00Z.")
@_opens_store
async def create(store: Store, name: str, streams: str, can: str, rate: float, expires: str | None) -> None:
    """Make a key called NAME, and print it. The key itself is not stored, and cannot be shown again."""
    _check_name(name)
    rights = [right.strip() for right in can.split(",")]
    unknown = [right for right in rights if right not in RIGHTS]
    if unknown:
        raise click.BadParameter(f"expected some of {', '.join(RIGHTS)}, got {', '.join(unknown)}", param_hint="--can")
    try:
        patterns = values.stream_patterns(streams)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--streams") from None
    ends = _end(expires) if expires else None
    id, key, stored = new_key(name, streams=patterns.split(","), can=rights, rate=rate, expires=ends)
    await KeyStore(store).add(id, stored._asdict())
    click.echo(key)  # standard output is the bare key
    click.echo("This key is shown only once: give it to the publisher now.", err=True)


def _end(text: str) -> str:
    """The instant at which a key expires. Raises BadParameter for one that is past: nothing would accept the key."""
    try:
        ends = fields.instant_of(text)
    except plaintext.Unsafe as error:
        raise click.BadParameter(str(error), param_hint="--expires") from None
    at = model.instant(model.now())
    if ends <= at:
        raise click.BadParameter(f"expected a time after now ({at}), got {ends}", param_hint="--expires")
    return ends


def _check_name(name: str) -> None:
    """Raises BadParameter for a name that is not one line of text: lists and histories show it."""
    if not (name.strip() and name.isprintable() and len(name) <= NAME_LIMIT):
        expected = f"expected 1 to {NAME_LIMIT} characters on one line, without control characters"
        raise click.BadParameter(f"{expected}, got {logs.one_line(name, 80) or 'an empty string'}", param_hint="NAME")


@keys.command(name="list")
@_opens_store
async def list_(store: Store) -> None:
    """List the keys that `keys create` made: id, name, rights, streams, last use, and expiry."""
    for id, key in sorted((await KeyStore(store).all()).items(), key=lambda item: item[1]["created"]):
        used, ends = key["used"] or "never used", f"until {key['expires']}" if key["expires"] else "no end"
        click.echo(
            "  ".join([id, logs.one_line(key["name"]), ",".join(key["can"]), ",".join(key["streams"]), used, ends])
        )


@keys.command()
@click.argument("id")
@_opens_store
async def revoke(store: Store, id: str) -> None:
    """Revoke the key with this ID, on every worker at once."""
    if not await KeyStore(store).revoke(id):
        raise click.ClickException(f"expected the id of a key, as `keys list` shows it, got {id}")
    click.echo(f"revoked {id}")
