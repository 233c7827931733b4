"""A file scored in a process of its own: one that can be ended, unlike a thread."""

from __future__ import annotations

import os
import signal
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from anyio import to_thread

from segmentation.serving.batch import Tally, score_file
from segmentation.serving.model import Model

LONGEST = 120  # seconds for a file; ten later it ends itself, if no service is left that would
CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["segmentation.serving.batch"])  # once, at the first file


class Ended(Exception):
    """A file that took too long, or more memory than there is."""


async def score_apart(source: Path, target: Path, model: Model, **how: str) -> Tally:
    """`score_file`, in a process that ends with the request: at the latest after two minutes.

    Raises
    ------
    Ended
        The file took too long, or the system ended the process.
    InputError
        What `score_file` refuses.
    """
    answer, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_score, args=(theirs, source, target, model, how), daemon=True)
    try:
        await to_thread.run_sync(_start, process)
        theirs.close()
        if not await to_thread.run_sync(answer.poll, LONGEST, abandon_on_cancel=True):
            raise Ended
        told = answer.recv()
    except EOFError:
        raise Ended from None
    finally:
        if process.pid:
            process.kill()
    if isinstance(told, Exception):
        raise told
    return told


def _start(process: ForkServerProcess) -> None:
    """Start it; where it is the first, else a `csv.py` of the current folder would be imported."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        process.start()
    finally:
        if before is None:  # for whatever else this process starts
            os.environ.pop("PYTHONSAFEPATH", None)


def _score(answer: Connection, source: Path, target: Path, model: Model, how: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the service ends it, in time
        signal.signal(number, signal.SIG_IGN)
    signal.alarm(LONGEST + 10)
    try:
        told: Any = score_file(source, target, model, **how)
    except Exception as error:  # told where it is waited for
        told = error
    answer.send(told)
