"""Pushserver is a real-time push server for live updates; `pushserver.client` is its client for scripts."""

from importlib import import_module

__version__: str


def __getattr__(name: str) -> str:
    """Read the version when it is asked for: to import what reads it is a fifth of a command's start."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("importlib.metadata").version(__name__)  # type: ignore[no-any-return]
