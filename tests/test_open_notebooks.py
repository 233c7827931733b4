"""What a reader may change in a notebook: the clusterer, the imports, a feature of one's own."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import NOTEBOOKS, ROOT
from played import play_run

from segmentation import InputError
from segmentation.segments.model import load_model

CARD = ROOT / "data/mall_customers.yaml"
KMEANS = '("kmeans", KMeans('


def change_series(folder, **changes):
    """A copy of the series in which lines that hold a text are others, and with further imports.

    A change is a notebook's number and a list of (text that a line holds, the line instead).
    """
    folder.mkdir()
    for path in NOTEBOOKS:
        notebook = json.loads(path.read_text("utf-8"))
        for text, line in changes.get(f"n{path.stem[:2]}", []):
            hits = 0
            for cell in notebook["cells"]:
                for i, old in enumerate(cell["source"]):
                    if cell["cell_type"] == "code" and text in old:
                        cell["source"][i], hits = line + "\n", hits + 1
            assert hits, f"{path.stem} has no line with {text}"
        (folder / path.name).write_text(json.dumps(notebook), "utf-8")
    return folder


OTHERS = {
    "GaussianMixture": (
        "from sklearn.mixture import GaussianMixture",
        '    ("mixture", GaussianMixture(k, random_state=study.seed)),',
    ),
    "AgglomerativeClustering": (
        "from sklearn.cluster import AgglomerativeClustering",
        '    ("ward", AgglomerativeClustering(k)),',
    ),
}


NAMES = ["GaussianMixture", pytest.param("AgglomerativeClustering", marks=pytest.mark.long)]


@pytest.mark.parametrize("name", NAMES)
def test_another_clusterer_publishes_profiles_names_and_report(name, tmp_path, recorded):
    imported, line = OTHERS[name]
    pipeline = f"{imported}\nfrom sklearn.pipeline import Pipeline"
    series = change_series(
        tmp_path / "series",
        n04=[(KMEANS, line), ("from sklearn.pipeline import Pipeline", pipeline)],
    )
    run = play_run(tmp_path / "out" / "run", CARD, series=series, k=4, resamples=20, like=recorded)
    segments = json.loads((run / "segments.json").read_text("utf-8"))
    labels = pd.read_csv(run / "tables/clustered_data.csv")["cluster"]
    assert sorted(s["size"] for s in segments) == sorted(labels.value_counts())
    assert len({s["name"] for s in segments}) == 4
    assert (run / "reports/report.html").is_file()
    told = json.loads((run / "run.json").read_text("utf-8"))["warnings"]
    assert any(name in warning and "service" in warning for warning in told)
    with pytest.raises(InputError, match="no segmenter"):
        load_model(run / "artifacts")


def test_scikit_learn_s_own_estimators_give_the_same_sweep(tmp_path, recorded):
    theirs = "from sklearn.cluster import KMeans\nfrom sklearn.metrics import silhouette_samples"
    swapped = [("import numpy as np", f"import numpy as np\n{theirs}")]
    ours = "from segmentation.clustering import"
    swapped += [(f"{ours} KMeans", f"{ours} null, selection, sensitivity, stability")]
    swapped += [("segmentation.clustering.silhouettes import", "")]
    series = change_series(tmp_path / "series", n03=swapped)
    theirs = play_run(
        tmp_path / "out" / "run", CARD, series=series, steps=("02", "03"), resamples=20, k_max=4
    )
    sweeps = [pd.read_csv(run / "tables/k_selection.csv") for run in (recorded, theirs)]
    sweeps[0] = sweeps[0].query("k <= 4")
    assert list(sweeps[0]["k"]) == [1, 2, 3, 4]
    columns = ["k", "inertia", "smallest_share", "calinski_harabasz", "davies_bouldin"]
    columns += ["silhouette", "gap", "prediction_strength", "ari_mean", "jaccard_min", "z"]
    np.testing.assert_allclose(sweeps[0][columns], sweeps[1][columns], rtol=1e-9)
