"""Examples of request bodies, which the description shows: by the name of an operation and a media type. Pure."""

from __future__ import annotations

from typing import Any

from ..request import JSON, MERGE_PATCH, NDJSON

_ENTRY = {
    "headline": "Ferries to the islands resume at noon",
    "body": "The first boat leaves **Kelm harbour** at 12:00, the port says. Two more follow before dark.",
    "bylines": [{"name": "Ines Marlow", "org": "The Kelm Gazette", "role": "Harbour reporter"}],
    "tags": ["ferries"],
}
_BLOCKS = {
    "headline": "The storm passes, and leaves a mended sea wall",
    "blocks": [
        {"type": "paragraph", "html": "The wall held <em>through the night</em>, engineers say."},
        {
            "type": "image",
            "src": "https://pictures.example/wall.jpg",
            "width": 1600,
            "height": 900,
            "alt": "Waves break below a stone wall; behind it, lit windows.",
            "caption": "The sea wall at Kelm on Tuesday evening.",
            "credit": "Ines Marlow / The Kelm Gazette",
        },
        {"type": "quote", "html": "It has not looked this calm in a week.", "cite": "Tomas Reed, harbour master"},
        {"type": "list", "ordered": False, "items": ["Ferries: from noon", "School: closed until Thursday"]},
    ],
    "flags": {"key": True},
}
_PAGE = {
    "headline": "Storm over Kelm: what we know",
    "kicker": "Live",
    "dek": "The harbour is open again; the coast road is not.",
    "timezone": "Europe/London",
    "lang": "en-GB",
    "topics": [{"label": "Weather"}],
}
EXAMPLES: dict[tuple[str, str], dict[str, Any]] = {
    ("publishEntry", JSON): {"markdown": _ENTRY, "blocks": _BLOCKS},
    ("publishEntry", NDJSON): {"batch": '{"headline": "Coast road closed"}\n{"headline": "Trains run late"}\n'},
    ("putEntry", JSON): {"whole": _ENTRY},
    ("correctEntry", MERGE_PATCH): {
        "correction": {
            "headline": "Ferries to the islands resume at one",
            "correction": {"class": "correction", "note": "An earlier version named the wrong hour."},
        }
    },
    ("putPage", JSON): {"page": _PAGE},
    ("patchPage", MERGE_PATCH): {"dek": {"headline": "Storm over Kelm", "dek": None}},
    ("endStream", JSON): {"next": {"next": {"label": "Kelm after the storm", "url": "https://news.example/after"}}},
}
