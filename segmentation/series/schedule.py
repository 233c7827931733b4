"""Work that waits for other work: what is ready is taken, a few pieces at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Protocol, TypeVar

Piece = TypeVar("Piece")
Result = TypeVar("Result")

LISTEN = 0.5
"""Seconds that a wait lasts at most. Of two signals at once the system may hand both to a thread of
the pool; Python then handles them in the main thread, but only once that wakes by itself."""


class Watcher(Protocol):
    """Whoever is told what begins and ends, in the thread that asked for the work."""

    def begin(self, piece: Any, others: Collection[Any]) -> None:
        """A piece is about to be taken, beside these others."""

    def end(self, piece: Any, result: Any) -> None:
        """A piece has been taken."""

    def fail(self, piece: Any, others: Collection[Any]) -> None:
        """A piece has failed, which stops these others."""


def take_all(
    needs: Mapping[Piece, set[Piece]],
    take: Callable[[Piece], Result],
    watcher: Watcher,
    *,
    pool: ThreadPoolExecutor,
    at_once: int,
) -> None:
    """Take each piece once those that it needs are taken, the first that is ready first.

    Needs come before what needs them. What a piece raises is raised at once; whoever keeps the
    pool ends the others.
    """
    waiting, taken, at_work = list(needs), set[Piece](), dict[Future[Result], Piece]()
    while waiting or at_work:
        ready = [piece for piece in waiting if needs[piece] <= taken]
        for piece in ready[: at_once - len(at_work)]:
            waiting.remove(piece)
            watcher.begin(piece, at_work.values())
            at_work[pool.submit(take, piece)] = piece
        ended = wait(at_work, timeout=LISTEN, return_when=FIRST_COMPLETED).done
        for future in [each for each in at_work if each in ended]:
            taken.add(piece := at_work.pop(future))
            if future.exception():
                watcher.fail(piece, at_work.values())
            watcher.end(piece, future.result())
