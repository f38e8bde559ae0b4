"""The script measures the longest time that reading and showing one entry takes of the processor, for the worst inputs.

    .venv/bin/python -m bench.worst [EXAMPLES]

The inputs are the classics against parsers (tags without an end, brackets, backticks, nested quotes, runs of emphasis,
references, marks on one character), each cut to the longest beginning that the limits allow, and inputs that
hypothesis makes of the same parts, which looks for those that take longest. It prints each kind with the milliseconds
of processor time that the server takes on its event loop, or in its thread for long texts, and at the end the worst of
both. A figure on the loop above 20 ms, or one in the thread above 150 ms, is an exit status of 1.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings, target
from hypothesis import strategies as st

from pushserver.content import changes, markdown, schema, validation
from pushserver.content.plaintext import Unsafe
from pushserver.errors import Invalid
from pushserver.model import unwritten_page
from pushserver.page import render
from pushserver.publishing.off_loop import is_heavy

LOOP_LIMIT, THREAD_LIMIT = 20.0, 150.0  # milliseconds
BODY, HTML = 50_000, 20_000  # characters
EXAMPLES = 300
Entry = dict[str, Any]

_ROW = "|a" * 12 + "|\n"
BODIES = {
    "words": "word " * BODY,
    "paragraphs": "some words of a paragraph\n\n" * BODY,
    "prose": "The harbour is **open**; [more](https://a.example/x) at noon. " * BODY,
    "items": "- a\n" * BODY,
    "headings": "# a\n" * BODY,
    "nested items": "".join("  " * depth + "- a\n" for depth in range(200)),
    "brackets": "[" * BODY,
    "pictures": "![" * BODY,
    "links": "[a](https://a.b)" * BODY,
    "open links": "[a](" * BODY,
    "backticks": "`" * BODY,
    "runs of backticks": "".join("`" * run + "a" for run in range(1, 310)),
    "quotes": "> " * BODY,
    "lines of quotes": "> > > a\n" * BODY,
    "emphasis": "*a_ " * BODY,
    "emphasis in words": "a**b*c" * BODY,
    "references": "".join(f"[{number}]: /u\n" for number in range(5_000)),
    "uses of a reference": "[a]: https://a.example/\n\n" + "[a] " * BODY,
    "character references": "&amp;" * BODY,
    "breaks": "a\\\n" * BODY,
    "bare links": "http://a.b " * BODY,
    "addresses": "<a@b.c>" * BODY,
    "open tags": "<a " * BODY,
    "comments": "<!--" * BODY,
    "table": _ROW + "|-" * 12 + "|\n" + _ROW * 200,
    "marks on one character": "e" + "\u0323\u0301" * BODY,
    "marks": ("e" + "\u0301\u0323" * 15) * BODY,
}
HTMLS = {
    "open tags": "<a " * HTML,
    "tags": "<b>x</b>" * 900,
    "links": '<a href="https://a.b/">x</a>' * 700,
    "nested tags": ("<b>" * 16 + "x" + "</b>" * 16) * 90,
    "line breaks": "x<br>" * 2_500,
    "ampersands": "&" * 3_900,
    "references": "&CounterClockwiseContourIntegral;" * 600,
    "unknown references": ("&" + "a" * 31) * 600,
    "quotes": "<a href='" + '"' * HTML,
    "blank": "\u200b" * HTML,
}
OTHERS: dict[str, Entry] = {
    "blocks: items": {"blocks": [{"type": "list", "items": ["a"] * 200}] * 14},
    "blocks: items of HTML": {"blocks": [{"type": "list", "items": ["<b>a</b>"] * 200}] * 7},
    "blocks: table": {"blocks": [{"type": "table", "head": ["<b>a</b>"] * 12, "rows": [["a&b"] * 12] * 200}]},
    "blocks: no objects": {"blocks": [1] * 20_000},
    "fields that are unknown": {"headline": "x", **{f"k{number}": 1 for number in range(6_000)}},
}

PARTS = (
    "[",
    "]",
    "(",
    ")",
    "!",
    "*",
    "_",
    "`",
    "~",
    "<",
    ">",
    "&",
    "|",
    "\\",
    "\n",
    "\n\n",
    "    ",
    "- ",
    "1. ",
    "> ",
    "# ",
)
MORE = ("a", " ", "https://a.b", "<b>", "</b>", "<a ", "&amp;", "é", "\u0301", "[a]: /u\n", "](", "|-", "```\n", "www.")
repeated = st.lists(st.sampled_from(PARTS + MORE), min_size=1, max_size=6).map("".join)


def fitting(body: str) -> str:
    """The longest beginning of a body that is within the limits on lines, marks and pipes."""
    low, high = 0, min(len(body), BODY)
    while low < high:
        middle = (low + high + 1) // 2
        try:
            markdown.check_work(body[:middle])
            low = middle
        except Unsafe:
            high = middle - 1
    return body[:low]


def spent(work: Callable[[], object]) -> float:
    """The milliseconds of processor time of the best of three runs."""
    times = []
    for _ in range(3):
        began = time.thread_time()
        work()
        times.append((time.thread_time() - began) * 1_000)
    return min(times)


def read(value: Entry) -> schema.EntryIn | None:
    try:
        return validation.read(schema.EntryIn, value)
    except Invalid:
        return None


class Worst:
    """The worst of what was measured, on the loop and in the thread."""

    def __init__(self) -> None:
        self.loop = self.thread = (0.0, "")

    def measure(self, name: str, value: Entry) -> float:
        """The milliseconds that an entry takes in one piece, which are noted."""
        reading = spent(lambda: read(value))
        on_loop = spent(lambda: is_heavy(value)) + (0.0 if is_heavy(value) else reading)
        if entry_in := read(value):
            entry = changes.revise_entry(entry_in, stream="s", id="x", at=0)
            on_loop = max(on_loop, spent(lambda: render.preview(entry, unwritten_page("s"))))
        self.loop = max(self.loop, (on_loop, name))
        self.thread = max(self.thread, (reading if is_heavy(value) else 0.0, name))
        return reading


def explore(worst: Worst, examples: int) -> None:
    """Measure what hypothesis makes of a few parts, repeated up to the limits: it looks for what takes longest."""

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.target],
        suppress_health_check=list(HealthCheck),
    )
    @given(repeated, repeated)
    def search(beginning: str, unit: str) -> None:
        for cut in (fitting(beginning + unit * (BODY // len(unit))), (beginning + unit * 20)[:150]):
            target(worst.measure(f"made: {beginning + unit!r}", {"body": cut}), label=str(len(cut) > 150))

    search()


def main() -> int:
    worst = Worst()
    kinds: dict[str, Entry] = {f"body: {name}": {"body": fitting(body)} for name, body in BODIES.items()}
    kinds |= {f"html: {name}": {"blocks": [{"type": "paragraph", "html": html[:HTML]}]} for name, html in HTMLS.items()}
    for name, value in {**kinds, **OTHERS}.items():
        print(f"{name:32} {worst.measure(name, value):8.1f} ms{'' if is_heavy(value) else ', on the loop'}")
    explore(worst, int(sys.argv[1]) if len(sys.argv) > 1 else EXAMPLES)
    print(f"\nworst on the loop: {worst.loop[0]:.1f} ms, {worst.loop[1]}")
    print(f"worst in the thread: {worst.thread[0]:.1f} ms, {worst.thread[1]}")
    return int(worst.loop[0] > LOOP_LIMIT or worst.thread[0] > THREAD_LIMIT)


if __name__ == "__main__":
    sys.exit(main())
