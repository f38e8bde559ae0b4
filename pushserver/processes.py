"""Child processes are stopped in one way: terminate, wait, kill."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import Process


async def stop(process: Process, patience: float) -> bool:
    """Terminate a process and wait up to `patience` seconds; kill it if it still runs. Return whether it was killed."""
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(patience):
            # Not `wait`: a process that writes to a pipe which nobody reads does not end before the pipe is read.
            await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return True
    return False
