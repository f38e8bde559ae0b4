"""The description of the server; scenarios/test_description sends what it allows."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

import pytest

from pushserver.settings import Settings
from pushserver.web import reading_routes
from pushserver.web.openapi import document, table
from pushserver.web.openapi.examples import EXAMPLES
from pushserver.web.request import JSON, MERGE_PATCH, NDJSON
from pushserver.web.route_table import OPERATIONS

from ..support.server import ROOT, Running, running

DEFAULTS = Settings()
DOCUMENT = document.document(
    reading_routes.VERSION, page_entries=DEFAULTS.page_entries, replay_events=DEFAULTS.replay_events
)

numbers = itertools.count(1)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server for all that is sent here."""
    with running(tmp_path_factory.mktemp("openapi") / "data") as server:
        yield server


def test_an_address_and_a_name_stand_for_one_operation() -> None:
    assert len({(operation.method, operation.path) for operation in OPERATIONS}) == len(OPERATIONS)
    assert len({operation.name for operation in OPERATIONS}) == len(OPERATIONS)


def test_the_protocol_page_has_every_address() -> None:
    page = (ROOT / "docs" / "protocol.md").read_text()
    assert table.insert(page) == page, "make docs"
    for operation in OPERATIONS:
        assert page.count(f"| `{operation.method} {operation.path}` | {operation.does} |") == 1


@pytest.mark.parametrize("page", ["", table.BEGIN, f"{table.END}\n{table.BEGIN}\n", 2 * f"{table.BEGIN}\n{table.END}"])
def test_a_page_without_the_place_for_the_table_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="expected one"):
        table.insert(page)


def test_the_description_is_served_and_kept(own: Running) -> None:
    response = own.http.get("/openapi.json")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.json() == DOCUMENT
    again = own.http.get("/openapi.json", headers={"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_every_example_is_taken(own: Running) -> None:
    for (name, kind), examples in EXAMPLES.items():
        (operation,) = (operation for operation in OPERATIONS if operation.name == name)
        for value in examples.values():
            stream = f"test-{next(numbers)}"
            if changes := operation.method == "PATCH" or operation.name == "endStream":
                own.put_page(stream, {"headline": "Page"})
                own.send("PUT", f"/streams/{stream}/entries/x", {"headline": "Entry"})
            path = operation.path.format(stream=stream, id="x")
            body = value.encode() if isinstance(value, str) else value
            response = own.send(operation.method, path, body, Content_Type=kind)
            expected = 200 if changes or kind == NDJSON else 201
            assert response.status_code == expected, (name, response.text)
            if kind == NDJSON:
                assert {json.loads(line)["status"] for line in response.text.splitlines()} == {201}


def test_a_stored_entry_and_page_have_no_field_that_is_not_described(own: Running) -> None:
    stream = f"test-{next(numbers)}"
    (page,), (_, blocks) = (EXAMPLES[key].values() for key in (("putPage", JSON), ("publishEntry", JSON)))
    own.put_page(stream, page)
    own.send("PUT", f"/streams/{stream}/entries/x", blocks)
    own.send("PATCH", f"/streams/{stream}/entries/x", EXAMPLES["correctEntry", MERGE_PATCH]["correction"])
    snapshot, schemas = own.snapshot(stream), DOCUMENT["components"]["schemas"]
    assert set(snapshot) == set(schemas["Snapshot"]["properties"])
    assert set(snapshot["page"]) <= set(schemas["Page"]["properties"])
    assert set(snapshot["entries"][0]) == set(schemas["Entry"]["properties"])
    assert set(own.http.get("/readyz").json()) == set(schemas["Ready"]["properties"])
