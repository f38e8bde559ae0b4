"""Variables and parameters get names of one letter in the script of a page: long names are a twelfth of what is sent.

A unit is a statement at the top of the script, or a member of a class. In a unit, a name is replaced wherever it stands
for a variable. It stays as it is in all of the unit where it may be something else too: the key of an object as in
`{ id }`, a label, or a part of a template. So no scope needs to be known: what is replaced is replaced everywhere.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from itertools import count, product
from string import ascii_lowercase

# Space, and then a string, a template, a regular expression, a word, or a sign; the last token is empty.
_TOKEN = re.compile(
    r"""(\s*)("(?:[^"\\\n]|\\.)*"|`(?:[^`\\]|\\.)*`|/(?! )(?:[^/\\\n]|\\.)+/(?=[a-z]*[.,;)])"""
    r"""|[\w$#]+|=>|\?\.|\.\.\.|\S|\Z)"""
)
_NAME = re.compile(r"[A-Za-z]\w*")
_WORDS = (
    "as async await break case catch class const continue default delete do else extends false finally for function get"
    " if in instanceof let new null of return set static super switch this throw true try typeof undefined void while"
    " yield"
)
RESERVED = frozenset(_WORDS.split())
_OPEN, _CLOSE = "([{", ")]}"
TOP = -1  # the place of the bracket around what stands in none


class _Script:
    """A script is tokens; `around` has the place of the bracket around each, `other` that of the pair of a bracket."""

    def __init__(self, text: str) -> None:
        tokens = _TOKEN.findall(text)
        self.spaces, self.tokens = [space for space, _ in tokens], [token for _, token in tokens]
        self.around: list[int] = []
        self.other: dict[int, int] = {}
        self._classes: set[int] = set()  # the brackets around their members
        self._match()
        self._tops = {self.at(place) for place in range(len(tokens)) if self._is_top(place)}

    def _match(self) -> None:
        is_class, opened = False, [TOP]
        for place, token in enumerate(self.tokens):
            self.around.append(opened[-1])
            is_class = is_class or token == "class"
            if token in _OPEN:
                opened.append(place)
                if is_class and token == "{":
                    self._classes.add(place)
                    is_class = False
            elif token in _CLOSE:
                first = opened.pop()
                self.other[first], self.other[place] = place, first

    def at(self, place: int) -> str:
        return self.tokens[place] if 0 <= place < len(self.tokens) else ""

    def _bracket(self, place: int) -> str:
        return self.at(self.around[place]) if self.around[place] != TOP else ""

    def _is_top(self, place: int) -> bool:
        return self.around[place] == TOP and self.at(place - 1) in ("let", "function", "class")

    def units(self) -> Iterator[range]:
        """The statements at the top, and the members of classes."""
        first = 0
        for place, token in enumerate(self.tokens):
            is_end = token in (";", "}") and self.around[self.other.get(place, place)] in (TOP, *self._classes)
            if is_end or place in self._classes or self.other.get(place) in self._classes:
                yield range(first, place + 1)
                first = place + 1
        yield range(first, len(self.tokens))

    def _is_variable(self, place: int) -> bool:
        """Whether a token is a name, and not that of a member."""
        return bool(_NAME.fullmatch(self.at(place))) and self.at(place - 1) not in (".", "?.")

    def _is_declared(self, place: int) -> bool:
        """Whether a name is that of a variable or a parameter where it is declared, by itself or in a list."""
        around = self.around[place]
        if self._bracket(place) == "[" and self.at(place - 1) in ("[", ",", "..."):
            if self.at(around - 1) == "let":
                return True
            around = self.around[around]
        return self.at(place - 1) == "let" or (self.at(place - 1) in ("(", "[", ",", "...") and self._is_head(around))

    def _is_head(self, place: int) -> bool:
        """Whether a bracket is around parameters."""
        if place == TOP or self.at(place) != "(":
            return False
        after = self.at(self.other[place] + 1)
        return after == "=>" or (after == "{" and self.at(place - 1) not in ("if", "for", "while", "switch"))

    def _is_ambiguous(self, place: int) -> bool:
        """Whether a name may be something else than a variable."""
        before, after = self.at(place - 1), self.at(place + 1)
        is_key = self._bracket(place) == "{" and before in ("{", ",") and after in (",", "}", "=")
        return (
            after == ":" or is_key or self.around[place] in self._classes or (after == "(" and self._is_head(place + 1))
        )

    def shorten(self, unit: range) -> None:
        """Replace what can be in a unit."""
        places = [place for place in unit if self._is_variable(place)]
        templates = " ".join(self.at(place) for place in unit if self.at(place).startswith("`"))
        fixed = RESERVED | self._tops | set(_NAME.findall(templates))
        fixed |= {self.at(place) for place in places if self._is_ambiguous(place)}
        declared = dict.fromkeys(self.at(place) for place in places if self._is_declared(place))
        free = _letters(fixed | {self.at(place) for place in places})
        short = {name: next(free) for name in declared if name not in fixed}
        for place in places:
            self.tokens[place] = short.get(self.at(place), self.at(place))

    def __str__(self) -> str:
        return "".join(space + token for space, token in zip(self.spaces, self.tokens, strict=True))


def _letters(taken: Iterable[str]) -> Iterator[str]:
    """a, b, ..., z, aa, ab, ..., but for what is taken."""
    for length in count(1):
        yield from (name for name in map("".join, product(ascii_lowercase, repeat=length)) if name not in taken)


@functools.lru_cache(maxsize=4)  # tests start many servers in one process
def shorten_locals(script: str) -> str:
    """The script with short names. It has been joined: `let` declares every variable."""
    code = _Script(script)
    for unit in list(code.units()):
        code.shorten(unit)
    return str(code)
