"""The description of the server, and the server as it describes itself: schemathesis sends what it may and may not."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis.config import SchemathesisConfig
from schemathesis.schemas import BaseSchema

from pushserver.settings import Settings
from pushserver.web import reading_routes
from pushserver.web.openapi import document, table
from pushserver.web.openapi.examples import EXAMPLES
from pushserver.web.openapi.operations import OPERATIONS
from pushserver.web.request import JSON, MERGE_PATCH, NDJSON

from ..support.server import ROOT, Running, running

DEFAULTS = Settings()
DOCUMENT = document.document(
    reading_routes.VERSION, page_entries=DEFAULTS.page_entries, replay_events=DEFAULTS.replay_events
)

words = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=40)
web = st.from_regex(r"https://[a-z]{1,9}\.example/[a-z0-9/]{0,9}", fullmatch=True)
FORMATS = {
    "text": words,
    "inline-html": st.sampled_from(
        ["Plain words", "<em>a</em> b", 'See <a href="https://a.example/">there</a>', "1 &lt; 2"]
    ),
    "markdown": st.sampled_from(
        ["One\n\nTwo", "# Title\n\n- a\n- b", "> said", "Some *em* and [link](https://a.example/)"]
    ),
    "iri": web,
    "iri-reference": web | st.just("/pictures/a.jpg"),
    "date-time": st.datetimes().filter(lambda at: 1901 < at.year < 8999).map(lambda at: at.isoformat() + "Z"),
    "time-zone": st.sampled_from(["UTC", "Europe/London", "America/New_York"]),
    "language-tag": st.sampled_from(["en", "en-GB", "de", "ar", "zh-Hant-TW"]),
}
for name, strategy in FORMATS.items():
    schemathesis.openapi.format(name, strategy)
schemathesis.openapi.media_type(
    NDJSON, st.sampled_from([b'{"headline": "One"}\n{"headline": "Two"}', b"{}\n[", b"\xff"])
)

# A change may meet what is not as it expects, or was withdrawn; a WebSocket's address always asks for the upgrade.
ACCEPTED = ["2xx", "3xx", "401", "403", "404", "409", "410", "412", "426"]
REFUSED = ["400", "401", "404", "405", "410", "412", "413", "415", "422", "426"]
BLOCKS = ["publishEntry", "correctEntry", "putPage", "patchPage"]
CONFIG = SchemathesisConfig.from_dict(
    {
        "generation": {"deterministic": True, "max-examples": 20, "database": "none"},
        "checks": {
            "positive_data_acceptance": {"expected-statuses": ACCEPTED},
            "negative_data_rejection": {"expected-statuses": REFUSED},
        },
        # To go to every edge of the blocks takes ten seconds an operation: once, in putEntry, is enough.
        "operations": [{"include-operation-id": BLOCKS, "phases": {"coverage": {"enabled": False}}}],
    }
)
CONDITIONS = {"If-Match": '"1"', "If-None-Match": "*"}
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server for all that is sent here."""
    with running(tmp_path_factory.mktemp("openapi") / "data") as server:
        yield server


@pytest.fixture(scope="module")
def described() -> BaseSchema:
    """The description. Its requests are made when they are sent: that takes longer than to collect all tests."""
    # Server-Sent Events are an answer that does not end.
    return schemathesis.openapi.from_dict(DOCUMENT, config=CONFIG).exclude(operation_id="followEvents")


@pytest.mark.full
@pytest.mark.timeout(1_800)
@schemathesis.pytest.from_fixture("described").parametrize()
@settings(max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
def test_the_server_is_as_it_says(case: schemathesis.Case[Any], own: Running) -> None:
    if case.meta is not None and case.meta.generation.mode.is_positive:
        prepare(case, own)
    case.call_and_validate(base_url=own.url, headers={"Authorization": f"Bearer {own.key}"})


def prepare(case: schemathesis.Case[Any], own: Running) -> None:
    """Let a valid request meet what it is about: something to read, change or withdraw, and a key not used before."""
    if "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = f"key-{next(numbers)}"
    # schemathesis makes these two by their names, whatever their patterns say.
    case.headers.update({name: value for name, value in CONDITIONS.items() if name in case.headers})
    if case.media_type == NDJSON:
        case.query.pop("dry_run", None)  # a batch has none, which a description cannot say
    as_the_server_stores(case.body)
    name = case.operation.definition.raw["operationId"]
    if name in ("publishEntry", "putEntry", "putPage") or "stream" not in case.path_parameters:
        return
    case.path_parameters["stream"] = stream = f"test-{next(numbers)}"
    assert own.put_page(stream, {"headline": "Page"}).status_code == 201
    if "id" in case.path_parameters:
        path = f"/streams/{stream}/entries/{case.path_parameters['id']}"
        assert own.send("PUT", path, {"headline": "Entry", "body": "Its *text*"}).status_code == 201


def as_the_server_stores(value: Any) -> None:
    """Take out what is valid for some stored entry alone, and give the rows of tables the cells that their head has."""
    if isinstance(value, dict):
        for name in ("id", "rev", "url", "at") + (("updated_at",) if "dek" not in value else ()):
            if name != "url" or ("type" not in value and "label" not in value):
                value.pop(name, None)
        if value.get("state") == "ended":
            del value["state"]
        if isinstance(value.get("head"), list):
            value["align"], value["rows"] = [], [value["head"]] * len(value.get("rows", []))
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        as_the_server_stores(inner)


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
            if operation.method == "PATCH":
                own.put_page(stream, {"headline": "Page"})
                own.send("PUT", f"/streams/{stream}/entries/x", {"headline": "Entry"})
            path = operation.path.format(stream=stream, id="x")
            body = value.encode() if isinstance(value, str) else value
            response = own.send(operation.method, path, body, Content_Type=kind)
            expected = 200 if operation.method == "PATCH" or kind == NDJSON else 201
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
