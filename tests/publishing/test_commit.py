"""Preconditions, and changes that are tried again when another change came first."""

from __future__ import annotations

import pytest

from pushserver import model
from pushserver.errors import Changed, Conflict, KeyReused
from pushserver.model import Idempotency
from pushserver.publishing import commit
from pushserver.publishing.commit import Precondition, Published, changed_once, retried
from pushserver.store.log import Log, RevisionConflict

from ..support.server import entry_append

PAGE = {**model.unwritten_page("storm"), "rev": 3}


@pytest.mark.parametrize(
    ("precondition", "holds_for_rev_3", "holds_for_nothing"),
    [
        (Precondition(), True, True),
        (Precondition(rev=3), True, False),
        (Precondition(rev=2), False, False),
        (Precondition(exists=True), True, False),
        (Precondition(is_new=True), False, True),
        (Precondition(exists=True, is_new=True), False, False),
    ],
)
def test_a_precondition_holds_or_the_current_revision_is_in_the_refusal(
    precondition: Precondition, holds_for_rev_3: bool, holds_for_nothing: bool
) -> None:
    for current, holds in ((PAGE, holds_for_rev_3), (None, holds_for_nothing)):
        try:
            precondition.check(current)  # type: ignore[arg-type]
        except Changed as refused:
            assert not holds
            assert refused.current == current
        else:
            assert holds


@pytest.mark.anyio
async def test_a_change_is_tried_again_and_given_up_in_the_end() -> None:
    left = [commit.ATTEMPTS - 1]

    async def attempt() -> str:
        if left[0]:
            left[0] -= 1
            raise RevisionConflict
        return "stored"

    assert await retried(attempt) == "stored"
    left[0] = commit.ATTEMPTS
    with pytest.raises(Conflict, match="send the request again"):
        await retried(attempt)


@pytest.mark.anyio
async def test_a_key_that_was_answered_gets_the_same_answer_and_no_second_attempt(log: Log, stream: str) -> None:
    first = await log.append(entry_append(stream, "one", key="k", body_hash="a"))

    async def attempt() -> Published:
        raise AssertionError("the request was answered before")

    answer = await changed_once(log, stream, first.entry_id, Idempotency("k", "a", from_client=True), attempt)
    assert (answer.appended.n, answer.appended.replayed, answer.is_new) == (first.n, True, False)
    with pytest.raises(KeyReused):
        await changed_once(log, stream, first.entry_id, Idempotency("k", "b", from_client=True), attempt)
    with pytest.raises(KeyReused):
        await changed_once(log, stream, "another", Idempotency("k", "a", from_client=True), attempt)


@pytest.mark.anyio
async def test_two_changes_at_a_time_with_one_key_are_not_one_change(log: Log, stream: str) -> None:
    key = Idempotency("k", "a", from_client=True)

    async def attempt() -> Published:  # the other one came after the look for a first answer
        await log.append(entry_append(stream, "one", id="one", key="k", body_hash="a"))
        return Published(await log.append(entry_append(stream, "two", id="two", key="k", body_hash="a")), is_new=True)

    with pytest.raises(KeyReused):
        await changed_once(log, stream, "two", key, attempt)


@pytest.mark.anyio
async def test_a_key_that_the_server_made_is_not_looked_up(log: Log, stream: str) -> None:
    await log.append(entry_append(stream, "one", key="k", body_hash="a"))

    async def attempt() -> Published:
        return Published(await log.append(entry_append(stream, "two", id="two")), is_new=True)

    answer = await changed_once(log, stream, "two", Idempotency("k", "b"), attempt)
    assert answer.appended.n == 2
