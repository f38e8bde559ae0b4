"""The script measures what `pushserver status` costs: the processor time of the command, and of the supervisor for it.

    .venv/bin/python -m bench.status_cost [SECONDS] [READERS] [WORKERS]

It starts a server, connects readers, publishes an entry a second, and measures the supervisor first without the command
and then with it, each for so many seconds. A percent is one of a core.
"""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from urllib.parse import urlsplit

from pushserver.bench.reader import Endpoint
from pushserver.bench.swarm import ReaderPool, check_file_limit
from pushserver.bench.usage import measure
from tests.support.scrapes import METRICS, metrics_url, status
from tests.support.server import Running, running

STREAM = "measured"
COMMAND_STARTS = 5.0  # seconds, which are not measured: a start costs as much as minutes of refreshing


async def main(seconds: float, readers: int, workers: int) -> None:
    if error := check_file_limit(readers):
        sys.exit(error)
    with tempfile.TemporaryDirectory() as folder:
        with running(Path(folder) / "data", "--workers", str(workers), *METRICS) as server:
            server.publish_ok(STREAM, "Before")
            parts = urlsplit(server.url)
            host, port = parts.hostname or "", parts.port or 0
            pool = await ReaderPool.start(Endpoint(host, port, f"/streams/{STREAM}/ws", host))
            await pool.open(readers)
            publishing = asyncio.create_task(_publish(server))
            await asyncio.sleep(COMMAND_STARTS)
            without = await _cost([server.process.pid], seconds)
            with _Watched(metrics_url(server)) as command:
                await asyncio.sleep(COMMAND_STARTS)
                both = asyncio.gather(_cost([server.process.pid], seconds), _cost([command.pid], seconds))
                supervisor, own = await both
            totals = status(server)["totals"]
            publishing.cancel()
            await pool.close()
    print(f"{totals['readers']} readers on {workers} workers, a refresh each second, for {seconds:g} s")
    print(f"command                      {own:6.2f} % of a core")
    print(f"supervisor without it        {without:6.2f} %")
    print(f"supervisor with it           {supervisor:6.2f} %")
    print(f"the command and its answers  {own + supervisor - without:6.2f} %")


async def _publish(server: Running) -> None:
    while True:
        await asyncio.to_thread(server.publish_ok, STREAM, "One a second")
        await asyncio.sleep(1)


async def _cost(pids: list[int], seconds: float) -> float:
    """The processor time of processes in percent of a core."""
    before = measure(pids)
    await asyncio.sleep(seconds)
    return 100 * measure(pids).since(before).cpu / seconds


class _Watched:
    """The command in a terminal of its own, whose output is read and thrown away."""

    def __init__(self, url: str) -> None:
        self._end, its = pty.openpty()
        command = [sys.executable, "-m", "pushserver", "status", url]
        self._process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its)
        os.close(its)
        threading.Thread(target=self._drain, daemon=True).start()

    def _drain(self) -> None:
        try:
            while os.read(self._end, 65_536):
                pass
        except OSError:  # the command has ended
            pass

    def __enter__(self) -> subprocess.Popen[bytes]:
        return self._process

    def __exit__(self, *_: object) -> None:
        assert self._process.poll() is None, "the command ended by itself"
        self._process.terminate()
        self._process.wait()


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:]]
    asyncio.run(main(*[*numbers, *(30, 2_000, 3)[len(numbers) :]]))
