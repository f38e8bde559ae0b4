"""A page and an entry with something of everything that feeds and crawlers are shown."""

from __future__ import annotations

from typing import Any

from pushserver.content import changes, schema, validation

PAGE: dict[str, Any] = {
    "headline": "Türkiye & the “bridge” <live>",
    "dek": "What is known.",
    "timezone": "America/New_York",
    "lang": "en-US",
    "coverage_start": "2023-07-11T12:00:00Z",
    "topics": [{"label": "Türkiye"}],
}
ENTRY: dict[str, Any] = {
    "headline": "Tom & Jerry </script><!-- 🎉",
    "blocks": [
        {"type": "paragraph", "html": "One <b>two</b><br>three &amp; four"},
        {
            "type": "image",
            "src": "/static/demo/harbour.svg",
            "width": 12,
            "height": 8,
            "alt": "A harbour",
            "caption": "The harbour.",
            "credit": "Ada",
        },
    ],
    "bylines": [{"name": "Ada Brook", "org": "The Courier"}, {"name": "Cy Roe"}],
    "tags": ["bridge"],
    "published_at": "2023-07-11T15:53:00Z",
}

STORED_PAGE = changes.revise_page(validation.read(schema.PageIn, PAGE), at=1_689_090_780_000)
STORED_ENTRY = changes.revise_entry(
    validation.read(schema.EntryIn, ENTRY), stream="storm", id="e1", at=1_689_090_780_000
)
