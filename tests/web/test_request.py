"""A request that publishes is accepted before its body comes, and looked at again where that takes long."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from starlette.requests import Request

from pushserver.access.keys import Keys, PublishKey, new_key
from pushserver.access.keystore import KeyStore
from pushserver.errors import Forbidden, Malformed, Unauthorized
from pushserver.model import instant
from pushserver.store.store import Store
from pushserver.web import request as module
from pushserver.web.request import JSON, NDJSON, PublishRequest

pytestmark = pytest.mark.anyio

Meanwhile = Callable[[KeyStore, str, PublishKey], Awaitable[object]]


@pytest.fixture(autouse=True)
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every body takes long."""
    monkeypatch.setattr(module, "KEY_FRESH", -1.0)


async def nothing(store: KeyStore, id: str, key: PublishKey) -> None:
    pass


async def revoke(store: KeyStore, id: str, key: PublishKey) -> None:
    await store.revoke(id)


async def expire(store: KeyStore, id: str, key: PublishKey) -> None:
    await store.add(id, key._replace(expires=instant(0))._asdict())


async def replace(store: KeyStore, id: str, key: PublishKey) -> None:
    await store.add(id, key._replace(digest="0" * 64)._asdict())


async def narrow(store: KeyStore, id: str, key: PublishKey) -> None:
    await store.add(id, key._replace(streams=["other"])._asdict())


async def send(store: Store, kind: str, body: Sequence[bytes], meanwhile: Meanwhile, rate: float = 100) -> Any:
    """A request body lets something happen to its key before its last part comes."""
    keys = KeyStore(store)
    id, token, key = new_key("a", streams=["one"], can=["publish"], rate=rate, expires=None)
    await keys.add(id, key._asdict())
    parts = list(body)

    async def receive() -> dict[str, Any]:
        if len(parts) == 1:
            await meanwhile(keys, id, key)
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    headers = [(b"authorization", f"Bearer {token}".encode()), (b"content-type", kind.encode())]
    scope = {"type": "http", "method": "POST", "headers": headers, "path_params": {"stream": "one"}}
    admitted = await PublishRequest.admit(Request(scope, receive), Keys("pk_local", keys), "publish")
    return await (admitted.json(limit=100) if kind == JSON else admitted.lines())


@pytest.mark.parametrize(("kind", "body"), [(JSON, [b"{", b"}"]), (NDJSON, [b"{}\n", b"{}"]), (JSON, [b"{}"])])
@pytest.mark.parametrize(
    ("meanwhile", "error"),
    [(revoke, Unauthorized), (expire, Unauthorized), (replace, Unauthorized), (narrow, Forbidden)],
)
async def test_a_key_that_is_no_longer_valid_when_the_body_has_come_is_refused(
    log_store: Store, kind: str, body: list[bytes], meanwhile: Meanwhile, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await send(log_store, kind, body, meanwhile)


async def test_to_be_looked_up_again_is_no_second_request_of_the_key(log_store: Store) -> None:
    assert await send(log_store, JSON, [b"{", b"}"], nothing, rate=0.5) == {}


async def test_where_the_body_came_at_once_the_key_is_not_looked_up_again(
    log_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEY_FRESH", 1_000.0)
    assert await send(log_store, JSON, [b"{", b"}"], revoke) == {}


@pytest.mark.parametrize(
    ("kind", "body", "read"),
    [
        (JSON, [b"\xef\xbb\xbf{}"], {}),
        (JSON, [b"\xef", b"\xbb\xbf{", b"}"], {}),
        (NDJSON, [b"\xef\xbb\xbf{}\r\n", b"{}"], [(1, b"{}\r"), (2, b"{}")]),
        (NDJSON, [b"\xef\xbb\xbf\r\n{}"], [(2, b"{}")]),
        (NDJSON, [b"{}\n\xef\xbb\xbf{}"], [(1, b"{}"), (2, b"\xef\xbb\xbf{}")]),  # no start of a file
    ],
)
async def test_a_byte_order_mark_at_the_start_of_a_body_is_dropped(
    log_store: Store, kind: str, body: list[bytes], read: Any
) -> None:
    assert await send(log_store, kind, body, nothing) == read


async def test_a_body_of_a_byte_order_mark_has_no_line(log_store: Store) -> None:
    with pytest.raises(Malformed, match="no line"):
        await send(log_store, NDJSON, [b"\xef\xbb\xbf\r\n"], nothing)
