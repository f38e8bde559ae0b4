"""Long texts are read in a thread of their own, short ones at once."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from pushserver.content import schema, validation
from pushserver.errors import Invalid
from pushserver.publishing.off_loop import is_heavy, off_loop


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"headline": "x", "body": "word " * 800}, False),
        ({"body": "*a* " * 50}, False),
        ({"body": "[" * 151}, True),
        ({"body": "a\n" * 151}, True),
        ({"body": "a" * 8_001}, True),
        ({"blocks": [{"type": "paragraph", "html": "<b>" * 80}]}, True),
        ({"blocks": [{"type": "list", "items": ["a"] * 61}]}, True),
        ({"blocks": [1] * 61}, True),
        ([], False),
        (None, False),
        (schema.EntryIn, False),
    ],
)
def test_a_value_of_many_texts_marks_or_characters_is_heavy(value: Any, expected: bool) -> None:
    assert is_heavy(value) is expected


@pytest.mark.anyio
async def test_the_loop_goes_on_while_a_heavy_value_is_read() -> None:
    """The work waits for something that the loop alone can do."""
    loop, done = asyncio.get_running_loop(), threading.Event()

    def work(_: Any) -> int:
        loop.call_soon_threadsafe(done.set)
        assert done.wait(20)
        return threading.get_ident()

    assert await off_loop(work, "[" * 2_000) != threading.get_ident()


@pytest.mark.anyio
async def test_a_light_value_is_read_at_once() -> None:
    def work(_: Any) -> int:
        return threading.get_ident()

    assert await off_loop(work, "x") == threading.get_ident()


@pytest.mark.anyio
async def test_a_heavy_value_is_refused_as_a_light_one_is() -> None:
    with pytest.raises(Invalid, match="at most 2000 marks of Markdown, got 40000"):
        await off_loop(validation.read, schema.EntryIn, {"body": "[" * 40_000})
