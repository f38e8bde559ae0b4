from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.processes import stores_on


@pytest.fixture(autouse=True)
def no_store_left(tmp_path: Path) -> Iterator[None]:
    """A killed server leaves its store; should the test end before the next start does away with it, it is ended."""
    yield
    for pidfile in tmp_path.glob("*/valkey.pid"):
        for pid in stores_on(pidfile.parent):
            os.kill(pid, signal.SIGKILL)
