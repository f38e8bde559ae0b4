"""JavaScript modules are joined and made small when a worker starts: a page loads one script instead of a dozen.

The rules are those of the modules in `static/`, and a test holds them: an import is one line, names at the top of a
module are unique among all modules, no string looks like a comment, and no regular expression has a space.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_COMMENT = re.compile(r"/\*\*.*?\*/ ?|(?:^|(?<= ))// [^\n]*", re.DOTALL | re.MULTILINE)
_MARGIN = re.compile(r"^\s+|[ \t]+$", re.MULTILINE)
_STRING_OR_SPACE = re.compile(
    r"""("(?:[^"\\\n]|\\.)*"|`(?:[^`\\]|\\.)*`)|[ \t]*([=,;:?{}()<>&|])[ \t]*(?:(?<=[;{,(])\n)?"""
)
_PRIVATE = re.compile(r"(?<=\.)#\w+|(?<=^)#\w+|(?<=^get )#\w+|(?<=^async )#\w+", re.MULTILINE)
_IMPORT = re.compile(r'^import *{[^}\n]*} *from *"\./([\w-]+\.js)";\n?', re.MULTILINE)
_EXPORT = re.compile(r"^export ", re.MULTILINE)


def compact(module: str) -> str:
    """A module without its comments, the types in them, and most space: half of it is for people."""
    return _close_up(_strip(module))


def _strip(module: str) -> str:
    return _MARGIN.sub("", _COMMENT.sub("", module))


def _close_up(module: str) -> str:
    return _STRING_OR_SPACE.sub(lambda match: match[1] or match[2], module)


def join(first: str, modules: Mapping[str, str]) -> str:
    """The module `first` and all that it imports as one, each after those that it imports itself."""
    order: list[str] = []

    def add(name: str) -> None:
        if name not in order:
            for imported in _IMPORT.findall(modules[name]):
                add(imported)
            order.append(name)

    add(first)
    whole = "".join(_strip(_EXPORT.sub("", _IMPORT.sub("", modules[name]))) for name in order)
    names = {name: f"#_{number:x}" for number, name in enumerate(dict.fromkeys(_PRIVATE.findall(whole)))}
    return _close_up(_PRIVATE.sub(lambda match: names[match[0]], whole))
