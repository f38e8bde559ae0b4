"""Every event is made in this module: a publisher's input and what is current become an Append. Pure.

Each function that returns an Append is one kind of change. An entry keeps its id and `published_at` over all its
revisions; a page keeps nothing but its number of revisions.
"""

from __future__ import annotations

from typing import Any, cast

from ..codec import loads
from ..errors import Fault, Invalid
from ..model import (
    Append,
    Event,
    Idempotency,
    StoredEntry,
    StoredPage,
    StoredWithdrawal,
    instant,
    milliseconds,
    order_of,
    unwritten_page,
)
from .schema import CorrectionIn, EndIn, EntryIn, PageIn, WithdrawalIn
from .validation import M, read

NO_KEY = Idempotency()

# --- entries


def revise_entry(
    entry_in: EntryIn, *, stream: str, id: str, at: int, current: StoredEntry | None = None
) -> StoredEntry:
    """The entry that a publisher's input becomes at the instant `at`, in milliseconds; `current` is its last revision.

    Raises Invalid where the input changes `published_at`.
    """
    published_at = current["published_at"] if current else entry_in.published_at or instant(at)
    if entry_in.published_at not in (None, published_at):
        fault = Fault("published_at", f"{published_at}, as it was published", str(entry_in.published_at))
        raise Invalid("published_at does not change after publishing; set sort_at to move the entry.", fault)
    entry = dict(stored_entry(entry_in, id=id, rev=current["rev"] + 1 if current else 1, published_at=published_at))
    if current:
        entry |= _stamps(entry_in.correction, entry, current, at)
    return cast(StoredEntry, {**entry, "url": entry_url(stream, id)})


def stored_entry(entry_in: EntryIn, *, id: str, rev: int, published_at: str) -> dict[str, Any]:
    """An entry as it is stored, without its `updated_at`, `correction` and `url`."""
    return {
        "id": id,
        "rev": rev,
        **({"headline": entry_in.headline} if entry_in.headline else {}),
        "blocks": [block.model_dump(exclude_none=True) for block in entry_in.blocks],
        "bylines": [byline.model_dump(exclude_none=True) for byline in entry_in.bylines],
        "tags": entry_in.tags,
        "flags": entry_in.flags.model_dump(exclude_defaults=True),
        "published_at": published_at,
        "sort_at": entry_in.sort_at or published_at,
    }


def entry_url(stream: str, id: str) -> str:
    """The path of an entry on the server."""
    return f"/streams/{stream}/entries/{id}"


def is_unchanged(entry: StoredEntry, current: StoredEntry | None) -> bool:
    """Whether a revision says the same as the current one: then there is nothing to publish."""
    return current is not None and {**entry, "rev": current["rev"]} == current


_CONTENT = ("headline", "blocks", "bylines")


def _stamps(correction: CorrectionIn | None, revised: dict[str, Any], current: StoredEntry, at: int) -> dict[str, Any]:
    """`updated_at` and `correction` of a revised entry. Only a change of content is worth a new `updated_at`."""
    stamps: dict[str, Any] = {name: value for name, value in current.items() if name in ("updated_at", "correction")}
    kind = correction.kind if correction else "update"
    is_changed = any(revised.get(name) != current.get(name) for name in _CONTENT)
    if kind != "minor" and (is_changed or kind == "correction"):
        stamps["updated_at"] = instant(at)
    if correction and kind == "correction":
        stamps["correction"] = {"class": kind, "note": correction.note, "at": instant(at)}
    return stamps


def patch_entry(current: StoredEntry, patch: Any) -> EntryIn:
    """The input that a merge patch (RFC 7396) makes of an entry: only what a publisher may send can be patched."""
    own = {name: value for name, value in current.items() if name in EntryIn.model_fields and name != "correction"}
    if isinstance(patch, dict) and patch.get("body") is not None:
        own.pop("blocks", None)
    return _patched(EntryIn, own, patch)


def put_entry(stream: str, entry: StoredEntry, *, at: int, idempotency: Idempotency = NO_KEY) -> Append:
    """A new entry, or a new revision of one, at the instant `at`, in milliseconds."""
    return Append(
        stream=stream,
        type="entry.put",
        data={"at": instant(at), "entry": entry},
        at=at,
        state=entry,
        rev=entry["rev"],
        shown_at=_shown_at(entry, at),
        entry_id=entry["id"],
        order=order_of(entry),
        key=idempotency.key,
        body_hash=idempotency.body_hash,
    )


def _shown_at(entry: StoredEntry, at: int) -> str:
    """The newest instant that the page shows because of an entry that is stored at `at`, in milliseconds."""
    return min(str(entry.get("updated_at") or entry["published_at"]), instant(at))


def withdraw_entry(
    stream: str, current: StoredEntry, withdrawal: WithdrawalIn, *, at: int, idempotency: Idempotency = NO_KEY
) -> Append:
    """The withdrawal of an entry. The headline is stored for the entry's own page, unless the reason is legal."""
    data = {
        "at": instant(at),
        "id": current["id"],
        "rev": current["rev"] + 1,
        **withdrawal.model_dump(exclude_none=True),
    }
    mark = data if withdrawal.reason == "legal" else {**data, "headline": current.get("headline")}
    return _withdraw(stream, data, cast(StoredWithdrawal, mark), at=at, order=at, idempotency=idempotency)


