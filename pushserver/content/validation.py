"""Validation: a value as its model, or a refusal that names each bad field, what was expected and what came. Pure."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ..errors import Fault, Invalid, shorten

M = TypeVar("M", bound=BaseModel)


def read(kind: type[M], value: Any) -> M:
    """Validate a value. Raises Invalid with a fault for each of the first 20 bad fields."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        faults = [_fault_of(dict(problem), kind) for problem in error.errors(include_url=False)[:20]]
        # Blocks are made of the Markdown in `body`: the publisher never sent a field `blocks.3.html`.
        if isinstance(value, dict) and isinstance(value.get("body"), str):
            faults = [fault._replace(field=re.sub(r"^blocks\b.*", "body", fault.field)) for fault in faults]
        raise Invalid(f"{faults[0].field}: expected {faults[0].expected}, got {faults[0].got}.", *faults) from None


UNKNOWN = "only known fields"
_EXPECTED = {
    "extra_forbidden": UNKNOWN,
    "missing": "a value",
    "model_type": "a JSON object",
    "model_attributes_type": "a JSON object",
    "string_type": "a string",
    "string_unicode": "text without a surrogate, U+D800 to U+DFFF, that stands alone",
    "list_type": "a list",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "float_parsing": "a number",
    "greater_than_equal": "at least {ge:g}",
    "less_than_equal": "at most {le:g}",
    "bool_type": "true or false",
    "none_required": UNKNOWN,
    "string_too_short": "some text",
    "string_too_long": "at most {max_length} characters",
    "too_long": "at most {max_length} items",
    "too_short": "at least {min_length} items",
    "union_tag_not_found": "a block with its type",
    "union_tag_invalid": "one of {expected_tags}",
}


def _fault_of(problem: dict[str, Any], kind: type[BaseModel]) -> Fault:
    """An error of pydantic in a value of this kind as a fault, in the words of this interface."""
    path, context, came = problem["loc"], problem.get("ctx", {}), problem["input"]
    steps = [str(step) for at, step in enumerate(path) if not _is_tag(path, at)]
    known = _EXPECTED.get(problem["type"])
    # pydantic puts the tags of a union in quotes.
    expected = known.format(**context).replace("'", "") if known else problem["msg"].removeprefix("Input should be ")
    if expected == UNKNOWN and len(path) == 1:
        expected += f", which are {_names(kind)}"
    got = "nothing" if problem["type"] == "missing" else _seen(came)
    if problem["type"] == "union_tag_invalid":
        steps.append("type")
        got = _seen(came["type"])
    elif "got" in context:  # the error of a check in this package
        expected, got = context["expected"], context["got"]
        steps += [context["field"]] if "field" in context else []
    field = shorten(".".join(steps)) if steps else "body"
    return Fault(field, expected, shorten(got))


def _names(kind: type[BaseModel]) -> str:
    """The names of the fields that a publisher may send, but for those that the model has only to refuse them."""
    fields = kind.model_fields.items()
    return ", ".join(field.alias or name for name, field in fields if field.annotation is not type(None))


def _is_tag(path: tuple[int | str, ...], at: int) -> bool:
    """Whether a step of pydantic's path is the type of a block, between its index and its field: it is not in the JSON.

    In every other list, items have fields without fields of their own: there, a step after an index is the last one.
    The tags of a list's items are in brackets.
    """
    step = path[at]
    if isinstance(step, str) and step.startswith("("):
        return True
    return 0 < at < len(path) - 1 and isinstance(path[at - 1], int) and isinstance(step, str)


def _seen(value: Any) -> str:
    if value is None:
        return "null"
    return f"{value!r} ({type(value).__name__})" if not isinstance(value, str) else value
