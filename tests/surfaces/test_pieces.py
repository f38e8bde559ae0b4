"""Pieces count the memory of their texts."""

from __future__ import annotations

from sys import getsizeof

import pytest

from pushserver.codec import dumps
from pushserver.page.render import Place
from pushserver.surfaces.pieces import Piece

from ..support.samples import STORED_ENTRY


@pytest.mark.parametrize("text", ["a", "é", "日", "😀"])
def test_a_text_counts_with_the_width_of_its_characters(text: str) -> None:
    entry = dumps({**STORED_ENTRY, "blocks": [{"type": "paragraph", "html": text * 1_000}]})
    piece = Piece(entry)
    assert piece.size == getsizeof(entry)
    html = piece.item(Place("UTC", "en")).html
    assert piece.size == getsizeof(entry) + getsizeof(html)
