from __future__ import annotations

from pydantic import TypeAdapter

from pushserver.content.blocks import BLOCK_TYPES, Block


def test_every_block_that_can_be_published_is_of_a_known_type() -> None:
    """A block of any other type would be left out where entries are rendered."""
    schema = TypeAdapter(Block).json_schema()
    assert schema["discriminator"]["mapping"].keys() == BLOCK_TYPES
