"""The compiled K-means: scikit-learn's answers, one answer a seed, and errors that help."""

import os
import subprocess
import sys
import warnings
from pathlib import Path
from threading import current_thread
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_samples

from segmentation.clustering import kmeans
from segmentation.clustering.silhouettes import measure_silhouettes

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(7)
    return rng.normal(size=(240, 3)) + np.repeat(np.eye(3) * 4, 80, axis=0)


def sklearn_fit(matrix, centres, weights=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = KMeans(len(centres), init=centres, n_init=1)
        return model.fit(matrix, sample_weight=weights)


def assert_same(fit, peer):
    np.testing.assert_array_equal(fit.labels, peer.labels_)
    np.testing.assert_allclose(fit.centres, peer.cluster_centers_, atol=1e-10)
    assert fit.inertia == pytest.approx(peer.inertia_, rel=1e-10)


@given(
    seed=st.integers(0, 10_000), n=st.integers(12, 300), p=st.integers(1, 6), k=st.integers(1, 9)
)
@settings(max_examples=60, deadline=None)
def test_same_starts_give_scikit_learns_answer(seed, n, p, k):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(n, p)) * 3 + 5
    start = matrix[rng.choice(n, k, replace=False)]
    assert_same(kmeans.fit(matrix, k, centres=start), sklearn_fit(matrix, start))


def test_empty_segment_moves_to_the_farthest_row(blobs):
    start = np.array([*blobs[[0, 90, 170]], [100.0, 100.0, 100.0]])
    fit = kmeans.fit(blobs, 4, centres=start)
    assert_same(fit, sklearn_fit(blobs, start))
    assert np.bincount(fit.labels, minlength=4).min() > 0


def test_weights_act_as_in_scikit_learn(blobs):
    weights = np.random.default_rng(0).integers(0, 4, len(blobs)).astype(float)
    assert_same(
        kmeans.fit(blobs, 3, centres=blobs[:3], sample_weight=weights),
        sklearn_fit(blobs, blobs[:3], weights),
    )


def test_a_weight_of_two_is_a_row_twice(blobs):
    weights = np.random.default_rng(1).integers(0, 4, len(blobs))
    start = blobs[[0, 90, 170]]
    weighted = kmeans.fit(blobs, 3, sample_weight=weights, centres=start)
    repeated = kmeans.fit(np.repeat(blobs, weights, axis=0), 3, centres=start)
    assert weighted.inertia == pytest.approx(repeated.inertia)
    np.testing.assert_allclose(weighted.centres, repeated.centres)


@pytest.mark.parametrize("k", [2, 4, 6, 8])
def test_many_starts_are_as_good_as_scikit_learns(mall, k):
    mine = kmeans.fit(mall, k, starts=400)
    peer = KMeans(k, n_init=100, random_state=0).fit(mall)
    assert mine.inertia <= peer.inertia_ * (1 + 1e-6)


@pytest.mark.parametrize("name", "ABCD")
@pytest.mark.parametrize("k", range(2, 9))
def test_finds_the_recorded_optimum(tables, partitions, name, k):
    stored = partitions[name][str(k)]
    assert kmeans.fit(tables[name], k, starts=400).inertia <= stored["wss"] * 1.0005


def test_one_segment_is_the_mean(blobs):
    fit = kmeans.fit(blobs, 1)
    np.testing.assert_allclose(fit.centres, blobs.mean(axis=0, keepdims=True))
    assert fit.best_share == 1
    assert not fit.labels.any()


def test_best_share_counts_the_starts_that_reached_the_best(mall):
    shares = [kmeans.fit(mall, k, starts=200).best_share for k in (2, 7)]
    assert shares[0] > 0.8
    assert 0 < shares[1] < 0.4


def on_threads(numbers, function, *given, **options):
    """What a function gives on a machine of each number of processors."""
    for number in numbers:
        with mock.patch.object(kmeans.joblib, "cpu_count", lambda number=number: number):
            yield function(*given, **options)


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_threads_do_not_change_the_answer(threads):
    matrix = np.random.default_rng(3).normal(size=(2_000, 2))
    one, many = on_threads((1, threads), kmeans.fit, matrix, 6, seed=5)
    np.testing.assert_array_equal(one.labels, many.labels)
    assert one.inertia == many.inertia
    weights = np.random.default_rng(4).multinomial(2_000, np.full(2_000, 1 / 2_000), 9)
    stacks = on_threads((1, threads), kmeans.fit_many, matrix, 4, weights)
    np.testing.assert_array_equal(*stacks)


