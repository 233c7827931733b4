"""The drop-ins give scikit-learn's tables, and are scikit-learn estimators."""

import numpy as np
import pytest
from modelling import build_model, build_preprocessor
from sklearn import cluster, metrics
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from segmentation.clustering import (
    BlockScaler,
    Clipper,
    KMeans,
    silhouette_samples,
)


@parametrize_with_checks([KMeans(n_clusters=3, n_init=5), Clipper(), BlockScaler()])
def test_is_a_scikit_learn_estimator(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def scaled(table, card):
    return build_preprocessor(card).fit_transform(table[card.distance])


def test_preprocessing_is_the_z_score(table, card, scaled):
    np.testing.assert_array_equal(scaled, StandardScaler().fit_transform(table[card.distance]))


@pytest.mark.parametrize("k", range(1, 8))
def test_swapping_the_imports_gives_the_same_tables(scaled, k):
    """Up to K = 7: from 8 on no number of random starts finds the best cut surely."""
    ours = KMeans(k, n_init=100, random_state=0).fit(scaled)
    theirs = cluster.KMeans(k, n_init=100, random_state=0, tol=0).fit(scaled)
    assert ours.inertia_ == pytest.approx(theirs.inertia_, rel=1e-9)
    assert metrics.adjusted_rand_score(ours.labels_, theirs.labels_) == 1
    sizes = np.bincount(ours.labels_)
    assert (np.diff(sizes) <= 0).all()
    if k > 1:
        values = silhouette_samples(scaled, ours.labels_)
        peer = metrics.silhouette_samples(scaled, theirs.labels_)
        np.testing.assert_allclose(values, peer, atol=1e-9)


def test_the_model_has_the_recorded_sizes_and_exact_means(table, card, scaled):
    model = build_model(table, card, 4)["kmeans"]
    assert list(np.bincount(model.labels_)) == [65, 57, 40, 38]
    means = scaled.groupby(model.labels_).mean().to_numpy()
    np.testing.assert_allclose(model.cluster_centers_, means, atol=1e-14)


def test_the_order_of_the_rows_changes_nothing(scaled):
    rows = scaled.to_numpy()
    order = np.random.default_rng(0).permutation(len(rows))
    one, two = KMeans(7).fit(rows), KMeans(7).fit(rows[order])
    np.testing.assert_array_equal(one.cluster_centers_, two.cluster_centers_)
    np.testing.assert_array_equal(one.labels_[order], two.labels_)


def test_an_array_starts_once(scaled):
    start = scaled.to_numpy()[[0, 50, 100, 150]]
    ours = KMeans(4, init=start).fit(scaled)
    theirs = cluster.KMeans(4, init=start, n_init=1, tol=0).fit(scaled)
    assert ours.inertia_ == pytest.approx(theirs.inertia_, rel=1e-9)


def test_silhouettes_take_any_labels(scaled):
    names = np.array(["b", "a", "z"])[KMeans(3).fit_predict(scaled)]
    expected = metrics.silhouette_samples(scaled, names)
    np.testing.assert_allclose(silhouette_samples(scaled, names), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([0] * 200, {}, "labels must be 2…199 different ones, got 1"),
        (range(200), {}, "labels must be 2…199 different ones, got 200"),
        ([0, 1], {}, "inconsistent numbers of samples"),
        ([0, 1] * 100, {"metric": "cosine"}, "metric must be"),
    ],
)
def test_silhouettes_refuse_in_a_sentence(scaled, labels, options, message):
    with pytest.raises(ValueError, match=message):
        silhouette_samples(scaled, list(labels), **options)
