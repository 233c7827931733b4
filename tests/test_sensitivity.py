"""What the answer rests on: features that carry it, other choices, other families of methods."""

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import adjusted_rand_score

from segmentation.clustering import KMeans, kmeans, sensitivity
from segmentation.customers import Card, cards

GROUPS = np.repeat([0, 1, 2], 70)


def plant(features=6, apart=6.0, seed=0):
    """Three groups in the first two features, z-scored: a frame f0, f1, …"""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(len(GROUPS), features))
    rows[:, 0] += apart * (GROUPS == 1)
    rows[:, 1] += apart * (GROUPS == 2)
    return pd.DataFrame((rows - rows.mean(0)) / rows.std(0)).add_prefix("f")


def examine(X, sweep, card, *, k, logged=None, ks=(2, 3, 4)):
    cuts = {each: KMeans(each, n_init=20).fit_predict(X) for each in ks}
    how = {"codes": X[[]], "logged": X if logged is None else logged, "resamples": 20}
    return sensitivity.examine(X, cuts, sweep, card, k=k, **how)


def make_card(X, **more):
    features = {name: {"label": name.upper()} for name in X}
    return Card(title="t", table="t.csv", features=features, **more)


def make_sweep(excess, gated=False):
    rows = {"k": [2, 3, 4], "excess": excess, "gated": gated, "prediction_strength": 0.9}
    return pd.DataFrame(rows).astype({"gated": "boolean"})


def test_features_that_carry_nothing_are_named():
    weights = sensitivity.weigh_features(plant(), GROUPS, draws=19).set_index("feature")
    assert [*weights["carries"]] == ["the segments"] * 2 + ["nothing"] * 4
    assert (weights["share"].iloc[:2] > weights["null_q95"].iloc[:2]).all()
    assert (weights["permuted_ari"].iloc[:2] < 0.8).all()
    assert (weights["permuted_ari"].iloc[2:] > 0.95).all()


def test_of_structureless_features_none_is_called_idle():
    X = pd.DataFrame(np.random.default_rng(1).normal(size=(200, 5))).add_prefix("f")
    weights = sensitivity.weigh_features(X, kmeans.fit(X, 3).labels, draws=39)
    assert not weights["carries"].any()


def test_the_share_between_segments_is_the_analysis_of_variance():
    X = plant()
    share = sensitivity.weigh_features(X, GROUPS, draws=2)["share"]
    within = X.groupby(GROUPS).var(ddof=0).mean()  # groups of one size
    np.testing.assert_allclose(share, 1 - within)


def test_without_idle_features_the_groups_are_found_and_the_edit_is_a_card():
    X = plant()
    given = [{"name": "Odd", "when": {"F5": "high"}}]
    card = make_card(X, map=["f0", "f4"], segments=given)
    found = examine(X, make_sweep([0.01, 0.04, 0.02]), card, k=1)
    assert found.at == 3
    (sentence,), (edit,) = found.edits, found.edits.values()
    assert sentence == (
        "Without what carries nothing (F2, F3, F4 and F5), the calibrated rule finds K = 3 "
        "instead of 1."
    )
    sections = card.model_dump(exclude_defaults=True) | yaml.safe_load(edit.replace("\n\n", "\n"))
    edited = Card.model_validate(sections)
    assert [*edited.features] == ["f0", "f1"]
    assert edited.map is None
    assert edited.segments == []
    assert cards.keep_features(card, "f0,f1") == edited


def test_a_logarithm_that_changes_the_answer_is_offered():
    X = plant(2)
    bent = X.assign(f0=np.exp(3 * X["f0"]))
    bent = (bent - bent.mean()) / bent.std(ddof=0)
    found = examine(bent, make_sweep([0.2, 0.1, 0.1]), make_card(X), k=1, logged=X)
    (sentence,), (edit,) = found.edits, found.edits.values()
    assert sentence.startswith("With the logarithm of F0, the calibrated rule finds K = 3")
    assert yaml.safe_load(edit)["features"]["f0"] == {"label": "F0", "transform": "log"}


def test_both_edits_are_tried_together():
    X = plant()
    bent = X.assign(f0=np.exp(1.5 * X["f0"]))
    bent = (bent - bent.mean()) / bent.std(ddof=0)
    found = examine(bent, make_sweep([0.01, 0.04, 0.02]), make_card(X), k=1, logged=X)
    told = found.variations["variation"][lambda s: s.str.contains("with the log")]
    assert told.iloc[1].startswith(f"{told.iloc[0]} and without what carries nothing")
    assert "K = 3" in next(each for each in found.edits if " and without what" in each)


def test_an_edit_that_changes_nothing_is_not_offered():
    X = plant(3)
    sweep = make_sweep([0.1, 0.4, 0.2], gated=[False, True, False])
    assert examine(X, sweep, make_card(X), k=3).edits == {}


