"""The frames that readers receive, as models for their JSON Schema: `docs/frames.schema.json` is made from them. Pure.

Nothing is validated by them but what a test receives from a server. `static/stream.d.ts` has the same fields, which a
test compares. Readers ignore fields and types that they do not know: later versions may add some.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from ...content.fields import Coverage, Instant
from .answers import Answer, Entry, Page

Schema = dict[str, Any]
Parts = Annotated[dict[str, str], Field(description="HTML of elements of the page, by their ids.")]


class NewestEvent(Answer):
    """The newest event of a log."""

    n: int
    cursor: str


class HelloMessage(Answer):
    """The first frame: the events after number `from` follow, or, if it is not complete, a snapshot."""

    type: Literal["hello"]
    protocol: Literal[1]
    stream: str
    epoch: str
    head: NewestEvent
    start: Annotated[int, Field(alias="from")]
    complete: bool
    reason: str | None = None
    heartbeat: float


class HeadMessage(Answer):
    """A heartbeat. `readers` are those of one worker, `readers_now` those of all, with --show-readers."""

    type: Literal["head"]
    head: NewestEvent
    readers: int
    at: Instant
    readers_now: int | None = None
    stale: Instant | None = None


class ByeMessage(Answer):
    """The last frame before a close: come back after a random part of `retry_ms` milliseconds."""

    type: Literal["bye"]
    reason: str
    retry_ms: int
    reload_ms: int | None = None


class ResetMessage(Answer):
    """The stream begins anew: a snapshot follows. Of the entries `withdrawn` a revision is lost for good."""

    type: Literal["reset"]
    reason: str
    withdrawn: list[str]


class SnapshotMessage(NewestEvent):
    """The page and its newest entries as of event `n`."""

    type: Literal["snapshot"]
    page: Page
    entries: list[Entry]


class EventMessage(NewestEvent):
    """An event: it follows the event `prev`."""

    prev: str
    at: Instant


class EntryPutMessage(EventMessage):
    """An entry is new, or has a new revision."""

    type: Literal["entry.put"]
    entry: Entry


class EntryWithdrawMessage(EventMessage):
    """An entry was withdrawn: it leaves the page."""

    type: Literal["entry.withdraw"]
    id: str
    rev: int
    reason: str
    note: str | None = None


class PagePutMessage(EventMessage):
    """The page changed; `changed` names the fields that make every entry look different."""

    type: Literal["page.put"]
    page: Page
    changed: list[Literal["lang", "dir", "timezone"]] | None = None


class StreamEndMessage(EventMessage):
    """The coverage has ended: do not come back."""

    type: Literal["stream.end"]
    page: Page
    next: Coverage | None = None


class PageHead(Answer):
    """The fields of a page that no part of its HTML shows."""

    rev: int
    headline: str
    timezone: str
    lang: str
    dir: Literal["ltr", "rtl"]


class EntryHead(Answer):
    """The fields of an entry that place it."""

    id: str
    rev: int
    sort_at: Instant


class Day(Answer):
    """The section of an entry, as it is without entries."""

    id: str
    html: str


class SnapshotHtmlMessage(NewestEvent):
    """The page as of event `n`, in the html format."""

    type: Literal["snapshot"]
    page: PageHead
    parts: Parts


class EntryPutHtmlMessage(EventMessage):
    """An entry that is new or revised, in the html format: `html` is its list item."""

    type: Literal["entry.put"]
    entry: EntryHead
    html: str
    day: Day
    parts: Parts


class EntryWithdrawHtmlMessage(EntryWithdrawMessage):
    """A withdrawal in the html format."""

    parts: Parts


class PagePutHtmlMessage(EventMessage):
    """A change of the page in the html format."""

    type: Literal["page.put"]
    page: PageHead
    parts: Parts
    changed: list[Literal["lang", "dir", "timezone"]] | None = None


class StreamEndHtmlMessage(EventMessage):
    """The end of the coverage in the html format."""

    type: Literal["stream.end"]
    page: PageHead
    parts: Parts
    next: Coverage | None = None


BOTH: tuple[type[BaseModel], ...] = (HelloMessage, HeadMessage, ByeMessage, ResetMessage)
FORMATS: dict[str, tuple[type[BaseModel], ...]] = {
    "json": (*BOTH, SnapshotMessage, EntryPutMessage, EntryWithdrawMessage, PagePutMessage, StreamEndMessage),
    "html": (
        *BOTH,
        SnapshotHtmlMessage,
        EntryPutHtmlMessage,
        EntryWithdrawHtmlMessage,
        PagePutHtmlMessage,
        StreamEndHtmlMessage,
    ),
}


def schema() -> Schema:
    """The JSON Schema of every frame; `$defs/json` and `$defs/html` are the frames of one format."""
    models = list(dict.fromkeys(model for models in FORMATS.values() for model in models))
    _, made = models_json_schema([(model, "serialization") for model in models], ref_template="#/$defs/{model}")
    formats = {
        name: {"oneOf": [{"$ref": f"#/$defs/{model.__name__}"} for model in models]} for name, models in FORMATS.items()
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The frames of a stream",
        "anyOf": [{"$ref": "#/$defs/json"}, {"$ref": "#/$defs/html"}],
        "$defs": {**formats, **made["$defs"]},
    }
