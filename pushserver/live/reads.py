"""Reads of the log that are under way, for all who want the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class Reads:
    """Reads of the log that are under way, shared by all who want the same: a storm of readers costs one."""

    def __init__(self) -> None:
        self._under_way: dict[Hashable, asyncio.Task[Any]] = {}

    async def share(self, what: Hashable, read: Callable[[], Coroutine[Any, Any, T]]) -> T:
        task: asyncio.Task[T] | None = self._under_way.get(what)
        if task is None:
            task = self._under_way[what] = asyncio.get_running_loop().create_task(read())
            task.add_done_callback(lambda _: self._under_way.pop(what))
        return await asyncio.shield(task)  # who goes away leaves the read to the others
