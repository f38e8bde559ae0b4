"""`pushserver doctor URL` looks at a server through the address that its readers use, and says what to change."""

from __future__ import annotations

import asyncio
import sys

import click

from .. import findings, settings
from ..doctor.examination import examine
from ..findings import Finding
from .options import (
    chosen_key,
    configure_logging,
    data_option,
    json_option,
    key_file_option,
    key_option,
    root_url,
    token_option,
)
from .output import REFUSED


@click.command("doctor")
@click.argument("url", type=settings.Parsed(root_url, required=True))
@key_option
@key_file_option
@data_option
@click.option("--stream", default="", help="Stream to read. Default: make one with the key, and delete it.")
@token_option
@json_option
def doctor(url: str, key: str, key_file: str, data: str, stream: str, token: str, as_json: bool) -> None:
    """Check the server at URL through every proxy on the way, and print which line of a proxy to change.

    It takes about 40 s: two heartbeats (30 s), and the other steps. Exit status 1: a finding is an error. 0: none is;
    there may be warnings.
    """
    configure_logging("error")
    results = asyncio.run(_examined(url, chosen_key(key, key_file, data), stream, token, is_shown=not as_json))
    if as_json:
        click.echo(findings.as_json(results))
    sys.exit(REFUSED if findings.has_errors(results) else 0)


async def _examined(url: str, key: str, stream: str, token: str, *, is_shown: bool) -> list[Finding]:
    results = []
    async for finding in examine(url, key, stream, token):
        results.append(finding)
        if is_shown:
            click.echo(findings.listing([finding]))
    return results
