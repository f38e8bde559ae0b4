"""`pushserver serve` runs the server."""

from __future__ import annotations

import asyncio
import errno
import os
import shlex
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import click
import httpx2

from .. import settings
from ..access import keyfile
from ..server import checks, supervisor
from ..store.folder import CannotStart
from ..values import unix_path
from . import demo
from .options import configure_logging
from .output import NOT_REACHED, fail

READY_EVERY = 0.05  # seconds between two requests that ask whether the server is ready


def _serve(play: bool, accept_empty_store: bool, **values: Any) -> None:
    """Run the server. Without --redis it starts an embedded store in the data folder, and stops it at the end."""
    chosen = settings.Settings(**values)
    if play and (chosen.redis or chosen.redis_file) and not (chosen.key or chosen.key_file):
        raise click.UsageError("Expected --key or PUSHSERVER_KEY with --demo and --redis.")
    if play and unix_path(chosen.host):
        raise click.UsageError("Expected an address with --demo, got a unix socket in --host.")
    configure_logging(chosen.log_level, form=chosen.log_format, role="supervisor")
    checks.insist(checks.check_variables(settings.unknown_variables(os.environ)))
    checks.insist(checks.check_exposed(settings.exposed_secrets(click.get_current_context())))
    try:
        serving = supervisor.serve(chosen, partial(greet, play=play), accept_empty_store=accept_empty_store)
        status = asyncio.run(serving)
    except (CannotStart, OSError) as error:
        is_taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        hint = "; stop who listens there, or choose another address with --port or --host" if is_taken else ""
        fail(f"cannot start: {error}{hint}", NOT_REACHED)
    sys.exit(status)


async def greet(chosen: settings.Settings, url: str, *, play: bool) -> None:
    """Print the URLs and the key once the server is ready; play the demo, if asked to."""
    path = unix_path(url)
    # No proxy of the environment is asked: it could not reach this machine's own addresses.
    transport = httpx2.AsyncHTTPTransport(uds=path) if path else None
    async with httpx2.AsyncClient(trust_env=False, transport=transport) as http:
        while not await _is_ready(http, "http://localhost" if path else url):
            await asyncio.sleep(READY_EVERY)
    if path:
        click.echo(os.fsencode(f"\npushserver is ready\n\n  unix socket  {path}\n"))
        return
    stream = await asyncio.to_thread(demo.begin, url, chosen.key) if play else "demo"
    file = Path(chosen.key_file or Path(chosen.data) / keyfile.KEY_FILE)
    is_in_file = bool(chosen.key_file) or keyfile.local_key(Path(chosen.data)) == chosen.key
    key_file = shlex.quote(str(file.absolute()))
    place = key_file if is_in_file else "in PUSHSERVER_KEY" if chosen.key else "one of `pushserver keys`"
    lines = [
        f"  pages        {url}/",
        f"  publish key  {place}",
        f"  publish      {demo.curl(url, stream, f'$(cat {key_file})' if is_in_file else '$PUSHSERVER_KEY')}",
    ]
    if chosen.metrics_port >= 0:
        lines.insert(1, f"  metrics      {supervisor.metrics_url(chosen)}/metrics")
    if chosen.public_url:
        lines.insert(0, f"  public       {chosen.public_url}/")
    if play:
        lines.insert(0, f"  live demo    {chosen.public_url or url}/streams/{stream}")
        # A daemon thread, so that the demo does not delay the end of the process.
        threading.Thread(target=demo.go_on, args=(url, chosen.key, stream), daemon=True).start()
    # As bytes: a path may have some that are not UTF-8.
    click.echo(os.fsencode("\npushserver is ready\n\n" + "\n".join(lines) + "\n"))


async def _is_ready(http: httpx2.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(f"{url}/readyz")).status_code == 200
    except httpx2.TransportError:
        return False


_knobs = [settings.option(field.name) for field in settings.KNOBS]
_demo = click.Option(["play", "--demo"], is_flag=True, help="Publish a made-up live page to a new stream.")
_accept_empty = click.Option(
    ["--accept-empty-store"],
    is_flag=True,
    help="Start with an empty store, although the data folder had a store, which is gone.",
)
serve = click.Command("serve", callback=_serve, params=[_demo, _accept_empty, *_knobs], help=_serve.__doc__)
