"""A masthead is the newsroom as its pages, feeds and structured data name it. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Masthead(NamedTuple):
    """Masthead is the name of a site, the address of its logo, and its handle on social networks; "" where unknown."""

    name: str = ""
    logo: str = ""
    handle: str = ""


NAMELESS = Masthead()
