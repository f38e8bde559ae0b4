"""The application on another ASGI server, which has no connection to give away: `serve`, as far as tests need it."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import click
from starlette.applications import Starlette

from pushserver import settings
from pushserver.access import keyfile
from pushserver.cli.serve import greet
from pushserver.settings import Settings
from pushserver.store.embedded import embedded
from pushserver.web.app import create_app

from .server import ROOT


def settings_of(arguments: list[str]) -> Settings:
    """The settings, from these flags and the environment."""
    options = [settings.option(field.name) for field in settings.KNOBS]
    command = click.Command("serve", callback=lambda **values: values, params=[*options])
    values: dict[str, Any] = command.main(arguments, standalone_mode=False)
    return Settings(**values)


def app() -> Starlette:
    return create_app(settings_of([]))


async def serve(chosen: Settings) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    with socket.create_server((chosen.host, 0)) as probe:
        port = probe.getsockname()[1]
    data = Path(chosen.data)
    async with embedded(data) as url:
        chosen = dataclasses.replace(chosen, redis=url, key=keyfile.make_local_key(data), port=port)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "granian", "tests.support.granian:app", "--factory", "--interface", "asgi"),
            *("--host", chosen.host, "--port", str(port), "--loop", "uvloop", "--no-log"),
            cwd=ROOT,
            env=settings.environment(chosen),
        )
        try:
            await greet(chosen, f"http://{chosen.host}:{port}", play=False)
            await stop.wait()
        finally:
            process.terminate()
            await process.wait()


if __name__ == "__main__":
    asyncio.run(serve(settings_of(sys.argv[2:])))
