"""The command line runs a server, and has the commands that talk to one.

Exit status: 0 done · 1 refused, with the reason · 2 wrong usage · 3 not reached, or the server could not start.
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import click

from .cli import backup, bench, check, doctor, keys, publish, serve, transfer
from .cli.options import REFUSED, discard_output, fail


class Program(click.Group):
    """Program is the group of commands; where one cannot write its output, it ends with a sentence and a status."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run a command. Text that the terminal cannot show is escaped."""
        if sys.stdout is not None:
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        try:
            try:
                return super().main(*arguments, **options)
            finally:
                if sys.stdout is not None:
                    sys.stdout.flush()
        except OSError as error:
            if sys.argv[1:2] == ["worker"]:
                raise  # into the log of the server, with its trace
            _not_done(error)

    def invoke(self, ctx: click.Context) -> Any:
        """Invoke a command; click itself would end without a word where a pipe was closed."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            _not_done(error)


def _not_done(error: OSError) -> NoReturn:
    discard_output()
    fail(f"not done, or the output is not whole: {error}", REFUSED)


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="pushserver", prog_name="pushserver")
def main() -> None:
    """A real-time push server for live updates."""


for _command in (
    *serve.COMMANDS,
    *check.COMMANDS,
    doctor.doctor,
    keys.keys,
    *publish.COMMANDS,
    *transfer.COMMANDS,
    *backup.COMMANDS,
    bench.bench,
):
    main.add_command(_command)


if __name__ == "__main__":
    main()
