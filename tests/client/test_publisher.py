"""A publisher sends until the outcome is known, its entries are stored once, and each refusal has a class."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from pushserver.client import (
    AsyncPublisher,
    Changed,
    Conflict,
    Gone,
    NotFound,
    Publisher,
    PublishError,
    Rejected,
    Unauthorized,
    Unreached,
)
from pushserver.client.publisher import IDEMPOTENCY_KEY, KEY_EXPECTED
from pushserver.client.retry import Call
from pushserver.web import idempotency_key

from ..support.proxy import Proxy, to_server
from ..support.server import Running

PUBLISHERS, ENTRIES = 50, 4


@pytest.mark.anyio
async def test_publishers_through_a_network_that_cuts_store_each_entry_once(server: Running, stream: str) -> None:
    async with Proxy(to_server(server.url)).running() as proxy:
        proxy.cut_at_random(seed=1, chance=0.08)

        async def publish(number: int) -> list[dict[str, Any]]:
            async with AsyncPublisher(proxy.url, server.key) as publisher:
                answers = []
                for entry in range(ENTRIES):
                    headline = f"{number}.{entry}"
                    key = f"{stream}-{headline}"
                    while True:
                        try:
                            answers.append(await publisher.publish(stream, {"headline": headline}, idempotency_key=key))
                            break
                        except Unreached as error:
                            assert error.idempotency_key == key
                return answers

        answered = await asyncio.gather(*(publish(number) for number in range(PUBLISHERS)))
        assert proxy.cuts > PUBLISHERS / 2
    stored = all_entries(server, stream)
    assert Counter(entry["headline"] for entry in stored) == Counter(
        f"{number}.{entry}" for number in range(PUBLISHERS) for entry in range(ENTRIES)
    )
    assert {answer["id"] for answers in answered for answer in answers} == {entry["id"] for entry in stored}


def all_entries(server: Running, stream: str) -> list[dict[str, Any]]:
    """Every entry of a stream, slice by slice."""
    entries, older = [], ""
    while True:
        answer = server.http.get(f"/streams/{stream}/entries{older}").json()
        entries += answer["entries"]
        if not answer["older"]:
            return entries
        older = answer["older"]


def test_a_publisher_who_waits_gets_through_too(server: Running, stream: str) -> None:
    async def meanwhile() -> None:
        async with Proxy(to_server(server.url)).running() as proxy:
            proxy.cut_at_random(seed=3, chance=0.1)
            await asyncio.to_thread(publish, proxy.url)

    def publish(url: str) -> None:
        with Publisher(url, server.key) as publisher:
            for number in range(10):
                publisher.put_entry(
                    stream, f"e{number}", {"headline": str(number)}, idempotency_key=f"{stream}.{number}"
                )

    asyncio.run(meanwhile())
    assert len(server.snapshot(stream)["entries"]) == 10


def test_what_is_refused_has_a_name(server: Running, stream: str) -> None:
    with Publisher(server.url, server.key) as publisher:
        publisher.put_entry(stream, "x", {"headline": "One"})
        publisher.correct(stream, "x", {"headline": "Two"}, rev=1)
        with pytest.raises(Changed) as changed:
            publisher.correct(stream, "x", {"headline": "Three"}, rev=1)
        assert changed.value.current is not None
        assert (changed.value.current["headline"], changed.value.rev) == ("Two", 2)
        with pytest.raises(Rejected, match="headline: expected") as rejected:
            publisher.publish(stream, {"headline": 3})
        assert (rejected.value.status, rejected.value.errors[0]["field"]) == (422, "headline")
        with pytest.raises(NotFound):
            publisher.correct(stream, "y", {"headline": "Three"})
        publisher.withdraw(stream, "x", rev=2)
        with pytest.raises(Gone):
            publisher.correct(stream, "x", {"headline": "Three"})
        publisher.end(stream)
        with pytest.raises(Conflict):
            publisher.publish(stream, {"headline": "Four"})
    with Publisher(server.url, "wrong") as publisher, pytest.raises(Unauthorized):
        publisher.publish(stream, {"headline": "Five"})


@pytest.mark.anyio
async def test_both_publishers_can_do_the_same(server: Running, stream: str) -> None:
    async with AsyncPublisher(server.url, server.key) as publisher:
        assert (await publisher.put_page(stream, {"headline": "Page"}))["rev"] == 1
        assert (await publisher.patch_page(stream, {"dek": "More"}))["rev"] == 2
        entry = await publisher.publish(stream, {"headline": "One"}, idempotency_key="one")
        assert (await publisher.publish(stream, {"headline": "One"}, idempotency_key="one"))["replayed"] is True
        assert (await publisher.correct(stream, entry["id"], {"headline": "Two"}))["rev"] == 2
        assert (await publisher.delivery(stream, entry["id"]))["sent"] == 0
        assert (await publisher.withdraw(stream, entry["id"], reason="legal"))["receipt"]["reached"] is True
        assert (await publisher.end(stream))["n"] == 6


def test_a_server_that_is_not_one_is_named(server: Running) -> None:
    with Publisher(f"{server.url}/livez", server.key) as publisher, pytest.raises(NotFound):
        publisher.publish("x", {"headline": "One"})
    assert issubclass(Unreached, PublishError)


def test_a_refusal_says_each_fault_once(server: Running, stream: str) -> None:
    with Publisher(server.url, server.key) as publisher:
        with pytest.raises(Rejected) as error:
            publisher.publish(stream, {"headline": 1, "tags": "x"})
        lines = ["headline: expected a string, got 1 (int).", "  tags: expected a list, got x"]
        assert str(error.value).splitlines() == lines
        with pytest.raises(Rejected) as error:
            publisher.publish("Storm", {"headline": "One"})
        assert str(error.value).splitlines()[1].startswith("  stream: expected 1 to 64 characters")


def test_nobody_there_is_unreached_after_every_attempt(unused_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pushserver.client.retry.ATTEMPTS", 2)
    with Publisher(unused_url, "key") as publisher, pytest.raises(Unreached) as error:
        publisher.publish("x", {"headline": "One"}, idempotency_key="mine")
    assert (error.value.status, error.value.idempotency_key) == (0, "mine")
    assert "nothing was stored" in str(error.value)


@pytest.mark.parametrize(
    ("url", "key"), [("127.0.0.1:8000", "key"), ("http://127.0.0.1:8000", "schlüssel"), ("", "a\nb")]
)
def test_what_no_attempt_could_mend_is_not_tried_again(url: str, key: str) -> None:
    with pytest.raises((Rejected, Unauthorized), match="expected"):
        Publisher(url, key).publish("x", {"headline": "One"})


def test_a_batch_is_answered_line_by_line_whatever_is_in_the_lines(server: Running, stream: str) -> None:
    with Publisher(server.url, server.key) as publisher:
        answer = publisher.publish_all(stream, [{"headline": "a"}, {"b\u2028c": 1}, {"headline": "d\u2029"}])
    assert [result["status"] for result in answer["results"]] == [201, 422, 201]
    assert answer["results"][1]["errors"][0]["field"] == "b\u2028c"


def test_a_key_that_was_read_from_a_file_may_end_with_a_line_end(server: Running, stream: str) -> None:
    with Publisher(server.url, f"{server.key}\r\n") as publisher:
        assert publisher.publish(stream, {"headline": "One"})["rev"] == 1


@pytest.mark.parametrize("key", ["", "é", " x", "x\n", "a\\b", "x" * 201])
def test_an_idempotency_key_that_no_server_takes_is_not_sent(key: str) -> None:
    with Publisher("http://127.0.0.1:1", "pk_no_server_is_asked") as publisher:
        calls: list[Callable[[], Any]] = [
            lambda: publisher.publish("storm", {"headline": "x"}, idempotency_key=key),
            lambda: publisher.publish_all("storm", [{"headline": "x"}], idempotency_key=key),
            lambda: publisher.withdraw("storm", "x", idempotency_key=key),
        ]
        for call in calls:
            with pytest.raises(Rejected, match="nothing was sent") as refused:
                call()
            assert [error["field"] for error in refused.value.errors] == ["Idempotency-Key"]


@pytest.mark.anyio
async def test_nor_is_it_sent_from_asyncio() -> None:
    async with AsyncPublisher("http://127.0.0.1:1", "pk_no_server_is_asked") as publisher:
        with pytest.raises(Rejected, match="nothing was sent"):
            await publisher.publish("storm", {"headline": "x"}, idempotency_key="é")


def test_the_idempotency_keys_of_the_client_are_those_of_the_server() -> None:
    client = IDEMPOTENCY_KEY.pattern, KEY_EXPECTED
    assert client == (idempotency_key.KEY.pattern, idempotency_key.EXPECTED)


def test_what_cannot_be_sent_is_not_tried_again(server: Running) -> None:
    with Publisher(server.url, server.key) as publisher, pytest.raises(Rejected, match="nothing was stored: Illegal"):
        publisher._send(Call("POST", "/streams/storm/entries", b"{}", " x"))


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda publisher: publisher.delete_stream("storm/entries/1"), "stream"),
        (lambda publisher: publisher.delete_stream(".."), "stream"),
        (lambda publisher: publisher.withdraw("storm", ".."), "id"),
        (lambda publisher: publisher.withdraw("storm", ""), "id"),
        (lambda publisher: publisher.erase("storm", "../x"), "id"),
        (lambda publisher: publisher.publish("", {"headline": "x"}), "stream"),
    ],
)
def test_a_name_that_would_be_another_address_is_not_sent(call: Callable[[Publisher], Any], field: str) -> None:
    with Publisher("http://127.0.0.1:1", "pk_no_server_is_asked") as publisher, pytest.raises(Rejected) as refused:
        call(publisher)
    assert [error["field"] for error in refused.value.errors] == [field]
