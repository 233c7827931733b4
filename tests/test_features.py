"""What the distance sees: policies, scaling, codes."""

import numpy as np
import pandas as pd
import pytest
from modelling import build_preprocessor

from segmentation.clustering import BlockScaler, keep_rows
from segmentation.clustering.rows import describe_quality, find_fences
from segmentation.customers.card import Card


def make(values, **policies):
    features = {"a": policies, "b": {}}
    table = pd.DataFrame({"a": values, "b": np.arange(len(values), dtype=float)})
    card = Card.model_validate({"title": "t", "table": "t.csv", "id": "id", "features": features})
    return table, card


def scale(table, card):
    return build_preprocessor(card).fit_transform(keep_rows(table, card)[card.distance])


def test_gaps_are_filled_with_the_median():
    scaled = scale(*make([1.0, 2.0, np.nan, 9.0]))["a"]
    filled = pd.Series([1.0, 2.0, 2.0, 9.0])
    np.testing.assert_allclose(scaled, (filled - filled.mean()) / filled.std(ddof=0))


@pytest.mark.parametrize("policy", ["missing", "outliers"])
def test_drop_leaves_rows_out_and_says_so(policy):
    odd = np.nan if policy == "missing" else 1e6
    table, card = make([1.0, 2.0, 3.0, 4.0, odd], **{policy: "drop"})
    assert list(keep_rows(table, card).index) == [0, 1, 2, 3]
    quality = pd.DataFrame(columns=["column", "finding", "rows", "done"])
    told = describe_quality(table, quality, card)
    assert told["rows"].to_list() == ([4] if policy == "missing" else [1, 4])


def test_clip_bounds_an_outlier_at_the_outer_fence():
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 1e6]
    low, high = find_fences([*values, np.nan])
    q1, q3 = np.quantile(values, [0.25, 0.75])
    assert (low, high) == (q1 - 3 * (q3 - q1), q3 + 3 * (q3 - q1))
    clipped = np.clip(values, low, high)
    expected = (clipped - clipped.mean()) / clipped.std()
    np.testing.assert_allclose(scale(*make(values, outliers="clip"))["a"], expected)


def test_outliers_are_those_of_the_logarithm_where_there_is_one():
    table, card = make([1.0, 10.0, 100.0, 1e3, 1e4, 1e5], outliers="drop", transform="log")
    assert len(keep_rows(table, card)) == 6
    table, card = make([1.0, 10.0, 100.0, 1e3, 1e4, 1e5], outliers="drop")
    assert len(keep_rows(table, card)) == 5


def test_a_weight_multiplies_the_scaled_feature():
    plain, heavy = (scale(*make([1.0, 2.0, 4.0], weight=weight)) for weight in (1, 3))
    np.testing.assert_allclose(heavy["a"], 3 * plain["a"])
    np.testing.assert_array_equal(heavy["b"], plain["b"])


def test_a_block_of_codes_has_the_variance_of_one_feature():
    codes = np.eye(3)[[0, 0, 1, 2, 2, 2]]
    scaler = BlockScaler(1.5).fit(codes)
    scaled = scaler.transform(codes)
    assert scaled.var(axis=0).sum() == pytest.approx(1.5**2)
    np.testing.assert_allclose(scaled * scaler.scale_ + scaler.mean_, codes, atol=1e-12)
