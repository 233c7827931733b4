"""What the tests share: the project's folder, its table, and runs of the real series."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from sample_run import make_run

from segmentation import customers

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def run_command(*arguments, cwd=ROOT, **environment):
    """Run the main job as a user does; the completed process with its text."""
    return subprocess.run(
        [sys.executable, str(ROOT / "run_all.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | environment,
        check=False,
    )


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory, worker_id):
    """A folder that all test workers of this session share; its path has a space and an umlaut."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "Läufe im Test"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def run_once(shared_folder):
    """Run the series once per set of options in the whole session; the published folder."""

    def run(run_id, *options):
        folder = shared_folder / "outputs" / run_id
        with FileLock(shared_folder / f"{run_id}.lock"):
            if not folder.exists():
                done = run_command("--output-dir", folder.parent, "--run-id", run_id, *options)
                assert done.returncode == 0, done.stderr
        return folder

    return run


@pytest.fixture(scope="session")
def published(run_once):
    """The default run of the bundled table."""
    return run_once("default")


@pytest.fixture(scope="session")
def card():
    return customers.read_card("data/mall_customers.yaml")


@pytest.fixture(scope="session")
def table(card):
    return customers.read_customers(card)


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory):
    """A small finished run with its pages, made without the series."""
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def pages(run_dir):
    """Every page of the small run."""
    return sorted((run_dir / "reports").glob("*.html"))


@pytest.fixture
def write_card(tmp_path):
    """Write a card and its CSV; the card's path."""

    def write(text, *, features=None, **fields):
        (tmp_path / "table.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        columns = features or {"a": {}, "b": {}}
        values = {"title": "Test", "table": "table.csv", "id": "id", "features": columns} | fields
        import yaml

        path = tmp_path / "card.yaml"
        path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
        return path

    return write
