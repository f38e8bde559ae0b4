"""The signals of a server.

    SIGTERM, SIGINT   stop; the second one hurries, the third one cuts off what is left
    SIGHUP            restart the workers one by one; from a terminal that is closed, stop
    SIGUSR2           restart the workers one by one

Those that a terminal sends stay ignored where they were at the start: `nohup` is to work.
"""

from __future__ import annotations

import asyncio
import os
import signal

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


class Signals:
    """Signals turns signals into events."""

    def __init__(self, *, in_terminal: bool) -> None:
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()
        self.cut = asyncio.Event()
        self.restart = asyncio.Event()
        self.from_terminal = False  # the stop: no balancer has to notice it
        self._in_terminal = in_terminal

    @classmethod
    def install(cls) -> Signals:
        """Handle the signals of this process."""
        signals = cls(in_terminal=has_terminal())
        loop = asyncio.get_running_loop()
        for number in NUMBERS:
            if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, signals.take, number)
        return signals

    @staticmethod
    def ignore() -> None:
        """Ignore them, now that the server has stopped: one more would end the process with itself as the status."""
        loop = asyncio.get_running_loop()
        for number in NUMBERS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)

    def take(self, number: int) -> None:
        """Do what a signal says."""
        is_of_terminal = self._in_terminal and number in (signal.SIGINT, signal.SIGHUP)
        if number == signal.SIGUSR2 or (number == signal.SIGHUP and not is_of_terminal):
            self.restart.set()
        elif not self.stop.is_set():
            self.from_terminal = is_of_terminal
            self.stop.set()
        elif not self.hurry.is_set():
            self.hurry.set()
        else:
            self.cut.set()


def has_terminal() -> bool:
    """Whether a terminal controls this process."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
