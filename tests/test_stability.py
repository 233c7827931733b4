"""Resampled stability against the figures recorded from R, and the null's promises."""

from functools import cache

import diptest
import numpy as np
import pandas as pd
import pytest
from conftest import read_reference
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.special import softmax
from scipy.stats import skew
from sklearn.metrics import adjusted_rand_score, silhouette_score

from segmentation.clustering import KMeans, kmeans, null, stability
from segmentation.clustering.silhouettes import measure_silhouettes

EXACT = read_reference("exact")
RESAMPLED = read_reference("resampled")
REPLICATES = list(EXACT["replicates"])


def within(values, recorded):
    mean, sd = np.array(recorded["mean"]), np.array(recorded["sd"])
    assert (np.abs(np.array(values) - mean) <= 4.4 * sd + 0.01).all(), (values, recorded)


# Single replicates, exactly


@pytest.mark.parametrize("case", REPLICATES)
def test_ari_of_recorded_fits(tables, case):
    for replicate in EXACT["replicates"][case]["bootstrap"]:
        one, two = kmeans.assign(tables[case[0]], replicate["centres"])
        value = stability.adjusted_rand(stability.contingency(one, two))
        np.testing.assert_allclose(value, replicate["ari"], atol=1e-9)


@pytest.mark.parametrize("case", REPLICATES)
def test_slsw_of_recorded_fits(tables, partitions, case):
    labels = partitions[case[0]][case[1]]["labels"]
    for replicate in EXACT["replicates"][case]["slsw"]:
        fits = kmeans.assign(tables[case[0]], replicate["centres"])
        value = stability.jaccard(stability.contingency(labels, fits)).mean(axis=0)
        np.testing.assert_allclose(value, replicate["slsw"], atol=1e-9)


@pytest.mark.parametrize("case", REPLICATES)
def test_jaccard_of_recorded_resamples(case):
    recorded = EXACT["replicates"][case]["clusterboot"]
    for replicate in recorded["resamples"]:
        own = np.array(recorded["labels"])[replicate["rows"]]
        value = stability.jaccard(stability.contingency(own, replicate["labels"]))[0]
        np.testing.assert_allclose(value, replicate["jaccard"], atol=1e-9)


@pytest.mark.parametrize("case", REPLICATES)
def test_prediction_strength_of_recorded_halves(tables, case):
    for replicate in EXACT["replicates"][case]["halvings"]:
        rows = [tables[case[0]][half] for half in replicate["rows"]]
        own = [np.array(labels) for labels in replicate["labels"]]
        centres = [
            np.stack([part[label == j].mean(axis=0) for j in range(int(case[1]))])
            for part, label in zip(rows, own, strict=True)
        ]
        values = [
            stability.kept_together(
                stability.contingency(own[i], kmeans.assign(rows[i], centres[1 - i]))
            )
            for i in (0, 1)
        ]
        np.testing.assert_allclose(np.mean(values), replicate["value"], atol=1e-9)


# Deterministic figures


@pytest.mark.parametrize("pair", list(EXACT["agreement"]))
def test_agreement_of_two_partitions(partitions, pair):
    name, k, size = pair.split("_")
    labels = [partitions[name][x]["labels"] for x in (k, size)]
    counts = stability.contingency(*labels)
    recorded = EXACT["agreement"][pair]
    assert stability.adjusted_rand(counts)[0] == pytest.approx(recorded["ari"], abs=1e-6)
    best = np.max(recorded["jaccard"], axis=1)
    np.testing.assert_allclose(stability.jaccard(counts)[0], best, atol=1e-6)


@pytest.mark.parametrize("name", "ABCD")
@pytest.mark.parametrize("series", ["series", "series_2_4_7"])
def test_order_and_slsa_over_a_series(tables, partitions, name, series):
    recorded = EXACT[series][name]
    solutions = {int(k): partitions[name][k]["labels"] for k in recorded}
    nodes = stability.track_cuts(tables[name], solutions).nodes.set_index("k")
    for k, figures in recorded.items():
        assert list(nodes.loc[int(k), "label"]) == figures["order"]
        if figures["slsa"]:
            np.testing.assert_allclose(nodes.loc[int(k), "slsa"], figures["slsa"], atol=1e-6)


def test_edges_count_the_shared_customers(tables, partitions):
    solutions = {k: partitions["A"][str(k)]["labels"] for k in (2, 3)}
    edges = stability.track_cuts(tables["A"], solutions).edges
    counts = edges.pivot_table(
        index="previous", columns="segment", values="customers", fill_value=0
    )
    np.testing.assert_array_equal(counts, EXACT["series"]["A"]["3"]["counts"])
    assert edges["share"].sum() == pytest.approx(1)


