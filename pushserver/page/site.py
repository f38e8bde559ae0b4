"""A site is the server as its pages name it: its public address, and where its static files are. Pure.

Links within pages are relative to the document, so that a page works behind a proxy that adds a prefix. What leaves the
page, as canonical links and feeds do, begins with the public address.
"""

from __future__ import annotations

from typing import NamedTuple

from .masthead import NAMELESS, Masthead

INDEX, PAGE, FEED, ENTRY = 0, 1, 2, 3  # folders above a document: / · /streams/s · /streams/s/feed.atom · …/entries/id


class Site(NamedTuple):
    """Site is the public address of a server, "" where it is not known, and its set of static files.

    `build` is the hash of the set, `modules` names those that a live page loads, the first one included.
    """

    public_url: str = ""
    build: str = ""
    modules: tuple[str, ...] = ()
    masthead: Masthead = NAMELESS

    def base(self, depth: int) -> str:
        """The address with which links begin in a document so many folders down, without a slash at the end."""
        return self.public_url or root(depth)

    def static(self, depth: int) -> str:
        """The address of the static files in a document so many folders down. Each build has its own."""
        return f"{root(depth)}/static/{self.build}" if self.build else f"{root(depth)}/static"

    def canonical(self, path: str) -> str:
        """The absolute address of a path, "" where the public address is not known."""
        return f"{self.public_url}{path}" if self.public_url else ""


def root(depth: int) -> str:
    """The path from a document to the server's root, such as ../.. from two folders down."""
    return "/".join([".."] * depth) or "."
