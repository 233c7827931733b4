"""What the series costs beside its cells: the command beside papermill and nbconvert by hand.

    python benchmarks/series.py

Ours is one `run_all.py`; the peer is `papermill` and `jupyter nbconvert --to html`, one notebook
after the other, on the same notebooks. Both in turn in several rounds. The overhead is the wall
time less the time in which a cell was running, as papermill records it. (Ours also writes the
report, the explorer and the manifest, and reads the run back; all of that is overhead here.)
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import nbformat
import papermill
from comparisons import Row, compare, write_table

from segmentation import ROOT
from segmentation.series.notebooks import NOTEBOOKS, read_notebooks

BOUND = 2.5
OPTIONS = {"resamples": 20, "against": "none"}


def run_ours(folder: Path) -> list[Path]:
    """Run the series; its executed notebooks."""
    options = [word for name, value in OPTIONS.items() for word in (f"--{name}", str(value))]
    call(ROOT / "run_all.py", "--output-dir", folder, "--run-id", "ours", "--quiet", *options)
    return sorted((folder / "ours/notebooks").glob("*.ipynb"))


def run_peer(folder: Path) -> list[Path]:
    """Run each notebook and write its page by the two commands; the executed notebooks."""
    values = OPTIONS | {"run_dir": folder / "run"}
    for notebook in read_notebooks(NOTEBOOKS):
        target = folder / notebook.path.name
        given = {name: value for name, value in values.items() if name in notebook.parameters}
        parameters = [word for name, value in given.items() for word in ("-p", name, str(value))]
        call("-m", "papermill", "--no-progress-bar", notebook.path, target, *parameters)
        call("-m", "nbconvert", "--to", "html", target)
    return sorted(folder.glob("*.ipynb"))


def call(*words: object) -> None:
    command = [sys.executable, *map(str, words)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def time_run(run: Callable[[Path], list[Path]]) -> tuple[float, float]:
    """Wall time and overhead of a run, in seconds."""
    with TemporaryDirectory() as name:
        started = time.perf_counter()
        executed = run(Path(name))
        wall = time.perf_counter() - started
        return wall, wall - merge([cell for path in executed for cell in list_cells(path)])


def list_cells(executed: Path) -> list[tuple[float, float]]:
    """When each code cell began and ended."""
    cells = nbformat.read(executed, as_version=4).cells
    told = [cell.metadata.papermill for cell in cells if cell.cell_type == "code"]
    return [(read_time(each.start_time), read_time(each.end_time)) for each in told]


def read_time(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def merge(intervals: list[tuple[float, float]]) -> float:
    """The length of what intervals cover together."""
    covered, until = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        covered += max(0.0, end - max(begin, until))
        until = max(until, end)
    return covered


def measure(*, rounds: int = 3) -> list[Row]:
    """The wall time and the overhead of both, in seconds: medians of rounds in turn."""
    ours, peer = zip(
        *[(time_run(run_ours), time_run(run_peer)) for _ in range(rounds)], strict=True
    )
    (wall, over), (peer_wall, peer_over) = (
        map(median, zip(*each, strict=True)) for each in (ours, peer)
    )
    count = len(read_notebooks(NOTEBOOKS))
    what = f"{count} notebooks and their pages; papermill {papermill.__version__} and nbconvert"
    return [
        compare("series, overhead", over, peer_over, what, least=BOUND),
        compare("series, wall time", wall, peer_wall, what),
    ]


def main() -> None:
    """Run both in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often each runs, in turn")
    print(write_table(measure(rounds=parser.parse_args().rounds)))


if __name__ == "__main__":
    main()
