"""Every event is made in this module: a publisher's input and what is current become an Append. Pure.

Each function that returns an Append is one kind of change. An entry keeps its id and `published_at` over all its
revisions; a page keeps nothing but its number of revisions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, cast

from ..codec import dumps, loads
from ..errors import Fault, Invalid, shorten
from ..model import (
    Append,
    Author,
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
from . import history
from .fields import direction
from .schema import CorrectionIn, CorrectionPut, EndIn, EntryIn, EntryPut, PageIn, PagePut, WithdrawalIn
from .validation import M, read

NO_KEY = Idempotency()

# --- entries


def revise_entry(
    entry_in: EntryIn, *, stream: str, id: str, at: int, current: StoredEntry | None = None
) -> StoredEntry:
    """The entry that a publisher's input becomes at the instant `at`, in milliseconds; `current` is its last revision.

    Raises Invalid where the input changes `published_at`, or names a field of the server's that is stored otherwise.
    """
    entry_in = _without_own(entry_in, stream, id, current)
    published_at = current["published_at"] if current else entry_in.published_at or instant(at)
    if entry_in.published_at not in (None, published_at):
        fault = Fault("published_at", f"{published_at}, as it was published", str(entry_in.published_at))
        raise Invalid("published_at does not change after publishing; set sort_at to move the entry.", fault)
    entry = dict(stored_entry(entry_in, id=id, rev=current["rev"] + 1 if current else 1, published_at=published_at))
    if current:
        entry |= _stamps(entry_in.correction, entry, current, at)
    return cast(StoredEntry, {**entry, "url": entry_url(stream, id)})


_OWN = ("id", "rev", "url", "updated_at")  # the fields of an entry that the server makes


def _without_own(entry_in: EntryIn, stream: str, id: str, current: StoredEntry | None) -> EntryIn:
    """The input without what the server showed of itself. Raises Invalid where that is not what is stored."""
    if not isinstance(entry_in, EntryPut):
        return entry_in
    _check_own(entry_in.model_dump(include=set(_OWN), exclude_none=True), _own_fields(stream, id, current))
    correction = entry_in.correction
    if correction and correction.at:
        _check_own(_correction_sent(correction), _own_fields(stream, id, current))
        return entry_in.model_copy(update={"correction": None})
    return entry_in


def _correction_sent(correction: CorrectionPut) -> dict[str, Any]:
    return {"correction": correction.model_dump(by_alias=True, exclude_none=True)}


def _own_fields(stream: str, id: str, current: StoredEntry | None) -> dict[str, Any]:
    return {"id": id, "url": entry_url(stream, id), **dict(current or {})}


def _check_own(sent: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    """Raises Invalid for the first field that a publisher sent back otherwise than it is stored."""
    for name, value in sent.items():
        if value != stored.get(name):
            expected = f"{shorten(dumps(stored[name]))}, as it is stored" if name in stored else "nothing"
            fault = Fault(name, f"{expected}, or no such field", shorten(dumps(value)))
            raise Invalid(f"The server makes {name}: it can be sent back as it is stored, and not be changed.", fault)


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
    if isinstance(patch, dict):
        if patch.get("body") is not None:
            own.pop("blocks", None)
        patch = _without_sent_back(patch, current, *_OWN)
        if isinstance(patch.get("correction"), dict) and "at" in patch["correction"]:
            patch = _without_sent_back(patch, current, "correction")
    return _patched(EntryIn, own, patch)


def _without_sent_back(patch: dict[str, Any], current: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """A patch without these fields. Raises Invalid where one of them is not what is stored."""
    _check_own({name: patch[name] for name in names if name in patch}, current)
    return {name: value for name, value in patch.items() if name not in names}


def put_entry(
    stream: str, entry: StoredEntry, *, at: int, current: StoredEntry | None = None, idempotency: Idempotency = NO_KEY
) -> Append:
    """A new entry, or a new revision of the one that is `current`, at the instant `at`, in milliseconds."""
    action = "publish" if entry["rev"] == 1 else "correct"
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
        by=history.by(idempotency.author, action, history.changed_fields(entry, current)),
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
        by=history.by(idempotency.author, "withdraw"),
    )


# --- pages


def revise_page(page_in: PageIn, *, at: int, current: StoredPage | None = None) -> StoredPage:
    """The page that a publisher's input becomes at the instant `at`, in milliseconds; `current` is the last one."""
    _check_page(page_in, current)
    fields = page_in.model_dump(exclude_none=True, exclude={"rev"})
    if current and current["state"] == "ended" and "state" not in page_in.model_fields_set:
        fields["state"] = "ended"  # a correction of an ended page must not make the coverage live again
    fields.setdefault("dir", direction(page_in.lang))
    rev = current["rev"] + 1 if current else 1
    return cast(StoredPage, {"rev": rev, **fields, "updated_at": page_in.updated_at or instant(at)})


