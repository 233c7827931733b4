"""Every rule's answer, the choice and the verdict, read off a sweep."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import silhouette_samples

from segmentation.clustering import KMeans, null, selection, stability

STORED = Path(__file__).with_name("reference") / "k_selection_mall.csv"


@pytest.fixture(scope="module")
def stored():
    """The sweep that notebook 03 published of the bundled table."""
    table = pd.read_csv(STORED)
    return table.astype({"gated": "boolean", "clear": "boolean"})


def examine(X, *, k_max=5, resamples=20):
    """The sweep as notebook 03 makes it, but for the indices that no rule asks."""
    models = {k: KMeans(k, n_init=20).fit(X) for k in range(1, k_max + 1)}
    figures = [
        {
            "k": k,
            "inertia": model.inertia_,
            "silhouette": silhouette_samples(X, model.labels_).mean() if k > 1 else np.nan,
            "smallest_share": np.bincount(model.labels_).min() / len(X),
        }
        for k, model in models.items()
    ]
    sweep = pd.DataFrame(figures).set_index("k")
    gap = stability.gap_statistic(X, k_max=k_max, references=resamples).set_index("k")
    resampled = stability.resample(X, models, resamples=resamples)
    gate = null.gate_cuts(X, models, sweep["smallest_share"], resamples=resamples)
    parts = [sweep, gap, resampled.summarize(), gate, resampled.errors()]
    return pd.concat(parts, axis=1).reset_index()


@pytest.fixture(scope="module")
def noise():
    """A correlated Gaussian without segments."""
    covariance = 0.6 + 0.4 * np.eye(3)
    return np.random.default_rng(1).multivariate_normal(np.zeros(3), covariance, 200)


def rules_of(sweep):
    return selection.ask_rules(sweep).set_index("rule")["k"].to_dict()


def test_resampling_gives_the_stored_figures(mall, stored):
    found = stability.resample(mall, [1, 4]).summarize()
    recorded = stored.set_index("k").loc[[1, 4], found.columns]
    pd.testing.assert_frame_equal(found, recorded, rtol=1e-12)


@pytest.mark.long
def test_the_null_gives_the_stored_figures(mall, stored):
    recorded = stored.set_index("k")
    found = null.gate_cuts(mall, range(1, 11), recorded["smallest_share"])
    pd.testing.assert_frame_equal(found, recorded.loc[2:, found.columns], rtol=1e-12)


def test_a_long_table_is_sampled():
    rows = np.random.default_rng(0).normal(size=(2_500, 2))
    assert stability.resample(rows, [2], resamples=2).rows == 2_000
    recut = stability.resample_cut(rows, KMeans(2).fit_predict(rows), resamples=2)
    assert recut.jaccards.shape == (2, 2)
    assert len(recut.rows) == 2_000


def test_a_table_of_one_k_has_no_null():
    found = null.gate_cuts(np.eye(4), [1], pd.Series({1: 1.0}), resamples=2)
    assert found.empty
    assert {"excess", "z", "gated", "clear", "null_valley_q95"} <= set(found)


def test_rules_answer_as_measured_on_the_bundled_table(stored):
    assert rules_of(stored) == {
        "calibrated": 4,
        "silhouette": 6,
        "elbow": 4,
        "gap": 2,
        "prediction-strength": 4,
        "stability": 6,
    }


def test_prediction_strength_is_as_recorded(mall):
    recorded = {2: 0.56, 3: 0.92, 4: 0.68, 5: 0.85, 6: 0.62}
    for k, value in recorded.items():
        found = stability.prediction_strength(mall[:, 1:], k).mean()
        assert found == pytest.approx(value, abs=0.11 if k == 6 else 0.08)


def curve(inertia):
    k = np.arange(1, len(inertia) + 1)
    return pd.DataFrame({"k": k, "inertia": inertia})


def test_a_straight_curve_has_no_elbow_but_an_answer():
    straight = curve([100.0, 90, 80, 70, 60, 50])
    assert selection.answer_elbow(straight)[1].startswith("kneedle finds no elbow")
    assert selection.answer_elbow(straight.head(2))[0] is None


def test_an_answer_at_the_edge_is_marked(stored):
    answers = selection.ask_rules(stored[stored["k"] <= 4]).set_index("rule")
    assert answers.loc["silhouette", "at_edge"]
    assert not answers.loc["gap", "at_edge"]


def test_the_rule_decides_unless_k_is_asked_for(stored):
    chosen = selection.choose(stored, rule="silhouette")
    assert (chosen.k, chosen.asked) == (6, False)
    asked = selection.choose(stored, k=3)
    assert (asked.k, asked.asked, asked.rules["calibrated"]) == (3, True, 4)
    keys = ["k", "asked", "rule", "rules", "reason", "verdict", "certainty", "answer"]
    assert set(asked.model_dump()) == {*keys, "reading", "close", "again", "shares"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "gut"}, "rule must be one of calibrated, silhouette"),
        ({"k": 12}, "which were tried, got 12"),
        ({"k": 0}, "which were tried, got 0"),
        (
            {"k": 6, "customers": 59},
            r"k = 6 leaves fewer than ten customers a segment \(59 customers\): at most 5",
        ),
    ],
)
def test_refuses_in_a_sentence(stored, options, message):
    with pytest.raises(ValueError, match=message):
        selection.choose(stored, **options)


@pytest.mark.parametrize(
    ("rules", "agreement"),
    [
        ({"elbow": 4, "silhouette": 4}, "All 2 rules say 4"),
        ({"elbow": 4, "silhouette": 6}, "elbow says 4; silhouette 6."),
        ({"elbow": 5, "silhouette": None}, "none says 4; elbow 5 and silhouette none."),
    ],
)
def test_agreement_in_words(stored, rules, agreement):
    choice = selection.choose(stored, k=4).model_copy(update={"rules": rules})
    assert agreement in choice.answer


# The null, the gate, the verdict


def test_the_last_k_stays_while_it_is_eligible(stored):
    weak = stored.assign(
        prediction_strength=stored["prediction_strength"].where(stored["k"] != 4, 0.7)
    )
    assert [k for k in range(1, 12) if selection.keep_k(stored, k)] == [2, 4]
    assert [k for k in range(1, 12) if selection.keep_k(weak, k)] == [2]
    kept = selection.choose(stored, before=2)
    assert (kept.k, kept.asked, kept.rules["calibrated"]) == (2, False, 4)
    assert kept.answer.startswith("2 segments, as in the last run.")
    assert "by itself the rule says 4" in kept.reason
    for before in (None, 1, 3, 4, 6, 99):
        assert selection.choose(stored, before=before) == selection.choose(stored)
    assert selection.choose(stored, before=2, k=5).k == 5
    silhouette = selection.choose(stored, rule="silhouette", before=2)
    assert silhouette == selection.choose(stored, rule="silhouette")


def test_noise_has_no_segments(noise):
    sweep = examine(noise)
    choice = selection.choose(sweep)
    assert (choice.k, choice.verdict, choice.reading) == (1, "none", "none")
    best = int(sweep.loc[sweep["ari_mean"].idxmax(), "k"])
    assert f" {best} " in choice.certainty
    assert selection.choose(sweep, skewed=["Spend"]).reading == "one dominant skew"
    asked = selection.choose(sweep, k=2)
    assert (asked.verdict, asked.reading) == ("constructive", "constructive")
    assert len(asked.certainty) > len(selection.choose(sweep, k=1).certainty)


def test_skewed_customers_are_one_segment():
    """What an audit found: raw, correlated and skewed figures passed for natural groups."""
    rng = np.random.default_rng(9)
    rows = np.exp(0.8 * rng.multivariate_normal(np.zeros(3), 0.6 + 0.4 * np.eye(3), 600))
    sweep = examine((rows - rows.mean(axis=0)) / rows.std(axis=0), k_max=4)
    assert selection.choose(sweep).verdict == "none"


def test_few_different_rows_are_answered():
    sweep = examine(np.repeat(np.eye(3), 7, axis=0), k_max=3)
    assert set(rules_of(sweep)) == set(selection.RULES)


def test_a_cut_below_the_null_is_constructive(stored):
    three = selection.choose(stored, k=3)
    assert three.verdict == "constructive"
    row = stored.set_index("k").loc[3]
    assert row["prediction_strength"] < row["null_prediction_strength_q95"]
    assert f"{row['ari_mean']:.2f}" in three.certainty


def gate_of(silhouettes, shares=0.2, *, spread=0.01):
    """The gate of made-up silhouettes against 99 made-up draws around 0.3."""
    rng = np.random.default_rng(0)
    ks = range(2, 2 + len(silhouettes))
    draws = pd.MultiIndex.from_product([range(99), ks], names=["draw", "k"]).to_frame(index=False)
    chance = draws.assign(silhouette=0.3 + spread * rng.normal(size=len(draws)))
    own = pd.DataFrame({"k": ks, "silhouette": silhouettes})
    return null.open_gate(own, null.describe_chance(chance), pd.Series(shares, index=ks))


def test_the_gate_wants_more_than_chance_gives():
    gate = gate_of([0.30, 0.32, 0.355, 0.365, 0.40])
    assert list(gate["gated"]) == [False, False, True, True, True]
    assert gate["excess"].to_numpy() == pytest.approx([0, 0.02, 0.055, 0.065, 0.1], abs=0.003)
    assert not gate_of([0.315], spread=0.001)["clear"].any()  # far beyond chance, but by little


def test_wide_chance_and_tiny_segments_close_the_gate():
    assert not gate_of([0.38, 0.38], spread=0.05)["gated"].any()
    gate = gate_of([0.5, 0.5], shares=[0.04, 0.05])
    assert list(gate["gated"]) == [False, True]
    assert gate["clear"].all()


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
    assert selection.answer_calibrated(table)[0] == k
    table["gated"] = pd.array([False] * 4, dtype="boolean")
    assert selection.answer_calibrated(table)[0] == 1


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "natural"),
        ({"prediction_strength": 0.8}, "reproducible"),
        ({"jaccard_min": 0.74}, "reproducible"),
        ({"compared_valley": 0.49}, "reproducible"),
        ({"compared_valley": 0.6, "null_valley_q95": 0.61}, "reproducible"),
        ({"jaccard_min": 0.74, "ari_mean": 0.79}, "constructive"),
        ({"gated": False}, "constructive"),
        ({"gated": pd.NA}, "constructive"),
    ],
)
def test_the_verdict_follows_its_definition(change, verdict):
    row = {"gated": True, "prediction_strength": 0.9, "jaccard_min": 0.8, "ari_mean": 0.9}
    row |= {"compared_valley": 0.8, "null_valley_q95": 0.3} | change
    assert selection.judge(pd.Series(row), k=2, asked=True) == verdict
    assert selection.judge(pd.Series(row), k=1, asked=False) == "none"


def change_row(sweep, k, **figures):
    changed = sweep.set_index("k")
    for name, value in figures.items():
        changed.loc[k, name] = value
    return changed.reset_index()


FIRM = {"prediction_strength": 0.95, "jaccard_min": 0.97, "compared_valley": 0.9}


@pytest.mark.parametrize(
    ("change", "verdict", "close"),
    [
        ({}, "natural", False),
        ({"prediction_strength": 0.803, "prediction_strength_se": 0.005}, "natural", True),
        ({"compared_valley": 0.49, "valley_se": 0.02}, "reproducible", True),
        ({"compared_valley": 0.3, "prediction_strength": 0.803}, "reproducible", False),
        ({"z": 3.0, "z_se": 0.6, "z_needed": 2.5}, "natural", True),
    ],
)
def test_a_verdict_that_another_seed_could_change_is_a_close_call(stored, change, verdict, close):
    choice = selection.choose(change_row(stored, 4, **{**FIRM, **change}), k=4)
    assert (choice.verdict, choice.close) == (verdict, close)
    assert ("close call" in choice.certainty) is close


def test_what_is_clear_but_not_eligible_is_a_small_difference(stored):
    choice = selection.choose(stored.assign(excess=0.01, gated=False, clear=False))
    assert (choice.k, choice.verdict, choice.reading) == (1, "none", "small difference")
    refused = stored.assign(prediction_strength=np.where(stored["k"] > 1, 0.5, 1.0))
    assert "Spend reach far" in selection.choose(refused, skewed=["Spend"]).certainty


def test_a_small_distinct_group_is_told(stored):
    row = {"smallest_share": 0.03, "compared_small_valley": 0.95, "null_small_valley_q95": 0.7}
    told = selection.choose(change_row(stored, 7, **row)).certainty
    assert "with 3.0% of the customers shows at K = 7" in told
    other = row | {"compared_small_valley": 0.6}
    assert "shows at" not in selection.choose(change_row(stored, 7, **other)).certainty


def test_samples_answer_like_the_table_where_groups_are_far_apart():
    rows = np.random.default_rng(2).normal(size=(150, 2)) + [[0, 0], [9, 0], [0, 9]] * 50
    samples = selection.resample_choice(rows, [1, 2, 3, 4], resamples=20)
    assert samples.to_dict("list") == {"k": [3] * 10, "verdict": ["natural"] * 10}
    choice = selection.choose(examine(rows, k_max=4), samples=samples)
    assert (choice.again, choice.shares) == ((10, 10), {"3 natural": 10})
    assert "In 10 of 10 samples" in choice.answer
