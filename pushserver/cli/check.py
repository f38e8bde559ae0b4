"""`pushserver check` makes the checks of a start without starting, and lists what is well, doubtful and wrong."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import click
import httpx2

from .. import findings, settings
from ..findings import Finding
from ..server import checks
from ..server.inspection import inspect
from .options import configure_logging
from .output import REFUSED

REFUSALS = "pushserver.refusals"  # in the context: findings about settings that were refused


class Lenient(settings.Option):
    """Lenient is an option of `serve` whose refusal becomes a finding, so that those of all others follow."""

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        try:
            return super().process_value(ctx, value)
        except click.BadParameter as refusal:
            subject = f"{self.opts[0]} ({', '.join(self.envvar or ())})"
            ctx.meta.setdefault(REFUSALS, {})[self.name] = findings.error(subject, refusal.message)
            return super().process_value(ctx, self.get_default(ctx))


def _check(proxy_timeout: tuple[float, ...], as_json: bool, **values: Any) -> None:
    """Check the settings, the machine, the data folder and the store as `serve` does, without starting.

    The same flags and variables count as for `serve`. Exit status 1: a finding is an error. 0: none is; there may be
    warnings, such as of a store that may lose the last events.
    """
    configure_logging("error")
    ctx = click.get_current_context()
    refusals: dict[str, Finding] = ctx.meta.get(REFUSALS, {})
    chosen = settings.Settings(**values)
    results = [
        *(refusals.values() or [findings.ok("settings", "all can be read")]),
        *checks.check_variables(settings.unknown_variables(os.environ)),
        *checks.check_exposed(settings.exposed_secrets(ctx)),
        *_check_environment(),
        *([] if "heartbeat" in refusals else checks.check_heartbeat(chosen.heartbeat, proxy_timeout)),
        *asyncio.run(_all(inspect(chosen, faulty=refusals.keys()))),
    ]
    click.echo(findings.as_json(results) if as_json else findings.listing(results))
    sys.exit(REFUSED if findings.has_errors(results) else 0)


async def _all(results: AsyncIterator[Finding]) -> list[Finding]:
    return [finding async for finding in results]


def _check_environment() -> list[Finding]:
    """Name a proxy or a certificate of the environment that the commands cannot use; the server asks no proxy."""
    try:
        httpx2.Client().close()
    except (ValueError, OSError, ImportError) as error:
        says = f"HTTP_PROXY, SSL_CERT_FILE or a variable like them cannot be used: {error}"
        return [findings.warning("environment", says, "mend it for commands such as `publish`; the server ignores it")]
    return []


_timeout = click.Option(
    ["--proxy-timeout"],
    multiple=True,
    type=click.FloatRange(0, min_open=True),
    help="Seconds after which a proxy in front cuts an idle connection; may be repeated.",
)
_json = click.Option(["as_json", "--json"], is_flag=True, help="Print the findings as JSON.")
_knobs = [Lenient(settings.flags(field.name), **settings.option_of(field.name)) for field in settings.KNOBS]
check = click.Command("check", callback=_check, params=[_timeout, _json, *_knobs], help=_check.__doc__)
