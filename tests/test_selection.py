"""One row per K, every rule's answer, the choice and the verdict."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score, silhouette_score

from segmentation.clustering import kmeans, selection, stability
from segmentation.clustering import preprocessing as features


def examine(matrix, *, k_max=10, k=0, resamples=40, seed=0):
    """The whole of notebook 03: the table, its fits, what was resampled."""
    fits = selection.fit_all(matrix, k_max=k_max, k=k, seed=seed)
    table = selection.measure(matrix, fits, seed=seed)
    gap = selection.measure_gap(matrix, k_max=k_max, resamples=resamples, seed=seed)
    resampled = selection.resample(matrix, fits, resamples=resamples, seed=seed)
    counts = selection.scale_counts(resamples)
    null = selection.draw_null(matrix, fits, seed=seed, **counts)
    table = selection.add_resamples(table.merge(gap, on="k", how="left"), resampled)
    return selection.add_null(table, null), fits, resampled


@pytest.fixture(scope="module")
def matrix(table, card):
    return features.scale(table, card)


@pytest.fixture(scope="module")
def examined(matrix):
    return examine(matrix, resamples=100)


@pytest.fixture(scope="module")
def noise():
    """A correlated Gaussian without segments."""
    covariance = 0.6 + 0.4 * np.eye(3)
    return np.random.default_rng(1).multivariate_normal(np.zeros(3), covariance, 200)


def rules_of(table):
    return selection.ask_rules(table).set_index("rule")["k"].to_dict()


def test_a_row_per_k_with_empty_cells_where_undefined(examined):
    table = examined[0].set_index("k")
    assert list(table.index) == list(range(1, 11))
    first = table.loc[1]
    assert first["inertia"] == pytest.approx(600)
    assert first["prediction_strength"] == 1
    undefined = ["silhouette", "calinski_harabasz", "davies_bouldin", "ari_mean", "jaccard_min"]
    assert first[[*undefined, "null_silhouette", "excess"]].isna().all()
    assert table["inertia"].is_monotonic_decreasing
    assert table.loc[2:].notna().all(axis=None)


def test_criteria_are_those_of_the_best_fit(matrix, examined):
    table, fits, _ = examined
    row = table.set_index("k").loc[5]
    assert row["silhouette"] == pytest.approx(silhouette_score(matrix, fits[5].labels))
    expected = calinski_harabasz_score(matrix, fits[5].labels)
    assert row["calinski_harabasz"] == pytest.approx(expected)


@pytest.fixture(scope="module")
def compressed():
    """80 different rows, and how many customers each stands for; 5 groups."""
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(80, 2)).round(1) + rng.normal(size=(5, 2))[np.arange(80) % 5] * 9
    return rows, rng.integers(1, 12, 80)


def test_weighted_rows_have_the_figures_of_the_expanded_table(compressed):
    rows, counts = compressed
    expanded = np.repeat(rows, counts, axis=0)
    fits = selection.fit_all(rows, k_max=6, weights=counts)
    weighted = selection.measure(rows, fits, weights=counts).set_index("k")
    labels = {k: np.repeat(fit.labels, counts) for k, fit in fits.items()}
    for k in range(2, 7):
        row = weighted.loc[k]
        peer = kmeans.fit(expanded, k, centres=fits[k].centres)
        assert row["inertia"] == pytest.approx(peer.inertia, rel=1e-9)
        assert row["silhouette"] == pytest.approx(silhouette_score(expanded, labels[k]))
        assert row["smallest_share"] == np.bincount(labels[k]).min() / len(expanded)
        expected = calinski_harabasz_score(expanded, labels[k])
        assert row["calinski_harabasz"] == pytest.approx(expected, rel=1e-9)
        expected = davies_bouldin_score(expanded, labels[k])
        assert row["davies_bouldin"] == pytest.approx(expected, rel=1e-9)
    assert (weighted.loc[2:, "silhouette_se"] == 0).all()
    flow, whole = (
        stability.slsa(rows, {k: fits[k].labels for k in (2, 3, 4)}, weights=counts),
        stability.slsa(expanded, {k: labels[k] for k in (2, 3, 4)}),
    )
    pd.testing.assert_frame_equal(flow.nodes, whole.nodes)
    pd.testing.assert_frame_equal(flow.edges, whole.edges)


@given(seed=st.integers(0, 10_000), n=st.integers(3, 60), k=st.integers(2, 12))
@settings(max_examples=60, deadline=None)
def test_indices_are_scikit_learns_on_the_expanded_table(seed, n, k):
    rng = np.random.default_rng(seed)
    rows, counts = rng.integers(0, 4, (n, 2)).astype(float), rng.integers(1, 5, n)
    labels = rng.integers(0, k, n)
    labels[:2] = 0, 1
    expanded, repeated = np.repeat(rows, counts, axis=0), np.repeat(labels, counts)
    assume(len(set(labels)) < len(expanded))
    mine = selection.measure_indices(rows, labels, counts.astype(float))
    peer = calinski_harabasz_score(expanded, repeated), davies_bouldin_score(expanded, repeated)
    assert mine == pytest.approx(peer, rel=1e-9, abs=1e-9)


def test_resampling_weighted_rows_is_resampling_their_customers(compressed):
    rows, counts = compressed
    expanded, given = np.repeat(rows, counts, axis=0), {"resamples": 6, "seed": 4}
    assert len(expanded) < stability.RESAMPLED_ROWS
    one = selection.resample(rows, [3, 5], weights=counts, **given)
    two = selection.resample(expanded, [3, 5], **given)
    assert one.rows == two.rows == counts.sum()
    pd.testing.assert_frame_equal(one.aris, two.aris)
    pd.testing.assert_frame_equal(one.strengths, two.strengths)
    pd.testing.assert_frame_equal(
        selection.measure_gap(rows, k_max=3, weights=counts, **given),
        selection.measure_gap(expanded, k_max=3, **given),
    )
    null = {"draws": 3, "halvings": 2, "pairs": 2}
    pd.testing.assert_frame_equal(
        selection.draw_null(rows, [2, 3], weights=counts, **null),
        selection.draw_null(expanded, [2, 3], **null),
    )


def test_a_hundred_million_customers_are_sampled_by_their_weights(compressed):
    rows, counts = compressed
    weights = counts * 200_000
    fits = selection.fit_all(rows, k_max=5, weights=weights)
    sweep = selection.measure(rows, fits, weights=weights)
    customers = weights.sum()
    resampled = selection.resample(rows, [5], resamples=4, weights=weights)
    told = selection.summarize_sample(resampled, customers)
    assert told.startswith(f"Resampled was a seeded sample of 2,000 of the {customers:,} customers")
    samples = selection.measure_silhouettes(rows, fits[5], weights=weights)
    assert len(samples) == selection.SAMPLE
    exact = sweep.set_index("k").at[5, "silhouette"]
    assert samples["silhouette"].mean() == pytest.approx(exact, abs=0.01)
    profile = selection.summarize_silhouette_profile(samples, customers=customers)
    assert f"of a seeded sample of 10,000 of the {customers:,} customers sit closer" in profile
    shares = samples["cluster"].value_counts(normalize=True).sort_index()
    sizes = np.bincount(fits[5].labels, weights)
    np.testing.assert_allclose(shares, np.sort(sizes / customers)[::-1], atol=0.02)


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        (np.ones(200), "Each of the 200 rows is one customer."),
        (np.full(200, 512.5), "a sample; each stands for 512.5 of 102,500 customers."),
        ([1, 2_000_000], "The 2 rows stand for 2,000,001 customers: customers with equal figures"),
    ],
)
def test_a_sentence_says_what_the_rows_are(weights, told):
    assert told in selection.summarize_rows(weights)


def test_sentences_say_what_a_sample_of_many_rows_saw():
    table = pd.DataFrame({"k": [1, 2, 3], "best_share": [1, 0.9, 0.8]})
    whole = selection.summarize_starts(table, starts=20, weights=np.ones(50_000))
    assert whole == "At every K at least 80% of 20 starts found the best fit."
    many = selection.summarize_starts(table, starts=20, weights=np.full(50_001, 3.0))
    assert "The starts saw a seeded sample of 50,000 of the 150,003 customers" in many
    table = pd.DataFrame({"k": [2, 3], "silhouette": [0.4, 0.3], "silhouette_se": [0.0021, 0.1]})
    told = selection.summarize_silhouettes(table, customers=4e6)
    assert "a seeded sample of 10,000 of the 4,000,000 customers (standard error 0.002)." in told
    told = selection.summarize_silhouettes(table.assign(silhouette_se=0.0), customers=200)
    assert "sample" not in told


def test_rules_answer_as_measured_on_the_bundled_table(examined):
    assert rules_of(examined[0]) == {
        "calibrated": 4,
        "silhouette": 6,
        "elbow": 4,
        "gap": 2,
        "prediction-strength": 4,
        "stability": 6,
    }


def test_rules_answer_as_measured_on_income_and_spending(matrix):
    table, _, _ = examine(matrix.iloc[:, 1:], resamples=100)
    answers = rules_of(table)
    assert answers["gap"] == 1
    assert {answers[r] for r in ("calibrated", "silhouette", "elbow", "prediction-strength")} == {5}
    ch = table.loc[table["calinski_harabasz"].idxmax(), "k"]
    assert ch == 9
    gap = table.dropna(subset="gap")
    answers = selection.stability.gap_choices(gap["gap"], gap["gap_se"])
    assert answers == {"firstSEmax": 1, "Tibs2001SEmax": 1, "globalSEmax": 5}


@pytest.mark.parametrize(
    ("columns", "strength", "band"),
    [
        (3, {2: 0.93, 3: 0.55, 4: 0.83, 5: 0.57, 6: 0.57}, {3: 0.61, 4: 0.43}),
        (2, {2: 0.56, 3: 0.92, 4: 0.68, 5: 0.85, 6: 0.62}, {}),
    ],
)
def test_prediction_strength_is_as_recorded(matrix, columns, strength, band):
    found = selection.resample(matrix.iloc[:, 3 - columns :], strength).strengths.mean()
    for k, value in strength.items():
        assert found[k] == pytest.approx(value, abs=0.11 if k == 6 else 0.08)
    assert set(band) <= set(strength)


def test_a_large_table_is_sampled_and_says_so(monkeypatch, matrix):
    monkeypatch.setattr(selection, "SAMPLE", 100)
    fits = selection.fit_all(matrix, k_max=3)
    row = selection.measure(matrix, fits).set_index("k").loc[3]
    assert 0 < row["silhouette_se"] < 0.05
    assert row["silhouette"] == pytest.approx(0.358, abs=4 * row["silhouette_se"])
    rows = np.random.default_rng(0).normal(size=(2_500, 2))
    resampled = selection.resample(rows, [2], resamples=4)
    assert resampled.rows == 2_000
    told = selection.summarize_sample(resampled, len(rows))
    assert "a seeded sample of 2,000 of the 2,500 customers" in told


def test_a_k_asked_for_beyond_the_range_has_its_row(matrix):
    table, fits, _ = examine(matrix, k_max=3, k=12, resamples=20)
    assert list(table["k"]) == list(fits) == [1, 2, 3, 12]
    assert pd.isna(table["gap"].iloc[-1])
    choice = selection.choose(table, selection.ask_rules(table), k=12)
    assert (choice["k"], choice["asked"]) == (12, True)


def curve(inertia, silhouette=None):
    k = np.arange(1, len(inertia) + 1)
    sil = [np.nan, *([0.1] * (len(k) - 1))] if silhouette is None else silhouette
    return pd.DataFrame({"k": k, "inertia": inertia, "silhouette": sil})


def test_a_straight_curve_has_no_elbow_but_an_answer():
    straight = curve([100.0, 90, 80, 70, 60, 50])
    assert selection.find_elbow(straight) is None
    assert "kneedle finds no elbow" in selection.answer_elbow(straight)["reason"]
    assert "without a bend" in selection.summarize_elbow(straight)


def test_an_answer_at_the_edge_is_marked(matrix):
    table, _, _ = examine(matrix, k_max=4, resamples=20)
    answers = selection.ask_rules(table).set_index("rule")
    assert answers.loc["silhouette", "at_edge"]
    assert "the edge of the range" in selection.summarize_silhouettes(table)


def test_the_rule_decides_unless_k_is_asked_for(examined):
    answers = selection.ask_rules(examined[0])
    chosen = selection.choose(examined[0], answers, rule="silhouette")
    assert (chosen["k"], chosen["asked"]) == (6, False)
    asked = selection.choose(examined[0], answers, k=3)
    assert (asked["k"], asked["asked"], asked["rules"]["calibrated"]) == (3, True, 4)
    assert selection.summarize_choice(asked).startswith("3 segments, as asked.")
    with pytest.raises(ValueError, match="rule must be one of calibrated, silhouette"):
        selection.choose(examined[0], answers, rule="gut")


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ({"elbow": 4, "silhouette": 4}, "All 2 rules say 4"),
        ({"elbow": 4, "silhouette": 6}, "elbow says 4; silhouette 6."),
        ({"elbow": 5, "silhouette": None}, "none says 4; elbow 5 and silhouette none."),
    ],
)
def test_agreement_in_words(rules, told):
    choice = {"k": 4, "asked": False, "rule": "elbow", "rules": rules, "reason": ""}
    assert told in selection.summarize_rules(choice)


def test_silhouettes_of_customers_are_grouped_by_size(matrix, examined):
    samples = selection.measure_silhouettes(matrix, examined[1][4])
    assert list(samples["cluster"].value_counts().sort_index()) == [65, 57, 40, 38]
    assert samples["silhouette"].mean() == pytest.approx(0.404, abs=0.0005)
    assert selection.measure_silhouettes(matrix, examined[1][1])["silhouette"].isna().all()


# The null, the gate, the verdict


def test_noise_has_no_segments(noise):
    table, _, _ = examine(noise)
    choice = selection.choose(table, selection.ask_rules(table))
    assert (choice["k"], choice["verdict"]) == (1, "none")
    assert choice["certainty"].startswith("No structure: one segment, all customers. If a cut")
    asked = selection.choose(table, selection.ask_rules(table), k=2)
    assert asked["verdict"] == "constructive"
    assert "No structure was found in this table." in asked["certainty"]


def test_a_cut_below_the_null_is_constructive(examined):
    table = examined[0]
    three = selection.choose(table, selection.ask_rules(table), k=3)
    assert three["verdict"] == "constructive"
    row = table.set_index("k").loc[3]
    assert row["prediction_strength"] < row["null_prediction_strength_q95"]
    assert f"mean ARI {row['ari_mean']:.2f}" in three["certainty"]
    assert row["ari_mean"] == examined[0]["ari_mean"].min()


def gate_of(silhouettes, shares=0.2, *, spread=0.01):
    """The gate of made-up silhouettes against 99 made-up draws around 0.3."""
    rng = np.random.default_rng(0)
    ks = range(2, 2 + len(silhouettes))
    draws = pd.MultiIndex.from_product([range(99), ks], names=["draw", "k"]).to_frame(index=False)
    null = draws.assign(silhouette=0.3 + spread * rng.normal(size=len(draws)))
    own = pd.DataFrame({"draw": -1, "k": ks, "silhouette": silhouettes})
    table = pd.DataFrame({"k": ks, "smallest_share": shares})
    return selection.open_gate(table, pd.concat([own, null]))


def test_the_gate_wants_more_than_chance_gives():
    gate = gate_of([0.30, 0.32, 0.355, 0.365, 0.40])
    assert list(gate["gated"]) == [False, False, False, True, True]
    assert gate["excess"].to_numpy() == pytest.approx([0, 0.02, 0.055, 0.065, 0.1], abs=0.003)


def test_wide_chance_and_tiny_segments_close_the_gate():
    assert not gate_of([0.38, 0.38], spread=0.05)["gated"].any()
    assert list(gate_of([0.5, 0.5], shares=[0.04, 0.05])["gated"]) == [False, True]


def test_a_null_without_spread_still_answers():
    assert gate_of([0.5, 0.5], spread=0.0)["gated"].all()


@pytest.mark.parametrize(
    ("excess", "strength", "k"),
    [
        ([0.10, 0.15, 0.20, 0.19], [0.95, 0.90, 0.90, 0.90], 5),
        ([0.10, 0.15, 0.20, 0.15], [0.95, 0.90, 0.90, 0.90], 4),
        ([0.10, 0.15, 0.20, 0.19], [0.95, 0.90, 0.70, 0.60], 3),
        ([0.10, 0.15, 0.20, 0.19], [0.70, 0.60, 0.50, 0.40], 1),
    ],
)
def test_the_calibrated_rule_takes_the_largest_k_near_the_best(excess, strength, k):
    table = pd.DataFrame({"k": [2, 3, 4, 5], "excess": excess, "prediction_strength": strength})
    table["gated"] = pd.array([True] * 4, dtype="boolean")
    assert selection.answer_calibrated(table)["k"] == k
    table["gated"] = pd.array([False] * 4, dtype="boolean")
    assert selection.answer_calibrated(table)["reason"].startswith("no K stands clear")


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "natural"),
        ({"prediction_strength": 0.8}, "reproducible"),
        ({"jaccard_min": 0.74}, "reproducible"),
        ({"jaccard_min": 0.74, "ari_mean": 0.79}, "constructive"),
        ({"gated": False}, "constructive"),
        ({"gated": pd.NA}, "constructive"),
    ],
)
def test_the_verdict_follows_its_definition(change, verdict):
    row = {"gated": True, "prediction_strength": 0.9, "jaccard_min": 0.8, "ari_mean": 0.9} | change
    assert selection.judge(pd.Series(row), k=2, asked=True) == verdict
    assert selection.judge(pd.Series(row), k=1, asked=False) == "none"


def test_sensitivity_compares_with_the_main_cut(table, card, matrix, examined):
    codes = features.encode(table, card)
    variations = selection.vary(matrix, codes, examined[1][4]).set_index("variation")["ari"]
    assert variations["min–max scaling"] > 0.9
    assert variations["with Gender=Male in the distance"] < 0.5
    assert len(variations) == 2 + 3 + 1 + 2
    again = kmeans.fit(matrix.drop(columns="Age"), 4, starts=100).labels
    expected = selection.adjusted_rand_score(examined[1][4].labels, again)
    assert variations["without Age"] == pytest.approx(expected)


def test_every_sentence_stands_for_any_table(noise, examined):
    flat = examine(np.repeat(np.eye(3), 7, axis=0), resamples=20)
    for table, fits, resampled in (examined, examine(noise, k_max=4, resamples=20), flat):
        flow = selection.stability.slsa(np.eye(3)[[0] * len(fits[1].labels)], {1: fits[1].labels})
        sentences = [
            selection.summarize_starts(table, starts=20),
            selection.summarize_elbow(table),
            selection.summarize_silhouettes(table),
            selection.summarize_indices(table),
            selection.summarize_gap(table),
            selection.summarize_strengths(table),
            selection.summarize_aris(table),
            selection.summarize_jaccards(resampled),
            selection.summarize_flow(flow),
            selection.summarize_clustergram(flow),
        ]
        assert all(s.endswith(".") and "nan" not in s and "  " not in s for s in sentences)
