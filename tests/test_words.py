"""What things are called: grades, predicates, figures and names as data."""

import itertools
import re

import numpy as np
import pytest
from agreement import is_true
from hypothesis import given
from hypothesis import strategies as st

from segmentation import words

TABLES = words.read_words()
FIGURES = {
    "logged": [0, 1],
    **{"segments": [1, 2, 9], "size": [0, 4, 5, 900], "grade": range(-4, 5), "lift": [0, 0.9, 2]},
    **{"customers": [0, 4, 5, 50], "precision": [0, 0.5, 1], "hits": [0, 5, 70], "failing": [0, 2]},
    **{"jaccard": [0, 0.6, 0.7, 0.75, 1], "previous_size": [0, 4, 5, 900], "kept": [0, 1]},
    "moved": [0, 0.1, 0.3, 1],
    **{"k": [1, 4], "lead": [0, 0.2, 0.25, 1], "score": [0, 1], "moved_points": [-9, 0, 9]},
    **{"alike": [0, 1], "gap": [0, 1.5, 2, 9], "passed": [0, 1], "points": [-3, 0, 0.5, 9]},
    **{f"of {check}": [0, 1] for check in ("chance", "repeats", "methods", "borderline")},
    **{"beyond": [1, 8], "dissolved": [0, 3], "worth": [0, 9e4], "detectable": [0, 5]},
    **{"reach": [0, 1, 9], "p": [0, 0.05, 1], "sent": [0, 4, 29, 900], "held_back": [4, 900]},
    **{"contactable": [0, 4, 900], "hold_back": [4, 90]},
    **{name: [0, 1] for name in ("assumed", "less", "rate", "apart")},
    **{"differ": [0, 1], "low": [-1, 1]},
    **{"shift_low": [-2, 0, 1], "shift_high": [-1, 0, 2], "same": [0, 1]},
}


@pytest.mark.parametrize("kind", TABLES["sentences"])
def test_some_sentence_of_each_kind_is_true_of_any_figures(kind):
    entries = TABLES["sentences"][kind]
    asked = sorted({name for entry in entries for name in entry["when"]})
    for values in itertools.product(*(FIGURES[name] for name in asked)):
        facts = dict(zip(asked, values, strict=True))
        told = words.pick(entries, facts)
        assert told == next(entry for entry in entries if is_true(entry["when"], facts))


@pytest.mark.parametrize(
    ("k", "previous_k", "changed", "drifted", "agreement", "advice"),
    [
        (4, 4, 0, 0, 0.9, "keep"),
        (1, 1, 0, 0, 1, "keep"),
        (4, 4, 0, 0, 0.89, "refit"),
        (4, 4, 0, 1, 1, "refit"),
        (4, 4, 2, 1, 1, "re-segment"),
        (5, 4, 1, 0, 1, "re-segment"),
        (3, 4, 1, 0, 1, "re-segment"),
        (1, 4, 5, 0, 0, "re-segment"),
        (4, 1, 5, 0, 0, "re-segment"),
    ],
)
def test_the_advice_and_its_reason(k, previous_k, changed, drifted, agreement, advice):
    facts = {"k": k, "previous_k": previous_k, "more": k - previous_k, "changed": changed}
    facts |= {"drifted": drifted, "agreement": agreement, "psi": 0.3, "variable": "income"}
    entry = words.pick(TABLES["advice"], facts)
    assert entry["advice"] == advice
    assert entry["advice"] in TABLES["advised"]
    assert " 1 segment" not in words.write(entry["say"], facts)


@given(st.floats(-5, 5))
def test_a_grade_is_where_its_effect_lies(effect):
    bounds = [0, 0.2, 0.5, 0.8, 1.5, 99]
    level = abs(words.grade(effect))
    assert bounds[level] <= abs(effect) < bounds[level + 1]
    assert words.grade(-effect) == -words.grade(effect)


GRADES = st.sampled_from(range(-4, 5))


