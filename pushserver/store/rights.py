"""Rights: the commands, keys and channels of the store that this server uses, each tried under its own user.

A user of the store (ACL) that lacks one of them would fail later, in the middle of a publish or a read. Nothing that is
tried changes the store: each command that writes meets a key of another type, and is refused for that alone, which a
user without the right does not get to hear.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from redis.exceptions import NoPermissionError, ResponseError

from ..errors import shorten
from .connection import BlockingConnection, Node, worded

# docs/reliability.md shows it in an example. CONFIG GET alone may be missing: `disk` is not claimed then.
NEEDED = "~{p* ~pushserver:* &{p* +@all -@admin -@dangerous +info +client|unblock +config|get"
NO_SCRIPT = "0" * 40


class Right(NamedTuple):
    """A Right is one command of the store, as it is tried."""

    name: str
    words: tuple[str, ...]


def rights(key: str) -> list[Right]:
    """Every command that this server sends or its scripts call, tried on a key that holds a string.

    `pushserver.store` and its scripts are the only ones who send commands: one that is added there is added here.
    """
    channel = f"{key.partition('}')[0]}}}:tried"
    tried = [
        *("GET", "HGETALL", "HKEYS", "HLEN", "XINFO STREAM", "MEMORY USAGE"),
        *("HINCRBY f 1", "HGET f", "HEXISTS f", "HDEL f", "HMGET f", "HSET f v", "HSETNX f v"),
        *("ZADD 1 m", "ZREM m", "ZSCORE m", "ZRANGE 0 0", "ZREVRANGE 0 0", "ZRANGEBYSCORE 0 0", "ZREVRANGEBYSCORE 0 0"),
        *("XADD * f v", "XRANGE - -", "XREVRANGE - -", "XTRIM MINID 1", "XSETID 1"),
    ]
    on_key = [words.split() for words in tried]
    return [
        *(Right(" ".join(words[: _key_place(words)]), _with_key(words, key)) for words in on_key),
        Right("XREAD", ("XREAD", "STREAMS", key, "0-1")),
        Right("SCRIPT EXISTS", ("SCRIPT", "EXISTS", NO_SCRIPT)),
        Right("SCRIPT LOAD", ("SCRIPT", "LOAD", "return 1")),
        Right("EVALSHA", ("EVALSHA", NO_SCRIPT, "0")),
        Right("MULTI", ("MULTI",)),
        Right("EXEC", ("EXEC",)),
        Right("WAIT", ("WAIT", "0", "1")),
        Right("PING", ("PING",)),
        Right("CLIENT ID", ("CLIENT", "ID")),
        Right("CLIENT UNBLOCK", ("CLIENT", "UNBLOCK", "0")),
        Right("SPUBLISH", ("SPUBLISH", channel, "")),
        Right("SCAN", ("SCAN", "0", "COUNT", "1")),
        # On a name that no key has: nothing is removed, renamed or changed.
        Right("UNLINK", ("UNLINK", channel)),
        Right("RENAME", ("RENAME", channel, channel)),
        Right("EXPIRE", ("EXPIRE", channel, "1")),
        Right("PERSIST", ("PERSIST", channel)),
    ]


def _key_place(words: list[str]) -> int:
    """The number of words of a command's name, behind which its key stands."""
    return 2 if words[0] in ("XINFO", "MEMORY") else 1


def _with_key(words: list[str], key: str) -> tuple[str, ...]:
    place = _key_place(words)
    return (*words[:place], key, *words[place:])


class Refusal(NamedTuple):
    """A Refusal is one right that the user lacks, or one command that the store does not have."""

    right: str
    said: str

    def __str__(self) -> str:
        return f"{self.right} is refused: {shorten(self.said)}; expected a user of the store with the rights {NEEDED}"


async def refused(node: Node, tags: list[str]) -> Refusal | None:
    """The first right that the user lacks on a server that has the partitions of these tags. Raises StoreError."""
    tried = rights(f"{tags[0]}:written")
    tried += [Right(f"a key of {tag}", ("GET", f"{tag}:written")) for tag in tags[1:]]
    pipeline = node.redis.pipeline(transaction=False)
    for right in tried:
        pipeline.execute_command(*right.words)
    answers = await pipeline.execute(raise_on_error=False)
    for right, answer in zip(tried, answers, strict=True):
        if is_refusal(answer):
            return Refusal(right.name, worded(answer))
    return None


async def refused_channel(node: Node, tag: str) -> Refusal | None:
    """The right that a subscription lacks, on a connection of its own. Raises StoreError, OSError."""
    try:
        connection = await BlockingConnection.open(node)
    except ResponseError as error:
        return refusal_of("CLIENT ID", error)
    try:
        await connection.subscribe([f"{tag}:tried"])
    except ResponseError as error:
        return refusal_of("SSUBSCRIBE", error)
    finally:
        await connection.close()
    return None


def refusal_of(right: str, error: ResponseError) -> Refusal:
    """The refusal that an error is. Raises the error where it is none."""
    if not is_refusal(error):
        raise error
    return Refusal(right, worded(error))


def is_refusal(answer: object) -> bool:
    """Whether an answer says that the user may not, or that the store has no such command."""
    if not isinstance(answer, ResponseError):
        return False
    # EXEC is refused as a transaction that was discarded (EXECABORT).
    said = re.search("unknown (sub)?command|no permissions to run", str(answer), re.IGNORECASE)
    return isinstance(answer, NoPermissionError) or said is not None