def test_variations_are_compared_with_the_main_cut(table, mall, card):
    X = pd.DataFrame(mall, columns=list(card.features))
    codes = pd.get_dummies(table[["Gender"]], drop_first=True, dtype=int)
    labels = KMeans(4, n_init=100).fit_predict(X)
    sheet = sensitivity.vary(X, codes, labels, others={"as it is": X}, ks=[2, 3, 4, 5], draws=19)
    ari = sheet.set_index("variation")["ari"]
    assert ari["min–max scaling"] > 0.9
    assert ari["as it is"] == 1
    assert ari["with Gender_Male in the distance"] < 0.5
    assert len(ari) == 2 + 3 + 1 + 1
    again = kmeans.fit(X.drop(columns="Age"), 4, starts=100).labels
    assert ari["without Age"] == pytest.approx(adjusted_rand_score(labels, again))
    assert sheet.set_index("variation")["k"]["without Age"] == 5


def test_alternatives_tell_how_many_customers_would_be_elsewhere():
    X = plant(3)
    sweep = make_sweep([0.1, 0.4, 0.2], gated=[False, True, False])
    found = examine(X, sweep, make_card(X), k=3)
    sheet = found.alternatives.set_index("choice")
    assert [*sheet.index[:4]] == ["K = 2", "K = 4", "Ward's method", "a Gaussian mixture"]
    assert [*sheet.index[4:]] == ["without f0", "without f1", "without f2"]
    assert [*sheet["k"]] == [2, 4, 3, 3, 3, 3, 3]
    assert sheet["moved"]["K = 2"] == pytest.approx(1 / 3, abs=0.01)  # the third group
    varied = found.variations.set_index("variation")
    assert sheet["moved"]["without f2"] == varied["moved"]["without f2"] < 0.05
    assert sheet["moved"]["without f0"] > 0.2
    same_k = found.families.set_index("family")["moved_same_k"]
    assert sheet["moved"]["Ward's method"] == same_k["Ward"]
    assert (sheet["ari"] <= 1).all()


def test_one_segment_has_no_alternatives():
    X = plant(3)
    for found in (examine(X, make_sweep([0.1, 0.4, 0.2]), make_card(X), k=1),
                  examine(X, make_sweep([np.nan] * 3), make_card(X), k=1, ks=())):  # fmt: skip
        assert found.alternatives.empty
        assert [*found.alternatives] == ["choice", "kind", "k", "ari", "moved"]


@pytest.mark.parametrize(
    ("first", "second", "moved"),
    [
        ([0, 0, 1, 1], [1, 1, 0, 0], 0),
        ([0, 0, 1, 1], [0, 0, 0, 0], 0.5),
        ([0, 0, 0, 1, 1, 2], [0, 1, 2, 2, 2, 2], 0.5),
    ],
)
def test_segments_are_matched_one_to_one(first, second, moved):
    assert sensitivity.share_moved(first, second) == pytest.approx(moved)
    assert sensitivity.share_moved(second, first) == pytest.approx(moved)


def test_where_nothing_was_cut_there_is_nothing_to_vary():
    X = plant(2)
    found = examine(X, make_sweep([np.nan] * 3), make_card(X), k=1, ks=())
    assert found.at == 1
    assert found.features.empty
    assert found.variations.empty
    assert found.edits == {}


def test_other_families_answer_with_their_own_k():
    X = plant(2)
    families = sensitivity.compare_families(X, GROUPS, k_max=6)
    assert [*families["k"].iloc[:4]] == [3, 3, 3, 3]
    aris = families.set_index("family")[[*families["family"]]]
    np.testing.assert_array_equal(aris, aris.T)
    assert (np.diag(aris) == 1).all()
    assert [*families["ari_own_k"]] == [*aris["K-means"]]
    found = sensitivity.explain_families(families)
    assert found["agrees"]
    assert "k-medoids" in found["plain"]
    halved = sensitivity.explain_families(sensitivity.compare_families(X, GROUPS % 2, k_max=6))
    assert not halved["agrees"]
    assert halved["word"] == "No other method agrees"


def test_one_segment_is_an_answer_of_other_families_too():
    X = np.random.default_rng(3).normal(size=(200, 2))
    families = sensitivity.compare_families(X, np.zeros(200, int), k_max=5).set_index("family")
    assert families.loc["Gaussian mixture", ["k", "ari_own_k"]].tolist() == [1, 1]
    assert families.loc["Ward", "ari_own_k"] == 0
    assert families["ari_same_k"].isna().all()
    assert sensitivity.explain_families(families.reset_index())["agrees"]


@pytest.mark.parametrize("rows", [[[0.0], [1.0]], [[0.0, 1]] * 3 + [[2, 2]] * 2, [[1.0], [2], [4]]])
def test_the_smallest_tables_have_families_too(rows):
    labels = (np.arange(len(rows)) > 0).astype(int)
    for given in (labels, labels * 0):
        assert len(sensitivity.compare_families(rows, given)) == 5
