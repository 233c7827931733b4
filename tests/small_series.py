"""A series that takes a second: notebooks that copy the files of a recorded run, or go wrong."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat

from segmentation.__main__ import main

ROOT = Path(__file__).resolve().parents[1]
COPY = """
import os, shutil
from pathlib import Path

(Path(run_dir) / "pid").write_text(str(os.getpid()))
for name in ("tables", "figures", "artifacts"):
    shutil.copytree(Path({folder!r}) / name, Path(run_dir) / name, dirs_exist_ok=True)
for name in ("segments.json", "summary.txt"):
    shutil.copy(Path({folder!r}) / name, run_dir)
"""
FINISH = """
from pathlib import Path

from segmentation.runs import Run

Run(Path(run_dir)).save_json({"answer": "Done.", "warnings": []}, "proof.json")
"""
SMALL = ("--quiet", "--resamples", "20")


def write_notebook(path, *sources, declares=""):
    """A notebook with a parameters' cell and these code cells."""
    cells = [
        nbformat.v4.new_markdown_cell("# 1 · Does it hold?"),
        nbformat.v4.new_code_cell(
            f"run_dir: str = ''\n{declares}", metadata={"tags": ["parameters"]}
        ),
        *map(nbformat.v4.new_code_cell, sources),
    ]
    nb = nbformat.v4.new_notebook(cells=cells)
    nb.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path.parent.mkdir(exist_ok=True)
    nbformat.write(nb, path)


def write_series(folder, recorded, *sources, name="01_copy"):
    """One notebook that copies a recorded run, then does what `sources` say, then finishes."""
    copy = COPY.format(folder=str(recorded))
    write_notebook(folder / f"{name}.ipynb", copy, *sources, FINISH)
    return folder


def run_small(output_dir, notebooks, *options):
    """Run a small series in this process; its exit code."""
    given = ("--output-dir", output_dir, "--notebooks", notebooks, *SMALL, *options)
    return main(["run", *map(str, given)])


def start_small(output_dir, notebooks, *options, before="exec"):
    """Start a small series as a process of its own."""
    given = ("--output-dir", output_dir, "--notebooks", notebooks, *SMALL, *options)
    command = ["bash", "-c", f'{before} "$@"', "bash", sys.executable, ROOT / "run_all.py", *given]
    environment = os.environ | {"SEGMENTATION_ROOT": str(ROOT)}
    return subprocess.Popen(
        list(map(str, command)), env=environment, stderr=subprocess.PIPE, text=True
    )


def hash_tree(folder):
    """One hash of every file of a folder, by name and content."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    told = [(str(p.relative_to(folder)), hashlib.sha256(p.read_bytes()).hexdigest()) for p in files]
    return hashlib.sha256(repr(told).encode()).hexdigest()


def wait_for(condition, *, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
