"""One row per K, every rule's answer, the choice."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import silhouette_score

from segmentation import features, kmeans, selection


@pytest.fixture(scope="module")
def matrix(table, card):
    return features.scale(table, card)


@pytest.fixture(scope="module")
def sweep(matrix):
    return selection.sweep(matrix, k_max=10)


def test_a_row_per_k_with_empty_cells_where_undefined(sweep):
    assert list(sweep["k"]) == list(range(1, 11))
    first = sweep.set_index("k").loc[1]
    assert first[["silhouette", "calinski_harabasz", "davies_bouldin"]].isna().all()
    assert first["inertia"] == pytest.approx(600)
    assert sweep["inertia"].is_monotonic_decreasing
    assert sweep["best_share"].between(0.05, 1).all()


def test_silhouette_is_that_of_the_best_fit(matrix, sweep):
    labels = kmeans.fit(matrix, 5).labels
    assert sweep.set_index("k").loc[5, "silhouette"] == pytest.approx(
        silhouette_score(matrix, labels)
    )


def test_a_large_table_is_sampled_and_says_so(monkeypatch, matrix):
    monkeypatch.setattr(selection, "SAMPLE", 100)
    row = selection.sweep(matrix, k_max=3).set_index("k").loc[3]
    assert 0 < row["silhouette_se"] < 0.05
    assert row["silhouette"] == pytest.approx(0.358, abs=4 * row["silhouette_se"])


def test_a_k_asked_for_beyond_the_range_has_its_row(matrix):
    assert list(selection.sweep(matrix, k_max=3, k=12)["k"]) == [1, 2, 3, 12]


def test_rules_answer_as_measured(table, card, sweep):
    answers = selection.ask_rules(sweep).set_index("rule")["k"]
    assert (answers["elbow"], answers["silhouette"]) == (4, 6)
    two = features.scale(table, card).iloc[:, 1:]
    answers = selection.ask_rules(selection.sweep(two)).set_index("rule")["k"]
    assert (answers["elbow"], answers["silhouette"]) == (5, 5)


def curve(inertia, silhouette=None):
    k = np.arange(1, len(inertia) + 1)
    sil = [np.nan, *([0.1] * (len(k) - 1))] if silhouette is None else silhouette
    return pd.DataFrame({"k": k, "inertia": inertia, "silhouette": sil})


def test_a_straight_curve_has_no_elbow_but_an_answer():
    straight = curve([100.0, 90, 80, 70, 60, 50])
    assert selection.find_elbow(straight) is None
    answer = selection.answer_elbow(straight)
    assert "kneedle finds no elbow" in answer["reason"]
    assert "without a bend" in selection.summarize_elbow(straight)


def test_an_answer_at_the_edge_is_marked():
    table = curve([100.0, 50, 30, 25], [np.nan, 0.1, 0.2, 0.3])
    answers = selection.ask_rules(table).set_index("rule")
    assert answers.loc["silhouette", "at_edge"]
    assert "the edge of the range" in selection.summarize_silhouettes(table)


def test_the_rule_decides_unless_k_is_asked_for(sweep):
    answers = selection.ask_rules(sweep)
    chosen = selection.choose(answers, rule="silhouette")
    assert (chosen["k"], chosen["asked"]) == (6, False)
    asked = selection.choose(answers, rule="silhouette", k=3)
    assert (asked["k"], asked["asked"], asked["rules"]["silhouette"]) == (3, True, 6)
    assert selection.summarize_choice(asked).startswith("3 segments, as asked.")
    with pytest.raises(ValueError, match="rule must be one of elbow, silhouette"):
        selection.choose(answers, rule="gut")


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ({"elbow": 4, "silhouette": 4}, "All rules agree on 4"),
        ({"elbow": 4, "silhouette": 6}, "elbow says 4, silhouette says 6"),
        ({"elbow": 5, "silhouette": 6}, "no rule says 4, elbow says 5 and silhouette says 6"),
    ],
)
def test_agreement_in_words(rules, told):
    choice = {"k": 4, "asked": False, "rule": "elbow", "rules": rules, "reason": ""}
    assert told in selection.summarize_rules(choice)


def test_silhouettes_of_customers_are_grouped_by_size(matrix):
    samples = selection.measure_silhouettes(matrix, 4)
    assert list(samples["cluster"].value_counts().sort_index()) == [65, 57, 40, 38]
    assert samples["silhouette"].mean() == pytest.approx(0.404, abs=0.0005)
    assert selection.measure_silhouettes(matrix, 1)["silhouette"].isna().all()
