"""The server answers as its description says: schemathesis sends what the description allows, and what it does not.

To make the requests takes longer than to collect all other tests, so `make test` does not collect this file.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis.config import SchemathesisConfig
from schemathesis.core import NOT_SET
from schemathesis.specs.openapi.checks import negative_data_rejection

from pushserver.settings import Settings
from pushserver.web import reading_routes
from pushserver.web.openapi import document
from pushserver.web.request import NDJSON

from ..support.server import Running, running

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
# Where no line can be stored, a batch is refused: one that is valid has a good line.
schemathesis.openapi.media_type(NDJSON, st.just(b'{"headline": "One"}\n{"headline": "Two"}'))

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
# Server-Sent Events are an answer that does not end.
api = schemathesis.openapi.from_dict(DOCUMENT, config=CONFIG).exclude(operation_id="followEvents")
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server for all that is sent here."""
    with running(tmp_path_factory.mktemp("requests") / "data") as server:
        yield server


@pytest.mark.full
@api.parametrize()
@settings(max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
def test_the_server_is_as_it_says(case: schemathesis.Case[Any], own: Running) -> None:
    if case.meta is not None and case.meta.generation.mode.is_positive:
        prepare(case, own)
    if case.method == "GET":
        case.body = NOT_SET  # any body of a GET is refused before its address is looked at
    excluded: list[Any] = [negative_data_rejection] if case.media_type == NDJSON else []  # lines are never made invalid
    headers = {"Authorization": f"Bearer {own.key}"}
    case.call_and_validate(base_url=own.url, headers=headers, excluded_checks=excluded)


def prepare(case: schemathesis.Case[Any], own: Running) -> None:
    """Let a valid request meet what it is about: something to read, change or withdraw, and a key not used before."""
    if "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = f"key-{next(numbers)}"
    # schemathesis makes these two by their names, whatever their patterns say.
    case.headers.update({name: value for name, value in CONDITIONS.items() if name in case.headers})
    if case.media_type == NDJSON:
        case.query.pop("dry_run", None)  # a batch has none, which a description cannot say
        case.path_parameters["stream"] = f"test-{next(numbers)}"  # the last one may have ended
    as_the_server_stores(case.body)
    name = case.operation.definition.raw["operationId"]
    if name in ("publishEntry", "putEntry", "putPage") or "stream" not in case.path_parameters:
        return
    case.path_parameters["stream"] = stream = f"test-{next(numbers)}"
    assert own.put_page(stream, {"headline": "Page"}).status_code == 201
    if "id" in case.path_parameters:
        path = f"/streams/{stream}/entries/{case.path_parameters['id']}"
        assert own.send("PUT", path, {"headline": "Entry", "body": "Its *text*"}).status_code == 201
    if name == "restoreStream":
        headers = {"Authorization": f"Bearer {own.key}"}
        case.body = own.http.get(f"/streams/{stream}/export", headers=headers).content


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
