"""The wheel: what lies in it, and that it works from any folder without the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from conftest import NOTEBOOKS, ROOT

LEFT_OUT = shutil.ignore_patterns(".*", "outputs", "*.egg-info", "build", "__pycache__")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel as pip builds it from a copy of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=LEFT_OUT)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--wheel-dir", folder, folder / "source"]
    subprocess.run(command, check=True, capture_output=True)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Runs the installed command in a folder; nothing of the checkout is on its path."""
    place = tmp_path_factory.mktemp("site-packages")
    zipfile.ZipFile(wheel).extractall(place)
    plain = {name: text for name, text in os.environ.items() if "SEGMENTATION" not in name}

    def run(*words, cwd):
        code = "import sys; from segmentation.__main__ import main; sys.exit(main())"
        command = [sys.executable, "-P", "-c", code, *map(str, words)]
        environment = plain | {"PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)

    return run


def test_the_wheel_holds_the_series_the_card_and_its_table_and_no_tests(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    data = {"data/mall_customers.yaml", "data/raw/Mall_Customers.csv"}
    wanted = {f"notebooks/{path.name}" for path in NOTEBOOKS} | data | {"py.typed", "words.yaml"}
    code = ROOT / "segmentation"
    wanted |= {path.relative_to(code).as_posix() for path in code.rglob("*.py")}
    for kind in ("reports/templates", "serving/web"):
        files = [path for path in (code / kind).rglob("*") if path.is_file()]
        wanted |= {path.relative_to(code).as_posix() for path in files}
    own = {name.partition("/")[2] for name in names if name.startswith("segmentation/")}
    assert own == wanted | {"reports/segments.mplstyle"}
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {
        "segmentation",
        "customer_segments",
    }


@pytest.mark.long
def test_it_runs_from_any_folder_and_reads_nothing_of_its_surroundings(installed, tmp_path):
    shutil.copyfile(ROOT / "data/raw/Mall_Customers.csv", tmp_path / "table.csv")
    (tmp_path / "notebooks").mkdir()  # another's
    (tmp_path / "notebooks/01_mine.ipynb").write_text("no notebook")
    for name in ("seaborn", "segmentation", "numbers"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong file')")
    (tmp_path / "matplotlibrc").write_text("figure.dpi: 7")
    done = installed("run", "table.csv", "--only", "01", "--run-id", "one", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = tmp_path / "outputs/partial/one/reports/index.html"
    assert done.stdout.splitlines()[-1] == str(page)
    assert "200 customers" in page.read_text("utf-8")


def test_without_a_table_it_takes_the_bundled_one(installed, tmp_path):
    done = installed("run", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Mall_Customers.csv, 200 rows" in done.stdout
    assert str(tmp_path / "outputs") in done.stdout
    assert not [*tmp_path.iterdir()]


def test_the_series_is_copied_for_whoever_changes_it_and_replaces_nothing(installed, tmp_path):
    done = installed("notebooks", "mine", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for path in NOTEBOOKS:
        assert (tmp_path / "mine" / path.name).read_bytes() == path.read_bytes()
    changed = tmp_path / "mine" / NOTEBOOKS[0].name
    changed.write_text("mine")
    done = installed("notebooks", "mine", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "mine/01_eda.ipynb is there already; name another folder.\n"
    assert changed.read_text() == "mine"
    shutil.copyfile(NOTEBOOKS[0], changed)
    done = installed("run", "--dry-run", "--notebooks", "mine", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