def test_slsa_is_undefined_first_and_after_one_segment(mall):
    solutions = {k: kmeans.fit(mall, k).labels for k in (1, 2, 3)}
    nodes = stability.track_cuts(mall, solutions).nodes
    assert nodes.loc[nodes["k"] <= 2, "slsa"].isna().all()
    assert nodes.loc[nodes["k"] == 3, "slsa"].notna().all()
    assert stability.track_cuts(mall, {2: solutions[2]}).edges.empty


def test_a_flow_tells_each_segment_s_parent(mall):
    labels = [0] * 100 + [1] * 100, [0] * 90 + [2] * 30 + [1] * 80
    table = stability.track_cuts(mall, dict(zip((2, 3), labels, strict=True))).tabulate()
    told = table[table["k"] == 3].set_index("label")
    first = table[table["k"] == 2].set_index("label")
    assert first["parent"].isna().all()
    assert [*told["parent"].loc[[0, 1]]] == [*first["segment"]]
    assert told.loc[2, ["size", "share", "from_parent"]].tolist() == [30, 0.15, 2 / 3]
    assert told.loc[2, "parent"] == first.loc[1, "segment"]


def test_without_a_cut_everyone_is_in_one_segment(mall):
    assert stability.track_cuts(mall, {}).nodes["size"].tolist() == [200]


@pytest.mark.parametrize("name", "ABCD")
def test_gorge_and_shadow_as_the_notebooks_write_them(tables, partitions, name):
    for k, recorded in EXACT["segments"][name].items():
        away = cdist(tables[name], partitions[name][k]["centres"])
        gorge = np.sqrt(softmax(-away, axis=1))
        quantiles = np.quantile(gorge, EXACT["quantile_probabilities"], axis=0).T
        np.testing.assert_allclose(quantiles, recorded["gorge"], atol=1e-6)
        first, second = np.sort(away, axis=1)[:, :2].T
        shadow = pd.Series(2 * first / (first + second)).groupby(partitions[name][k]["labels"])
        np.testing.assert_allclose(shadow.mean(), recorded["shadow"]["mean"], atol=1e-6)


@pytest.mark.parametrize("name", "ABCD")
def test_mean_silhouettes(tables, partitions, name):
    recorded = EXACT["silhouette"][name]
    labels = [partitions[name][k]["labels"] for k in recorded]
    values = measure_silhouettes(tables[name], labels).mean(axis=1)
    np.testing.assert_allclose(values, list(recorded.values()), atol=1e-6)


def test_gap_rules():
    rules = EXACT["gap_rules"]["rules"]
    for case in EXACT["gap_rules"]["cases"]:
        answers = stability.gap_choices(case["gap"], case["se"])
        assert [answers[rule] for rule in rules if rule in answers] == case["selected"][:3], case


@pytest.mark.parametrize("name", "ABCD")
def test_dispersions(tables, name):
    recorded = EXACT["log_w"][name]
    own = stability._log_dispersions(tables[name], len(recorded), starts=400)
    np.testing.assert_allclose(own, recorded, atol=5e-4)


# Resampled figures


@pytest.mark.parametrize("name", "ABCD")
def test_prediction_strength(tables, name):
    values = [stability.prediction_strength(tables[name], k).mean() for k in range(2, 9)]
    within(values, RESAMPLED["prediction_strength"][name])


@pytest.mark.parametrize("name", "ABCD")
def test_bootstrap_ari(tables, name):
    values = [stability.bootstrap_ari(tables[name], k).mean() for k in range(2, 9)]
    within(values, RESAMPLED["ari"][name])


@pytest.mark.parametrize("name", "ABCD")
def test_slsw(tables, partitions, name):
    for k, recorded in RESAMPLED["slsw"][name].items():
        recut = stability.resample_cut(tables[name], partitions[name][k]["labels"])
        within(recut.slsw.mean(axis=0), recorded)


@pytest.mark.parametrize("name", "ABCD")
def test_jaccard_bootstrap(tables, partitions, name):
    for k, recorded in RESAMPLED["jaccard"][name].items():
        values = stability.jaccard_bootstrap(tables[name], partitions[name][k]["labels"])
        within(values.mean(axis=0), recorded)
        counts = np.array(recorded["dissolved"])
        slack = 4.4 * counts.std(axis=0, ddof=1) + 4
        dissolved = (values <= stability.DISSOLVED).sum(axis=0)
        assert (np.abs(dissolved - counts.mean(axis=0)) <= slack).all()


