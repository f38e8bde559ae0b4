"""A channel connects a worker to its supervisor: a pair of sockets, over which each sends words of one byte.

    worker                                supervisor
      | --- READY ----------------------->  |   it has started; once in its life
      | <-- LISTEN, with the listener ----  |
      | <-- ADOPT, with the listener -----  |   of a worker that has died: accept what waits there
      | --- ALIVE, once a second -------->  |
      | --- a summary, once a second ---->  |   what it has counted (`metrics.summary`)
      | --- LEAVING --------------------->  |   it drains by itself (SIGTERM, a bug): replace it
      | <-- REPLACED, STOP, STOP_NOW, ----  |
      |     HURRY                           |
      | --- LEFT ------------------------>  |   its readers have left; it goes on accepting
      | <-- CLOSE ------------------------  |   those of all workers have; new connections are refused from now on

The sockets keep the bounds of what is sent (SOCK_SEQPACKET): each word, and each summary, comes whole or not at all.
The channel ends for the worker when its supervisor is gone: no other process has the supervisor's end.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from enum import Enum

PACKET = 65_536  # bytes that are read at a time; a longer summary is not sent
SUMMARY = b"m"  # the first byte of a packet that is a summary


class Word(Enum):
    """The words of a channel."""

    READY = b"r"
    ALIVE = b"."
    LEAVING = b"d"
    LISTEN = b"l"
    ADOPT = b"a"
    REPLACED = b"p"  # another worker has the place: accept no more, and leave
    STOP = b"s"  # the server stops
    STOP_NOW = b"n"  # the server stops, and no balancer has to notice it
    HURRY = b"h"
    LEFT = b"e"  # its readers have left; it goes on accepting
    CLOSE = b"c"  # new connections are refused: accept what waits, and close the listener


WORDS = {word.value: word for word in Word}


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a new channel."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Channel:
    """Channel is one end. `hear` is called with each word, and with None once the other end is gone.

    `read` is called with each summary. A listener that came is in `listener`.
    """

    def __init__(
        self,
        end: socket.socket,
        hear: Callable[[Word | None], object],
        read: Callable[[bytes], object] = lambda summary: None,
    ) -> None:
        end.setblocking(False)
        self.listener: socket.socket | None = None
        self._end = end
        self._is_over = False  # the other end is gone
        self._hear = hear
        self._read_summary = read
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(end, self._read)

    def say(self, word: Word, listener: socket.socket | None = None) -> None:
        """Send a word. It is lost where the other end is gone or hangs, which both notice otherwise."""
        with suppress(OSError):
            if listener is None:
                self._end.send(word.value)
            else:
                socket.send_fds(self._end, [word.value], [listener.fileno()])

    def report(self, summary: bytes) -> None:
        """Send a summary; it is lost as a word is. A supervisor of an earlier version would take it for words."""
        if self._end.type == socket.SOCK_SEQPACKET and len(summary) < PACKET:
            with suppress(OSError):
                self._end.send(SUMMARY + summary)

    def read_rest(self) -> None:
        """Read what has come: the last summary of a worker that has ended."""
        while self._end.fileno() >= 0 and not self._is_over:
            if not self._read():
                break

    def close(self) -> None:
        """End it; a second call changes nothing."""
        if self._end.fileno() >= 0:
            self._loop.remove_reader(self._end)
            self._end.close()

    def _read(self) -> bool:
        """Read a packet, if one has come; whether one had."""
        try:
            packet, descriptors, _, _ = socket.recv_fds(self._end, PACKET, 1)
        except BlockingIOError:
            return False
        except OSError:
            packet, descriptors = b"", []
        for descriptor in descriptors:
            self.listener = socket.socket(fileno=descriptor)
        if not packet:
            self._is_over = True
            self._loop.remove_reader(self._end)
            self._hear(None)
        elif packet.startswith(SUMMARY):
            self._read_summary(packet[1:])
        else:
            for byte in packet:
                word = WORDS.get(bytes([byte]))
                if word is not None:  # else it is one of a later version, which the worker may be of
                    self._hear(word)
        return True
