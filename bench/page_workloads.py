"""Workloads of page loads: what one costs beside peers that send the same bytes, and what many do to live delivery."""

from __future__ import annotations

import asyncio
import time

from pushserver.bench import usage
from pushserver.bench.pages import Orders, PageLoader
from pushserver.client.publisher import encode

from .contenders import Contender, Rig, Running
from .entries import entries
from .page_contenders import NAMES, PAGE_ENTRIES, etag_of
from .workloads import Figures, InvalidRound, Size, Workload, figures, loaded

CONNECTIONS = 64
ASKED = ("Accept-Encoding: gzip",)


async def page_loads(contender: Contender, rig: Rig, size: Size) -> Figures:
    """Measure the processor time of a GET of each surface, of a 304, and of a static module."""
    async with contender.start(rig, 1, 1) as running:
        if running.has_streams:
            await _fill(running)
        paths = {name: running.page_path(name) for name in NAMES}
        tag = await etag_of(running.loads or running.endpoint, paths["page"])
        fields = {"304": (*ASKED, f"If-None-Match: {tag}")}
        return {
            f"{name}: CPU us/GET": await _cost(running, rig, path, fields.get(name, ASKED), size.page_seconds)
            for name, path in paths.items()
        }


async def _cost(running: Running, rig: Rig, path: str, headers: tuple[str, ...], seconds: float) -> float:
    """Return the processor time of one GET, in us. Raises InvalidRound where one was refused."""
    loader = await PageLoader.start(cpus=rig.load_cpus)
    try:
        await loader.begin(Orders(running.loads or running.endpoint, [path], CONNECTIONS, 0.0, headers))
        await asyncio.sleep(seconds)  # the first loads are the slowest
        before, begin = usage.measure(running.processes.server), time.monotonic()
        await asyncio.sleep(seconds)
        used, window = usage.measure(running.processes.server).since(before), time.monotonic() - begin
        loads = await loader.end()
    finally:
        await loader.close()
    if any(int(status) >= 400 for status in loads.statuses):
        raise InvalidRound(f"{path} was answered {loads.statuses}")
    return used.cpu / (loads.loads / loads.seconds * window) * 1e6


async def _fill(running: Running) -> None:
    """Publish the entries of a page."""
    connection = await running.connect_publisher()
    for entry in entries(PAGE_ENTRIES):
        status, answer = await connection.send("POST", running.publish_path(0), encode(entry))
        if status != 201:
            raise InvalidRound(f"an entry of the page was refused: {status} {answer[:100]!r}")
    connection.close()


async def live_beside_loads(contender: Contender, rig: Rig, size: Size) -> Figures:
    """Measure live delivery of ten entries a second alone, and beside connections that load the page all the time."""
    count = size.beside_entries
    async with loaded(contender, rig, readers=size.beside_readers, publishers=4) as load:
        await _fill(load.running)
        alone = figures(await load.run(1, count, 10.0, publishers=4))
        orders = Orders(load.running.endpoint, [load.running.page_path("page")], CONNECTIONS)
        loader = await PageLoader.start(cpus=rig.load_cpus)
        try:
            await loader.begin(orders)
            beside = figures(await load.run(1 + count, count, 10.0, publishers=4))
            loads = await loader.end()
        finally:
            await loader.close()
    return {
        "p99 ms alone": alone["p99 ms"],
        "p99 ms beside page loads": beside["p99 ms"],
        "times alone": float(beside["p99 ms"]) / max(float(alone["p99 ms"]), 0.1),
        "page loads/s": loads.loads / loads.seconds,
        "longest page load ms": loads.longest,
    }


PAGE_WORKLOADS = [
    Workload("h", "page loads", page_loads, only=("pushserver", "bare", "nginx", "behind nginx")),
    Workload("i", "live beside page loads", live_beside_loads, only=("pushserver",)),
]
