"""Kernels are forked, and yet as separate as processes that start by themselves."""

import os
import threading
from pathlib import Path

import nbformat
import pytest
from conftest import NOTEBOOKS, ROOT
from small_series import wait_for, write_notebook

from segmentation.series import execution, kernels, notebooks, pipeline

TELL = "import os\nfrom pathlib import Path\nPath(run_dir, 'pid').write_text(str(os.getpid()))\n"
PLANT = """
import os, sys
import matplotlib as mpl, numpy as np, pandas as pd
from segmentation.reports import figures as planted
mpl.rcParams["axes.grid"] = not mpl.rcParams["axes.grid"]
pd.set_option("display.max_rows", 7)
pd.read_csv = planted.elbow = None
sys.path.insert(0, "/planted")
os.environ["PLANTED"] = "1"
os.chdir("/")
np.random.seed(0)
"""
LOOK = """
import os, sys
import matplotlib as mpl, numpy as np, pandas as pd
from segmentation.reports import figures as plots
assert "planted" not in globals()
assert mpl.rcParams["axes.grid"] == mpl.rcParamsDefault["axes.grid"]
assert pd.get_option("display.max_rows") == 60
assert pd.read_csv and plots.elbow
assert "/planted" not in sys.path
assert "PLANTED" not in os.environ
assert os.getcwd() != "/"
assert np.random.random() != np.random.RandomState(0).random()
"""


def execute(template, folder, *sources, limit=60):
    """Execute a notebook of these cells; its executed copy."""
    write_notebook(folder / "01_small.ipynb", *sources)
    run_here(template, folder / "01_small.ipynb", folder, limit=limit)
    return nbformat.read(folder / "done.ipynb", 4)


def run_here(template, notebook, folder, *, limit=600):
    values = pipeline.Parameters().model_dump() | {"run_dir": str(folder)}
    execution.execute_notebook(
        notebook, folder / "done.ipynb", values, template=template, cell_timeout=limit
    )


@pytest.fixture(scope="module")
def template():
    with kernels.Template({"segmentation.reports.figures"}) as opened:
        yield opened


@pytest.fixture(scope="module")
def plain():
    """What there is where no fork is safe."""
    return kernels.Template(())


def test_nothing_of_one_notebook_reaches_the_next(template, tmp_path):
    execute(template, tmp_path, TELL, PLANT)
    first = (tmp_path / "pid").read_text()
    execute(template, tmp_path, LOOK, TELL)
    assert (tmp_path / "pid").read_text() != first
    assert not Path(f"/proc/{first}").exists()


def test_nothing_of_one_notebook_reaches_another_beside_it(template, tmp_path):
    planted, go = tmp_path / "one/planted", tmp_path / "one/go"
    wait = f"Path({str(planted)!r}).touch()\nimport time\nwhile not Path({str(go)!r}).exists():\n"
    cells = (TELL, PLANT, wait + "    time.sleep(0.05)")
    one = threading.Thread(target=execute, args=(template, tmp_path / "one", *cells))
    one.start()
    wait_for(planted.exists)
    execute(template, tmp_path / "two", LOOK)
    go.touch()
    one.join()


def test_a_forked_kernel_shows_what_one_by_itself_shows(template, plain, tmp_path):
    shown = []
    for name, origin in (("forked", template), ("plain", plain)):
        (tmp_path / name).mkdir()
        run_here(origin, NOTEBOOKS[0], tmp_path / name)
        cells = nbformat.read(tmp_path / name / "done.ipynb", 4).cells
        code = [cell for cell in cells if cell.cell_type == "code"]
        shown.append([(cell.execution_count, cell.outputs) for cell in code])
        shown[-1].append([path.read_bytes() for path in (tmp_path / name / "figures").glob("*")])
    assert len(shown[0]) > 10
    assert shown[0] == shown[1]


def test_a_kernel_comes_of_the_template_or_of_the_runner(template, plain, tmp_path):
    parent = "\nPath(run_dir, 'parent').write_text(str(os.getppid()))"
    execute(template, tmp_path, TELL + parent)
    assert int((tmp_path / "parent").read_text()) == template.process.pid
    execute(plain, tmp_path, TELL + parent)
    assert int((tmp_path / "parent").read_text()) == os.getpid()


def test_a_template_that_is_left_takes_its_kernels_along(tmp_path):
    failures = []

    def run(template):
        with pytest.raises(notebooks.NotebookError) as error:
            execute(template, tmp_path, TELL, "import time\ntime.sleep(120)")
        failures.append(error.value.record["cause"])

    with kernels.Template(()) as template:
        thread = threading.Thread(target=run, args=(template,))
        thread.start()
        wait_for(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text())
    wait_for(lambda: not Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists())
    assert template.process.poll() is not None
    thread.join()
    assert failures == ["its kernel died (out of memory?)"]
    with pytest.raises(notebooks.NotebookError):
        execute(template, tmp_path, TELL)


def test_the_package_s_modules_are_read_off_a_notebook_s_code(tmp_path):
    write_notebook(
        tmp_path / "a.ipynb", "import os\nfrom segmentation import runs, features as f\n"
    )
    assert notebooks.find_modules(tmp_path / "a.ipynb") == {
        "segmentation.runs.folder",
        "segmentation.clustering.preprocessing",
    }
    assert "segmentation.reports.figures" in notebooks.find_modules(ROOT / "notebooks/01_eda.ipynb")
