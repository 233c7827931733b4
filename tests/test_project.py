"""The project's own promises: packages, layering, the data, the lock, the README."""

import ast
import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from conftest import ROOT

CONDA = {"matplotlib": "matplotlib-base", "seaborn": "seaborn-base"}
ROOMS = ["runs", "customers", "clustering", "segments", "reports", "series", "serving"]
BESIDE = {"series", "serving"}  # the two that stand side by side on the top floor
MODULES = sorted((ROOT / "segmentation").rglob("*.py"))


def read_project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_conda_environment_equals_the_package():
    project = read_project()
    wanted = {"python" + project["requires-python"]}
    for requirement in project["dependencies"]:
        name = re.match(r"[\w-]+", requirement)[0]
        wanted.add(requirement.replace(name, CONDA.get(name, name), 1))
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    assert set(environment["dependencies"]) == wanted
    assert environment["channels"] == ["conda-forge"]


def test_lock_has_every_requirement_hashes_and_no_address():
    lock = (ROOT / "requirements.lock").read_text("utf-8")
    assert "://" not in lock
    assert "index" not in lock.replace("indexed", "")
    pinned = set(re.findall(r"^([\w.-]+)==", lock, re.M))
    project = read_project()
    for requirement in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        assert re.match(r"[\w-]+", requirement)[0] in pinned
    blocks = re.split(r"\n(?=[\w.-]+==)", lock)[1:]
    assert all("--hash=sha256:" in block for block in blocks)


def list_imports(path):
    """The rooms (and modules of the root) that a file imports from."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("segmentation"):
            parts = node.module.split(".")[1:] or [alias.name for alias in node.names]
            yield parts[0]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_rooms_below_it(room):
    below = {*ROOMS[: ROOMS.index(room)], room} - (BESIDE - {room})
    for path in (ROOT / "segmentation" / room).glob("*.py"):
        above = {*list_imports(path)} & {*ROOMS} - below
        assert not above, f"{path.name} imports from {above}"


def test_help_is_light():
    code = "import sys; from segmentation.__main__ import build_parser; build_parser();"
    code += "print({'pandas', 'sklearn', 'matplotlib', 'papermill'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_ten_named_packages_are_used():
    sources = [p.read_text("utf-8") for p in MODULES]
    text = "\n".join([*sources, (ROOT / "Makefile").read_text("utf-8")])
    for package in (
        *("papermill", "nbconvert", "sklearn", "pandas", "numpy", "seaborn", "matplotlib"),
        *("tabulate", "joblib"),
    ):
        assert re.search(rf"^\s*(import|from) {package}\b", text, re.M), package
    assert "jupyter lab" in text


def test_readme_tells_what_ci_runs():
    script = (ROOT / ".ci/run").read_text("utf-8")
    readme = (ROOT / "README.md").read_text("utf-8")
    commands = re.findall(r"^make .+$", script, re.M)
    assert commands == ["make lint", "make test"]
    assert all(command in readme for command in commands)
