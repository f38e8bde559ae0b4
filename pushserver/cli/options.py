"""The commands share these options."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from .. import logs, settings, values
from ..access import keyfile
from ..client import Publisher, PublishError, Unreached
from ..client.publisher import IDEMPOTENCY_KEY, KEY_EXPECTED
from ..errors import shorten
from ..logs import hide_secrets
from ..server.secret_files import with_secrets
from ..store.folder import CannotStart
from .output import NOT_REACHED, REFUSED, fail


def configure_logging(level: str, *, form: str = "human", role: str = "", access: bool = False) -> None:
    """Log to standard error, of the libraries warnings only; requests if `access` says so."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logs.formatter(form, role))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for name in ("uvicorn", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger(logs.ACCESS).setLevel(logging.INFO if access else logging.WARNING)


def root_url(text: str) -> str:
    """The URL of a server, which may be below a path of a site. Raises ValueError, also for the address of a stream.

    To that, each request would be sent to an address that the server does not have.
    """
    url = values.base_url(text)
    parts = urlsplit(url)
    if "streams" in parts.path.split("/") or parts.query or parts.fragment:
        root = re.sub(r"(/streams(/.*)?)?([?#].*)?$", "", url).rstrip("/")
        raise ValueError(
            f"expected the root address of the server, such as {hide_secrets(root)}, got {shorten(hide_secrets(url))}"
        )
    return url


url_option = click.option(
    "--url",
    cls=settings.Option,
    type=settings.Parsed(root_url, required=True),
    envvar="PUSHSERVER_URL",
    default="http://127.0.0.1:8000",
    show_default=True,
    show_envvar=True,
    help="Root URL of the server.",
)
key_option = click.option(
    "--key", cls=settings.Option, envvar="PUSHSERVER_KEY", default="", show_envvar=True, help="Publish key."
)


def _visible(ctx: click.Context, param: click.Parameter, token: str) -> str:
    """Refuse a token that no header can have."""
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise click.BadParameter("expected a JWT, which has visible ASCII characters alone")
    return token


token_option = click.option(
    "--token",
    cls=settings.Option,
    callback=_visible,
    envvar="PUSHSERVER_TOKEN",
    default="",
    show_envvar=True,
    help="Token for a private stream.",
)
key_file_option = click.option("--key-file", cls=settings.Option, **settings.option_of("key_file"))
data_option = click.option(
    "--data",
    cls=settings.Option,
    envvar="PUSHSERVER_DATA",
    default="data",
    show_default=True,
    help="Folder with publish.key, for a command without --key.",
)


def publishes(command: Callable[..., None]) -> Callable[..., None]:
    """Pass a command a Publisher, made from its options for the server and the key; print what the server refused."""

    @wraps(command)
    def run(url: str, key: str, key_file: str, data: str, **values: Any) -> None:
        key = chosen_key(key, key_file, data)
        if not key:
            fail(f"expected a publish key in PUSHSERVER_KEY or in {Path(data) / keyfile.KEY_FILE}, found none", REFUSED)
        configure_logging("warning")
        try:
            with Publisher(url, key) as publisher:
                command(publisher, **values)
        except PublishError as error:
            fail(str(error), exit_status(error))

    return url_option(key_option(key_file_option(data_option(run))))


def chosen_key(key: str, key_file: str, data: str) -> str:
    """The publish key of a command: the text itself, else that of its file, else that of the data folder, else none."""
    try:
        if key_file and not key:
            key = with_secrets(settings.Settings(key_file=key_file)).key
        return key or keyfile.local_key(Path(data)) or ""
    except CannotStart as error:
        fail(str(error), REFUSED)
    except OSError as error:  # of another user, as a rule
        fail(f"the publish key cannot be read: {error}; pass one in PUSHSERVER_KEY or with --key", REFUSED)


def exit_status(error: PublishError) -> int:
    """Return the exit status for an error."""
    return NOT_REACHED if isinstance(error, Unreached) else REFUSED


json_option = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")


def _storable(ctx: click.Context, param: click.Parameter, key: str | None) -> str | None:
    """Refuse an idempotency key that the server would refuse, and an empty one: a shell has made it of no variable."""
    if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):
        raise click.BadParameter(f"expected {KEY_EXPECTED}, got {shorten(key)}")
    return key


idempotency_option = click.option(
    "--idempotency-key",
    callback=_storable,
    help="A request that is sent again with the same key is stored once. Default: a new key.",
)
