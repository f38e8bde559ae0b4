"""Work on the text of an entry, beside the event loop where it may take longer than a few milliseconds.

An entry within every limit takes up to a tenth of a second to read. One thread does such work, an entry after the
other: readers get their events meanwhile, since the thread lets the loop run every millisecond.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

TEXTS, MARKS, CHARACTERS = 60, 150, 8_000  # of a value that is read at once, in some three milliseconds
_MARKS = "<>&[]*_`\\|!~\n"

T = TypeVar("T")
# By default a thread that computes keeps the loop waiting for 5 ms each time that the loop has called the kernel.
_THREAD = ThreadPoolExecutor(1, "entries", initializer=sys.setswitchinterval, initargs=(0.001,))


async def off_loop(work: Callable[..., T], *arguments: Any) -> T:
    """Call `work` with these arguments and return what it returns; in the thread where the arguments are long."""
    if any(is_heavy(argument) for argument in arguments):
        return await asyncio.get_running_loop().run_in_executor(_THREAD, work, *arguments)
    return work(*arguments)


def is_heavy(value: Any) -> bool:
    """Whether a value has more texts, marks or characters than are read at once."""
    texts = marks = characters = 0
    for text in _texts(value):
        texts += 1
        characters += len(text)
        if texts <= TEXTS and characters <= CHARACTERS:
            marks += sum(map(text.count, _MARKS))
        if texts > TEXTS or characters > CHARACTERS or marks > MARKS:
            return True
    return False


def _texts(value: Any) -> Iterator[str]:
    """Every scalar in a value, as a text: a number costs as much to refuse as a text costs to read."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)
    else:
        yield value if isinstance(value, str) else ""
