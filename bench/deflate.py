"""The script measures what it saves and costs to deflate the frames of the demo's entries.

.venv/bin/python -m bench.deflate
"""

from __future__ import annotations

import json
import statistics
import timeit
from functools import partial
from importlib import resources
from typing import Any

from pushserver import model
from pushserver.codec import dumps
from pushserver.content import changes, schema, validation
from pushserver.model import Cursor, Event
from pushserver.page import render
from pushserver.wire.frames import Coding, EventFrame, Format, encode_text

TIMES = 200


def main() -> None:
    lines = map(json.loads, resources.files("pushserver.cli").joinpath("demo.jsonl").read_text("utf-8").splitlines())
    entries = [line["entry"] for line in lines if "entry" in line]
    print("| format | plain bytes | deflated | us to deflate |\n| --- | --- | --- | --- |")
    for format in Format:
        frames = [_frame(entry) for entry in entries]
        plain, deflated = [
            sum(len(frame.encoded(format, coding)) for frame in frames) / len(frames)
            for coding in (Coding.MESSAGE, Coding.DEFLATED)
        ]
        texts = [frame.text(format) for frame in frames]
        times = [
            timeit.timeit(partial(encode_text, text, Coding.DEFLATED, None), number=TIMES) / TIMES for text in texts
        ]
        print(f"| {format.value} | {plain:.0f} | {deflated:.0f} | {statistics.mean(times) * 1e6:.0f} |")


def _frame(sent: dict[str, Any]) -> EventFrame:
    """Return the frame of an entry."""
    at, id = model.now(), model.new_id()
    entry = changes.revise_entry(validation.read(schema.EntryIn, sent), stream="demo", id=id, at=at)
    cursor = Cursor("e" * 16, f"{at}-0", "a" * 16)
    data = dumps({"at": model.instant(at), "entry": {**entry, "rev": 1}}).encode()
    event = Event(cursor, cursor, 1, "entry.put", data, model.instant(at), id)
    return EventFrame(event, partial(render.frame, event, {**model.unwritten_page("demo"), "timezone": "Etc/UTC"}))


if __name__ == "__main__":
    main()
