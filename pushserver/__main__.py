"""The command line: serve, and the commands that talk to a server.

Exit status: 0 done · 1 refused, with the reason · 2 wrong usage · 3 not reached, or the server could not start.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import click
import httpx2

from . import admin, bench, commands, demo, embedded, keys, server, settings, transfer
from .commands import NOT_REACHED, configure_logging, fail

READY_EVERY = 0.05  # seconds between two looks at whether the server is up


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="pushserver", prog_name="pushserver")
def main() -> None:
    """A real-time push server for live updates."""


# --- the server


def _serve(play: bool, **values: Any) -> None:
    """Run the server. Without --redis it starts an embedded store in the data folder, and stops it last."""
    told = settings.Settings(**values)
    configure_logging(told.log_level)
    try:
        status = asyncio.run(server.serve(told, partial(_greet, play=play)))
    except (embedded.CannotStart, OSError) as error:
        fail(f"cannot start: {error}", NOT_REACHED)
    sys.exit(status)


def _work(listener: int, lifeline: int, **values: Any) -> None:
    """One worker process; started by `serve`."""
    told = settings.Settings(**values)
    configure_logging(told.log_level)
    server.work(told, listener, lifeline)


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
main.add_command(click.Command("worker", callback=_work, params=[*_inherited, *_knobs], hidden=True))


for _command in (admin.keys, *commands.COMMANDS, *transfer.COMMANDS, bench.bench):
    main.add_command(_command)


if __name__ == "__main__":
    main()
