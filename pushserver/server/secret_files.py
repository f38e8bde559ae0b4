"""Secret files: the publish key and the URL of the store, read from the files that settings name.

A process manager writes them (systemd's credentials, secrets of Docker or Kubernetes), and they stand in no list of
processes and in no environment. A restart of the workers reads them anew.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import values
from ..settings import Settings
from ..store.folder import CannotStart

LIMIT = 16_384  # bytes of a file
PARSERS: dict[str, Callable[[str], str]] = {"key": values.publish_key, "redis": values.store_url}


def with_secrets(settings: Settings) -> Settings:
    """The settings with the texts of the files that they name. Raises CannotStart for a file that cannot be used."""
    chosen: dict[str, Any] = {name: _read(name, settings) for name in PARSERS if getattr(settings, f"{name}_file")}
    return dataclasses.replace(settings, **chosen)


def _read(name: str, settings: Settings) -> str:
    flag, path = f"--{name}-file (PUSHSERVER_{name.upper()}_FILE)", getattr(settings, f"{name}_file")
    if getattr(settings, name):
        raise CannotStart(f"expected --{name} or {flag}, got both")
    try:
        with Path(path).open("rb") as file:
            text = file.read(LIMIT + 1)
    except OSError as error:
        raise CannotStart(f"{flag}: expected a file that can be read, got {path}: {error.strerror}") from None
    try:
        if len(text) > LIMIT:
            raise ValueError(f"expected {LIMIT} bytes at most, got more")
        return PARSERS[name](text.decode("utf-8-sig"))
    except ValueError as error:  # a file that is no UTF-8 as well, of which nothing is repeated
        said = "expected a text in UTF-8, got others" if isinstance(error, UnicodeError) else error
        raise CannotStart(f"{flag}, {path}: {said}") from None
