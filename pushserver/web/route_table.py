"""Every operation of the HTTP interface: its address, what it takes, what it answers and who may call it. Pure.

The routes, the gate of private streams, the description and the table in docs/protocol.md are made from this list.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from ..content import schema
from ..model import ID, STREAM
from .openapi import answers
from .request import BATCH_LINES, JSON, MERGE_PATCH, NDJSON

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
    """One response of an operation, as the description has it."""

    says: str
    content: Content = field(default_factory=dict)
    headers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Operation:
    """One method of one address. `right` is what the publish key must allow, '' for any key, None for no key at all."""

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
        """Whether it shows a stream to readers, who need no publish key."""
        return self.right is None and "{stream}" in self.path


# --- words of the description

_KEY = r'^([\x21\x23-\x5b\x5d-\x7e]{1,200}|"[\x21\x23-\x5b\x5d-\x7e]{1,200}")$'
PATH = {
    "stream": {"type": "string", "pattern": f"^{STREAM.pattern}$"},
    "id": {"type": "string", "pattern": f"^{ID.pattern}$"},
}
REQUEST_HEADERS = {
    "Idempotency-Key": ("A request with the same key and the same body is carried out once.", _KEY, "desk-0042"),
    "If-Match": ("The revision to change; * for any.", r'^(\*|"[0-9]{1,9}(\.[0-9a-f]{32})?")$', '"1"'),
    "If-None-Match": ("* changes only what does not exist yet.", r"^\*$", "*"),
}
ANSWER_HEADERS: dict[str, Schema] = {
    "ETag": {"required": True, "schema": TEXT},
    "Location": {"required": True, "schema": {"type": "string", "format": "uri-reference"}},
    "Idempotency-Key": {
        "required": True,
        "schema": TEXT,
        "description": "The key of this request, made by the server where the client sent none.",
    },
    "Idempotent-Replayed": {"schema": {"const": "true"}, "description": "The answer is that of the first request."},
    "WWW-Authenticate": {"required": True, "schema": TEXT},
    "Retry-After": {"required": True, "schema": {"type": "string", "pattern": "^[0-9]+$"}},
}
REFUSAL_HEADERS = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}
BEFORE: Schema = {"type": "string", "pattern": "^-?[0-9]{1,16}\\.[0-9A-Za-z_-]{1,64}$"}

N: Schema = {"type": "string", "pattern": "^[0-9]{1,16}$", "description": "The answer is not older than this event."}
CURSOR: Schema = {"type": "string", "pattern": r"^(v1\.[0-9a-f]{16}\.[0-9]{1,19}-[0-9]{1,19}\.[0-9a-f]{16})?$"}
FOLLOW: dict[str, Schema] = {
    "cursor": TEXT,
    "format": {"enum": ["json", "html"], "default": "json"},
    "build": TEXT,  # of the page that reads
}

CHANGE = ("Idempotency-Key", "If-Match", "If-None-Match")
STORED = ("ETag", "Location", "Idempotency-Key", "Idempotent-Replayed")
READING = "401 403 404 410 422 429 503"
CONDITIONAL = f"{READING} 412"
KEYED = "400 401 403 429 503"
WRITING = f"{KEYED} 409 410 413 415 422"

EITHER: dict[str, tuple[type[BaseModel], ...]] = {
    "EntryChanged": (answers.EntryOutcome, answers.Unchanged),
    "Events": (answers.EventsPart, answers.EventsMissing),
    "PageChanged": (answers.Outcome, answers.PageUnchanged),
    "Published": (answers.EntryOutcome, answers.DryRun),
}


# --- every operation

FEWER = "Stored, on fewer replicas than the server waits for."
_fewer = {202: Answer(FEWER, {JSON: answers.EntryOutcome}, STORED)}
_new = {201: Answer("Created.", {JSON: answers.EntryOutcome}, STORED), **_fewer}
_page = {
    200: Answer("Changed, or nothing to change.", {JSON: "PageChanged"}, ("ETag",)),
    201: Answer("Created.", {JSON: answers.Outcome}, STORED),
    202: Answer(FEWER, {JSON: answers.Outcome}, STORED),
}
_put = Answer("Changed, or not different from the current one.", {JSON: "EntryChanged"}, ("ETag",))
_html = Answer("The page.", {HTML: TEXT})
_refused_batch = {
    422: Answer("Refused; a batch of which no line was stored has the refusal of each.", {NDJSON: TEXT}),
    503: Answer("The store is away; a batch has the refusal of each line.", {NDJSON: TEXT}),
}
_same = Answer("Not modified: the copy that the ETag names is current.", {}, ("ETag",))

OPERATIONS = [
    Operation("GET", "/", "listStreams", "List the streams, the last changed first.", {200: _html}, "429 503"),
    Operation("GET", "/livez", "isAlive", "Answer while the worker runs.", {200: Answer("Yes.", {JSON: answers.Live})}),
    Operation(
        "GET",
        "/readyz",
        "isReady",
        "Tell whether the worker takes new readers and publishes, and is not stopping.",
        {200: Answer("Yes.", {JSON: answers.Ready}), 503: Answer("No.", {JSON: answers.Ready})},
    ),
    Operation(
        "GET",
        "/readyz/read",
        "isReadable",
        "Tell whether the worker answers page loads, from the store or from memory, and is not stopping.",
        {200: Answer("Yes.", {JSON: answers.Readable}), 503: Answer("No.", {JSON: answers.Readable})},
    ),
    Operation(
        "GET",
        "/openapi.json",
        "describe",
        "The description of every operation (OpenAPI 3.1).",
        {200: Answer("OpenAPI 3.1.", {JSON: {"type": "object"}}, ("ETag",)), 304: _same},
    ),
    Operation(
        "GET",
        "/streams",
        "listStreamsForKeys",
        "List the streams that the key is for as JSON, the last changed first, with what they have and weigh.",
        {200: Answer("A part of the list.", {JSON: answers.Streams})},
        "401 422 429 503",
        query=schema.ListingIn,
        right="",
    ),
    Operation(
        "GET",
        "/streams/{stream}",
        "showPage",
        "The page as HTML, with the cursor from which it subscribes; with `before`, a slice of older entries.",
        {200: Answer("The page.", {HTML: TEXT}, ("ETag",)), 304: _same},
        CONDITIONAL,
        query={"before": BEFORE, "n": N},
    ),
    Operation(
        "PUT",
        "/streams/{stream}",
        "putPage",
        "Replace the page.",
        _page,
        f"{WRITING} 412",
        {JSON: schema.PagePut},
        headers=CHANGE,
        right="page",
    ),
    Operation(
        "PATCH",
        "/streams/{stream}",
        "patchPage",
        "Change the fields of the page that the merge patch names (RFC 7396). The first patch needs a headline.",
        _page,
        f"{WRITING} 412",
        {MERGE_PATCH: "PagePatch", JSON: "PagePatch"},
        headers=CHANGE,
        right="page",
    ),
    Operation(
        "DELETE",
        "/streams/{stream}",
        "deleteStream",
        "Delete the stream: its readers are closed, and its name is refused for the time of `--gone`, unless `forget`.",
        {
            200: Answer("Deleted.", {JSON: answers.Deleted}),
            202: Answer("Deleted, on fewer replicas than the server waits for.", {JSON: answers.Deleted}),
        },
        f"{KEYED} 404 422",
        query=schema.DeletionIn,
        right="delete",
    ),
    Operation(
        "POST",
        "/streams/{stream}/end",
        "endStream",
        "End the stream; `next` names the follow-up page.",
        _page,
        f"{WRITING} 404 412",
        {JSON: schema.EndIn},
        headers=CHANGE,
        right="page",
        body_required=False,
    ),
    Operation(
        "GET",
        "/streams/{stream}/entries",
        "listEntries",
        "The page and the newest entries at one instant; with `before`, a slice of older entries.",
        {200: Answer("The snapshot.", {JSON: answers.Snapshot}, ("ETag",)), 304: _same},
        CONDITIONAL,
        query={"before": BEFORE, "limit": {"type": "integer", "minimum": 1}, "n": N},
    ),
    Operation(
        "POST",
        "/streams/{stream}/entries",
        "publishEntry",
        f"Publish an entry, or a batch of up to {BATCH_LINES}, one a line. The first entry creates the stream.",
        {
            200: Answer(
                "A repeated request, a dry run, or a batch: a line of the answer for each of its lines.",
                {JSON: "Published", NDJSON: TEXT},
                ("Idempotent-Replayed",),
            ),
            **_refused_batch,
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
        "The entry as HTML, a page of its own, or as JSON.",
        {
            200: Answer("The entry.", {JSON: answers.Entry, HTML: TEXT}, ("ETag",)),
            304: _same,
            410: Answer("Withdrawn, or the stream was deleted.", {HTML: TEXT}),
        },
        CONDITIONAL,
    ),
    Operation(
        "PUT",
        "/streams/{stream}/entries/{id}",
        "putEntry",
        "Create the entry under this id, or replace it.",
        {200: _put, **_new},
        f"{WRITING} 412",
        {JSON: schema.EntryPut},
        headers=CHANGE,
        right="publish, correct",
    ),
    Operation(
        "PATCH",
        "/streams/{stream}/entries/{id}",
        "correctEntry",
        "Correct the fields of the entry that the merge patch names (RFC 7396).",
        {200: _put, **_fewer},
        f"{WRITING} 404 412",
        {MERGE_PATCH: "EntryPatch", JSON: "EntryPatch"},
        headers=CHANGE,
        right="correct",
    ),
    Operation(
        "DELETE",
        "/streams/{stream}/entries/{id}",
        "withdrawEntry",
        "Withdraw the entry: its text is sent to nobody; its own page keeps the headline, unless `reason` is `legal`.",
        {
            200: Answer("Withdrawn.", {JSON: answers.Withdrawn}, STORED),
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
        "The receipt of the entry's event `n`, or of its newest: how many readers were sent it, and how late.",
        {200: Answer("The receipt.", {JSON: answers.EntryReceipt})},
        f"{KEYED} 404 410 422",
        query=schema.DeliveryIn,
        right="",
    ),
    Operation(
        "GET",
        "/streams/{stream}/desk/entries/{id}/history",
        "showHistory",
        "The newest revisions of the entry, 50 at most: when, by which key, and the names of the changed fields.",
        {200: Answer("The history.", {JSON: answers.History})},
        f"{KEYED} 404 410 422",
        right="audit",
    ),
    Operation(
        "POST",
        "/streams/{stream}/desk/entries/{id}/erase",
        "eraseEntry",
        "Erase the text of a withdrawn entry from the records and files of the store, as a legal withdrawal does.",
        {
            200: Answer("Erased.", {JSON: answers.Erased}),
            202: Answer("Erased, on fewer replicas than the server waits for.", {JSON: answers.Erased}),
        },
        f"{KEYED} 404 409 410 422",
        right="withdraw",
    ),
    Operation(
        "GET",
        "/streams/{stream}/desk/echo",
        "echoRequest",
        "What the server believes of this request: scheme, host, address, and the worker that answers.",
        {200: Answer("The request as it arrived.", {JSON: answers.Echo})},
        f"{KEYED} 422",
        right="",
    ),
    *(
        Operation(
            "GET",
            f"/streams/{{stream}}/{file}",
            name,
            f"The newest entries as {kind}.",
            {200: Answer("The feed.", {media_type: content}, ("ETag",)), 304: _same},
            CONDITIONAL,
            query={"n": N},
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
        "Export the page, the entries and the withdrawals of the stream, a line each; `history` needs `audit`, too.",
        {200: Answer("The lines.", {NDJSON: TEXT})},
        f"{KEYED} 404 410 422",
        query=schema.ExportIn,
        right="publish, correct, withdraw, page",
    ),
    Operation(
        "POST",
        "/streams/{stream}/restore",
        "restoreStream",
        "Import the lines of an export, up to the first that is refused.",
        {200: Answer("A line for each of the lines.", {NDJSON: TEXT}), **_refused_batch},
        f"{KEYED} 413 415 422",
        {NDJSON: TEXT},
        right="publish, correct, withdraw, page",
    ),
    Operation(
        "GET",
        "/streams/{stream}/events",
        "listEvents",
        "The events after a cursor, or from the first, in parts; or the reason why some are missing.",
        {200: Answer("A part.", {JSON: "Events"}, ("ETag",)), 304: _same},
        CONDITIONAL,
        query={"after": CURSOR, "limit": {"type": "integer", "minimum": 1}},
    ),
    Operation(
        "GET",
        "/streams/{stream}/sse",
        "followEvents",
        "Subscribe to the stream as Server-Sent Events.",
        {
            200: Answer("Frames follow; or one `bye`, to a GET that is to come later.", {"text/event-stream": TEXT}),
            204: Answer("The stream has ended, and the reader has every event."),
        },
        READING,
        query={**FOLLOW, "lastEventId": TEXT},
    ),
    Operation(
        "GET",
        "/streams/{stream}/ws",
        "follow",
        "Subscribe to the stream over WebSocket.",
        {101: Answer("Frames follow, each a text message in JSON.")},
        f"{READING} 426",
        query=FOLLOW,
    ),
]


# --- examples
