"""A notebook as a file: its code, the parameters that it declares, what it imports."""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from segmentation import BUNDLE, InputError, RunError

TIMED_OUT, DIED = 124, 138
RUN, TAKE, LEAVE = "run", "take over", "leave out"
NOTEBOOKS = BUNDLE / "notebooks"


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
    cells: list[tuple[str, bool]]  # the code of each code cell, and whether it is the parameters'
    parameters: set[str]  # the names that the parameters' cell gives a value
    imports: list[str]  # does the notebook's imports ahead, a statement each, leaving no name
    code_sha256: str  # of the code but the parameters' cell

    @property
    def name(self) -> str:
        return self.path.stem


def read_notebook(path: Path) -> Notebook:
    """A notebook as it is now; cells with more than Python in them (a magic, say) tell nothing."""
    text = path.read_text("utf-8")
    cells, parameters, imports = [], set[str](), []
    for cell in [each for each in json.loads(text)["cells"] if each["cell_type"] == "code"]:
        source, declares = "".join(cell["source"]), "parameters" in cell["metadata"].get("tags", [])
        cells.append((source, declares))
        try:
            nodes = [*ast.walk(ast.parse(source))]
        except SyntaxError:
            continue
        found = [ast.unparse(n) for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)]
        imports += [f"exec({line!r}, {{}})" for line in found]
        names = [n for n in nodes if declares and isinstance(n, ast.Name)]
        parameters |= {name.id for name in names if isinstance(name.ctx, ast.Store)}
    code = "\n\n".join(source for source, declares in cells if not declares)
    digest = hashlib.sha256(code.encode()).hexdigest()
    return Notebook(path, text, cells, parameters, imports, digest)


def read_notebooks(folder: Path = NOTEBOOKS) -> list[Notebook]:
    """The numbered notebooks in order, a user's own among them; an InputError if there are none."""
    listed = [read_notebook(path) for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))]
    if not listed:
        raise InputError(f"{folder} holds no notebooks called like 01_name.ipynb; name another.")
    return listed


def copy_notebooks(folder: Path) -> None:
    """Copy the series into a folder, made if need be; an InputError where one of them is there."""
    copies = {each.path: folder / each.path.name for each in read_notebooks()}
    there = next((copy for copy in copies.values() if copy.exists()), None)
    if there or not (folder.is_dir() or not folder.exists()):
        raise InputError(f"{there or folder} is there already; name another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    for path, copy in copies.items():
        shutil.copyfile(path, copy)


def choose_steps(listed: list[Notebook], *, start: str = "", only: str = "") -> dict[Notebook, str]:
    """What happens to each notebook: all are run, those from `start` on, or `only` some.

    Notebooks before the last one that runs are taken over, those after it left out.
    """
    from segmentation.customers import cards

    if start and only:
        raise InputError("--from and --only exclude each other; give one.")
    places = {each.name: place for place, each in enumerate(listed)}
    places |= {each.name[:2]: place for place, each in [*enumerate(listed)][::-1]}
    words = [start] if start else [word.strip() for word in only.split(",") if word.strip()]
    for word in words:
        if word not in places:
            mend = cards.suggest(word, [notebook.name for notebook in listed])
            option = "--from" if start else "--only"
            raise InputError(f"{option}: {word} is no notebook; {mend}")
    chosen = {places[word] for word in words} or {*range(len(listed))}
    if start:
        chosen = {*range(min(chosen), len(listed))}
    return {
        notebook: RUN if place in chosen else TAKE if place < max(chosen) else LEAVE
        for place, notebook in enumerate(listed)
    }


def find_last_cell(executed: Path) -> int | None:
    """The `In [n]` of the last cell that was started, where the executed copy can be read."""
    try:
        cells = json.loads(executed.read_text("utf-8"))["cells"]
        code = [each for each in cells if each["cell_type"] == "code" and each["source"]]
        return sum(bool(each["metadata"]["papermill"]["start_time"]) for each in code) or None
    except (OSError, ValueError, KeyError):
        return None
