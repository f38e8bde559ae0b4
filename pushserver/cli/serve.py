"""The commands that run the server: `serve`, and `worker`, which `serve` starts."""

from __future__ import annotations

import asyncio
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import click
import httpx2

from .. import settings
from ..access import keyfile
from ..server import supervisor, worker
from ..store import embedded
from . import demo
from .options import NOT_REACHED, configure_logging, fail

READY_EVERY = 0.05  # seconds between two looks at whether the server is up


def _serve(play: bool, **values: Any) -> None:
    """Run the server. Without --redis it starts an embedded store in the data folder, and stops it last."""
    told = settings.Settings(**values)
    configure_logging(told.log_level)
    try:
        status = asyncio.run(supervisor.serve(told, partial(greet, play=play)))
    except (embedded.CannotStart, OSError) as error:
        fail(f"cannot start: {error}", NOT_REACHED)
    sys.exit(status)


def _work(listener: int, lifeline: int, **values: Any) -> None:
    """One worker process; started by `serve`."""
    told = settings.Settings(**values)
    configure_logging(told.log_level)
    worker.work(told, listener, lifeline)


async def greet(told: settings.Settings, url: str, *, play: bool) -> None:
    """Say where things are, once the server answers; play the demo beside it."""
    async with httpx2.AsyncClient() as http:
        while not await _is_ready(http, url):
            await asyncio.sleep(READY_EVERY)
    stream = await asyncio.to_thread(demo.begin, url, told.key) if play else "demo"
    key_file = Path(told.data).absolute() / keyfile.KEY_FILE
    is_local = keyfile.local_key(Path(told.data)) == told.key
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
COMMANDS = [
    click.Command("serve", callback=_serve, params=[_demo, *_knobs], help=_serve.__doc__),
    click.Command("worker", callback=_work, params=[*_inherited, *_knobs], hidden=True),
]
