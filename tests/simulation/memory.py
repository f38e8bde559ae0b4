"""What the scripts of the log promise, over keys in memory: a model of the store that answers as the store does.

`test_memory.py` asks it and a real store the same, with the same ids, and compares the answers byte for byte. Not
modelled: histories, that keys expire, and how much `MAXLEN ~` keeps above what it was told; here that is drawn.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pushserver.store import log

Id = tuple[int, int]
APPEND, SNAPSHOT, RESUME, VERIFY, DELETE = [
    hashlib.sha1(log.script(name).encode()).hexdigest() for name in ("append", "snapshot", "resume", "verify", "delete")
]  # the scripts, by their digests
SHAPES = {
    "e": re.compile("[0-9a-f]{16}"),
    "n": re.compile("[1-9][0-9]{0,14}"),
    "p": re.compile(r"[0-9]+-[0-9]+\.[0-9a-f]+"),
    "u": re.compile("[0-9a-f]{16}"),
    **dict.fromkeys("tsk", re.compile(r"[A-Za-z0-9.:_+-]*")),
    "d": re.compile(r"\{.*\}", re.DOTALL),
}  # of the fields of an event


class Record(NamedTuple):
    """One entry of a log."""

    id: Id
    fields: dict[str, str]
    is_event: bool

    def reply(self) -> list[Any]:
        pairs = [part.encode() for pair in self.fields.items() for part in pair]
        return [text_of(self.id).encode(), pairs]


class Records:
    """The value of a log's key: its entries, and the last id that it gave out."""

    def __init__(self) -> None:
        self.all: list[Record] = []
        self.last: Id = (0, 0)

    def copy(self) -> Records:
        copied = Records()
        copied.all, copied.last = self.all.copy(), self.last
        return copied

    def at(self, id: Id) -> Record | None:
        return next((record for record in self.all if record.id == id), None)

    def after(self, id: Id) -> list[Record]:
        return [record for record in self.all if record.id > id]

    def last_event(self) -> Record | None:
        return next((record for record in self.all[-1:-101:-1] if record.is_event), None)


