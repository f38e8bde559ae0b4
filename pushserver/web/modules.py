"""JavaScript modules are joined and made small when a worker starts: a page loads one script instead of a dozen.

The rules are those of the modules in `static/`, and a test holds them: an import is one line, names at the top of a
module are unique among all modules, an exported name stands for nothing else, no string looks like a comment or has a
name in capitals, and no regular expression has a space.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import count, product
from string import ascii_lowercase

from .local_names import shorten_locals

_CAST = re.compile(
    r"/\*\* @type [^*]*\*/ \(([\w.]+(?:\([^()]*\))?)\)"
)  # such as `/** @type {Element} */ (event.target)`
_DECLARATION = re.compile(
    r"^ *(?:/\*\* @type [^*]*\*/ \w+;)+\n", re.MULTILINE
)  # such as `/** @type {Element} */ region;`
_COMMENT = re.compile(r"/\*\*.*?\*/ ?|(?:^|(?<= ))// [^\n]*", re.DOTALL | re.MULTILINE)
_MARGIN = re.compile(r"^\s+|[ \t]+$", re.MULTILINE)
_STRING_OR_SPACE = re.compile(
    r"""[ \t]*("(?:[^"\\\n]|\\.)*"|`(?:[^`\\]|\\.)*`)[ \t]*|[ \t]*([-!=,;:?{}()<>&|+*])[ \t]*(?:(?<=[;{,(])\n)?"""
)
_NEEDLESS_END = re.compile(r"(?<=;\})\n+(?!$)|\n+(?=\})")
_PRIVATE = re.compile(r"(?<=\.)#\w+|(?<=^)#\w+|(?<=^get )#\w+|(?<=^async )#\w+", re.MULTILINE)
_CONSTANT = re.compile(r"^const ([A-Z][A-Z_]+)\b", re.MULTILINE)
_NUMBER = re.compile(r"^const ([A-Z][A-Z_]+) = ([\d_.]+);\n", re.MULTILINE)
_DECLARED = re.compile(r"\bconst\b")
_EXPORTED = re.compile(r"^export (?:async )?(?:class|const|function) (\w+)", re.MULTILINE)
_IMPORT = re.compile(r'^import *{[^}\n]*} *from *"\./([\w-]+\.js)";\n?', re.MULTILINE)
_EXPORT = re.compile(r"^export ", re.MULTILINE)


def compact(module: str) -> str:
    """A module without its comments, the types in them, and most space: half of it is for people."""
    return _close_up(_strip(module))


def _strip(module: str) -> str:
    return _MARGIN.sub("", _COMMENT.sub("", _CAST.sub(r"\1", _DECLARATION.sub("", module))))


def _close_up(module: str) -> str:
    closed = _NEEDLESS_END.sub("", _STRING_OR_SPACE.sub(lambda match: match[1] or match[2], module))
    return closed.replace(";}", "}").replace(",})", "})")


def _letters() -> Iterator[str]:
    """a, b, ..., z, aa, ab, ..."""
    for length in count(1):
        yield from map("".join, product(ascii_lowercase, repeat=length))


def join(first: str, modules: Mapping[str, str]) -> str:
    """The module `first` and all that it imports as one, each after those that it imports itself.

    Short ones come first: gzip makes the page's script 32 bytes shorter by that.
    """
    order: list[str] = []

    def add(name: str) -> None:
        if name not in order:
            for imported in sorted(_IMPORT.findall(modules[name]), key=lambda imported: len(modules[imported])):
                add(imported)
            order.append(name)

    add(first)
    exported = [export for name in order for export in _EXPORTED.findall(modules[name])]
    whole = "".join(_shorten(_PRIVATE, "#", _strip(_EXPORT.sub("", _IMPORT.sub("", modules[name])))) for name in order)
    numbers = {name: value.replace("_", "") for name, value in _NUMBER.findall(whole)}
    whole = _any_of(numbers).sub(lambda match: numbers[match[0]], _NUMBER.sub("", whole))
    shared = _any_of([*_CONSTANT.findall(whole), *exported])
    return shorten_locals(_close_up(_shorten(shared, "$", _DECLARED.sub("let", whole))))


def _any_of(names: Iterable[str]) -> re.Pattern[str]:
    """Any of the names, but for members such as `a.name`; behind `...` a name is none."""
    return re.compile(rf"(?:(?<=\.\.\.)|(?<![.#]))\b(?:{'|'.join(dict.fromkeys(names)) or '$^'})\b")


def _shorten(name: re.Pattern[str], mark: str, module: str) -> str:
    """A module in which all names of a kind are a mark and a letter; the one that is used most is the shortest."""
    by_use = Counter(name.findall(module)).most_common()
    short = {used: mark + letters for (used, _), letters in zip(by_use, _letters(), strict=False)}
    return name.sub(lambda match: short[match[0]], module)
