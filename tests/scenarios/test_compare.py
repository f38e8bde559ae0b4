"""bench/compare measures contenders alike, and shows ratios within a round."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bench import contenders, table
from bench.compare import as_lines
from bench.contenders import CONTENDERS, Contender, Rig, entry
from bench.page_contenders import PAGE_CONTENDERS
from bench.page_workloads import page_loads
from bench.workloads import SHORT, InvalidRound, flood
from pushserver.bench.run import ServerProcesses

from ..support.faulty import FaultyServer, listening
from ..support.server import ROOT
from ..support.shipped_nginx import NGINX

PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "bench" / "results.json"


@pytest.mark.anyio
@pytest.mark.full
@pytest.mark.skipif(not shutil.which("cc"), reason="needs cc")
async def test_the_floor_and_this_server_are_measured_alike() -> None:
    cpus = os.sched_getaffinity(0)
    checkout = Path(sys.prefix).parent
    rig = Rig(checkout, entry(0, 0).decode(), cpus, cpus)
    size = SHORT._replace(flood_readers=50, flood_entries=20)
    for contender in CONTENDERS[:2]:
        contender.install()
        figures = await flood(contender, rig, size)
        assert float(figures["CPU us/delivery"]) > 0


@pytest.mark.anyio
@pytest.mark.full
@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
async def test_page_loads_are_measured_alike() -> None:
    cpus = os.sched_getaffinity(0)
    rig = Rig(Path(sys.prefix).parent, "", cpus, cpus)
    measured = {}
    for contender in (CONTENDERS[0], *PAGE_CONTENDERS):
        contender.install()
        measured[contender.name] = await page_loads(contender, rig, SHORT._replace(page_seconds=0.2))
    assert len({tuple(figures) for figures in measured.values()}) == 1
    assert all(float(value) > 0 for figures in measured.values() for value in figures.values())


@pytest.mark.anyio
@pytest.mark.full
async def test_a_round_in_which_an_entry_is_missing_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pushserver.bench.run.SILENCE", 5.0)

    @asynccontextmanager
    async def start(rig: Rig, groups: int, workers: int) -> AsyncIterator[contenders.Running]:
        async with listening(FaultyServer({7: 0})) as endpoint:
            yield contenders.Running(endpoint, ServerProcesses([os.getpid()]), lambda group: "/pub/0", entry)

    cpus = os.sched_getaffinity(0)
    rig = Rig(ROOT, "", cpus, cpus)
    contender = Contender("faulty", "loses one", contenders.nothing, start)
    with pytest.raises(InvalidRound, match="of 100 deliveries: 5 missing, 0 duplicates"):
        await flood(contender, rig, SHORT._replace(flood_readers=5, flood_entries=20))


def report(*rounds: tuple[str, int, dict[str, float | str]]) -> dict[str, Any]:
    results = [
        {"workload": "a", "title": "flood", "round": number, "contender": name, "others": 0.1, "figures": figures}
        for name, number, figures in rounds
    ]
    return {"command": "x", "on": "y", "skipped": [], "contenders": ["pushserver", "floor", "Bun"], "results": results}


def test_ratios_are_those_within_a_round() -> None:
    rounds = report(
        ("pushserver", 0, {"CPU us/delivery": 2.0, "deliveries/s": 100.0}),
        ("pushserver", 1, {"CPU us/delivery": 8.0, "deliveries/s": 300.0}),
        ("floor", 0, {"CPU us/delivery": 4.0, "deliveries/s": 100.0}),
        ("floor", 1, {"CPU us/delivery": 24.0, "deliveries/s": 100.0}),
        ("Bun", 1, {"CPU us/delivery": 8.0, "deliveries/s": 100.0, "limit": "load"}),
    )
    rounds["results"].append(
        {
            "workload": "a",
            "title": "flood",
            "round": 0,
            "contender": "Bun",
            "others": 0.5,
            "invalid": "5 of 100 missing",
        }
    )
    shown = table.markdown(rounds)
    assert "| (a) flood: CPU us/delivery | 5 (2-8) | x 2.5 (2-3) | x 1 |" in shown
    assert "| (a) deliveries a second, times the best peer's | at least 3 | 3 | met |" in shown
    assert "| (a) CPU of a delivery, times the floor's | at most 0.4 | 0.417 | missed |" in shown
    assert "* (a) Bun, round 1 does not count: 5 of 100 missing" in shown
    assert "* (a) Bun, round 2: the load was the limit" in shown
    assert "Others took 10% of the processors (median), 50% at most." in shown


def test_a_run_of_some_workloads_takes_the_place_of_theirs_alone() -> None:
    former = report(("pushserver", 0, {"deliveries/s": 100.0}), ("floor", 0, {"deliveries/s": 50.0}))
    pages = report(("pushserver", 0, {"page: CPU us/GET": 90.0}), ("bare", 0, {"page: CPU us/GET": 60.0}))
    for result in pages["results"]:
        result |= {"workload": "h", "title": "page loads"}
    pages |= {"command": "z", "contenders": ["pushserver", "bare"]}
    both = table.joined(former, pages)
    for joined in (both, table.joined(both, pages)):
        shown = table.markdown(joined)
        assert "|  | pushserver | floor |\n" in shown
        assert "| (a) flood: deliveries/s | 100 | x 0.5 |\n\nMade by `x` on y." in shown
        assert "|  | pushserver | bare |\n" in shown
        assert "| (h) page loads: page: CPU us/GET | 90 | x 0.667 |\n\nMade by `z` on y." in shown
        assert "the bare application's | at most 2 | 1.5 | met |" in shown
        assert len(joined["results"]) == 4
        assert json.loads(as_lines(joined)) == joined
    again = {**pages, "command": "later"}
    assert [run["command"] for run in table.joined(both, again)["runs"]] == ["x", "later"]


def test_the_table_of_the_docs_is_made_from_what_was_measured() -> None:
    page = PAGE.read_text()
    assert table.put(page, table.markdown(json.loads(RESULTS.read_text()))) == page
    with pytest.raises(ValueError, match="expected <!-- begin"):
        table.put("no marks", "")
