"""Every address: what it takes, and all that it may answer. `openapi` makes the description of this.

Pure. One more route is one more `Operation`, and a test finds the route that has none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from ...content import schema
from ...model import ID, STREAM
from ..request import BATCH_LINES, JSON, MERGE_PATCH, NDJSON
from . import answers

HTML, ATOM, JSON_FEED, PROBLEM = (
    "text/html",
    "application/atom+xml",
    "application/feed+json",
    "application/problem+json",
)
TEXT = {"type": "string"}
Schema = dict[str, Any]
Content = dict[str, type[BaseModel] | str | Schema]  # by media type: a model, the name of a schema, or a schema


@dataclass(frozen=True)
class Answer:
    """What an address answers."""

    says: str
    content: Content = field(default_factory=dict)
    headers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Operation:
    """One method of one address. `right` is what a key must allow, '' for any key, None where none is asked for."""

    method: str
    path: str
    name: str
    does: str
    answers: dict[int, Answer]
    refuses: str = ""  # statuses
    takes: Content = field(default_factory=dict)
    query: type[BaseModel] | dict[str, Schema] = field(default_factory=dict)
    headers: tuple[str, ...] = ()
    right: str | None = None
    body_required: bool = True

    @property
    def is_websocket(self) -> bool:
        """Whether it switches protocols."""
        return 101 in self.answers

    @property
    def is_for_readers(self) -> bool:
        """Whether it shows a stream to whoever may read it, without a publish key."""
        return self.right is None and "{stream}" in self.path


# --- words of the description

_KEY = r'^([\x21\x23-\x5b\x5d-\x7e]{1,200}|"[\x21\x23-\x5b\x5d-\x7e]{1,200}")$'
PATH = {
    "stream": {"type": "string", "pattern": f"^{STREAM.pattern}$"},
    "id": {"type": "string", "pattern": f"^{ID.pattern}$"},
}
REQUEST_HEADERS = {
    "Idempotency-Key": ("The same key with the same body is done once.", _KEY, "desk-0042"),
    "If-Match": ("The revision that is to change; * for any.", r'^(\*|"[0-9]{1,9}")$', '"1"'),
    "If-None-Match": ("* changes only what is not there yet.", r"^\*$", "*"),
}
ANSWER_HEADERS: dict[str, Schema] = {
    "ETag": {"required": True, "schema": TEXT},
    "Location": {"required": True, "schema": {"type": "string", "format": "uri-reference"}},
    "Idempotency-Key": {"required": True, "schema": TEXT, "description": "The key of this request, made if none came."},
    "Idempotent-Replayed": {"schema": {"const": "true"}, "description": "This is what was answered the first time."},
    "WWW-Authenticate": {"required": True, "schema": TEXT},
    "Retry-After": {"required": True, "schema": {"type": "string", "pattern": "^[0-9]+$"}},
}
REFUSAL_HEADERS = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}
BEFORE: Schema = {"type": "string", "pattern": "^-?[0-9]{1,16}\\.[0-9A-Za-z_-]{1,64}$"}

CURSOR: Schema = {"type": "string", "pattern": r"^(v1\.[0-9a-f]{16}\.[0-9]{1,19}-[0-9]{1,19}\.[0-9a-f]{16})?$"}
FOLLOW: dict[str, Schema] = {"cursor": TEXT, "format": {"enum": ["json", "html"], "default": "json"}}

CHANGE = ("Idempotency-Key", "If-Match", "If-None-Match")
STORED = ("ETag", "Location", "Idempotency-Key", "Idempotent-Replayed")
READING = "401 403 404 422 503"
KEYED = "400 401 403 429 503"
WRITING = f"{KEYED} 409 413 415 422"

EITHER: dict[str, tuple[type[BaseModel], ...]] = {
    "EntryChanged": (answers.EntryOutcome, answers.Unchanged),
    "Events": (answers.EventsPart, answers.EventsMissing),
    "Published": (answers.EntryOutcome, answers.DryRun),
}


# --- every operation

FEWER = "It is stored, on fewer replicas than the server was told to wait for."
_fewer = {202: Answer(FEWER, {JSON: answers.EntryOutcome}, STORED)}
_new = {201: Answer("It is new.", {JSON: answers.EntryOutcome}, STORED), **_fewer}
_page = {
    200: Answer("It changed.", {JSON: answers.Outcome}, STORED),
    201: Answer("It is new.", {JSON: answers.Outcome}, STORED),
    202: Answer(FEWER, {JSON: answers.Outcome}, STORED),
}
_put = Answer("It changed; or nothing did.", {JSON: "EntryChanged"}, ("ETag",))
_html = Answer("The page.", {HTML: TEXT})
_counts = Answer("The text format of Prometheus.", {"text/plain": TEXT})
_same = Answer("It is still what the ETag named.", {}, ("ETag",))

OPERATIONS = [
    Operation("GET", "/", "listStreams", "The streams, the last changed first.", {200: _html}, "503"),
    Operation("GET", "/livez", "isAlive", "Whether the worker lives.", {200: Answer("Yes.", {JSON: answers.Live})}),
    Operation("GET", "/metrics", "countAll", "What the workers count, for Prometheus.", {200: _counts}),
    Operation(
        "GET",
        "/readyz",
        "isReady",
        "Whether the worker reaches the store, reads it, and stays.",
        {200: Answer("Yes.", {JSON: answers.Ready}), 503: Answer("No.", {JSON: answers.Ready})},
    ),
    Operation(
        "GET",
        "/openapi.json",
        "describe",
        "This description.",
        {200: Answer("OpenAPI 3.1.", {JSON: {"type": "object"}}, ("ETag",)), 304: _same},
    ),
    Operation(
        "GET",
        "/streams/{stream}",
        "showPage",
        "The page, whole, with the cursor that it goes live from; or a slice of older entries.",
        {200: Answer("The page.", {HTML: TEXT}, ("ETag",)), 304: _same},
        READING,
        query={"before": BEFORE},
    ),
    Operation(
        "PUT",
        "/streams/{stream}",
        "putPage",
        "Set the page whole.",
        _page,
        f"{WRITING} 412",
        {JSON: schema.PageIn},
        headers=CHANGE,
        right="page",
    ),
    Operation(
        "PATCH",
        "/streams/{stream}",
        "patchPage",
        "Change the fields of the page that the patch names (RFC 7396). The first needs a headline.",
        _page,
        f"{WRITING} 412",
        {MERGE_PATCH: "PagePatch", JSON: "PagePatch"},
        headers=CHANGE,
        right="page",
    ),
    Operation(
        "POST",
        "/streams/{stream}/end",
        "endStream",
        "End the coverage, and say where it goes on.",
        _page,
        f"{WRITING} 412",
        {JSON: schema.EndIn},
        headers=CHANGE,
        right="page",
        body_required=False,
    ),
    Operation(
        "GET",
        "/streams/{stream}/entries",
        "listEntries",
        "The page and the newest entries, or a slice of older ones: one instant of the stream.",
        {200: Answer("The snapshot.", {JSON: answers.Snapshot}, ("ETag",)), 304: _same},
        READING,
        query={"before": BEFORE, "limit": {"type": "integer", "minimum": 1}},
    ),
    Operation(
        "POST",
        "/streams/{stream}/entries",
        "publishEntry",
        f"Publish an entry, in a new stream where there is none; or up to {BATCH_LINES}, one a line.",
        {
            200: Answer(
                "It was published before; a dry run; or a batch, with a line for each of its lines.",
                {JSON: "Published", NDJSON: TEXT},
                ("Idempotent-Replayed",),
            ),
            **_new,
        },
        WRITING,
        {JSON: schema.NewEntryIn, NDJSON: TEXT},
        schema.PublishIn,
        ("Idempotency-Key",),
        right="publish",
    ),
    Operation(
        "GET",
        "/streams/{stream}/entries/{id}",
        "showEntry",
        "The entry, as its own page or as JSON.",
        {200: Answer("The entry.", {JSON: answers.Entry, HTML: TEXT}), 410: Answer("It was withdrawn.", {HTML: TEXT})},
        f"{READING} 410",
    ),
    Operation(
        "PUT",
        "/streams/{stream}/entries/{id}",
        "putEntry",
        "Put the entry whole: new under an id of one's own, or corrected.",
        {200: _put, **_new},
        f"{WRITING} 410 412",
        {JSON: schema.EntryIn},
        headers=CHANGE,
        right="publish, correct",
    ),
    Operation(
        "PATCH",
        "/streams/{stream}/entries/{id}",
        "correctEntry",
        "Correct the fields of the entry that the patch names (RFC 7396).",
        {200: _put, **_fewer},
        f"{WRITING} 404 410 412",
        {MERGE_PATCH: "EntryPatch", JSON: "EntryPatch"},
        headers=CHANGE,
        right="correct",
    ),
    Operation(
        "DELETE",
        "/streams/{stream}/entries/{id}",
        "withdrawEntry",
        "Withdraw the entry: its text is told again by nobody.",
        {
            200: Answer("It is withdrawn.", {JSON: answers.Withdrawn}, STORED),
            202: Answer(FEWER, {JSON: answers.Withdrawn}, STORED),
        },
        f"{KEYED} 404 409 410 412 422",
        query=schema.WithdrawalIn,
        headers=CHANGE,
        right="withdraw",
    ),
    Operation(
        "GET",
        "/streams/{stream}/entries/{id}/delivery",
        "showDelivery",
        "The receipt of the entry's event `n`, or of its newest: who was given it.",
        {200: Answer("The receipt.", {JSON: answers.EntryReceipt})},
        f"{KEYED} 404 422",
        query=schema.DeliveryIn,
        right="",
    ),
    *(
        Operation(
            "GET",
            f"/streams/{{stream}}/{file}",
            name,
            f"The newest entries as {kind}.",
            {200: Answer("The feed.", {media_type: content}, ("ETag",)), 304: _same},
            READING,
        )
        for file, name, kind, media_type, content in (
            ("feed.atom", "atomFeed", "Atom", ATOM, TEXT),
            ("feed.json", "jsonFeed", "JSON Feed 1.1", JSON_FEED, {"type": "object"}),
        )
    ),
    Operation(
        "GET",
        "/streams/{stream}/export",
        "exportStream",
        "All that is stored of the stream, a line each.",
        {200: Answer("The lines.", {NDJSON: TEXT})},
        f"{KEYED} 404 422",
        right="publish, correct, withdraw, page",
    ),
    Operation(
        "POST",
        "/streams/{stream}/restore",
        "restoreStream",
        "Put the lines of an export back, up to the first that is refused.",
        {200: Answer("A line for each of the lines.", {NDJSON: TEXT})},
        f"{KEYED} 413 415 422",
        {NDJSON: TEXT},
        right="publish, correct, withdraw, page",
    ),
    Operation(
        "GET",
        "/streams/{stream}/events",
        "listEvents",
        "What came after a cursor, or all from the beginning, in parts; or why that cannot be told.",
        {200: Answer("A part.", {JSON: "Events"}, ("ETag",)), 304: _same},
        READING,
        query={"after": CURSOR, "limit": {"type": "integer", "minimum": 1}},
    ),
    Operation(
        "GET",
        "/streams/{stream}/sse",
        "followEvents",
        "The stream as it goes on, as Server-Sent Events: docs/protocol.md has the frames.",
        {200: Answer("Frames follow.", {"text/event-stream": TEXT}), 204: Answer("It has ended, and all was told.")},
        READING,
        query=FOLLOW,
    ),
    Operation(
        "GET",
        "/streams/{stream}/ws",
        "follow",
        "The stream as it goes on, over WebSocket: docs/protocol.md has the frames.",
        {101: Answer("Frames follow, each a text message in JSON.")},
        f"{READING} 426",
        query=FOLLOW,
    ),
]


# --- examples

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