def test_what_is_spread_within_a_thread_stays_on_it():
    def name_inner(_):
        return kmeans.spread(lambda _: current_thread().name, 2, 10**9)

    (names,) = on_threads((2,), kmeans.spread, name_inner, 2, 10**9)
    assert [len(inner) for inner in names] == [1, 1]


def test_seed_decides(mall):
    np.testing.assert_array_equal(kmeans.fit(mall, 7).labels, kmeans.fit(mall, 7).labels)
    starts = [kmeans.fit(mall, 7, starts=1, seed=seed).inertia for seed in range(10)]
    assert len(set(starts)) > 1


def test_fit_many_fits_each_resample(blobs):
    weights = np.zeros((3, 240))
    weights[0, :80] = weights[1, 80:160] = weights[2, 160:] = 1
    centres = kmeans.fit_many(blobs, 1, weights)
    np.testing.assert_allclose(
        centres[:, 0], [blobs[i : i + 80].mean(axis=0) for i in (0, 80, 160)]
    )


def test_assign_gives_the_nearest_centre(blobs):
    fit = kmeans.fit(blobs, 5)
    np.testing.assert_array_equal(kmeans.assign(blobs, fit.centres), fit.labels)
    stack = kmeans.assign(blobs, np.stack([fit.centres, fit.centres[::-1]]))
    np.testing.assert_array_equal(stack, [fit.labels, 4 - fit.labels])


def test_more_segments_than_different_rows_still_answers():
    matrix = np.repeat([[0.0], [1.0], [5.0]], 10, axis=0)
    fit = kmeans.fit(matrix, 6)
    assert fit.inertia == pytest.approx(0)
    assert np.isfinite(fit.centres).all()
    assert kmeans.fit(np.ones((9, 2)), 3).inertia == 0


@pytest.mark.parametrize("n", [30, 700])
def test_silhouettes_are_scikit_learns(n):
    matrix = np.random.default_rng(n).normal(size=(n, 4))
    solutions = np.stack([kmeans.fit(matrix, k).labels for k in (2, 5, 9)])
    peer = [silhouette_samples(matrix, labels) for labels in solutions]
    np.testing.assert_allclose(measure_silhouettes(matrix, solutions), peer, atol=1e-10)


@st.composite
def cut_tables(draw):
    """A small table full of ties, and labellings of it."""
    n, p = draw(st.integers(3, 24)), draw(st.integers(1, 3))
    value = st.integers(-3, 3).map(float)
    row = st.lists(value, min_size=p, max_size=p)
    matrix = np.array(draw(st.lists(row, min_size=n, max_size=n)))
    labels = st.lists(st.integers(0, draw(st.integers(0, n - 1))), min_size=n, max_size=n)
    solutions = np.array(draw(st.lists(labels, min_size=1, max_size=4)))
    return matrix, solutions


def peer_silhouettes(matrix, labels):
    """scikit-learn's silhouettes, NaN where it refuses one segment and 0 where all stand alone."""
    found = len(set(labels))
    if found in (1, len(labels)):
        return np.full(len(labels), np.nan if found == 1 else 0.0)
    return silhouette_samples(cdist(matrix, matrix), labels, metric="precomputed")


@given(case=cut_tables())
@settings(max_examples=150, deadline=None)
def test_silhouettes_stand_ties_and_single_rows(case):
    matrix, solutions = case
    peer = [peer_silhouettes(matrix, labels) for labels in solutions]
    np.testing.assert_allclose(measure_silhouettes(matrix, solutions), peer, atol=1e-8)