def _check_page(page_in: PageIn, current: StoredPage | None) -> None:
    """Raises Invalid where a page is sent back with another revision, or as one that has ended and has not."""
    if not isinstance(page_in, PagePut):
        return
    if page_in.rev is not None:
        _check_own({"rev": page_in.rev}, current or {"rev": 0})
    if page_in.state == "ended" and (not current or current["state"] != "ended"):
        fault = Fault("state", "live or paused; POST /streams/{stream}/end ends a stream", "ended")
        raise Invalid("A page does not end a stream.", fault)


def patch_page(current: StoredPage | None, patch: Any) -> PageIn:
    """The input that a merge patch (RFC 7396) makes of a page."""
    fields: dict[str, Any] = dict(current or {})
    own = {name: fields[name] for name in PageIn.model_fields if name in fields and name != "updated_at"}
    if own.get("dir") == direction(own.get("lang", "en")):
        own.pop("dir", None)  # it follows another language
    if isinstance(patch, dict):
        patch = _without_sent_back(patch, current or {"rev": 0}, "rev")
    return _patched(PagePut, own, patch)


def is_same_page(page: StoredPage, current: StoredPage | None, *, keeps: Collection[str] = ()) -> bool:
    """Whether a page says the same as the current one, but for its revision and the fields `keeps`."""
    return current is not None and {**page, **{name: current.get(name) for name in ("rev", *keeps)}} == dict(current)


_LOOKS = ("lang", "dir", "timezone")  # the fields of a page on which the looks of its entries depend


def put_page(
    stream: str, page: StoredPage, *, at: int, current: StoredPage | None = None, idempotency: Idempotency = NO_KEY
) -> Append:
    """A page's first revision, or the one after `current`, at the instant `at`, in milliseconds.

    The event names, as `changed`, the fields that make every entry look different.
    """
    before = current or unwritten_page(stream)
    changed = [name for name in _LOOKS if page.get(name) != before.get(name)]
    return _page_append(stream, "page.put", page, {"changed": changed} if changed else {}, at, idempotency)


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
    stream: str, type: str, page: StoredPage, more: dict[str, Any], at: int, idempotency: Idempotency = NO_KEY
) -> Append:
    return Append(
        stream=stream,
        type=type,
        data={"at": instant(at), **more, "page": page},
        at=at,
        state=page,
        rev=page["rev"],
        shown_at=page["updated_at"],
        key=idempotency.key,
        body_hash=idempotency.body_hash,
        by=history.by(idempotency.author, "page"),
    )


# --- what was stored before


def restore(stream: str, kind: str, value: dict[str, Any], *, at: int, author: Author | None = None) -> Append:
    """The event that brings back a line of an export, at its own revision, where nothing is stored.

    `kind` is `entry`, `withdrawal` or `page`; `at` is in milliseconds; `author` is who brings it back.
    """
    return _restore(stream, kind, value, at)._replace(by=history.by(author, "restore"))


def _restore(stream: str, kind: str, value: dict[str, Any], at: int) -> Append:
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
        by=event.by,
    )


_STATES = {"entry.put": "entry", "page.put": "page", "stream.end": "page"}  # the part of an event that is the state

# --- merge patches


def _patched(kind: type[M], own: dict[str, Any], patch: Any) -> M:
    merged = _merged(own, patch)
    if isinstance(patch, dict):  # else a misspelt name with a null would be taken for a field that is not there
        merged |= {name: patch[name] for name in patch if name not in kind.model_fields}
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