@pytest.fixture(scope="module")
def find_gaps(tables):
    return cache(lambda name: stability.gap_statistic(tables[name]))


@pytest.mark.parametrize("name", "ABCD")
def test_gap_statistic(find_gaps, name):
    gaps = find_gaps(name)
    within(gaps["gap"], RESAMPLED["gap"][name])
    assert list(gaps["k"]) == list(range(1, 11))


def test_gap_answers_on_the_bundled_table(find_gaps):
    answers = {}
    for name in "AB":
        gaps = find_gaps(name)
        answers[name] = list(stability.gap_choices(gaps["gap"], gaps["gap_se"]).values())
    assert answers["A"][:2] == [2, 2]
    assert answers["A"][2] in (9, 10)
    assert answers["B"] == [1, 1, 5]


# Promises


@given(seed=st.integers(0, 10_000), k=st.integers(1, 6), size=st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_adjusted_rand_is_scikit_learns(seed, k, size):
    rng = np.random.default_rng(seed)
    one, two = rng.integers(0, k, (3, 40)), rng.integers(0, size, (3, 40))
    mine = stability.adjusted_rand(stability.contingency(one, two))
    peer = [adjusted_rand_score(a, b) for a, b in zip(one, two, strict=True)]
    np.testing.assert_allclose(mine, peer, atol=1e-12)


def test_one_segment_is_perfectly_stable(mall):
    assert (stability.bootstrap_ari(mall, 1, pairs=3) == 1).all()
    assert (stability.prediction_strength(mall, 1, halvings=3) == 1).all()


@pytest.mark.parametrize("figure", [stability.bootstrap_ari, stability.prediction_strength])
def test_seed_and_threads(mall, figure, monkeypatch):
    one = figure(mall, 5, seed=3)
    monkeypatch.setattr(kmeans.joblib, "cpu_count", lambda: 1)
    np.testing.assert_array_equal(one, figure(mall, 5, seed=3))
    assert not np.array_equal(one, figure(mall, 5, seed=4))


def test_segments_are_found_again_under_other_numbers():
    first = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    second = np.array([[2, 2, 0, 0, 0, 1, 1, 1], [1, 1, 1, 2, 2, 0, 0, 0]])
    found = stability._match_labels(first, second)
    assert found.tolist() == [[0, 0, 1, 1, 1, 2, 2, 2], [0, 0, 0, 1, 1, 2, 2, 2]]


def make_groups(seed, n, apart=4.0, p=2):
    """Customers of three groups on a line, `apart` standard deviations each from the next."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, p))
    rows[:, 0] += apart * rng.integers(3, size=n)
    return rows


def test_the_curve_falls_from_the_centre_to_the_border():
    rows = make_groups(0, 200, apart=3.0)
    recut = stability.resample_cut(rows, KMeans(3).fit_predict(rows), resamples=20)
    shadow, kept = recut.curve.T
    assert (np.diff(shadow) > 0).all()
    assert (np.diff(kept) <= 0).all()
    assert kept[0] > 0.97
    assert (len(shadow) <= 11, shadow[-1], kept[-1] <= 0.5) == (True, 1.0, True)


def test_confidence_is_how_often_fits_of_new_customers_agree():
    """Stated by one table's resamples, and found with refits of the same population."""
    stated, found = [], []
    for seed in range(6):
        rows = make_groups(seed, 200, apart=2.5)
        fit = KMeans(3).fit(rows)
        recut = stability.resample_cut(rows, fit.labels_, resamples=40)
        near = np.sort(fit.transform(rows), axis=1)
        stated.append(np.interp(2 * near[:, 0] / near[:, :2].sum(axis=1), *recut.curve.T))
        fits = [KMeans(3).fit(make_groups(100 + i, 200, apart=2.5)) for i in range(20)]
        others = np.stack([other.predict(rows) for other in fits])
        found.append((stability._match_labels(fit.labels_, others) == fit.labels_).mean(axis=0))
    said, seen = np.concatenate(stated), np.concatenate(found)
    assert abs(said.mean() - seen.mean()) < 0.05
    for part in (said < 0.8, (said >= 0.8) & (said < 0.95), said >= 0.95):
        assert abs(said[part].mean() - seen[part].mean()) < 0.1


def test_customers_of_the_table_are_new_to_the_refit_not_to_the_cut():
    """Of clouds without groups; by those left out of the cut, confidence would be .08 too high."""
    draw = [np.random.default_rng(seed).normal(size=(200, 10)) for seed in range(25)]
    others, over = [KMeans(3, n_init=20).fit(rows) for rows in draw[5:]], []
    for rows in draw[:5]:
        fit = KMeans(3).fit(rows)
        curve = stability.resample_cut(rows, fit.labels_, resamples=40).curve
        near = np.sort(fit.transform(rows), axis=1)
        stated = np.interp(2 * near[:, 0] / near[:, :2].sum(axis=1), *curve.T)
        again = np.stack([other.predict(rows) for other in others])
        kept = stability._match_labels(fit.labels_, again) == fit.labels_
        over.append(stated.mean() - kept.mean())
    assert abs(np.mean(over)) < 0.06


def test_intervals_are_of_the_whole_cut():
    """The population's own cut, by a very large sample, lies in about 95 % of the intervals."""
    large = KMeans(3, n_init=5).fit(make_groups(999, 50_000))
    share = np.bincount(large.labels_) / 50_000
    covered = []
    for seed in range(25):
        rows = pd.DataFrame(make_groups(seed, 200), columns=["a", "b"])
        labels = stability._match_labels(
            large.predict(rows.to_numpy()), KMeans(3).fit_predict(rows)[None]
        )[0]
        errors = stability.resample_cut(rows, labels, resamples=30).measure_errors(
            rows, customers=200
        )
        means = rows.groupby(labels).mean().stack() - large.cluster_centers_.ravel()
        off = np.repeat(np.bincount(labels) / 200 - share, 2)
        covered += [*(means + errors["mean_low"] <= 0) & (means + errors["mean_high"] >= 0)]
        covered += [*(off + errors["share_low"] <= 0) & (off + errors["share_high"] >= 0)]
    assert 0.88 < np.mean(covered) < 0.985


def test_refuses_a_k_that_halves_cannot_have(mall):
    with pytest.raises(ValueError, match="k must be 1…100 for halves of 200, got 150"):
        stability.prediction_strength(mall, 150)
    with pytest.raises(ValueError, match="labels must be 200 integers"):
        stability.resample_cut(mall, [0, 1])


# The null


def test_null_keeps_mean_variance_and_correlation(mall):
    table = np.column_stack([mall, mall[:, 0] * 0.8 + mall[:, 1] * 0.6])
    drawn = null.fit_null(table).draw(20_000, seed=1)
    np.testing.assert_allclose(drawn.mean(axis=0), table.mean(axis=0), atol=0.05)
    np.testing.assert_allclose(drawn.std(axis=0), table.std(axis=0), atol=0.05)
    np.testing.assert_allclose(np.corrcoef(drawn.T), np.corrcoef(table.T), atol=0.08)


def empirical(column):
    """The marginal of a column of different values: knots, and the share of the null below them."""
    ((_, below, few),) = null.fit_null(np.asarray(column)[:, None]).marginals
    assert not few
    return np.sort(column), below


SHAPES = {
    "normal": lambda rng: rng.normal(size=500),
    "exponential": lambda rng: rng.exponential(size=500),
    "lognormal": lambda rng: rng.lognormal(size=800),
    "uniform": lambda rng: rng.uniform(size=300),
    "two groups": lambda rng: np.concatenate([rng.normal(size=300), rng.normal(6, 1, 200)]),
    "three groups": lambda rng: np.concatenate([rng.normal(6 * i, 1, 150) for i in range(3)]),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_null_is_as_near_as_the_dip_allows(shape):
    """No unimodal distribution is nearer than the dip; this one is within twice of it."""
    column = SHAPES[shape](np.random.default_rng(5))
    values, below = empirical(column)
    density = np.diff(below) / np.diff(values)
    mode = density.argmax()
    assert (np.diff(density[: mode + 1]) >= -1e-9).all()
    assert (np.diff(density[mode:]) <= 1e-9).all()
    n = len(column)
    away = max((np.arange(1, n + 1) / n - below).max(), (below - np.arange(n) / n).max())
    dip = diptest.dipstat(column)
    assert dip - 1e-9 <= away <= 2 * dip + 1 / n


def test_a_feature_with_one_mode_stays_as_it_is():
    mass = np.array([0.1, 0.2, 0.4, 0.2, 0.1])
    np.testing.assert_allclose(null.fit_unimodal(mass, np.ones(5)), mass)
    two = null.fit_unimodal(mass[[0, 2, 0, 2, 0]], np.ones(5))
    np.testing.assert_allclose(two.sum(), mass[[0, 2, 0, 2, 0]].sum())
    assert two[2] == pytest.approx(two[1]) or two[2] == pytest.approx(two[3])


def test_null_of_two_groups_fills_the_gap():
    column = np.concatenate([np.random.default_rng(i).normal(6 * i, 1, 150) for i in (0, 1)])
    drawn = null.fit_null(column[:, None]).draw(5_000)
    assert np.mean(np.abs(drawn - 3) < 1) > 3 * np.mean(np.abs(column - 3) < 1)


@pytest.mark.parametrize("sigma", [0.5, 1.0])
def test_the_null_keeps_the_skew(sigma):
    column = np.random.default_rng(3).lognormal(sigma=sigma, size=1_000)
    drawn = null.fit_null(column[:, None]).draw(50_000)[:, 0]
    assert skew(drawn) == pytest.approx(skew(column), rel=0.15)
    assert np.mean(drawn < column.min()) < 0.01


def test_atoms_stay_atoms_and_ties_do_not_weaken_the_correlation():
    rng = np.random.default_rng(4)
    latent = rng.multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]], 1_000)
    answers = np.clip(np.round(latent + 3), 1, 5)
    drawn = null.fit_null(answers).draw(20_000)
    assert len(np.unique(drawn[:, 1])) == len(np.unique(answers[:, 1]))
    shares = [np.mean(each[:, 1] == each[:, 1].max()) for each in (answers, drawn)]
    assert shares[0] == pytest.approx(shares[1], abs=0.01)
    found = [np.corrcoef(each.T)[0, 1] for each in (answers, drawn)]
    assert found[0] == pytest.approx(found[1], abs=0.03)


