"""A notebook as a file: its code, the parameters that it declares, what it imports."""

from __future__ import annotations

import ast
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from segmentation import ROOT, InputError, RunError

TIMED_OUT, DIED = 124, 138
RUN, TAKE, LEAVE = "run", "take over", "leave out"
NOTEBOOKS = ROOT / "notebooks"


class SeriesFailed(RunError):
    """The series stopped: why, in which cell (its `In [n]`) of the notebook at work, exit code."""

    def __init__(
        self, cause: str, *, cell: int | None = None, code: int = 1, details: str = ""
    ) -> None:
        super().__init__(cause)
        self.cell, self.code, self.details = cell, code, details


@dataclass(frozen=True, eq=False)
class Notebook:
    """A notebook as it was when the run was planned; what happens to the file later is nothing."""

    path: Path
    text: str

    @property
    def name(self) -> str:
        return self.path.stem

    @cached_property
    def cells(self) -> list[tuple[str, bool]]:
        """The code of each code cell, and whether it is the parameters' cell."""
        return [
            ("".join(cell["source"]), "parameters" in cell["metadata"].get("tags", []))
            for cell in json.loads(self.text)["cells"]
            if cell["cell_type"] == "code"
        ]

    @property
    def code_sha256(self) -> str:
        """SHA-256 of the code but the parameters' cell."""
        code = "\n\n".join(source for source, declares in self.cells if not declares)
        return hashlib.sha256(code.encode()).hexdigest()

    @property
    def parameters(self) -> set[str]:
        """The names that the parameters' cell gives a value."""
        nodes = _list_nodes([source for source, declares in self.cells if declares])
        return {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}

    @property
    def imports(self) -> list[str]:
        """What does the notebook's imports ahead, a statement each, without leaving a name."""
        nodes = _list_nodes([source for source, _ in self.cells])
        found = [ast.unparse(n) for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)]
        return [f"exec({line!r}, {{}})" for line in found]


def _list_nodes(cells: list[str]) -> list[ast.AST]:
    """The syntax of some cells, but of those with more than Python in them (a magic, say)."""
    nodes: list[ast.AST] = []
    for source in cells:
        try:
            nodes += ast.walk(ast.parse(source))
        except SyntaxError:
            continue
    return nodes


def read_notebooks(folder: Path = NOTEBOOKS) -> list[Notebook]:
    """The numbered notebooks in order, a user's own among them; an InputError if there are none."""
    listed = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not listed:
        raise InputError(f"{folder} holds no notebooks called like 01_name.ipynb; name another.")
    return [Notebook(path, path.read_text("utf-8")) for path in listed]


def choose_steps(listed: list[Notebook], *, start: str = "", only: str = "") -> dict[Notebook, str]:
    """What happens to each notebook: all are run, those from `start` on, or `only` some.

    Notebooks before the last one that runs are taken over, those after it left out.
    """
    if start and only:
        raise InputError("--from and --only exclude each other; give one.")
    words = [word.strip() for word in only.split(",") if word.strip()]
    chosen = [_find(word, listed, "--only") for word in words] or listed
    if start:
        chosen = listed[listed.index(_find(start, listed, "--from")) :]
    last = max(map(listed.index, chosen))
    return {
        notebook: RUN if notebook in chosen else TAKE if place < last else LEAVE
        for place, notebook in enumerate(listed)
    }


def _find(word: str, listed: list[Notebook], option: str) -> Notebook:
    """The notebook with this number or name."""
    from segmentation.customers import cards

    for notebook in listed:
        if word in (notebook.name, notebook.name[:2]):
            return notebook
    mend = cards.suggest(word, [notebook.name for notebook in listed])
    raise InputError(f"{option}: {word} is no notebook; {mend}")


def find_last_cell(executed: Path) -> int | None:
    """The `In [n]` of the last cell that was started, where the executed copy can be read."""
    try:
        cells = json.loads(executed.read_text("utf-8"))["cells"]
        code = [each for each in cells if each["cell_type"] == "code" and each["source"]]
        return sum(bool(each["metadata"]["papermill"]["start_time"]) for each in code) or None
    except (OSError, ValueError, KeyError):
        return None
