"""The model: order, assignment with confidence, limits, saving and loading."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentation import InputError
from segmentation.customers import table as customers
from segmentation.segments import model as segmenter
from segmentation.segments import profiles


@pytest.fixture(scope="module")
def fitted(table, card):
    pipeline = segmenter.fit(table, card, k=4)
    return pipeline, segmenter.measure_limits(pipeline, table, card)


@pytest.fixture(scope="module")
def scorer(fitted, card):
    return segmenter.build_scorer(fitted[0], card, fitted[1])


def test_the_largest_segment_comes_first(fitted, table):
    pipeline, _ = fitted
    assert list(np.bincount(pipeline.predict(table))) == [65, 57, 40, 38]
    assert pipeline["kmeans"].inertia_ == pytest.approx(205.2, abs=0.05)


def test_ties_in_size_are_ordered_by_centre():
    table = pd.DataFrame({"a": [9.0, 9.1, 0.0, 0.1, 5.0, 5.1], "b": [0.0] * 6})
    card = customers.Card.model_validate(
        {"title": "t", "table": "t", "id": "id", "features": {"a": {}, "b": {}}}
    )
    centres = segmenter.find_centres(segmenter.fit(table, card, k=3), card)
    np.testing.assert_allclose(centres["a"], [0.05, 5.05, 9.05])


def test_centres_are_the_means_in_raw_units(fitted, table, card):
    pipeline, _ = fitted
    means = table[list(card.features)].groupby(pipeline.predict(table)).mean()
    np.testing.assert_allclose(segmenter.find_centres(pipeline, card), means, rtol=1e-10)


def test_no_training_row_is_outside(scorer, table):
    assigned = segmenter.assign(scorer, table)
    assert set(assigned["status"]) <= {"ok", "borderline"}
    assert assigned["confidence"].between(0, 1).all()
    assert (assigned["second"] != assigned["position"]).all()


def test_confidence_and_border_follow_the_shadow_value(fitted, scorer, table):
    pipeline, _ = fitted
    assigned = segmenter.assign(scorer, table)
    nearest = np.sort(pipeline.transform(table), axis=1)
    shadow = 2 * nearest[:, 0] / (nearest[:, 0] + nearest[:, 1])
    np.testing.assert_allclose(assigned["confidence"], 1 - shadow)
    assert ((assigned["status"] == "borderline") == (shadow > 0.8)).all()


def test_borderline_customers_are_counted_per_segment(fitted, table, card):
    pipeline, limits = fitted
    clustered = segmenter.cluster_customers(pipeline, table, card, limits)
    clustered["segment"] = clustered["cluster"].astype(str)
    counted = segmenter.count_statuses(clustered)
    assert list(counted["customers"]) == [65, 57, 40, 38]
    assert counted["borderline"].sum() == (clustered["status"] == "borderline").sum()
    assert counted["share"].to_numpy() == pytest.approx(counted["borderline"] / [65, 57, 40, 38])


def test_beyond_the_training_range_is_outside(scorer, table):
    stranger = table.iloc[[0]].assign(Age=99.0)
    assert segmenter.assign(scorer, stranger)["status"].item() == "outside"
    edge = table.loc[[table["Age"].idxmax()]]
    assert segmenter.assign(scorer, edge)["status"].item() != "outside"


def test_farther_than_any_member_is_outside(scorer, table):
    odd = table.iloc[[0]].assign(
        **{"Age": 70.0, "Annual Income (k$)": 137.0, "Spending Score (1-100)": 99.0}
    )
    assert segmenter.assign(scorer, odd)["status"].item() == "outside"


def test_a_dropped_row_keeps_an_empty_cluster(table, card):
    holed = table.copy()
    holed.loc[3, "Age"] = np.nan
    dropping = card.features["Age"].model_copy(update={"missing": "drop"})
    card = card.model_copy(update={"features": {**card.features, "Age": dropping}})
    pipeline = segmenter.fit(holed, card, k=4)
    limits = segmenter.measure_limits(pipeline, holed, card)
    clustered = segmenter.cluster_customers(pipeline, holed, card, limits)
    assert clustered.loc[3, "status"] == "dropped"
    assert pd.isna(clustered.loc[3, "cluster"])
    assert len(clustered) == 200
    assert clustered["cluster"].notna().sum() == 199


@pytest.mark.parametrize(("k", "most"), [(0, 199), (200, 199), (500, 199)])
def test_k_out_of_range_is_refused(k, most, table, card):
    with pytest.raises(InputError, match=f"k must be 1…{most} for 200 customers, got {k}"):
        segmenter.fit(table, card, k=k)


def test_k_beyond_the_distinct_customers_is_refused(table, card):
    same = pd.concat([table.head(5)] * 4)
    with pytest.raises(InputError, match="k must be 1…5 for 5 distinct customers, got 6"):
        segmenter.fit(same, card, k=6)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_row_and_column_order_change_nothing(seed, table, card, fitted):
    shuffled = table.sample(frac=1, random_state=seed).sample(frac=1, axis=1, random_state=seed)
    again = segmenter.fit(shuffled, card, k=4)
    expected = fitted[0].predict(table)
    assert list(again.predict(table)) == list(expected)


def save(folder, table, card):
    pipeline = segmenter.fit(table, card, k=4)
    limits = segmenter.measure_limits(pipeline, table, card)
    clustered = segmenter.cluster_customers(pipeline, table, card, limits)
    profile = profiles.profile_features(profiles.measure_features(clustered, card), card)
    segments = profiles.list_segments(profile, segmenter.find_centres(pipeline, card), card)
    segmenter.save_segmenter(folder, pipeline, card, limits, segments)
    return pipeline


def test_what_was_saved_is_what_is_loaded(tmp_path, table, card):
    pipeline = save(tmp_path, table, card)
    loaded, figures = segmenter.load_segmenter(tmp_path)
    assert (loaded.predict(table) == pipeline.predict(table)).all()
    assert figures["ids"] == [0, 1, 2, 3]
    assert [f["unit"] for f in figures["features"]] == ["years", "k$", "points"]


def test_an_altered_model_is_never_unpickled(tmp_path, table, card):
    save(tmp_path, table, card)
    model = tmp_path / segmenter.MODEL
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="is not the file that the run wrote"):
        segmenter.load_segmenter(tmp_path)


def test_a_model_of_another_version_is_refused(tmp_path, table, card):
    save(tmp_path, table, card)
    path = tmp_path / segmenter.FIGURES
    figures = json.loads(path.read_text("utf-8"))
    figures["versions"]["scikit-learn"] = "1.4.2"
    path.write_text(json.dumps(figures), "utf-8")
    with pytest.raises(InputError, match=r"written by scikit-learn 1\.4\.2"):
        segmenter.load_segmenter(tmp_path)


def test_a_missing_model_names_the_mend(tmp_path):
    with pytest.raises(InputError, match="no segmenter here; run the series first"):
        segmenter.load_segmenter(tmp_path)