def depths(table, k):
    found = kmeans.fit(table, k)
    return null.measure_valleys(table, found.labels, found.centres)


def test_a_valley_parts_groups_and_not_slices():
    rng = np.random.default_rng(6)
    three = rng.normal(size=(600, 2)) + np.repeat([[0, 0], [8, 0], [0, 8]], 200, axis=0)
    assert min(depths(three, 3).values()) > 0.9
    assert min(depths(three, 4).values()) < 0.3  # one of them cut in two
    assert max(depths(rng.normal(size=(600, 2)), 2).values()) < 0.3
    small = rng.normal(size=(312, 2)) + 7 * np.repeat([[0, 0], [1, 0]], [300, 12], axis=0)
    labels = np.repeat([0, 1], [300, 12])
    centres = np.array([[0.0, 0], [7, 0]])
    assert null.measure_valleys(small, labels, centres)[0, 1] > 0.8


def test_null_of_odd_columns():
    rng = np.random.default_rng(0)
    table = np.column_stack(
        [np.ones(90), rng.integers(0, 2, 90), rng.poisson(1, 90), rng.normal(size=90)]
    )
    drawn = np.stack([null.fit_null(table).draw(90, seed=seed) for seed in range(5)])
    assert drawn.shape == (5, 90, 4)
    assert np.isfinite(drawn).all()
    assert (drawn[:, :, 0] == 1).all()
    assert null.fit_null(table[:, :1]).draw(90).shape == (90, 1)
    twin = np.column_stack([table[:, 3], table[:, 3]])
    one, two = null.fit_null(twin).draw(200).T
    np.testing.assert_allclose(one, two, atol=0.01)


