"""Entries whose words differ, so that a page of them compresses as a real one does: repeated text shows nothing."""

from __future__ import annotations

import random
from typing import Any


def entries(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """So many entries: a page of 100 is 60 kB in gzip. The same seed gives the same entries."""
    chance = random.Random(seed)
    letters = "etaoinshrdlucmfwypvbgk"
    words = ["".join(chance.choices(letters, k=chance.randint(2, 9))) for _ in range(4_000)]
    weights = [1 / (rank + 1) ** 0.7 for rank in range(len(words))]

    def text(length: int) -> str:
        return " ".join(chance.choices(words, weights, k=length)).capitalize()

    return [
        {
            "headline": text(9),
            "blocks": [{"type": "paragraph", "html": f"{text(60)}."} for _ in range(2)],
            "bylines": [{"name": text(2).title(), "org": "The Courier"}],
            "tags": [text(1)],
        }
        for _ in range(count)
    ]
