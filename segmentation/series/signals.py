"""What stops a run from outside: an interrupt, a termination, a hang-up, the deadline."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

STOPS = {  # exit code and cause
    signal.SIGINT: (130, "it was interrupted"),
    signal.SIGTERM: (143, "it was terminated"),
    signal.SIGHUP: (129, "its terminal hung up"),
    signal.SIGALRM: (124, "its deadline passed"),
}


class Stopped(KeyboardInterrupt):
    """A run is stopped from outside: the exit code, and why."""

    def __init__(self, number: int) -> None:
        self.code, cause = STOPS[signal.Signals(number)]
        super().__init__(cause)


def _stop(number: int, _frame: Any) -> NoReturn:
    """Stop once: nothing is to stop the clean-up half-way."""
    for each in STOPS:
        signal.signal(each, ignore)
    raise Stopped(number)


def ignore(_number: int, _frame: Any) -> None:
    """Do nothing; unlike SIG_IGN it is not handed on to a child, and may come in a race."""


@contextmanager
def listen(handler: Any = _stop) -> Iterator[None]:
    """Let each signal that stops raise `Stopped`, once; what is ignored (nohup) stays ignored."""
    main = threading.current_thread() is threading.main_thread()  # the only one that may
    heard = [each for each in STOPS if main and signal.getsignal(each) is not signal.SIG_IGN]
    before = {each: signal.signal(each, handler) for each in heard}
    try:
        yield
    finally:
        for each, old in before.items():
            signal.signal(each, old)


@contextmanager
def limit(seconds: float | None) -> Iterator[None]:
    """Raise `Stopped` when the block takes longer."""
    signal.setitimer(signal.ITIMER_REAL, seconds or 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
