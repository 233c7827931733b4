"""The house rules of the notebooks, and that every way of running them gives the same figures."""

import os
import re
import shutil
import subprocess
import sys

import nbformat
import papermill
import pytest
from conftest import NOTEBOOKS, ROOT
from nbclient import NotebookClient
from played import play_notebook

from segmentation import InputError
from segmentation.runs import folder as runs
from segmentation.series import pipeline

FORBIDDEN = {
    r"^\s*[%!]": "a magic",
    r"\bprint\(": "print",
    r"\b(def|class|try|lambda)\b": "a definition or a try",
    r"\b(for|while)\b.*\bk\b": "a loop over K",
    r"warnings\.|rcParams|sys\.|os\.|\bexit\(|\bquit\(": "state of the interpreter",
    r"escape=False|unsafehtml|render_links|HTML\(|Markdown\(|\.style\b": "unsafe HTML",
}


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_series_has_its_six_questions():
    assert [path.stem for path in NOTEBOOKS] == [
        "01_eda",
        "02_preprocessing",
        "03_k_selection",
        "04_modeling",
        "05_profiling",
        "06_changes",
    ]


def test_first_cell_asks_answers_and_names_its_files(notebook):
    lines = [line for line in notebook.cells[0].source.splitlines() if line]
    assert re.fullmatch(r"# \d · .+\?", lines[0])
    assert lines[1] == "<!-- answer -->"
    assert re.match(r"Reads .+ · Writes .+", lines[-1])
    assert not re.search(r"\d", "".join(lines[1:-1]))


def test_parameters_come_first_and_are_those_of_the_command(notebook):
    first = code_cells(notebook)[0]
    assert first.metadata.tags == ["parameters"]
    assert len(first.source.splitlines()) <= 10
    for line in first.source.splitlines():
        assert re.fullmatch(r'\w+: (str|int) = ("[^"#]*"|\d+)  # [^=|]+', line), line
    values = {}
    exec(first.source, values)
    given = {name: value for name, value in values.items() if not name.startswith("__")}
    assert given.pop("run_dir") == "outputs/by-hand"
    assert given == pipeline.Parameters().model_dump()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_papermill_sees_every_parameter_with_its_help(path):
    seen = papermill.inspect_notebook(str(path))
    assert set(seen) == {*pipeline.Parameters.model_fields, "run_dir"}
    assert all(parameter["help"] for parameter in seen.values())


def test_imports_are_one_cell_of_namespaces(notebook):
    second = code_cells(notebook)[1].source.splitlines()
    assert all(line.startswith("from segmentation import ") for line in second)
    rest = "\n".join(cell.source for cell in code_cells(notebook)[2:])
    assert not re.search(r"^\s*(import|from)\b", rest, re.M)


def test_cells_are_short_and_plain(notebook):
    for cell in code_cells(notebook):
        lines = cell.source.splitlines()
        assert len(lines) <= 12, cell.source
        assert sum("plots." in line and "figure = " in line for line in lines) <= 1
        for pattern, what in FORBIDDEN.items():
            assert not re.search(pattern, cell.source, re.M), f"{what}: {cell.source}"
    sizes = sorted(len(cell.source.splitlines()) for cell in code_cells(notebook)[2:])
    assert sizes[len(sizes) // 2] <= 4


def test_prose_never_calls_a_segment_by_number(notebook):
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert not re.search(r"\b([Cc]luster|[Ss]egment) \d", prose)
    assert "z-score" not in prose or prose.startswith("# 2 ·")


def test_last_section_hands_over_in_one_cell(notebook):
    headings = [i for i, c in enumerate(notebook.cells) if c.source.startswith("## ")]
    assert notebook.cells[headings[-1]].source.startswith("## Hand over")
    assert [cell.cell_type for cell in notebook.cells[headings[-1] + 1 :]] == ["code"]
    assert "run.finish(" in notebook.cells[-1].source


def test_committed_clean(notebook):
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        assert isinstance(cell.metadata.get("tags"), list)
    for cell in code_cells(notebook):
        assert cell.outputs == []
        assert cell.execution_count is None


def run_by_hand(root):
    """The notebooks as JupyterLab runs them, in their own folder."""
    shutil.copytree(ROOT / "data", root / "data")
    environment = os.environ | {"SEGMENTATION_ROOT": str(root)}
    for path in NOTEBOOKS:
        nb = nbformat.read(path, as_version=4)
        NotebookClient(nb, resources={"metadata": {"path": str(path.parent)}}).execute(
            env=environment
        )
    return root / "outputs" / "by-hand"


def run_by_papermill(folder):
    """The notebooks as the papermill command runs them, from another folder."""
    parameters = ["-p", "run_dir", str(folder), "-p", "resamples", "20"]
    for path in NOTEBOOKS:
        command = [sys.executable, "-m", "papermill", str(path), "-", *parameters]
        subprocess.run(command, cwd=folder, capture_output=True, check=True)
    return folder


@pytest.mark.parametrize(
    ("run", "same"),
    [
        (run_by_hand, "published"),
        pytest.param(run_by_papermill, "quick", marks=pytest.mark.long),
    ],
)
def test_every_way_gives_the_command_s_figures(run, same, tmp_path, request):
    theirs, ours = run(tmp_path), request.getfixturevalue(same)
    paths = [*ours.glob("tables/*"), *ours.glob("figures/*"), ours / "segments.json"]
    for path in [*paths, ours / "summary.txt"]:
        assert path.read_bytes() == (theirs / path.relative_to(ours)).read_bytes(), path


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("03_k_selection", "02_preprocessing"),
        ("04_modeling", "03_k_selection"),
        ("05_profiling", "04_modeling"),
        ("06_changes", "04_modeling"),
    ],
)
def test_missing_input_names_the_notebook_to_run_first(name, first, tmp_path):
    path, run = ROOT / "notebooks" / f"{name}.ipynb", runs.Run(tmp_path)
    with pytest.raises(InputError, match=rf"run {first} first\.$"):
        play_notebook(path, run, pipeline.Parameters())
