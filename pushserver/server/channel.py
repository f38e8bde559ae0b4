"""A channel connects a worker to its supervisor: a pair of sockets, over which each sends words of one byte.

    worker                                supervisor
      | --- READY ----------------------->  |   it has started; once in its life
      | <-- LISTEN, with the listener ----  |
      | --- ALIVE, once a second -------->  |
      | --- LEAVING --------------------->  |   it drains by itself (SIGTERM, a bug): replace it
      | <-- REPLACED, STOP, STOP_NOW, ----  |
      |     HURRY                           |

The channel ends for the worker when its supervisor is gone: no other process has the supervisor's end.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from enum import Enum

WORDS = 64  # that are read at a time


class Word(Enum):
    """The words of a channel."""

    READY = b"r"
    ALIVE = b"."
    LEAVING = b"d"
    LISTEN = b"l"
    REPLACED = b"p"  # another worker has the place: accept no more, and leave
    STOP = b"s"  # the server stops
    STOP_NOW = b"n"  # the server stops, and no balancer has to notice it
    HURRY = b"h"


class Channel:
    """Channel is one end. `hear` is called with each word, and with None once the other end is gone.

    A listener that came is in `listener`.
    """

    def __init__(self, end: socket.socket, hear: Callable[[Word | None], object]) -> None:
        end.setblocking(False)
        self.listener: socket.socket | None = None
        self._end = end
        self._hear = hear
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(end, self._read)

    def say(self, word: Word, listener: socket.socket | None = None) -> None:
        """Send a word. It is lost where the other end is gone or hangs, which both notice otherwise."""
        with suppress(OSError):
            if listener is None:
                self._end.send(word.value)
            else:
                socket.send_fds(self._end, [word.value], [listener.fileno()])

    def close(self) -> None:
        """End it; a second call changes nothing."""
        if self._end.fileno() >= 0:
            self._loop.remove_reader(self._end)
            self._end.close()

    def _read(self) -> None:
        try:
            words, descriptors, _, _ = socket.recv_fds(self._end, WORDS, 1)
        except BlockingIOError:
            return
        except OSError:
            words, descriptors = b"", []
        for descriptor in descriptors:
            self.listener = socket.socket(fileno=descriptor)
        if not words:
            self._loop.remove_reader(self._end)
            self._hear(None)
        for byte in words:
            self._hear(Word(bytes([byte])))
