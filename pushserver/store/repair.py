"""The repair of a damaged append-only file: a copy is made, it is cut at the damage, and what is lost is counted.

The store itself refuses a file that is damaged anywhere but at its very end. Commands after the damage are cut off,
too: they build on those that cannot be read any more.
"""

from __future__ import annotations

import mmap
import os
import re
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import redis.asyncio as aioredis

from .embedded import embedded
from .folder import LOG_FOLDER, MANIFEST, LogDamaged, read_manifest
from .locks import locked

NAMES_LIMIT, WORDS_LIMIT = 64, 1_048_576  # characters of a command's name, words of a command
LENGTH = re.compile(rb"([*$])([0-9]{1,10})\r\n")
EVENT = re.compile(rb"\$4\r\nXADD\r\n", re.IGNORECASE)  # each event of a stream is one


class CannotRepair(Exception):
    """CannotRepair says why an append-only file cannot be repaired."""


class Repair(NamedTuple):
    """A repair says what was done to an append-only file: which part was cut and where, and what was lost by that.

    `file` is '' where nothing was cut. `events` counts those whose beginning can still be read. `copy` is the folder
    with the append-only file as it was, `manifest` whether the manifest was made again.
    """

    file: str
    at: int
    bytes: int
    events: int
    copy: Path
    manifest: bool


async def repair_log(data: Path) -> Repair | None:
    """Repair the append-only file of a data folder whose server does not run; None where it is not damaged.

    Raises CannotRepair, CannotStart where a server runs on the folder or its store does not start even so, OSError.
    """
    data = data.absolute()
    folder = data / LOG_FOLDER
    if not folder.is_dir():
        raise CannotRepair(f"expected an append-only file in {folder}, found none: restore a backup")
    names = await _commands()
    async with locked(data):
        manifest = _manifest(folder)
        files = read_manifest(manifest)
        missing = [name for name in files if not (folder / name).is_file()]
        if missing:
            raise CannotRepair(
                f"expected {folder / missing[0]}, which the append-only file needs, found none: restore a backup"
            )
        is_manifest_new = not _has(folder / MANIFEST, manifest)
        damaged = next(((name, at) for name in files if (at := damage(folder / name, names)) is not None), None)
        done = _cut(folder, files, damaged, manifest, is_manifest_new) if damaged or is_manifest_new else None
    try:
        async with embedded(data):  # which reads all of it
            return done
    except LogDamaged:
        raise CannotRepair(
            "the store cannot read its append-only file, and the damage cannot be cut off, as in its snapshot "
            "(*.base.rdb): restore a backup"
        ) from None


def damage(file: Path, names: frozenset[bytes]) -> int | None:
    """The offset up to which the commands of a part are whole, None where all of them are.

    A command that was begun at the end of the file, and not written whole, is no damage: the store cuts it off itself.
    Of a snapshot (RDB) the beginning alone is looked at: the store verifies its checksum. `names` are the commands that
    the store knows.
    """
    if file.stat().st_size == 0 or file.suffix == ".rdb":
        return None
    with file.open("rb") as stored, mmap.mmap(stored.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _damage(content, names)


def _damage(content: mmap.mmap, names: frozenset[bytes]) -> int | None:
    at = whole = 0
    in_transaction = False
    while at < len(content):
        if content[at : at + 1] == b"#":  # a timestamp
            at = content.find(b"\n", at) + 1 or len(content)
            continue
        try:
            name, at = _command(content, at, names)
        except EOFError:
            return None
        except ValueError:
            return whole
        in_transaction = name == b"multi" or (in_transaction and name != b"exec")
        if not in_transaction:
            whole = at
    return None


def _command(content: mmap.mmap, at: int, names: frozenset[bytes]) -> tuple[bytes, int]:
    """The name of the command at an offset, and where the next begins. Raises EOFError where the file ends in it."""
    count, at = _length(content, at, b"*")
    if not 0 < count <= WORDS_LIMIT:
        raise ValueError(f"a command of {count} words")
    name = b""
    for number in range(count):
        size, at = _length(content, at, b"$")
        if at + size + 2 > len(content):
            raise EOFError
        if content[at + size : at + size + 2] != b"\r\n":
            raise ValueError("a word without its end")
        if number == 0:
            name = content[at : at + min(size, NAMES_LIMIT)].lower()
            if name not in names:
                raise ValueError(f"a command {name!r}")
        at += size + 2
    return name, at


def _length(content: mmap.mmap, at: int, kind: bytes) -> tuple[int, int]:
    match = LENGTH.match(content, at)
    if match is None and b"\n" not in content[at : at + 14] and at + 14 > len(content):
        raise EOFError
    if match is None or match[1] != kind:
        raise ValueError(f"expected {kind!r} and a length")
    return int(match[2]), match.end()


async def _commands() -> frozenset[bytes]:
    """The names of the commands that the store knows."""
    with TemporaryDirectory(prefix="pushserver-") as folder:
        async with embedded(Path(folder)) as url, aioredis.Redis.from_url(url, decode_responses=True) as store:
            return frozenset(str(name).lower().encode() for name in await store.command_list())


def _manifest(folder: Path) -> str:
    """The manifest; made from the names of the files where it cannot be read. Raises CannotRepair."""
    try:
        text = (folder / MANIFEST).read_text()
        read_manifest(text)
        return text
    except (OSError, ValueError):
        pass
    bases, parts = [sorted(folder.glob(f"*.{kind}.*"), key=_number) for kind in ("base", "incr")]
    if len(bases) != 1 or not parts:
        raise CannotRepair(f"expected one *.base.rdb and *.incr.aof in {folder}, found {len(bases)} and {len(parts)}")
    lines = [f"file {bases[0].name} seq {_number(bases[0])} type b"]
    return "\n".join([*lines, *(f"file {part.name} seq {_number(part)} type i" for part in parts)]) + "\n"


def _number(file: Path) -> int:
    match = re.search(r"\.([0-9]+)\.(?:base|incr)\.", file.name)
    return int(match[1]) if match else 0


def _has(file: Path, text: str) -> bool:
    return file.is_file() and file.read_bytes() == text.encode()


def _cut(
    folder: Path, files: list[str], damaged: tuple[str, int] | None, manifest: str, is_manifest_new: bool
) -> Repair:
    """Copy the append-only file, then cut it at the damage; files after the one that is damaged leave the manifest."""
    copy = folder.with_name(f"{LOG_FOLDER}.damaged-{time.strftime('%Y%m%dT%H%M%S')}")
    shutil.copytree(folder, copy)
    name, at = damaged or ("", 0)
    lost = events = 0
    later = files[files.index(name) + 1 :] if name else []
    for file, start in [(name, at)] * bool(name) + [(file, 0) for file in later]:
        lost, events = lost + (folder / file).stat().st_size - start, events + _events(folder / file, start)
    if name:
        os.truncate(folder / name, at)
    kept_lines = [line for line in manifest.splitlines() if not any(f" {file} " in f"{line} " for file in later)]
    draft = folder / f"temp-{MANIFEST}"
    draft.write_text("\n".join(kept_lines) + "\n")
    draft.replace(folder / MANIFEST)
    return Repair(name, at, lost, events, copy, is_manifest_new)


def _events(file: Path, start: int) -> int:
    """The number of events whose beginning can be read from an offset on."""
    if file.stat().st_size == 0:
        return 0
    with file.open("rb") as stored, mmap.mmap(stored.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return sum(1 for _ in EVENT.finditer(content, start))
