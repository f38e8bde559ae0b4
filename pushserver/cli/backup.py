"""These commands care for the embedded store's data: backup, repair."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path

import click

from .. import settings
from ..store.backup import BackupFailed, back_up
from ..store.folder import SOCKET, CannotStart, DataFolder, reachable
from ..store.repair import CannotRepair, Repair, repair_log
from .options import configure_logging
from .output import NOT_REACHED, REFUSED, fail

_data = click.option("--data", **{**settings.option_of("data"), "help": "Folder of the embedded store."})


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@_data
def backup(file: Path, data: str) -> None:
    """Copy the embedded store to FILE, a tar archive, while the server runs.

    FILE has everything that was acknowledged before the command began. It must not exist; it appears once it is
    complete. To restore it, unpack it in a new folder: tar -xf FILE -C FOLDER.
    """
    if not file.parent.is_dir():  # else the error would name the draft, a file that nobody asked for
        fail(f"no backup: expected a folder that exists, got {file.parent}", REFUSED)
    socket = Path(data).absolute() / SOCKET
    if not socket.exists():
        fail(f"expected a running server with its embedded store in {data}", NOT_REACHED)
    try:
        with reachable(socket) as path:
            size = asyncio.run(back_up(path, file, DataFolder(socket.parent).marker()))
    except BackupFailed as error:
        fail(f"no backup: {error}", NOT_REACHED)
    except (CannotStart, OSError) as error:
        fail(f"no backup: {error}", REFUSED)
    click.echo(f"{shlex.quote(str(file))}: {size} bytes")


@click.command()
@_data
def repair(data: str) -> None:
    """Cut a damaged append-only file of the embedded store at the damage, while the server does not run.

    It says what is lost, and keeps a copy of the file as it was.
    """
    configure_logging("warning")
    try:
        done = asyncio.run(repair_log(Path(data)))
    except (CannotRepair, CannotStart, OSError) as error:
        fail(f"not repaired: {error}", REFUSED)
    click.echo(_summary(done) if done else "the append-only file is not damaged; nothing was changed")


def _summary(done: Repair) -> str:
    lines = ["repaired; the store starts"]
    if done.manifest:
        lines.append("the manifest was made again")
    if done.file:
        lines.append(f"{done.file} was cut at byte {done.at}: {done.bytes} bytes lost, at least {done.events} events")
    return "\n".join([*lines, f"the append-only file as it was is in {shlex.quote(str(done.copy))}"])
