"""Pushserver is a real-time push server for live updates; `pushserver.client` is its client for scripts."""

from importlib.metadata import version

__version__ = version("pushserver")
