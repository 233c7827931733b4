"""Comparisons: our figures beside a peer's, as rows of one format, and how they are taken."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

MEBIBYTE = 2**10  # /proc and ru_maxrss count KiB
ANSWERS = "answers/s"
"""The one unit of which more is better."""


class Row(NamedTuple):
    """A comparison: what both took, in `unit`, and how many times better ours is.

    `bound` is what is asked of the ratio ("≥ 3") or, where there is no peer, of ours ("≤ 60 s"),
    and whether it holds; empty where nothing is asked. What was not measured is None.
    """

    name: str
    ours: float | None
    peer: float | None
    unit: str
    ratio: float | None
    bound: str
    what: str


def compare(
    name: str,
    ours: float,
    peer: float | None,
    what: str,
    *,
    unit: str = "s",
    least: float | None = None,
    most: float | None = None,
) -> Row:
    """The row of a comparison, with the least ratio or the most of ours that is asked for."""
    ratio = None if peer is None else find_ratio(ours, peer, unit)
    asked, kept = "", True
    if least is not None and ratio is not None:
        asked, kept = f"≥ {least:.3g}", ratio >= least
    elif most is not None:
        asked, kept = f"≤ {most:g} {unit}", ours <= most
    bound = f"{asked}, {'held' if kept else 'missed'}" if asked else ""
    return Row(name, ours, peer, unit, ratio, bound, what)


def find_ratio(ours: float, peer: float, unit: str) -> float | None:
    """How many times better ours is; None where that is undefined."""
    better, worse = (ours, peer) if unit == ANSWERS else (peer, ours)
    return better / worse if worse else None


def time_call(call: Callable[[], Any]) -> tuple[float, Any]:
    """The seconds that a call takes, and what it gives."""
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def alternate(ways: Sequence[Callable[[], float]], rounds: int) -> list[float]:
    """The median of what each way gives, each in turn, round after round."""
    found = [[way() for way in ways] for _ in range(rounds)]
    return [median(values) for values in zip(*found, strict=True)]


def run_apart(script: str, *words: object) -> Any:
    """Run a script in a process of its own; the JSON that it prints last."""
    command = [sys.executable, script, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        told = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise RuntimeError(f"{Path(script).stem}: {told}")
    return json.loads(done.stdout.splitlines()[-1])


def read_peak() -> float:
    """The most memory of this process so far, in MiB.

    From /proc where there is one: `ru_maxrss` starts at the parent's.
    """
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.is_file() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / MEBIBYTE
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEBIBYTE


def write_table(rows: Sequence[Row]) -> str:
    """The table as markdown."""
    lines = ["| name | ours | peer | ratio | bound | what was compared |"]
    lines.append("|---|---|---|---|---|---|")
    for row in rows:
        ours, peer = (show_figure(value, row.unit) for value in (row.ours, row.peer))
        cells = (row.name, ours, peer, show_ratio(row.ratio), row.bound, row.what)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def show_figure(value: float | None, unit: str) -> str:
    """A figure in three digits, with its unit."""
    if value is None:
        return "–"
    whole = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{whole} {unit}".rstrip()


def show_ratio(ratio: float | None) -> str:
    """A ratio in two digits, whole from ten on."""
    if ratio is None:
        return "–"
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}" if ratio < 1 else f"{ratio:.1f}"
