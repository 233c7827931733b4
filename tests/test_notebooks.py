"""The house rules of the notebooks, and that every way of running them gives the same figures."""

import ast
import os
import re
import shutil
import subprocess
import sys

import nbformat
import papermill
import pytest
from conftest import NOTEBOOKS, ROOT
from hostile import PARAMETERS
from nbclient import NotebookClient
from played import play_notebook

from segmentation import InputError
from segmentation.runs import Run
from segmentation.series import Parameters, notebooks

FORBIDDEN = {
    r"^\s*[%!]": "a magic",
    r"\bprint\(": "print",
    r"^\s*(def|class|try)\b": "a definition or a try",
    r"warnings\.|rcParams|sys\.|os\.|\bexit\(|\bquit\(": "state of the interpreter",
    r"escape=False|unsafehtml|render_links|HTML\(|Markdown\(|\.style\b": "unsafe HTML",
}
LIBRARIES = {"pandas", "numpy", "seaborn", "matplotlib", "scipy", "sklearn", "kneed"}
MODULES = {"figures", "modelling", "null", "profiles", "selection", "stability", "tracking"}
MODULES |= {"campaigns", "outcomes", "sensitivity", "value", "words"}
FRAMES = {"table", "quality", "read"}
"""What a study hands over as pandas' own."""


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def test_first_cell_asks_answers_and_names_its_files(notebook):
    lines = [line for line in notebook.cells[0].source.splitlines() if line]
    assert re.fullmatch(r"# \d · .+\?", lines[0])
    assert lines[1] == "<!-- answer -->"
    assert re.match(r"Reads .+ · Writes .+", lines[2])
    assert not re.search(r"\d", lines[1])


def test_parameters_come_first_with_the_defaults_of_the_command(notebook):
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert first.metadata.tags == ["parameters"]
    for line in first.source.splitlines():
        assert re.fullmatch(r'\w+: (str|int) = ("[^"#]*"|\d+|None)  # [^=|]+', line), line
    values = {}
    exec(first.source, values)
    given = {name: value for name, value in values.items() if not name.startswith("__")}
    assert given.pop("run_dir") == "outputs/by-hand"
    defaults = Parameters().model_dump()
    assert given == {name: defaults[name] for name in given}


def test_a_parameter_is_used_where_it_is_asked_for(notebook):
    first, *rest = code_cells(notebook)
    names = re.findall(r"^(\w+):", first, re.M)
    assert all(re.search(rf"\b{name}\b", "\n".join(rest)) for name in names)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_papermill_sees_every_parameter_with_its_help(path):
    seen = papermill.inspect_notebook(str(path))
    assert {"run_dir"} <= set(seen) <= {*Parameters.model_fields, "run_dir"}
    assert all(parameter["help"] for parameter in seen.values())


def test_every_parameter_of_the_command_has_its_notebook():
    seen = {name for path in NOTEBOOKS for name in papermill.inspect_notebook(str(path))}
    assert seen == {*Parameters.model_fields, "run_dir"}


def test_imports_are_one_cell(notebook):
    rest = "\n".join(code_cells(notebook)[2:])
    assert not re.search(r"^\s*(import|from)\b", rest, re.M)


def test_cells_are_short_and_plain(notebook):
    for source in code_cells(notebook):
        assert len(source.splitlines()) <= 14, source
        for pattern, what in FORBIDDEN.items():
            assert not re.search(pattern, source, re.M), f"{what}: {source}"


def test_a_figure_is_shown_by_the_cell_that_draws_it(notebook):
    """Else JupyterLab shows it twice: as it is after that cell, and with its finding."""
    for source in code_cells(notebook):
        if re.search(r"(plt\.(subplots|figure)|sns\.(pairplot|displot|catplot))\(", source):
            assert "study.show(" in source, source


def read_imports(source):
    """The names that a cell imports: of the libraries, and of this package."""
    theirs, ours = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
            names = {alias.asname or alias.name for alias in node.names}
            (theirs if module.split(".")[0] in LIBRARIES else ours).update(names)
    return theirs, ours


def list_names(node, context=ast.Load):
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, context)}


def count_lines(notebook):
    """Code lines after the imports, and those that name a library's object or what one made."""
    _, imports, *cells = code_cells(notebook)
    known, lines, hits = read_imports(imports)[0], 0, 0
    for source in cells:
        for statement in ast.parse(source).body:
            handed = {n.attr for n in ast.walk(statement) if isinstance(n, ast.Attribute)} & FRAMES
            if isinstance(statement, ast.Assign) and (list_names(statement) & known or handed):
                known |= list_names(statement, ast.Store)
            named = [
                n.lineno for n in ast.walk(statement) if isinstance(n, ast.Name) and n.id in known
            ]
            hits += len(set(named))
        lines += sum(bool(line.strip()) for line in source.splitlines())
    return hits, lines


def test_half_of_the_code_is_in_the_libraries_own_words():
    counted = [count_lines(nbformat.read(path, as_version=4)) for path in NOTEBOOKS]
    hits, lines = map(sum, zip(*counted, strict=True))
    assert hits >= lines / 2


