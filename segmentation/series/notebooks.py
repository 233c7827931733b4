"""A notebook as a file: its code, what it promises to read and write, how it failed."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from segmentation import InputError, RunError

FAILED, TIMED_OUT, DIED = 1, 124, 138
IMPORT = re.compile(r"^from (segmentation[\w.]*) import ([\w, ]+)$", re.MULTILINE)
PROMISE = re.compile(r"^Reads (?P<reads>.+) · Writes (?P<writes>.+)$", re.MULTILINE)


class NotebookError(RunError):
    """A notebook did not reach its end: which, in which cell (its `In [n]`), and why."""

    def __init__(
        self, notebook: str, cell: int | None, cause: str, *, code: int = FAILED, details: str = ""
    ) -> None:
        where = f" in cell [{cell}]" if cell is not None else ""
        super().__init__(f"{notebook} failed{where}: {cause}")
        self.record = {"notebook": notebook, "cell": cell, "cause": cause}
        self.code = code
        self.details = details


def list_notebooks(folder: Path) -> list[Path]:
    """The numbered notebooks in order, a user's own among them."""
    listed = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not listed:
        raise InputError(f"{folder} holds no notebooks called like 01_name.ipynb; name another.")
    return listed


def read_cells(notebook: Path) -> list[dict[str, Any]]:
    """The cells of a notebook, the source of each as one text."""
    cells: list[dict[str, Any]] = json.loads(notebook.read_text("utf-8"))["cells"]
    return [cell | {"source": "".join(cell["source"])} for cell in cells]


def read_code(notebook: Path) -> str:
    """The code of a notebook but its parameters' cell."""
    return "\n\n".join(
        cell["source"]
        for cell in read_cells(notebook)
        if cell["cell_type"] == "code" and "parameters" not in cell["metadata"].get("tags", [])
    )


def hash_code(notebook: Path) -> str:
    """SHA-256 of a notebook's code, in hexadecimal."""
    return hashlib.sha256(read_code(notebook).encode()).hexdigest()


def find_names(notebook: Path) -> set[str]:
    """Every word of a notebook's code, the parameters that it uses among them."""
    return set(re.findall(r"\w+", read_code(notebook)))


def find_last_cell(executed: Path) -> int | None:
    """The `In [n]` of the last cell that was started, where the executed copy can be read."""
    try:
        cells = read_cells(executed)
    except (OSError, ValueError, KeyError):
        return None
    code = [cell["metadata"] for cell in cells if cell["cell_type"] == "code"]
    started = [told for told in code if told.get("papermill", {}).get("start_time")]
    return len(started) or None


def find_modules(notebook: Path) -> set[str]:
    """The modules of this package that a notebook's code imports by `from segmentation import`."""
    listed = IMPORT.findall(read_code(notebook))
    return {
        f"{package}.{name}"
        for package, names in listed
        for name in re.findall(r"(\w+)(?: as \w+)?", names)
    }


class Promise(NamedTuple):
    """The files that a notebook says it reads and writes, by their paths in the run."""

    reads: frozenset[str]
    writes: frozenset[str]


def read_promise(notebook: Path) -> Promise | None:
    """What a notebook's first cell says in its line *Reads … · Writes …*; None without one."""
    cells = read_cells(notebook)
    told = PROMISE.search(cells[0]["source"]) if cells else None
    if told is None:
        return None
    return Promise(*(frozenset(re.findall(r"`([^`]+)`", text)) for text in told.groups()))
