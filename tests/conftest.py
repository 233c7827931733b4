"""What the tests share: the project's folder, its table, and runs of the real series.

What is heavy is imported where it is used: with several workers, one more process reads this file.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # several workers: none waits busily

import importlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

for ignored, handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(ignored) is signal.SIG_IGN:  # under nohup, or in the background of a shell
        signal.signal(ignored, handler)  # else every process of a test would ignore it too

calm = settings(deadline=None)  # how busy the machine is decides nothing
settings.register_profile("fast", calm, max_examples=30)
settings.register_profile("thorough", calm, max_examples=300)

ABSENT = str(Path(__file__).parent / "absent")  # for this process and all that it starts
sys.path.insert(0, ABSENT)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [ABSENT, os.environ.get("PYTHONPATH")]))

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def pytest_configure(config):
    """Without the long tests, properties are tried on fewer examples."""
    settings.load_profile("fast" if config.option.markexpr == "not long" else "thorough")


def pytest_xdist_auto_num_workers():
    """One more than there are processors: many a test waits for a browser or a server."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items):
    """First what needs the longest run, so that no other worker waits for it."""
    items.sort(key=lambda item: "hostile" not in item.name and "hostile" not in item.fixturenames)


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
        folder = shared_folder / f"outputs of {run_id}" / run_id  # a folder takes one run at a time
        with FileLock(shared_folder / f"{run_id}.lock"):
            if not folder.exists():
                done = run_command("--output-dir", folder.parent, "--run-id", run_id, *options)
                assert done.returncode == 0, done.stderr
                (shared_folder / f"{run_id}.txt").write_text(done.stdout + done.stderr, "utf-8")
        return folder

    return run


LAID_OUT = ("mall", "mall 1", "noise", "telecom")
"""Of the tables played, those whose figures are laid out: four, one, no and nine segments."""


@pytest.fixture(scope="session")
def play_once(shared_folder):
    """Play the notebooks' code once per set of options in the whole session; the run's folder."""

    from played import play_run

    def play(name, card="data/mall_customers.yaml", **options):
        folder = shared_folder / f"played {name}" / name  # a folder takes one run at a time
        with FileLock(shared_folder / f"played {name}.lock"):
            if not folder.exists():
                how = {"resamples": 20, "k_max": 5, "laid_out": name in LAID_OUT}
                play_run(folder, ROOT / card, **how | options)
        return folder

    return play


@pytest.fixture(scope="session")
def sample_cards(shared_folder):
    """The cards of four tables unlike the bundled one, by name."""
    from sample_tables import write_tables

    folder = shared_folder / "samples"
    with FileLock(shared_folder / "samples.lock"):
        folder.mkdir(exist_ok=True)
        return write_tables(folder)


@pytest.fixture(scope="session")
def published(run_once):
    """The default run of the bundled table."""
    return run_once("default")


@pytest.fixture(scope="session")
def quick(run_once):
    """The same with few resamples, for what does not depend on them."""
    return run_once("quick", "--resamples", 20)


@pytest.fixture(scope="session")
def hostile_card(shared_folder):
    """The card of a table that means harm."""
    from hostile import write_hostile

    folder = shared_folder / "hostile"
    with FileLock(shared_folder / "hostile table.lock"):
        if not folder.exists():
            folder.mkdir()
            write_hostile(folder)
    return folder / "hostile.yaml"


@pytest.fixture(scope="session")
def hostile(run_once, hostile_card):
    """The published run of the hostile table."""
    from hostile import PARAMETERS

    options = [word for n, v in PARAMETERS.items() for word in (f"--{n.replace('_', '-')}", v)]
    return run_once("hostile", hostile_card, *options)


@pytest.fixture(scope="session")
def card():
    from segmentation.customers import read_card

    return read_card("data/mall_customers.yaml")


@pytest.fixture(scope="session")
def table(card):
    from segmentation.customers import read_customers

    return read_customers(card).table


