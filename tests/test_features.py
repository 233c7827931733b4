"""What the distance sees: policies, scaling, encoding."""

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import StandardScaler

from segmentation.clustering import preprocessing as features
from segmentation.customers import table as customers


def make(values, **policies):
    table = pd.DataFrame({"id": [str(i) for i in range(len(values))], "a": values, "b": 0.0})
    table["b"] = np.arange(len(values), dtype=float)
    card = customers.Card.model_validate(
        {"title": "t", "table": "t.csv", "id": "id", "features": {"a": policies, "b": {}}}
    )
    return table, card


def test_scaling_is_the_z_score_with_the_population_sd(table, card):
    ours = features.scale(table, card)
    theirs = StandardScaler().fit_transform(table[list(card.features)])
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert list(ours) == list(card.features)


def test_gaps_are_filled_with_the_median():
    table, card = make([1.0, 2.0, np.nan, 9.0])
    scaled = features.scale(table, card)["a"]
    filled = pd.Series([1.0, 2.0, 2.0, 9.0])
    np.testing.assert_allclose(scaled, (filled - filled.mean()) / filled.std(ddof=0))


@pytest.mark.parametrize("policy", ["missing", "outliers"])
def test_drop_leaves_rows_out(policy):
    odd = np.nan if policy == "missing" else 1e6
    table, card = make([1.0, 2.0, 3.0, 4.0, odd], **{policy: "drop"})
    assert list(features.select_rows(table, card)["id"]) == ["0", "1", "2", "3"]
    assert "4 of 5 customers are used: 1 dropped" in features.summarize_policies(table, card)


def test_clip_bounds_an_outlier_at_the_outer_fence():
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 1e6]
    table, card = make(values, outliers="clip")
    low, high = features.find_fences(values, np.ones(len(values)))
    q1, q3 = np.quantile(values, [0.25, 0.75])
    assert (low, high) == (q1 - 3 * (q3 - q1), q3 + 3 * (q3 - q1))
    clipped = np.clip(values, low, high)
    expected = (clipped - clipped.mean()) / clipped.std()
    np.testing.assert_allclose(features.scale(table, card)["a"], expected)
    assert "1 outliers clipped" in features.summarize_policies(table, card)


def test_encoding_is_one_column_a_level_but_the_first(table, card):
    codes = features.encode(table, card)
    assert list(codes) == ["Gender=Male"]
    assert codes["Gender=Male"].sum() == 88


def test_prepared_table_has_id_features_and_codes(table, card):
    prepared = features.preprocess(table, card)
    assert list(prepared) == ["CustomerID", *card.features, "Gender=Male"]
    assert prepared[list(card.features)].mean().abs().max() < 1e-12


def test_gender_in_the_distance_makes_the_segments_gender(table, card):
    row = features.compare_encoded(table, card, k=4).iloc[0]
    assert row["V put in"] == pytest.approx(1.0)
    assert row["V left out"] < 0.2
    assert "would decide the cut" in features.summarize_encoded(pd.DataFrame([row]))


def test_association_is_cramer_s_v():
    labels = [0] * 30 + [1] * 30
    assert features.measure_association(labels, pd.Series(["x"] * 30 + ["y"] * 30)) == 1.0
    assert features.measure_association(labels, pd.Series(["x", "y"] * 30)) == 0.0
    assert features.measure_association([0] * 60, pd.Series(["x", "y"] * 30)) == 0.0


def test_scaling_sentence_names_the_heaviest_feature(table, card):
    variances = table[list(card.features)].var(ddof=0)
    share = variances.max() / variances.sum()
    assert f"Annual income would make up {share:.0%}" in features.summarize_scaling(table, card)
