"""The bodies of responses, as models for the description. Pure.

Nothing is validated by them. They derive from the models of request bodies wherever the two are the same.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ...content.fields import Instant, Text
from ...content.schema import EntryFields, PageIn


def _always(schema: dict[str, Any]) -> None:
    """Require every field but those whose default is null: such a field is left out where it has no value."""
    properties = schema["properties"]
    schema["required"] = [name for name in properties if properties[name].get("default", "") is not None]


class Answer(BaseModel):
    """A response body. Clients ignore fields that they do not know: later versions may add some."""

    # Deferred: a worker builds the models of the description when it is first asked for.
    model_config = ConfigDict(extra="ignore", json_schema_extra=_always, defer_build=True)


class Correction(Answer):
    kind: Annotated[Literal["correction"], Field(alias="class")]
    note: Text
    at: Instant


class Entry(EntryFields, Answer):
    """An entry as it is stored."""

    id: str
    rev: int
    url: str
    published_at: Instant
    sort_at: Instant
    updated_at: Instant | None = None
    correction: Correction | None = None


class Page(PageIn, Answer):
    """A stream's own fields as they are stored; revision 0 is the default page of a stream that was never set one."""

    rev: int
    dir: Literal["ltr", "rtl"]
    state: Literal["live", "paused", "ended"]  # type: ignore[assignment]
    updated_at: Instant


class Snapshot(Answer):
    """One instant of a stream; `older` is the query of the next slice, or null."""

    page: Page
    entries: list[Entry]
    cursor: str
    n: int
    older: str | None = Field()


class EventsPart(Answer):
    """Frames in order, each as docs/protocol.md has it; `more` where there are further ones after `cursor`."""

    complete: Literal[True]
    start: Annotated[int, Field(alias="from")]
    cursor: str
    more: bool
    events: list[dict[str, Any]]


class EventsMissing(Answer):
    """The reason why events after the cursor are missing; `entries` is the address of the snapshot."""

    complete: Literal[False]
    reason: str
    entries: str


class Outcome(Answer):
    """The result of a change: a revision, and an event."""

    rev: int
    n: int
    cursor: str
    url: str
    durability: Literal["disk", "memory", "replica"]
    replicas: int | None = None


class EntryWarning(Answer):
    """One thing that is unusual in an entry; clients test `code`, the other fields are for people."""

    code: str
    field: str
    expected: str
    got: str


class EntryOutcome(Outcome):
    """The result of a change of an entry; `warnings` are left out where there are none."""

    id: str
    warnings: list[EntryWarning] | None = None


class PageUnchanged(Answer):
    """The result of a request that changes nothing of a page, for which there is no event."""

    rev: int
    url: str
    unchanged: Literal[True]


class Unchanged(PageUnchanged):
    """The result of a request that changes nothing of an entry, for which there is no event."""

    id: str


class Times(Answer):
    p50_ms: int | None = Field()
    p99_ms: int | None = Field()
    last_ms: int | None = Field()


class Worker(Times):
    worker: str
    state: Literal["reached", "waiting", "idle", "forgotten", "deleted"]
    readers: int
    sent: int
    behind: int


class Receipt(Times):
    """A receipt counts the readers who were sent an event, by worker, and says how late they were sent it."""

    reached: bool
    sent: int
    behind: int
    silent: int
    workers: list[Worker]


class EntryReceipt(Receipt):
    """`erased_at` is left out where the text of the entry may be in records of the log."""

    id: str
    erased_at: Instant | None = None


class Erasure(Answer):
    """No record of the log has the text since `at`, and no file if `files`; null where the store is an external one."""

    at: Instant
    files: bool | None = Field()


class Withdrawn(EntryOutcome):
    """`erased` is there where the reason is legal; it is null where the store did not let the text be erased yet."""

    receipt: Receipt | None = Field()
    erased: Erasure | None = None


class Erased(Answer):
    id: str
    erased: Erasure
    durability: Literal["disk", "memory", "replica"]
    replicas: int | None = None


class Deleted(Answer):
    """A stream that was deleted, and which workers closed its readers; `readers` of a worker are those it had."""

    stream: str
    deleted_at: Instant
    forgotten: bool
    durability: Literal["disk", "memory", "replica"]
    replicas: int | None = None
    receipt: Receipt | None = Field()


class ListedStream(Answer):
    """A stream as the list has it. `bytes` are those of its keys in the store, nearly, without idempotency keys."""

    stream: str
    url: str
    headline: str
    state: Literal["live", "paused", "ended"]
    entries: int
    withdrawals: int
    bytes: int
    updated_at: Instant


class Streams(Answer):
    """A part of the list of streams; the next part begins after the place `after`, null in the last one."""

    streams: list[ListedStream]
    after: str | None = Field()


class KeyName(Answer):
    id: str
    name: str


class Revision(Answer):
    """A revision names the key that made it, and the fields that it changed. It has no text."""

    rev: int
    at: Instant
    key: KeyName
    action: Literal["publish", "correct", "withdraw", "restore", "erase"]
    changed: list[str]


class History(Answer):
    """The newest revisions of an entry, the oldest first. Those that an earlier version stored are not in it."""

    id: str
    revisions: list[Revision]


class Echo(Answer):
    """A request as it arrived at the server; `port` is 0 where the address is the word of a proxy."""

    id: str
    at: Instant
    worker: str
    scheme: Literal["http", "https"]
    host: str
    address: str
    port: int
    headers: dict[str, str]


class Fault(Answer):
    """One thing that is wrong in a request."""

    field: str
    expected: str
    got: str


class DryRun(Answer):
    """The entry as publishing it would store and show it."""

    entry: Entry
    html: str
    warnings: list[EntryWarning]


class Live(Answer):
    live: Literal[True]


class Ready(Answer):
    ready: bool
    reasons: list[str]
    store: bool
    fast: bool
    folder: bool
    replicas: bool
    tail: bool
    receipts: bool
    room: bool
    files: bool
    staying: bool
    publishing: bool


class Readable(Answer):
    ready: bool
    reasons: list[str]
    pages: bool
    staying: bool


class Problem(Answer):
    """A refusal (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[Fault] | None = None


class RevisionOnly(Answer):
    """The revision of an entry, for a key that may not see more of it."""

    rev: int


class ChangedProblem(Problem):
    """A change that another one preceded; `current` is the entry or page now, for some keys only its revision."""

    current: Entry | Page | RevisionOnly | None = Field()
