"""The project's own promises: packages, layering, the data, the lock, the README."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter

import pytest
import yaml
from conftest import ROOT

CONDA = {
    "matplotlib": "matplotlib-base",
    "seaborn": "seaborn-base",
    "duckdb": "python-duckdb",
    "ibis-framework[duckdb]": "ibis-duckdb",
    "ibis-framework[postgres]": "ibis-postgres",
    "ibis-framework[sqlite]": "ibis-sqlite",
    "psycopg[binary]": "psycopg",
    "pymysql[rsa]": "pymysql",
    "prometheus-client": "prometheus_client",
}
RUNNING = ["lab", "tables", "postgres", "mysql", "sqlite", "service"]  # as in the Makefile
PACKAGE = "segmentation"
ROOMS = ["runs", "customers", "clustering", "segments", "reports", "series", "serving"]
BESIDE = {"series", "serving"}  # the two that stand side by side on the top floor
MODULES = sorted((ROOT / "segmentation").rglob("*.py"))


def read_project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_conda_environment_equals_the_package():
    project = read_project()
    wanted = {"python" + project["requires-python"]}
    extras = project["optional-dependencies"]
    for requirement in sum((extras[name] for name in RUNNING), project["dependencies"]):
        name, version = re.match(r"([\w\[\]-]+)([^;]*)", requirement).groups()
        wanted.add(CONDA.get(name, name) + version)
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    assert set(environment["dependencies"]) == wanted
    assert environment["channels"] == ["conda-forge"]


def test_lock_has_every_requirement_hashes_and_no_address():
    pinned = {}
    for name in ("requirements", "dev", "scale"):
        lock = (ROOT / f"{name}.lock").read_text("utf-8")
        assert "://" not in lock
        assert "index" not in lock.replace("indexed", "")
        pinned[name] = dict(re.findall(r"^([\w.-]+)==(\S+)", lock, re.M))
        blocks = re.split(r"\n(?=[\w.-]+==)", lock)[1:]
        assert all("--hash=sha256:" in block for block in blocks)
    project = read_project()
    extras = project["optional-dependencies"]
    running = sum((extras[name] for name in RUNNING), project["dependencies"])
    for name, wanted in {"requirements": running, "dev": extras["dev"]}.items():
        assert {re.match(r"[\w-]+", each)[0] for each in wanted} <= {*pinned[name]}
    for name in ("dev", "scale"):  # one environment: what stands in both is the same version
        shared = {*pinned[name]} & {*pinned["requirements"]}
        assert all(pinned[name][each] == pinned["requirements"][each] for each in shared)


def list_imports(path):
    """What a file imports of the package: (module without the package's name, names)."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == PACKAGE:
            yield node.module.partition(".")[2], [alias.name for alias in node.names]


def read_face(room):
    """The names in `__all__` of a room."""
    tree = ast.parse((ROOT / PACKAGE / room / "__init__.py").read_text("utf-8"))
    (face,) = [n for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == "__all__"]
    return ast.literal_eval(face.value)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_rooms_below_it_and_through_their_faces(room):
    below = {*ROOMS[: ROOMS.index(room)]} - (BESIDE - {room})
    for path in (ROOT / PACKAGE / room).glob("*.py"):
        for module, names in list_imports(path):
            other = module.partition(".")[0]
            if other == room or other not in ROOMS:
                assert other in {"", room, "words", "palette"}, f"{path.name} imports {module}"
                continue
            assert other in below, f"{path.name} imports from {other}, above it"
            assert module == other, f"{path.name} imports from {module}, past the face of {other}"
            assert {*names} <= {*read_face(other)}, f"{path.name}: not in the face of {other}"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_has_a_face_of_twelve_names_at_most(room):
    face = read_face(room)
    assert len(face) == len({*face}) <= 12
    assert face == sorted(face, key=str.casefold) or face == sorted(face)


@pytest.mark.parametrize("room", ROOMS)
def test_modules_of_a_room_use_each_other_without_a_circle(room):
    modules = {path.stem: path for path in (ROOT / PACKAGE / room).glob("[!_]*.py")}
    needs = {
        stem: {
            name
            for module, names in list_imports(path)
            for name in ([module.partition(".")[2]] if "." in module else names)
            if module.partition(".")[0] == room and name in modules
        }
        for stem, path in modules.items()
    }
    tuple(TopologicalSorter(needs).static_order())  # raises where there is a circle


def test_help_is_light():
    code = "import sys; from segmentation.__main__ import build_parser; build_parser();"
    code += "print({'pandas', 'sklearn', 'matplotlib', 'papermill'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_run_is_planned_without_what_takes_seconds_to_load():
    code = "import sys; from segmentation.__main__ import main; main(['run', '--dry-run']);"
    code += "print({'sklearn', 'scipy', 'numba', 'matplotlib', 'papermill'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


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


def test_what_make_calls_is_there():
    calls = re.findall(
        r'-c "from ([\w.]+) import (\w+); \2\.(\w+)\(\)"', (ROOT / "Makefile").read_text("utf-8")
    )
    assert calls
    for package, module, function in calls:
        getattr(importlib.import_module(f"{package}.{module}"), function)()
