"""The saved model where this package is not: in scikit-learn's own classes, ONNX, JavaScript."""

import json
import pickle
import re
import shutil
import subprocess
import sys

import joblib
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from modelling import build_model
from test_scorer import POLICIES, make_card, make_table

from segmentation.segments import build_figures
from segmentation.segments.model import freeze, save_model

ROWS = 10_000
PAGE = (ROOT / "docs/model.md").read_text("utf-8")


def read_page(language):
    """The pieces of code in this language that `docs/model.md` shows."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module", params=[(p, w) for p in POLICIES for w in (0.0, 0.7)], ids=str)
def fitted(request):
    """A model as it was fitted, its figures and its card."""
    card, table = make_card(request.param[0], weight=request.param[1]), make_table()
    model = build_model(table, card, 4)
    return model, build_figures(model, table, card), card


@pytest.fixture(scope="module")
def strangers():
    """Customers with gaps, far values and a level that no model knows."""
    rng = np.random.default_rng(1)
    table = make_table(1, ROWS).assign(spent=rng.lognormal(3, 2, ROWS))
    table.loc[rng.random(ROWS) < 0.1, "spent"] = np.nan
    table.loc[rng.random(ROWS) < 0.1, "city"] = "Ulm"
    return table


def test_the_frozen_model_answers_as_the_fitted_one(fitted, strangers):
    model, figures, card = fitted
    frozen = freeze(model, figures)
    for table in (make_table(), strangers):
        rows = table[card.distance]
        np.testing.assert_array_equal(frozen.predict(rows), model.predict(rows))
        wanted = model[:-1].transform(rows)
        np.testing.assert_allclose(frozen[:-1].transform(rows), wanted, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(frozen[-1].labels_, model[-1].labels_)
    assert frozen[-1].inertia_ == model[-1].inertia_


def test_the_file_does_not_depend_on_the_processors(fitted, monkeypatch):
    one = pickle.dumps(freeze(*fitted[:2]))
    monkeypatch.setattr("sklearn.cluster._kmeans._openmp_effective_n_threads", lambda: 96)
    assert pickle.dumps(freeze(*fitted[:2])) == one


def test_a_gap_is_a_gap_however_it_is_written():
    card, table = make_card("plain", weight=0.7), make_table()
    model = build_model(table, card, 4)
    frozen = freeze(model, build_figures(model, table, card))
    wanted = model.predict(table)[table["city"].isna()]
    for gap in (np.nan, None):
        rows = table[table["city"].isna()].astype({"city": object}).assign(city=gap)
        assert frozen.predict(rows).tolist() == wanted.tolist()
        assert frozen.predict(rows.head(1)).tolist() == wanted[:1].tolist()


def test_a_feature_clipped_to_one_value_is_frozen_too():
    """Three quarters of the customers sent nothing back: both fences are 0."""
    table = make_table().assign(spent=lambda t: np.where(t.index % 10, 0.0, 5.0))
    card = make_card("clip")
    model = build_model(table, card, 2)
    frozen = freeze(model, build_figures(model, table, card))
    assert frozen.predict(table).tolist() == model.predict(table).tolist()


# Elsewhere ---------------------------------------------------------------------------------

HIDE = """
import sys
sys.modules["segmentation"] = None  # as where it is not installed
"""
COMPARE = """
import json
from pathlib import Path
ids = json.loads(Path("artifacts/segmenter.json").read_text("utf-8"))["ids"]
print([ids[position] for position in positions] == table["cluster"].tolist())
"""


def test_a_run_s_model_gives_its_segments_without_this_package(recorded):
    code = HIDE + read_page("python")[0] + COMPARE
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=recorded)
    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.fixture(scope="module")
def saved(tmp_path_factory, strangers):
    """The folder of a model that fills, takes logarithms, clips and codes; what it predicts."""
    folder = tmp_path_factory.mktemp("model")
    card, table = make_card("log clip", weight=0.7), make_table()
    model = build_model(table, card, 4)
    segments = [{"id": i + 3, "name": f"Segment {i}"} for i in range(4)]
    save_model(folder, model, build_figures(model, table, card), segments)
    return folder, model.predict(strangers)


def test_skops_has_to_trust_nothing_but_a_dtype(saved, strangers, tmp_path, monkeypatch):
    skops = pytest.importorskip("skops.io")
    monkeypatch.chdir(tmp_path)
    known = {"model": joblib.load(saved[0] / "segmenter.joblib")}
    exec(read_page("python")[1], known)  # the page's own lines, here and below
    assert skops.get_untrusted_types(file="segmenter.skops") == ["numpy.dtype"]
    assert (known["model"].predict(strangers) == saved[1]).all()


def test_onnx_gives_the_same_segments(saved, strangers):
    pytest.importorskip("skl2onnx")
    pytest.importorskip("onnxruntime")
    model = joblib.load(saved[0] / "segmenter.joblib")
    known = {"model": model, "table": strangers}
    exec(*read_page("python onnx"), known)
    assert (known["positions"] == saved[1]).all()


SCORE = """
const [figures, customers] = JSON.parse(require("fs").readFileSync(0, "utf-8"));
console.log(JSON.stringify(customers.map(customer => score(figures, customer))));
"""


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
@pytest.mark.parametrize("which", ["bundled", "coded"])
def test_ten_lines_of_javascript_give_the_same_segments(which, saved, recorded, strangers):
    folder, table = saved[0], strangers
    positions = saved[1]
    if which == "bundled":
        folder, table = recorded / "artifacts", pd.read_csv(recorded / "tables/clustered_data.csv")
        positions = joblib.load(folder / "segmenter.joblib").predict(table)
    figures = json.loads((folder / "segmenter.json").read_text("utf-8"))
    given = json.dumps([figures, json.loads(table.to_json(orient="records"))])
    done = subprocess.run(
        ["node", "-e", read_page("js")[0] + SCORE],
        input=given, capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert not done.stderr
    assert [told["id"] for told in json.loads(done.stdout)] == np.take(
        figures["ids"], positions
    ).tolist()