def test_null_table(mall, monkeypatch):
    table = null.null_table(mall, [2, 3, 4], draws=6)
    figures = ["draw", "k", "silhouette", "prediction_strength", "ari", "valley", "small_valley"]
    assert list(table.columns) == figures
    assert len(table) == 6 * 3
    assert table.notna().all(axis=None)
    monkeypatch.setattr(kmeans.joblib, "cpu_count", lambda: 1)
    pd.testing.assert_frame_equal(table, null.null_table(mall, [2, 3, 4], draws=6))
    quick = null.null_table(mall, [2, 3, 4], draws=6, halvings=0, pairs=0)
    pd.testing.assert_series_equal(quick["silhouette"], table["silhouette"])
    assert quick[["prediction_strength", "ari"]].isna().all(axis=None)


def test_null_silhouettes_are_those_of_the_draws(mall):
    own = int(np.random.SeedSequence(3).generate_state(2)[1])
    drawn = null.fit_null(mall).draw(len(mall), seed=own)
    table = null.null_table(mall, [2, 3], draws=2, seed=3, halvings=0, pairs=0)
    labels = kmeans.fit(drawn, 3, starts=50).labels
    value = table.query("draw == 1 and k == 3")["silhouette"].item()
    assert value == pytest.approx(silhouette_score(drawn, labels), abs=0.01)
