"""The OpenAPI 3.1 description of the server. Pure. Bodies are described by the models that validate them."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ... import errors
from ..route_table import (
    ANSWER_HEADERS,
    EITHER,
    OPERATIONS,
    PATH,
    REFUSAL_HEADERS,
    REQUEST_HEADERS,
    Operation,
    Schema,
)
from . import answers
from .examples import EXAMPLES

PROBLEM = "application/problem+json"


def document(version: str, *, page_entries: int, replay_events: int) -> Schema:
    """The description of a server of this version, with the most entries and events that one answer has."""
    schemas = _schemas()
    paths: dict[str, Schema] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    for path, most in (("entries", page_entries), ("events", replay_events)):
        parameters = paths[f"/streams/{{stream}}/{path}"]["get"]["parameters"]
        next(each for each in parameters if each["name"] == "limit")["schema"]["maximum"] = most
    return {
        "openapi": "3.1.0",
        "info": {"title": "pushserver", "version": version, "summary": "Live updates, pushed as they are published."},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "A publish key."},
                "token": {"type": "http", "scheme": "bearer", "description": "A reader's token, for private streams."},
            },
        },
    }


def _operation(operation: Operation) -> Schema:
    described: Schema = {
        "operationId": operation.name,
        "summary": operation.does,
        "parameters": [*_path(operation.path), *_query(operation.query), *map(_header, operation.headers)],
        "responses": _responses(operation),
    }
    if operation.takes:
        content = {kind: _content(what, _examples(operation.name, kind)) for kind, what in operation.takes.items()}
        described["requestBody"] = {"required": operation.body_required, "content": content}
    if operation.is_for_readers:
        described["security"] = [{}, {"token": []}]  # only private streams ask for one
    if operation.right is not None:
        described["security"] = [{"key": []}]
        described["description"] = f"Needs a key that can {operation.right}." if operation.right else "Needs a key."
    return described


def _responses(operation: Operation) -> Schema:
    responses: Schema = {}
    for status, answer in operation.answers.items():
        responses[str(status)] = {"description": answer.says}
        if answer.content:
            responses[str(status)]["content"] = {kind: _content(what) for kind, what in answer.content.items()}
        if answer.headers:
            responses[str(status)]["headers"] = {name: ANSWER_HEADERS[name] for name in answer.headers}
    for refused in map(int, operation.refuses.split()):
        refusal = responses.setdefault(str(refused), {"description": f"{_title(refused, operation)}."})
        refusal.setdefault("content", {})[PROBLEM] = _content(
            answers.ChangedProblem
            if refused == errors.Changed.status and not operation.is_for_readers
            else answers.Problem
        )
        if refused in REFUSAL_HEADERS:
            refusal["headers"] = {name: ANSWER_HEADERS[name] for name in REFUSAL_HEADERS[refused]}
    return dict(sorted(responses.items()))


def _title(status: int, operation: Operation) -> str:
    """The title of a refusal. An address without an entry is gone only with its stream."""
    is_stream_gone = status == errors.Deleted.status and "{id}" not in operation.path
    return errors.Deleted.title if is_stream_gone else _titles()[status]


@functools.cache
def _titles() -> dict[int, str]:
    return {kind.status: kind.title for kind in reversed(errors.Refused.__subclasses__())}


def _content(what: type[BaseModel] | str | Schema, examples: Schema | None = None) -> Schema:
    name = what if isinstance(what, str) else getattr(what, "__name__", "")
    content: Schema = {"schema": _ref(name) if name else what}
    return {**content, "examples": examples} if examples else content


def _path(path: str) -> list[Schema]:
    names = re.findall(r"{(\w+)}", path)
    return [{"name": name, "in": "path", "required": True, "schema": PATH[name]} for name in names]


def _query(query: type[BaseModel] | dict[str, Schema]) -> list[Schema]:
    if not isinstance(query, dict):
        query = {name: _not_null(part) for name, part in _properties(query).items()}
    return [{"name": name, "in": "query", "schema": dict(part)} for name, part in query.items()]


def _not_null(part: Schema) -> Schema:
    """The schema of a field without null: a field that is missing is null in its model, and never null in a query."""
    if "anyOf" not in part:
        return part
    (schema,) = [other for other in part["anyOf"] if other != _NULL]
    return dict(schema)


def _header(name: str) -> Schema:
    says, pattern, example = REQUEST_HEADERS[name]
    schema = {"type": "string", "pattern": pattern}
    return {"name": name, "in": "header", "description": says, "schema": schema, "example": example}


# --- schemas

_NULL = {"type": "null"}
_REF = "#/components/schemas/{model}"


def _properties(model: type[BaseModel]) -> dict[str, Schema]:
    properties: dict[str, Schema] = model.model_json_schema(ref_template=_REF)["properties"]
    return properties


def _models() -> Iterator[type[BaseModel]]:
    for operation in OPERATIONS:
        for content in (operation.takes, *(answer.content for answer in operation.answers.values())):
            yield from (what for what in content.values() if isinstance(what, type))


def _schemas() -> Schema:
    others: list[type[BaseModel]] = [answers.Problem, answers.ChangedProblem]
    others += [model for either in EITHER.values() for model in either]
    models: list[type[BaseModel]] = list(dict.fromkeys([*_models(), *others]))
    _, generated = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    schemas: Schema = generated["$defs"]
    schemas["FlagsPatch"] = _patch(schemas["Flags"])
    schemas["PagePatch"] = _patch(schemas["PagePut"], needed=("headline",))
    schemas["EntryPatch"] = _entry_patch(schemas["EntryPut"])
    schemas |= {name: {"anyOf": [_ref(model.__name__) for model in either]} for name, either in EITHER.items()}
    return dict(sorted(schemas.items()))


def _ref(name: str) -> Schema:
    return {"$ref": _REF.format(model=name)}


def _patch(whole: Schema, needed: tuple[str, ...] = ()) -> Schema:
    """The schema of a merge patch: any of the fields, or null for a field to remove."""
    fields = {name: _not_null(part) for name, part in whole["properties"].items()}
    properties = {name: part if name in needed else {"anyOf": [part, _NULL]} for name, part in fields.items()}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _entry_patch(whole: Schema) -> Schema:
    patch = _patch(whole)
    del patch["properties"]["published_at"]  # when an entry was published does not change
    patch["properties"]["flags"] = {"anyOf": [_ref("FlagsPatch"), _NULL]}
    empty = {
        "required": ["headline", "blocks"],
        "properties": {"headline": _NULL, "blocks": {"anyOf": [_NULL, {"maxItems": 0}]}},
    }
    return {**patch, "allOf": [{"not": whole["not"]}, {"not": empty}]}


def _examples(name: str, kind: str) -> Schema:
    return {title: {"value": value} for title, value in EXAMPLES.get((name, kind), {}).items()}