@pytest.fixture(scope="session")
def recorded(play_once):
    """The bundled table, played with few resamples, of which the rule makes four segments."""
    return play_once("mall", k_max=10)


@pytest.fixture(scope="session")
def published_small(shared_folder, recorded):
    """An output folder with one good run, which each test copies."""
    from small_series import run_small, write_series

    folder = shared_folder / "small"
    with FileLock(shared_folder / "small.lock"):
        if not folder.exists():
            notebooks = write_series(shared_folder / "small notebooks", recorded)
            assert run_small(folder, notebooks, "--run-id", "good") == 0
    return folder


@pytest.fixture
def out(published_small, tmp_path):
    """An output folder with one good run, which stays byte for byte, whatever the test does."""
    from small_series import hash_tree

    folder = shutil.copytree(published_small, tmp_path / "out", symlinks=True)
    before = hash_tree(folder / "good")
    yield folder
    assert hash_tree(folder / "good") == before
    assert not (folder / "running").exists()
    assert not list(folder.glob(".*.partial"))


@pytest.fixture
def series(tmp_path, recorded):
    """Write a series whose only notebook does something before it finishes."""
    from small_series import write_series

    return lambda *sources: write_series(tmp_path / "notebooks", recorded, *sources)


def load_benchmark(name):
    """A script of benchmarks/ as a module that worker processes find too."""
    folder = str(ROOT / "benchmarks")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


def read_reference(name):
    """Figures recorded from R; see tests/reference/README.md."""
    return json.loads((ROOT / "tests" / "reference" / f"{name}.json").read_text("utf-8"))


@pytest.fixture(scope="session")
def mall(table, card):
    """Age, income and spending of the bundled table, z-scored: (200, 3)."""
    from modelling import build_preprocessor

    return build_preprocessor(card).fit_transform(table[card.distance]).to_numpy()


@pytest.fixture(scope="session")
def tables(mall):
    """The reference's tables: A and B bundled, C with groups, D without."""
    import numpy as np

    synthetic = read_reference("partitions")["tables"]
    made = {name: np.array(synthetic[name]) for name in ("C", "D")}
    return {"A": mall, "B": mall[:, 1:], **made}


@pytest.fixture(scope="session")
def partitions():
    return read_reference("partitions")["partitions"]


@pytest.fixture(scope="session")
def exact():
    return read_reference("exact")


@pytest.fixture(scope="session")
def resampled():
    return read_reference("resampled")


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium, without a window."""
    from browsing import SWITCHES
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no browser: install the package `chromium` to look at the pages")
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=chromium, args=SWITCHES.split())
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def run_dir(shared_folder):
    """A small finished run with its pages, made without the series."""
    from sample_run import make_run

    folder = shared_folder / "sample run"
    with FileLock(shared_folder / "sample run.lock"):
        if not folder.exists():
            folder.mkdir()
            make_run(folder)
    return folder


@pytest.fixture(scope="session")
def pages(run_dir):
    """Every page of the small run."""
    return sorted((run_dir / "reports").glob("*.html"))


@pytest.fixture(scope="session")
def noise_card(shared_folder):
    """A card of 200 customers without segments: one correlated Gaussian, no descriptors."""
    import numpy as np
    import pandas as pd

    covariance = 0.6 + 0.4 * np.eye(3)
    values = np.random.default_rng(1).multivariate_normal([50, 60, 40], 100 * covariance, 200)
    frame = pd.DataFrame(values.round(2), columns=["Visits", "Basket", "Points"])
    frame.insert(0, "id", range(200))
    frame.to_csv(shared_folder / "noise.csv", index=False)
    path = shared_folder / "noise.yaml"
    features = "{Visits: {}, Basket: {unit: €}, Points: {}}"
    text = f"title: Noise\ntable: noise.csv\nid: id\nfeatures: {features}\n"
    path.write_text(text, encoding="utf-8")
    return path


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


@pytest.fixture(scope="session")
def mall_model(recorded):
    """The folder of the bundled table's model."""
    return recorded