def list_helpers(notebook):
    """The names of this package that a notebook uses; a room or module is not one itself."""
    _, imports, *cells = code_cells(notebook)
    ours = read_imports(imports)[1]
    used = {n for cell in cells for n in list_names(ast.parse(cell)) & ours} - MODULES
    for cell in cells:
        for node in ast.walk(ast.parse(cell)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                used |= (
                    {f"{node.value.id}.{node.attr}"} if node.value.id in {*ours, "study"} else set()
                )
    return used


def test_the_notebooks_need_few_helpers():
    used = set().union(*(list_helpers(nbformat.read(path, as_version=4)) for path in NOTEBOOKS))
    assert len(used) <= 60


def test_the_named_packages_are_imported_where_one_looks():
    seen = {n for p in NOTEBOOKS for n in re.findall(
        r"^(?:import|from) (\w+)", code_cells(nbformat.read(p, as_version=4))[1], re.M
    )}  # fmt: skip
    assert {"pandas", "numpy", "seaborn", "matplotlib", "sklearn"} <= seen


def test_prose_never_calls_a_segment_by_number(notebook):
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert not re.search(r"\b([Cc]luster|[Ss]egment) \d", prose)


def test_last_section_hands_over_in_one_cell_and_says_what_to_try(notebook):
    headings = [i for i, c in enumerate(notebook.cells) if "## Hand over" in c.source]
    after = notebook.cells[headings[-1] + 1 :]
    assert [cell.cell_type for cell in after] == ["code", "markdown"]
    assert "study.finish(" in after[0].source
    assert "**To try:**" in after[1].source
    for link in re.findall(r"\]\((\w+\.ipynb)\)", after[1].source):
        assert (ROOT / "notebooks" / link).is_file()


def test_committed_clean(notebook):
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


def run_by_hand(root):
    """The notebooks as JupyterLab runs them, in their own folder, each in a kernel of its own."""
    shutil.copytree(ROOT / "data", root / "data")
    return execute([nbformat.read(path, as_version=4) for path in NOTEBOOKS], root)


def run_in_one_kernel(root, paths, **values):
    """Notebooks in one kernel, after an edit of some parameters wherever they stand."""
    whole = nbformat.v4.new_notebook()
    for path in paths:
        whole.cells += nbformat.read(path, as_version=4).cells
    for cell in whole.cells:
        for name, value in values.items() if "parameters" in cell.metadata.get("tags", []) else ():
            cell.source = re.sub(rf"^{name}: .*", f"{name} = {value!r}", cell.source, flags=re.M)
    return execute([whole], root)


def execute(listed, root):
    """Execute notebooks as JupyterLab does; the folder that they name themselves."""
    environment = os.environ | {"SEGMENTATION_ROOT": str(root)}
    place = {"metadata": {"path": str(ROOT / "notebooks")}}
    for nb in listed:
        NotebookClient(nb, resources=place, startup_timeout=600).execute(env=environment)
    return root / "outputs" / "by-hand"


def run_by_papermill(folder):
    """The notebooks as the papermill command runs them, from another folder."""
    for path in NOTEBOOKS:
        words = ["-p", "run_dir", str(folder)]
        if path.stem in ("03_k_selection", "04_modeling"):
            words += ["-p", "resamples", "20"]
        command = [sys.executable, "-m", "papermill", str(path), "-", *words]
        subprocess.run(command, cwd=folder, capture_output=True, check=True)
    return folder


@pytest.mark.parametrize("count", [2, pytest.param(len(NOTEBOOKS), marks=pytest.mark.long)])
def test_by_hand_the_figures_are_the_command_s(hostile, hostile_card, tmp_path, count):
    listed = NOTEBOOKS[:count]
    theirs = run_in_one_kernel(tmp_path, listed, card=str(hostile_card), **PARAMETERS)
    assert_same_files(theirs, hostile, count)


@pytest.mark.long  # the fast test has the hostile table, fewer resamples and K, one kernel
@pytest.mark.parametrize(("run", "same"), [(run_by_hand, "published"), (run_by_papermill, "quick")])
def test_every_way_gives_the_command_s_figures(run, same, tmp_path, request):
    assert_same_files(run(tmp_path), request.getfixturevalue(same))


def assert_same_files(theirs, ours, count=7):
    """What the first notebooks of a run wrote, but for their models, whose stamps may differ."""
    kinds = ("tables/", "figures/", "segments.json", "summary.txt")
    steps = Run(ours).manifest.notebooks[:count]
    paths = {path for step in steps for path in step.files if path.startswith(kinds)}
    assert len(paths) >= 2 * count
    for path in paths:
        assert (theirs / path).read_bytes() == (ours / path).read_bytes(), path


def play(name, folder, **values):
    """Play one notebook by hand."""
    path = ROOT / "notebooks" / f"{name}.ipynb"
    play_notebook(notebooks.read_notebook(path), Run(folder), Parameters(**values))


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("02_preprocessing", "01_eda"),
        ("03_k_selection", "01_eda"),
        ("06_changes", "01_eda"),
    ],
)
def test_without_a_study_the_first_notebook_is_named(name, first, tmp_path):
    with pytest.raises(InputError, match=rf"run {first} first\.$"):
        play(name, tmp_path)


@pytest.fixture(scope="module")
def explored(tmp_path_factory):
    """The folder of a run by hand after its first notebook."""
    folder = tmp_path_factory.mktemp("explored")
    play("01_eda", folder)
    return folder


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("03_k_selection", "02_preprocessing"),
        ("04_modeling", "03_k_selection"),
        ("05_profiling", "04_modeling"),
        ("06_changes", "04_modeling"),
    ],
)
def test_missing_input_names_the_notebook_to_run_first(name, first, explored, tmp_path):
    folder = shutil.copytree(explored, tmp_path / "run")
    with pytest.raises(InputError, match=rf"run {first} first\.$"):
        play(name, folder)
