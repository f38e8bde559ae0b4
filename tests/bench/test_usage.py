"""The usage of a process is what the kernel counts."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from pushserver.bench import usage

from ..support.server import LIMIT


def test_what_a_process_uses_is_what_the_kernel_counts() -> None:
    burn = "import os, time\nfor _ in range(500): os.write(1, b'.')\nwhile time.process_time() < 0.3: pass\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        over = time.monotonic() + LIMIT
        while (used := usage.measure([process.pid])).cpu < 0.3:
            assert time.monotonic() < over
        assert process.stdout is not None
        assert len(process.stdout.read(500)) == 500
        assert used.writes >= 500
        assert process.pid in usage.process_tree(os.getpid())
        assert usage.memory([process.pid]) > 1_000
        process.communicate(b"\n")
    assert usage.measure([process.pid]) == usage.Usage(0, 0, 0)
