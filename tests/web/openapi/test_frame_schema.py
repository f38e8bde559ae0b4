"""The JSON Schema of the frames: what a server sends is as it says, and so are the types of the client."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema_rs
import pytest
from pydantic import BaseModel

from pushserver.web.openapi import answers, frame_schema

from ...support.server import ROOT, Running, reader

pytestmark = pytest.mark.anyio
IMAGE = {"type": "image", "src": "/a.jpg", "width": 3, "height": 2, "alt": "a", "caption": "b", "credit": "c"}
ENTRY = {"headline": "One", "blocks": [IMAGE], "bylines": [{"name": "Ada"}], "flags": {"key": True}}
CORRECTION = {"headline": "1", "correction": {"class": "correction", "note": "It was otherwise."}}
NEXT = {"next": {"label": "More", "url": "https://news.example/2"}}


def publish(server: Running, stream: str) -> None:
    """Every change that a publisher can make."""
    path = f"/streams/{stream}"
    server.put_page(stream, {"headline": "H", "topics": [{"label": "t"}], "timezone": "Asia/Kolkata", "lang": "hi"})
    server.send("PUT", f"{path}/entries/a", ENTRY)
    server.send("PATCH", f"{path}/entries/a", CORRECTION)
    server.send("DELETE", f"{path}/entries/a?reason=error&note=n", b"")
    server.send("PATCH", path, {"headline": "H 2"})
    server.send("POST", f"{path}/end", NEXT)


async def received(server: Running, stream: str, format: str) -> list[dict[str, Any]]:
    """All frames that a reader receives who is there from the second event on."""
    got = []
    async with reader(server, stream, format=format) as socket:
        for _ in range(3):  # hello, snapshot, a heartbeat
            got.append(json.loads(await socket.recv()))
        publish(server, stream)
        while got[-1]["type"] != "stream.end":
            got.append(json.loads(await socket.recv()))
    async with reader(server, stream, format=f"{format}&build=another") as socket:
        got += [json.loads(await socket.recv()), json.loads(await socket.recv())]
    return got


@pytest.mark.parametrize("format", ["json", "html"])
async def test_every_frame_that_a_server_sends_is_as_the_schema_says(server: Running, stream: str, format: str) -> None:
    server.publish_ok(stream, "Zero")
    schema = frame_schema.schema()
    valid = jsonschema_rs.validator_for({**schema, "anyOf": [{"$ref": f"#/$defs/{format}"}]})
    got = await received(server, stream, format)
    for frame in got:
        assert not [str(error) for error in valid.iter_errors(frame)], frame
    types = {model.model_fields["type"].annotation.__args__[0] for model in frame_schema.FORMATS[format]}  # type: ignore[union-attr]
    assert {frame["type"] for frame in got} == types


def test_the_schema_in_the_documents_is_made_from_the_code() -> None:
    assert json.loads((ROOT / "docs" / "frames.schema.json").read_text()) == frame_schema.schema()


def fields_of(model: type[BaseModel]) -> dict[str, bool]:
    """The names of a frame's fields, and whether each is always there."""
    schema = model.model_json_schema(mode="serialization")
    return {name: name in schema["required"] for name in schema["properties"]}


def typed(name: str) -> dict[str, bool]:
    """The fields of an interface of stream.d.ts."""
    text = (ROOT / "static" / "stream.d.ts").read_text()
    match = re.search(rf"interface {name}(?: extends (\w+))? {{\n(.*?)\n}}", text, re.DOTALL)
    assert match, f"stream.d.ts has no interface {name}"
    fields = re.findall(r"^  (\w+)(\??): ", match[2], re.MULTILINE)
    return {**(typed(match[1]) if match[1] else {}), **{field: not mark for field, mark in fields}}


MESSAGES = [model for model in frame_schema.FORMATS["json"] if model.__name__ not in ("HelloMessage", "ByeMessage")]


@pytest.mark.parametrize("model", [*MESSAGES, answers.Entry, answers.Page])
def test_the_types_of_the_client_have_the_fields_of_the_schema(model: type[BaseModel]) -> None:
    assert typed(model.__name__.removesuffix("Message")) == fields_of(model)