def _withdraw(
    stream: str,
    data: dict[str, Any],
    withdrawal: StoredWithdrawal,
    *,
    at: int,
    order: int,
    idempotency: Idempotency = NO_KEY,
    replaces: int | None = None,
) -> Append:
    return Append(
        stream=stream,
        type="entry.withdraw",
        data=data,
        at=at,
        state=withdrawal,
        rev=withdrawal["rev"],
        shown_at=withdrawal["at"],
        entry_id=withdrawal["id"],
        order=order,
        key=idempotency.key,
        body_hash=idempotency.body_hash,
        replaces=replaces,
    )


# --- pages


def revise_page(page_in: PageIn, *, at: int, current: StoredPage | None = None) -> StoredPage:
    """The page that a publisher's input becomes at the instant `at`, in milliseconds; `current` is the last one."""
    fields = page_in.model_dump(exclude_none=True)
    if current and current["state"] == "ended" and "state" not in page_in.model_fields_set:
        fields["state"] = "ended"  # a correction of an ended page must not make the coverage live again
    rev = current["rev"] + 1 if current else 1
    return cast(StoredPage, {"rev": rev, **fields, "updated_at": page_in.updated_at or instant(at)})


def patch_page(current: StoredPage | None, patch: Any) -> PageIn:
    """The input that a merge patch (RFC 7396) makes of a page."""
    fields: dict[str, Any] = dict(current or {})
    own = {name: fields[name] for name in PageIn.model_fields if name in fields and name != "updated_at"}
    if own.get("state") == "ended":
        del own["state"]
    return _patched(PageIn, own, patch)


def put_page(stream: str, page: StoredPage, *, at: int, idempotency: Idempotency = NO_KEY) -> Append:
    """A page's first revision, or its next one, at the instant `at`, in milliseconds."""
    return _page_append(stream, "page.put", page, {}, at, idempotency)


def end_stream(
    stream: str, current: StoredPage | None, end: EndIn, *, at: int, idempotency: Idempotency = NO_KEY
) -> Append:
    """The end of the coverage. The event carries `next` beside the page, so that a reader sees it without comparing."""
    current = current or unwritten_page(stream)
    now, link = instant(at), end.model_dump(exclude_none=True)
    over = {"state": "ended", "coverage_end": now, "updated_at": now}
    page = cast(StoredPage, {**current, "rev": current["rev"] + 1, **over, **link})
    return _page_append(stream, "stream.end", page, link, at, idempotency)


def _page_append(
    stream: str, type: str, page: StoredPage, link: dict[str, Any], at: int, idempotency: Idempotency = NO_KEY
) -> Append:
    return Append(
        stream=stream,
        type=type,
        data={"at": instant(at), **link, "page": page},
        at=at,
        state=page,
        rev=page["rev"],
        shown_at=page["updated_at"],
        key=idempotency.key,
        body_hash=idempotency.body_hash,
    )


# --- what was stored before


def restore(stream: str, kind: str, value: dict[str, Any], *, at: int) -> Append:
    """The event that brings back a line of an export, at its own revision, where nothing is stored.

    `kind` is `entry`, `withdrawal` or `page`; `at` is in milliseconds.
    """
    if kind == "entry":
        entry = cast(StoredEntry, {**value, "url": entry_url(stream, value["id"])})
        return put_entry(stream, entry, at=at)._replace(replaces=0)
    if kind == "withdrawal":
        data, order = _without(value, "headline"), milliseconds(value["at"])
        return _withdraw(stream, data, cast(StoredWithdrawal, value), at=at, order=order, replaces=0)
    page = cast(StoredPage, _without(value, "began_at"))
    is_ended = page["state"] == "ended"
    link = {"next": page["next"]} if is_ended and "next" in page else {}
    append = _page_append(stream, "stream.end" if is_ended else "page.put", page, link, at)
    return append._replace(replaces=0, began_at=value["began_at"])


def _without(value: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: field for key, field in value.items() if key != name and field is not None}


def publish_again(stream: str, event: Event) -> Append:
    """An event that the store lost, as it was published, in place of the revision that it replaced."""
    data = loads(event.data)
    state: Any = data[_STATES[event.type]] if event.type in _STATES else data
    at = milliseconds(data["at"])
    key, _, body_hash = event.request.partition(" ")
    return Append(
        stream=stream,
        type=event.type,
        data=data,
        at=at,
        state=state,
        rev=state["rev"],
        shown_at=event.shown_at,
        entry_id=event.entry_id,
        order=order_of(state) if event.type == "entry.put" else at,
        key=key or f"lost-{event.cursor.nonce}",
        body_hash=body_hash,
    )


_STATES = {"entry.put": "entry", "page.put": "page", "stream.end": "page"}  # the part of an event that is the state

# --- merge patches


def _patched(kind: type[M], own: dict[str, Any], patch: Any) -> M:
    merged = _merged(own, patch)
    if isinstance(patch, dict):  # else a misspelt name with a null would be taken for a field that is not there
        merged |= {name: None for name in patch if name not in kind.model_fields}
    return read(kind, merged)


def _merged(target: Any, patch: Any) -> Any:
    """RFC 7396, section 2: null takes a member away, an object is merged, anything else replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merged(result.get(name), value)
    return result
