"""The lines of the log: texts from outside are escaped and cut, and secrets in addresses are hidden, in one place.

Whoever can put a text into a log line, by a path, a header or an answer of the store, must not be able to begin another
line, to write to a terminal, or to fill a disk.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import secrets
import sys
import time
import unicodedata
from contextvars import ContextVar
from typing import Any
from urllib.parse import unquote

TEXT_LIMIT = 200  # characters of one text from outside
LINE_LIMIT = 8_000  # characters of a message, whatever it consists of
FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
HIDDEN = "***"
ACCESS = "pushserver.access"  # the logger of requests
_SENT_ID = re.compile(rb"[\x21-\x7e]{1,128}")  # a request's id that its client or a proxy sent
_PROCESS_ID = secrets.token_hex(5)  # with which the ids begin that this process makes
_numbers = itertools.count(1)
# Controls, marks of direction and other format characters, surrogates, separators of lines and paragraphs.
INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp")

_STORE = re.compile(r"(?:(?:rediss?|valkeys?)(?:\+\w+)?|unix)://|", re.IGNORECASE)  # '' is an address without a scheme
_ADDRESS = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]{0,30}://\S+")
_SECRET_NAMES = re.compile("pass|secret|token|key|auth|credential", re.IGNORECASE)


class RequestMark:
    """A RequestMark names the request that a line of the log is about: its id, and the client's address."""

    __slots__ = ("client", "id")

    def __init__(self, sent: bytes = b"", client: str = "") -> None:
        if sent and _SENT_ID.fullmatch(sent):
            self.id = sent.decode()
        else:
            self.id = f"{_PROCESS_ID}-{next(_numbers):x}"
        self.client = client

    def line(self) -> bytes:
        """The header field of the answer that has the id."""
        return b"x-request-id: %b\r\n" % self.id.encode()


REQUEST: ContextVar[RequestMark | None] = ContextVar("request", default=None)


class Own(str):
    """Own is a text that the program made itself, such as its settings: a log line has it whole."""

    __slots__ = ()


def escape(text: str) -> str:
    """The text with every character that does not show as itself in its escaped form, such as `\\n` or `\\u202e`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in INVISIBLE:
        return character
    return character.encode("unicode_escape").decode()


def cut(text: str, limit: int = TEXT_LIMIT) -> str:
    """The first `limit` characters of a text, and how many it has if there are more."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"


def hide_secrets(address: str) -> str:
    """An address with *** for its password, wherever it stands: before the host, whatever is in it, or as an option."""
    scheme, mark, rest = address.partition("://") if "://" in address else ("", "", address)
    # A password may have every character, also those at which parsers cut. In an address of the store, which has no @
    # elsewhere, it ends at the last one; in others at the last one before the path.
    end = "(?s)(.*)@" if _STORE.fullmatch(scheme + mark) else "([^/?#]*)@"
    match = None if rest.startswith("/") else re.match(end, rest)
    if match:
        user, colon, _ = match[1].partition(":")
        rest = f"{user if colon else ''}{colon}{HIDDEN}{rest[match.end() - 1 :]}"
    path, question, query = rest.partition("?")
    return f"{scheme}{mark}{path}{question}{'&'.join(_pair(pair) for pair in query.split('&'))}"


def _pair(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    return f"{name}={HIDDEN}" if equals and _SECRET_NAMES.search(unquote(name)) else pair


def lines(text: str) -> str:
    """A text of several lines, each as `one_line` makes it, for people at a terminal."""
    return "\n".join(one_line(part) for part in text.split("\n"))


def one_line(text: str, limit: int = LINE_LIMIT) -> str:
    """A text as one line: secrets of addresses hidden, then cut, and what does not show as itself escaped."""
    return escape(cut(_ADDRESS.sub(lambda match: hide_secrets(match[0]), text), limit))


class _Outside:
    """_Outside is an argument of a message, made safe and cut where it becomes text."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __str__(self) -> str:
        return one_line(str(self._value), TEXT_LIMIT)

    def __repr__(self) -> str:
        return one_line(repr(self._value), TEXT_LIMIT)


class Formatter(logging.Formatter):
    """Formatter makes one line of a message, also of those of libraries: escaped, cut, and without secrets.

    A line ends with the process, if that has a `role`, and with the request that it is about, if there is one.
    """

    def __init__(self, role: str = "") -> None:
        super().__init__(FORMAT)
        self._role = role

    def formatMessage(self, record: logging.LogRecord) -> str:
        mark = REQUEST.get()
        marks = [f"{self._role} {os.getpid()}"] if self._role else []
        if mark is not None:
            marks += [f"request {mark.id}", *([f"from {one_line(mark.client, TEXT_LIMIT)}"] if mark.client else [])]
        return super().formatMessage(record) + (f" [{', '.join(marks)}]" if marks else "")

    def format(self, record: logging.LogRecord) -> str:
        safe = logging.makeLogRecord(record.__dict__)
        if isinstance(record.args, tuple):
            safe.args = tuple(_argument(value) for value in record.args)
        safe.msg, safe.args = one_line(safe.getMessage()), ()
        # The text of an exception may be somebody else's: its lines stay, since the traceback consists of lines.
        safe.exc_text = None  # in which another handler may have left it raw
        return super().format(safe)

    def formatException(self, ei: Any) -> str:
        return lines(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:
        return lines(stack_info)


class JsonFormatter(Formatter):
    """JsonFormatter makes a line of JSON of a message, which is escaped, cut and without secrets as in any line."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return record.message

    def format(self, record: logging.LogRecord) -> str:
        message, _, error = super().format(record).partition("\n")
        mark = REQUEST.get()
        fields = {
            "at": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
            "process": self._role,
            "pid": os.getpid(),
            "request": mark.id if mark else "",
            "client": one_line(mark.client, TEXT_LIMIT) if mark else "",
            "error": error,
        }
        shown = {name: value for name, value in fields.items() if value != "" or name == "message"}
        return json.dumps(shown, ensure_ascii=False)


def formatter(form: str, role: str) -> Formatter:
    """The formatter of a form: `human`, `json`, or `auto`, which is human on a terminal alone."""
    is_human = form == "human" or (form == "auto" and sys.stderr.isatty())
    return Formatter(role) if is_human else JsonFormatter(role)


def _argument(value: object) -> object:
    return value if isinstance(value, int | float | Own | None) else _Outside(value)
