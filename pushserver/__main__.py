"""The command line runs a server, and has the commands that talk to one.

Exit status: 0 done · 1 refused, with the reason · 2 wrong usage · 3 not reached, or the server could not start.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, NoReturn

# What is said where only `pushserver.client` and what it needs are installed: a traceback would not say what to do.
INCOMPLETE = "the commands need the whole package: install pushserver without --no-deps"

try:
    import click

    from .cli.output import REFUSED, WRONG_USAGE, discard_output, fail
except ModuleNotFoundError as error:
    sys.stderr.write(f"pushserver: {INCOMPLETE} ({error})\n")
    sys.exit(2)

# Each command by its name: the module of `cli` that has it, and its name there. A module is imported when its command
# is asked for: with those of the server, a script that publishes would wait for a second of imports.
COMMANDS = {
    "serve": "serve.serve",
    "worker": "work.work",
    "check": "check.check",
    "doctor": "doctor.doctor",
    "status": "status.status",
    "keys": "keys.keys",
    "publish": "publish.publish",
    "correct": "publish.correct",
    "withdraw": "publish.withdraw",
    "page": "publish.change_page",
    "tail": "publish.tail",
    "delete": "desk.delete",
    "erase": "desk.erase",
    "streams": "desk.streams",
    "history": "desk.history",
    "import": "transfer.import_",
    "export": "transfer.export",
    "backup": "backup.backup",
    "repair": "backup.repair",
    "bench": "bench.bench",
}


class Program(click.Group):
    """Program is the group of commands; where one cannot write its output, it ends with a sentence and a status."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, command = COMMANDS[name].split(".")
        try:
            return getattr(import_module(f".cli.{module}", __package__), command)  # type: ignore[no-any-return]
        except ModuleNotFoundError as error:  # click alone is there, which other packages bring with them
            fail(f"{INCOMPLETE} ({error})", WRONG_USAGE)

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


if __name__ == "__main__":
    main()