@pytest.mark.parametrize("labelled", [1, 3, 40])
def test_threads_do_not_change_silhouettes(labelled):
    rng = np.random.default_rng(labelled)
    matrix, solutions = rng.normal(size=(2_101, 3)), rng.integers(0, labelled + 1, (4, 2_101))
    one, *others = on_threads((1, 2, 5), measure_silhouettes, matrix, solutions)
    for other in others:
        np.testing.assert_array_equal(other, one)
    np.testing.assert_allclose(one[0], silhouette_samples(matrix, solutions[0]), atol=1e-8)


def test_silhouette_of_a_row_alone_is_zero_and_of_one_segment_undefined():
    matrix = np.array([[0.0], [0.1], [9.0]])
    values = measure_silhouettes(matrix, [[0, 0, 1], [0, 0, 0]])
    assert values[0, 2] == 0
    assert np.isnan(values[1]).all()


@pytest.fixture(scope="module")
def many():
    """Six groups among more rows than the starts see, over several parts of the polish."""
    rng = np.random.default_rng(5)
    middles = rng.normal(size=(6, 4)) * 4
    return middles[rng.integers(0, 6, 150_001)] + rng.normal(size=(150_001, 4))


def test_many_rows_are_started_on_a_sample_and_polished_as_a_whole(many):
    fit = kmeans.fit(many, 6, starts=4)
    peer = sklearn_fit(many, fit.centres)
    assert fit.inertia == pytest.approx(peer.inertia_, rel=2e-4)
    own = np.square(many - fit.centres[fit.labels]).sum()
    assert fit.inertia == pytest.approx(own, rel=1e-9)
    assert 0 < fit.best_share <= 1


def test_threads_do_not_change_a_fit_to_many_rows(many):
    weights = np.random.default_rng(2).integers(0, 5, len(many))
    how = {"starts": 3, "sample_weight": weights}
    one, *others = on_threads((1, 2, 5), kmeans.fit, many, 5, **how)
    for other in others:
        np.testing.assert_array_equal(one.centres, other.centres)
        np.testing.assert_array_equal(one.labels, other.labels)
        assert one.inertia == other.inertia


def test_given_centres_are_polished_part_by_part_as_in_scikit_learn(many):
    start = many[:5]
    assert_same(kmeans.fit(many, 5, centres=start), sklearn_fit(many, start))
    far = np.array([*many[:4], np.full(4, 1e3)])
    assert_same(kmeans.fit(many, 5, centres=far), sklearn_fit(many, far))


def test_a_sample_is_drawn_without_replacement_in_order():
    table = pd.DataFrame({"a": np.arange(9_000)})
    drawn = kmeans.draw_rows(table, 2_000, seed=1)
    assert drawn["a"].is_monotonic_increasing
    assert drawn["a"].nunique() == 2_000
    np.testing.assert_array_equal(
        kmeans.draw_rows(table["a"].to_numpy(), 2_000, seed=1), drawn["a"]
    )
    assert not drawn["a"].equals(kmeans.draw_rows(table, 2_000, seed=2)["a"])
    assert kmeans.draw_rows(table, 9_000).equals(table)


@pytest.mark.parametrize(
    "arguments",
    [
        {"k": 0},
        {"k": 500},
        {"k": 2, "starts": 0},
        {"k": 2, "sample_weight": np.ones(3)},
        {"k": 2, "sample_weight": -np.ones(200)},
        {"k": 2, "sample_weight": np.zeros(200)},
        {"k": 2, "centres": np.ones((3, 3))},
    ],
)
def test_refuses_what_does_not_fit_the_matrix(mall, arguments):
    name = [*arguments][-1]
    with pytest.raises(ValueError, match=f"(?i){name.replace('_', '.')}"):
        kmeans.fit(mall, **arguments)


def test_refuses_what_is_not_finite(mall):
    with pytest.raises(ValueError, match="finite"):
        kmeans.fit(np.where(mall > 2, np.nan, mall), 2)


def test_works_where_no_cache_folder_can_be_written():
    code = "from segmentation.clustering import kernels; print(kernels._uniform)"
    nowhere = {
        "NUMBA_CACHE_DIR": "/proc/nowhere",
        "HOME": "/proc/nowhere",
        "XDG_CACHE_HOME": "/proc",
    }
    environment = {**os.environ, **nowhere, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
