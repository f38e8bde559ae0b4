"""`pushserver status` shows the cluster in a terminal, as the operators' listener of a server tells it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import sys
import threading
import time
from contextlib import closing, suppress
from typing import Any
from urllib.parse import urlsplit

import click

from .. import logs, settings, values
from ..status import view
from .output import NOT_REACHED, fail

EVERY = 1.0  # seconds between two looks
LIMIT = 5.0  # seconds for one answer, and for each step of it
BYTES = 4 * 2**20  # of one answer
FAILURES = (OSError, http.client.HTTPException, ValueError, RecursionError, KeyError, TypeError)
CLEAR, HIDE, SHOW = "\x1b[2J", "\x1b[?25l", "\x1b[?25h"  # the screen, and its cursor


class Source:
    """A Source is the operators' listener of a server, asked over one connection."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=LIMIT)
        # `serve` prints the address of the metrics, which is as good as that of the listener.
        self._path = f"{parts.path.removesuffix('/metrics').removesuffix('/status.json')}/status.json"

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def read(self) -> dict[str, Any]:
        """The status of now. Raises one of FAILURES; the next call connects anew then."""
        deadline = threading.Timer(LIMIT, self._cut)  # an answer may come byte by byte, each of them in time
        deadline.daemon = True
        try:
            deadline.start()
            self._connection.request("GET", self._path)
            response = self._connection.getresponse()
            body = response.read(BYTES)
            status = json.loads(body) if response.status == 200 else None
            if not isinstance(status, dict):
                raise ValueError(f"expected a status at {self._path}, got the HTTP status {response.status}")
            return status
        except FAILURES:
            self.close()
            raise
        finally:
            deadline.cancel()

    def _cut(self) -> None:
        """End the answer that is being read, from another thread."""
        with suppress(OSError, AttributeError):  # it may have ended meanwhile
            self._connection.sock.shutdown(socket.SHUT_RDWR)


def _default() -> str:
    port = os.environ.get("PUSHSERVER_METRICS_PORT", "").strip() or "9600"
    if not port.isdecimal() or not 0 < int(port[:6]) < 65_536:
        raise click.UsageError(
            f"PUSHSERVER_METRICS_PORT: expected 1 to 65535, or a URL, got {logs.one_line(port, 80)}."
        )
    return f"http://127.0.0.1:{port}"


@click.command("status")
@click.argument("url", type=settings.Parsed(values.base_url, required=True), default=_default)
@click.option("--json", "as_json", is_flag=True, help="Print the status once, as JSON.")
@click.option(
    "--once", is_flag=True, help="Print the status once. This is the default if the output is not a terminal."
)
def status(url: str, as_json: bool, once: bool) -> None:
    """Show workers, readers, rates, lag and the slowest readers, renewed each second; Ctrl-C ends it.

    URL has the port that the server was given with --metrics-port. Default: http://127.0.0.1:9600, or the port of
    PUSHSERVER_METRICS_PORT.
    """
    with closing(Source(url)) as source:
        try:
            first = source.read()
            text = json.dumps(first, ensure_ascii=False) if as_json else "\n".join(view.view_lines(first))
        except FAILURES as error:
            is_away = isinstance(error, (OSError, http.client.HTTPException))
            says = f"{url} {'is not reached' if is_away else 'has no status'}: {error or type(error).__name__}"
            fail(f"{says}; start the server with --metrics-port, and name that address", NOT_REACHED)
        if as_json or once or not sys.stdout.isatty():
            click.echo(text)
        else:
            _show_until_interrupted(source)


def _show_until_interrupted(source: Source) -> None:
    try:
        _follow(source)
    except KeyboardInterrupt:
        pass
    finally:
        click.echo(SHOW)


def _follow(source: Source) -> None:
    """Draw the view each second, until interrupted; where the server is away, say so below the last one."""
    click.echo(CLEAR + HIDE, nl=False)
    while True:
        began = time.monotonic()
        columns, rows = shutil.get_terminal_size()
        try:
            click.echo(view.screen(source.read(), columns, rows - 1), nl=False)
        except FAILURES as error:
            said = f"not reached: {error or type(error).__name__}; the figures are old"
            click.echo(f"\x1b[{rows};1H{said[:columns]}\x1b[K", nl=False)
        time.sleep(max(0.0, EVERY - (time.monotonic() - began)))