class Memory:
    """Keys and the three scripts, each of which is one instant. Texts in, and replies as redis-py gives them."""

    def __init__(self, now: Callable[[], int], trim: Callable[[int], int] = lambda count: count) -> None:
        self.keys: dict[str, Any] = {}
        self.now = now
        self.next_ids: deque[Id] = deque()  # what the next records are to be called, if that may be
        self._trim = trim  # how many events may stay of so many

    # --- what happens to a store

    def saved(self) -> dict[str, Any]:
        """Everything, as of now."""
        return _copy(self.keys)

    def restore(self, saved: dict[str, Any]) -> None:
        """Everything as it was when that was saved."""
        self.keys = _copy(saved)

    def trim(self, key: str, count: int) -> None:
        """XTRIM MAXLEN."""
        records = self._records(key)
        if records:
            del records.all[: max(0, len(records.all) - count)]

    # --- commands

    def get(self, key: str) -> bytes | None:
        value = self.keys.get(key)
        return value.encode() if value is not None else None

    def hget(self, key: str, field: str) -> bytes | None:
        value = self._hash(key).get(field)
        return value.encode() if value is not None else None

    def xadd(self, key: str, fields: dict[str, str]) -> Id:
        records = self.keys.setdefault(key, Records())
        wanted = self.next_ids.popleft() if self.next_ids else (self.now(), 0)
        id = wanted if wanted > records.last else (records.last[0], records.last[1] + 1)
        is_event = all(name in fields and shape.fullmatch(fields[name]) for name, shape in SHAPES.items())
        records.all.append(Record(id, fields, is_event))
        records.last = id
        return id

    def xread(self, after: Sequence[tuple[str, Id]], count: int) -> list[Any] | None:
        """XREAD that does not block."""
        found = [(key, records.after(id)[:count]) for key, id in after if (records := self._records(key))]
        return [[key.encode(), [record.reply() for record in some]] for key, some in found if some] or None

    def script(self, sha: str) -> Callable[[Sequence[str], Sequence[Any]], Any]:
        """The model of a script of the log, by the digest that it is called by."""
        return {
            APPEND: self.append,
            SNAPSHOT: self.snapshot,
            RESUME: self.resume,
            VERIFY: self.verify,
            DELETE: self.delete,
        }[sha]

    # --- scripts

    def append(self, keys: Sequence[str], arguments: Sequence[Any]) -> list[bytes]:
        log_key, entries, order, page, streams, withdrawn, gone, idem, mark, _ = keys
        if mark in self.keys:
            return _words(["deleted", self.keys[mark]])
        kind, data, at, epoch, nonce, entry, rev, state, score, shown_at = map(str, arguments[:10])
        stream, retained, allowed, key, body_hash, _, page_state, replaces, began_at, feed_id, by = map(
            str, arguments[10:]
        )
        if key and idem in self.keys:
            held_hash, *first = json.loads(self.keys[idem])
            return _words(["replayed", *first] if held_hash == body_hash else ["reused"])
        refusal = self._refusal(entry, kind, int(replaces), int(allowed), entries, page, withdrawn)
        if refusal:
            return _words(refusal)
        n, prev, records = 0, "0-0.0000000000000000", self._records(log_key)
        if last := records.last_event() if records else None:
            n, epoch, prev = int(last.fields["n"]), last.fields["e"], f"{text_of(last.id)}.{last.fields['u']}"
        request = f"{key} {body_hash}" if key else ""
        fields = {"e": epoch, "n": str(n + 1), "p": prev, "u": nonce, "t": kind, "s": shown_at, "k": entry}
        id = text_of(self.xadd(log_key, {**fields, "d": data, "i": request, **({"b": by} if by else {})}))
        self.trim(log_key, max(int(retained), self._trim(len(self.keys[log_key].all))))
        if not entry:
            self._hash(page).update(json=state, rev=rev, state=page_state)
        elif kind == "entry.withdraw":
            self._hash(entries).pop(entry, None)
            self._hash(order).pop(entry, None)
            self._hash(withdrawn)[entry] = state
            self._hash(gone)[entry] = int(score)
        else:
            self._hash(entries)[entry] = state
            self._hash(order)[entry] = int(score)
        shown, first_at = self._hash(page), began_at or shown_at
        if not last and "began_at" not in shown:
            shown.setdefault("feed_id", feed_id)
        shown["began_at"] = min(shown.get("began_at", first_at), first_at)
        if not entry or shown_at > shown.get("updated_at", ""):
            shown["updated_at"] = shown_at
        self._hash(streams)[stream] = int(at)
        answer = [id, str(n + 1), epoch, nonce, entry, rev]
        if key:
            self.keys[idem] = json.dumps([body_hash, *answer], separators=(",", ":"))
        return _words(["stored", *answer])

    def _refusal(
        self, entry: str, kind: str, replaces: int, allowed: int, entries: str, page: str, withdrawn: str
    ) -> list[str] | None:
        if entry and entry in self._hash(withdrawn):
            return ["gone"]
        stored = self._hash(entries).get(entry) if entry else None
        current = int(json.loads(stored)["rev"] if stored else 0) if entry else int(self._hash(page).get("rev", 0))
        if current != replaces:
            return ["rev", str(current)]
        if kind == "entry.put" and not current:
            if self._hash(page).get("state") == "ended":
                return ["ended"]
            count = len(self._hash(entries)) + len(self._hash(withdrawn))
            return ["full", str(count)] if count >= allowed else None
        return None

    def snapshot(self, keys: Sequence[str], arguments: Sequence[Any]) -> list[Any] | None:
        log_key, entries, order, page, withdrawn, gone, mark = keys
        if mark in self.keys:
            return [self.keys[mark].encode()]
        limit, score, id, withdrawals, one = arguments
        records = self._records(log_key)
        head = records.last_event() if records else None
        if head is None:
            return None
        places = _newest(self._hash(order))
        if score != "":
            places = [place for place in places if place < (int(score), str(id))]
        stored, shown = self._hash(entries), self._hash(page)
        if one:
            places = [(0, one)] if one in stored else []
        texts = [stored[entry].encode() for _, entry in places[: int(limit)]]
        taken = [self._hash(withdrawn)[entry].encode() for _, entry in _newest(self._hash(gone))[: int(withdrawals)]]
        parts = [shown[name].encode() if name in shown else None for name in ("json", "updated_at", "began_at")]
        feed_id = shown["feed_id"].encode() if "feed_id" in shown else None
        return [head.reply(), *parts, texts, int(len(places) > int(limit)), taken, feed_id]

    def resume(self, keys: Sequence[str], arguments: Sequence[Any]) -> list[Any]:
        epoch, id_text, nonce = map(str, arguments[:3])
        limit, most_bytes, in_part = int(arguments[3]), int(arguments[4]), arguments[5] == "part"
        if keys[2] in self.keys:
            return [b"deleted", self.keys[keys[2]].encode()]
        records, id = self._records(keys[0]), id_of(id_text)
        last = records.last_event() if records else None
        if records is None or last is None:
            return [b"empty"]
        if last.fields["e"] != epoch:
            return [b"epoch"]
        at = records.at(id)
        if (at and at.fields.get("u") != nonce) or (not at and last.id < id):
            return [b"rollback"]
        later = [record for record in records.after(id) if record.is_event]
        n = int(at.fields["n"]) if at else int((later[0] if later else last).fields["n"]) - bool(later)
        answered: list[Record] = []
        size, link = 0, f"{id_text}.{nonce}"
        for record in later:
            if record.fields["p"] != link:
                is_first = not at and record is later[0]
                return [b"trimmed" if is_first and id < records.all[0].id else b"rollback"]
            link, size = f"{text_of(record.id)}.{record.fields['u']}", size + len(record.fields["d"].encode())
            if in_part and (len(answered) == limit or (size > most_bytes and answered)):
                break
            if not in_part and (int(last.fields["n"]) - n > limit or size > most_bytes):
                return [b"too_far"]
            answered.append(record)
        withdrawn = self._hash(keys[1])
        about = dict.fromkeys(record.fields["k"] for record in answered)
        gone = [[entry.encode(), withdrawn[entry].encode()] for entry in about if entry in withdrawn]
        return [b"ok", n, [record.reply() for record in answered], gone, int(len(answered) < len(later))]

    def delete(self, keys: Sequence[str], arguments: Sequence[Any]) -> list[bytes]:
        mark, streams, page, log_key = keys[:4]
        stream, at, _, limit = arguments
        changed = self._hash(streams).get(stream)
        is_over = self._hash(page).get("state") == "ended" and changed is not None and changed <= int(limit or 0)
        if limit != "" and not is_over:
            return [b"kept"]
        records = self._records(log_key)
        last = records.last_event() if records else None
        removed = [*(self.keys.pop(key, None) for key in keys[2:]), self._hash(streams).pop(stream, None) is not None]
        if not any(removed) and mark not in self.keys:
            return [b"absent"]
        self.keys.setdefault(mark, f"{at} {last.fields['e'] if last else '-'}")
        return _words(["deleted", self.keys[mark]])

    def scan(self, pattern: str) -> list[str]:
        """SCAN MATCH of a prefix, whole."""
        return [key for key in self.keys if key.startswith(pattern.removesuffix("*"))]

    def unlink(self, *keys: str) -> None:
        for key in keys:
            self.keys.pop(key, None)

    def verify(self, keys: Sequence[str], arguments: Sequence[Any]) -> list[int]:
        asked = [
            (str(id), str(nonce), id_of(read_to)) for id, nonce, read_to in zip(*[iter(arguments)] * 3, strict=True)
        ]
        whole = [self._is_whole(key, *one) for key, one in zip(keys, asked, strict=True)]
        return [number for number, is_whole in enumerate(whole, 1) if not is_whole]

    def _is_whole(self, key: str, id: str, nonce: str, read_to: Id) -> bool:
        records = self._records(key)
        found = records.at(id_of(id)) if records else None
        if records is None or found is None or found.fields.get("u") != nonce:
            return False
        return not any(record.is_event and record.id <= read_to for record in records.after(found.id)[:100])

    def _records(self, key: str) -> Records | None:
        return self.keys.get(key)

    def _hash(self, key: str) -> dict[str, Any]:
        found: dict[str, Any] = self.keys.setdefault(key, {})
        return found


def _copy(keys: dict[str, Any]) -> dict[str, Any]:
    return {key: value if isinstance(value, str) else value.copy() for key, value in keys.items()}


def id_of(text: str) -> Id:
    ms, _, sequence = text.partition("-")
    return int(ms), int(sequence)


def text_of(id: Id) -> str:
    return f"{id[0]}-{id[1]}"


def _words(answer: Sequence[str]) -> list[bytes]:
    return [word.encode() for word in answer]


def _newest(scores: dict[str, int]) -> list[tuple[int, str]]:
    return sorted(((score, member) for member, score in scores.items()), reverse=True)
