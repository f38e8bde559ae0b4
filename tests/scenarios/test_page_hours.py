"""`bench/page_hours.py` measures a page that is open for hours; here it runs for a short time."""

from __future__ import annotations

import pytest

from bench import page_hours

from ..support.pages import NEEDS_CHROMIUM


@NEEDS_CHROMIUM
@pytest.mark.full
def test_an_hour_of_a_page_is_measured() -> None:
    (first, last), burst = page_hours.measure(100, 2, page_entries=50, burst=20)
    assert first.entries == last.entries == 50
    assert len(first.inserts) == len(last.inserts) == 50
    assert last.heap < first.heap * 1.1
    assert last.nodes < first.nodes * 1.1
    assert last.processor > 0 < burst
    assert len(str(last).split()) == 8
