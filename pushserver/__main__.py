"""The command line runs a server, and has the commands that talk to one.

Exit status: 0 done · 1 refused, with the reason · 2 wrong usage · 3 not reached, or the server could not start.
"""

from __future__ import annotations

import click

from .cli import backup, bench, keys, publish, serve, transfer


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="pushserver", prog_name="pushserver")
def main() -> None:
    """A real-time push server for live updates."""


for _command in (*serve.COMMANDS, keys.keys, *publish.COMMANDS, *transfer.COMMANDS, *backup.COMMANDS, bench.bench):
    main.add_command(_command)


if __name__ == "__main__":
    main()
