"""A kernel of its own for each notebook, started ahead, changed by nothing that lies around."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from small_series import wait_for, write_notebook

from segmentation.series import execution
from segmentation.series.notebooks import SeriesFailed, read_notebook

TELL = "import os\nfrom pathlib import Path\nPath(run_dir, 'pid').write_text(str(os.getpid()))\n"


@pytest.fixture
def kernels(tmp_path):
    with execution.Kernels(tmp_path / "running/.kernels") as opened:
        yield opened
    assert not (tmp_path / "running").exists()


def make(folder, *sources, declares=""):
    write_notebook(folder / "01_small.ipynb", *sources, declares=declares)
    return read_notebook(folder / "01_small.ipynb")


def execute(kernel, notebook, folder):
    """Execute a notebook; what its code cells printed."""
    target, values = folder / "done.ipynb", {"run_dir": str(folder)}
    execution.execute_notebook(notebook, target, values, kernel=kernel, cell_timeout=600)
    cells = nbformat.read(target, 4).cells
    return "".join(out.text for cell in cells for out in cell.get("outputs", []) if "text" in out)


def is_gone(folder):
    return not Path(f"/proc/{(folder / 'pid').read_text()}").exists()


def test_a_kernel_started_ahead_has_the_imports_and_no_name_of_them(kernels, tmp_path):
    look = "import sys\nprint('colorsys' in sys.modules, 'colorsys' in globals(), 'x' in globals())"
    notebook = make(tmp_path, look, "import colorsys\nfrom json import tool as x, nothing")
    assert notebook.imports[0] == "exec('import sys', {})"
    kernel = kernels.start(notebook)
    with pytest.raises(SeriesFailed, match="cannot import name 'nothing'"):
        execute(kernel, notebook, tmp_path)
    assert "True False False" in (tmp_path / "done.ipynb").read_text("utf-8")


def test_a_kernel_ends_with_its_notebook_and_leaves_no_file(tmp_path):
    with execution.Kernels(tmp_path / "running/.kernels") as kernels:
        notebook = make(tmp_path, TELL)
        execute(kernels.start(notebook), notebook, tmp_path)
        wait_for(lambda: kernels.started[0].provisioner.process.poll() is not None)
    assert not (tmp_path / "running").exists()


def test_a_kernel_that_hangs_on_its_way_out_is_ended(tmp_path):
    hang = TELL + "import atexit, time\natexit.register(time.sleep, 600)"
    with execution.Kernels(tmp_path / "running/.kernels") as kernels:
        notebook = make(tmp_path, hang)
        execute(kernels.start(notebook), notebook, tmp_path)
        wait_for(lambda: is_gone(tmp_path))


def test_kernels_that_are_left_end_with_what_they_started(tmp_path):
    child = "import subprocess\nchild = subprocess.Popen(['sleep', '600'])\n"
    child += "Path(run_dir, 'pid').write_text(str(child.pid))"
    with execution.Kernels(tmp_path / "running/.kernels") as kernels:
        kernels.start(make(tmp_path / "other", TELL))
        notebook = make(tmp_path, TELL, child)
        execute(kernels.start(notebook), notebook, tmp_path)
    wait_for(lambda: is_gone(tmp_path))
    ahead = kernels.started[0].provisioner.process
    assert ahead.poll() is not None
    assert not (tmp_path / "running").exists()


def test_files_of_the_current_folder_and_the_user_have_no_effect(tmp_path):
    home, here = tmp_path / "home", tmp_path / "here"
    startup = home / ".ipython/profile_default/startup"
    specs = home / "share/kernels/python3"
    for folder in (here, startup, specs, home / ".config/matplotlib", tmp_path / "notebooks"):
        folder.mkdir(parents=True)
    (here / "seaborn.py").write_text("planted = True")
    (startup / "00.py").write_text("planted = True")
    (home / "start.py").write_text("planted = True")
    (specs / "kernel.json").write_text('{"argv": ["false"], "display_name": "x", "language": "x"}')
    for folder in (here, home / ".config/matplotlib", tmp_path / "notebooks"):
        (folder / "matplotlibrc").write_text("font.size: 99\n")
    look = "import matplotlib as mpl, seaborn\n"
    look += "print(hasattr(seaborn, 'planted'), 'planted' in globals(), mpl.rcParams['font.size'])"
    make(tmp_path / "notebooks", look)
    code = "import sys\nsys.path[:0] = [sys.argv[2]]\nimport test_kernels as t"
    code += "\nfrom pathlib import Path"
    code += (
        "\nfrom segmentation.series import execution\nfrom segmentation.series.notebooks import *"
    )
    code += "\nf = Path(sys.argv[1])\nn = read_notebooks(f / 'notebooks')[0]"
    code += "\nwith execution.Kernels(f / 'k/.kernels') as k: print(t.execute(k.start(n), n, f))"
    places = {"HOME": home, "JUPYTER_DATA_DIR": home / "share", "PYTHONSTARTUP": home / "start.py"}
    environment = os.environ | {name: str(path) for name, path in places.items()}
    command = [sys.executable, "-P", "-c", code, str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(
        command, cwd=here, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "False False 10.0", done.stderr


def test_parameters_are_read_off_their_cell(tmp_path):
    notebook = make(tmp_path, "other = 1", declares="k: int = None  # help = x\nrule = 'a'")
    assert notebook.parameters == {"run_dir", "k", "rule"}