@given(
    st.fixed_dictionaries(
        {"segments": st.integers(1, 3), "markers": st.integers(0, 3)},
        optional=dict.fromkeys(TABLES["kinds"], GRADES),
    )
)
def test_a_role_is_given_only_where_its_predicate_holds(facts):
    ranges = {"low": (-4, -2), "high": (2, 4), "average": (-1, 1), "not low": (-1, 4)}
    ranges["not high"] = (-4, 1)
    role = words.pick(TABLES["roles"], facts)
    for name, bounds in role["when"].items():
        low, high = ranges.get(bounds, bounds) if isinstance(bounds, str) else bounds
        assert low <= facts[name] <= high
    if facts.get("spending", 0) > -2:
        assert "low cost" not in role["action"]


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("Age", "age"),
        ("Average message length", ""),
        ("Annual income", "income"),
        ("Spending score", "spending"),
        ("Days since last order", "recency"),
        ("Orders per year", "frequency"),
        ("Member for", "tenure"),
        ("Umsatz", "spending"),
        ("Age of account", "tenure"),
        ("Membership fee", ""),
        ("Vehicle age", ""),
        ("Days since first purchase", "tenure"),
        ("Months since last visit", "recency"),
    ],
)
def test_a_label_tells_what_a_feature_means(label, kind):
    assert words.find_kind(label) == kind


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("share", 0.325, "32%"),
        ("share", 0.0325, "3.2%"),
        ("share", 0.995, "99.5%"),
        ("share", 1.0, "100%"),
        ("worth", 59_127.0, "59,000 k$"),
        ("size", 1234, "1,234"),
        ("jaccard", 1, "1.00"),
        ("mean", 1234.56, "1,235 k$"),
        ("segment", "65 and older", "65 and older"),
        ("points", 1.25001, "+1.3 points"),
        ("points", -12.34, "−12.3 points"),
        ("points", -0.04, "unchanged"),
        ("previous_share", 0.125, "12%"),
    ],
)
def test_a_figure_is_written_with_its_unit(name, value, shown):
    facts = {name: value, "overall_sd": 26.2, "unit": "k$"}
    assert words.write_figure(name, facts) == shown


@pytest.mark.parametrize(
    ("spread", "decimals"), [(0, 1), (1e9, 0), (100, 0), (99, 1), (14, 1), (1.4, 2), (0.02, 4)]
)
def test_decimals_follow_the_spread(spread, decimals):
    assert words.count_decimals(spread) == decimals


def test_a_template_leaves_braces_of_the_data_alone():
    facts = {"variable": "{mean}", "mean": 1.0, "overall_sd": 1.0, "unit": "{x}"}
    assert words.write("{variable}: {mean}", facts) == "{mean}: 1.0 {x}"


def test_long_labels_are_cut_at_a_word():
    label = "Average value of a weekly basket of fresh and packaged goods"
    assert words.shorten(label) == "Average value of a weekly…"
    assert len(words.shorten("x" * 60)) == words.LONGEST


def test_every_placeholder_is_a_figure_or_a_text_of_its_table():
    known = {"segment", "size", "share", "variable", "mean", "overall_mean", "level", "lift"}
    known |= {"level_share", "overall_share", "rule", "precision", "customers", "coverage"}
    known |= {"found", "resamples", "jaccard", "stands_for", "fails_in"}
    known |= {"k", "ari_mean", "smallest_share"}
    known |= {"previous_segment", "previous_share", "parts", "sources"}
    known |= {"previous_k", "k", "psi", "agreement", "median", "overall_median"}
    known |= {"same", "samples", "skewed"}
    known |= {"choice", "rule_k", "ari"}
    known |= {"shift", "shift_low", "shift_high", "role", "previous_role", "action"}
    known |= {"mean_low", "mean_high", "few", "much", "of_value", "alike", "high", "low", "shared"}
    known |= {"event", "worth", "detectable", "others", "previous_size", "base"}
    known |= {"contactable", "send", "hold_back", "word", "sent", "held_back", "sent_mean"}
    known |= {"held_mean", "difference", "drawn", "lost"}
    known |= {"beyond", "came", "left", "switched", "stayed", "choices", "most", "least", "moved"}
    tables = [*TABLES["sentences"].values(), TABLES["advice"]]
    templates = [e["say"] for table in tables for e in table]
    assert {n for t in templates for n in re.findall(r"{(\w+)}", t)} <= known


def test_joined():
    assert [words.join(list("abc"[:n])) for n in range(4)] == ["", "a", "a and b", "a, b and c"]
    assert np.all([words.upper_first("") == "", words.lower_first("BMI") == "BMI"])
