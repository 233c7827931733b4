"""Profiles in raw units, names and sentences that hold their table's figures."""

import re

import numpy as np
import pandas as pd
import pytest

from segmentation import profiles, segmenter


@pytest.fixture(scope="module", params=[1, 2, 3, 4, 5, 6, 9])
def cut(request, table, card):
    pipeline = segmenter.fit(table, card, k=request.param)
    limits = segmenter.measure_limits(pipeline, table, card)
    clustered = segmenter.cluster_customers(pipeline, table, card, limits)
    profile = profiles.profile_features(clustered, card)
    segments = profiles.list_segments(profile, segmenter.find_centres(pipeline, card))
    return clustered, profile, segments


def test_figures_are_those_of_the_members(cut, table):
    clustered, profile, _ = cut
    for _, row in profile[profile["variable"] == "Age"].iterrows():
        ages = table.loc[clustered["cluster"] == row["cluster"], "Age"]
        assert row["mean"] == pytest.approx(ages.mean())
        assert row["sd"] == pytest.approx(ages.std(ddof=0), abs=1e-12)
        assert row["size"] == len(ages)
        overall = table["Age"]
        effect = (ages.mean() - overall.mean()) / overall.std(ddof=0)
        assert row["effect"] == pytest.approx(effect, abs=1e-12)


def test_names_are_unique_and_true(cut):
    _, _, segments = cut
    names = [segment["name"] for segment in segments]
    assert len(set(names)) == len(names)
    for segment in segments if len(segments) > 1 else []:
        for word in segment["name"].split(", "):
            assert_true(word.casefold(), segment["profile"])


def assert_true(word, profile):
    """A word of a name holds for the segment's own figures."""
    if word == "near the average":
        assert all(abs(figures["effect"]) < 0.5 for figures in profile.values())
        return
    grade, _, rest = word.partition(" ")
    bounds = {"slightly": (0.2, 0.5), "very": (1.5, 99), "much": (1.5, 99)}
    low, high = bounds.get(grade, (0.5, 99))
    word = rest if grade in bounds else word
    by_word = {
        "older": ("Age", 1),
        "younger": ("Age", -1),
        **{f"{d} {v.lower()}": (v, s) for v in profile for d, s in (("high", 1), ("low", -1))},
    }
    if grade == "average":
        assert abs({v.lower(): f["effect"] for v, f in profile.items()}[rest]) < 0.2
    else:
        variable, sign = by_word[word]
        assert low <= sign * profile[variable]["effect"] < high


def test_segments_are_listed_by_size_with_their_shares(cut):
    _, _, segments = cut
    sizes = [segment["size"] for segment in segments]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(sizes) == 200
    assert sum(segment["share"] for segment in segments) == pytest.approx(1)
    assert [segment["id"] for segment in segments] == list(range(len(segments)))


def test_every_figure_in_a_segment_s_sentences_is_in_its_rows(cut, card):
    clustered, profile, segments = cut
    named = profiles.name_clusters(profile, segments)
    levels = profiles.name_clusters(profiles.profile_levels(clustered, card), segments)
    for segment in profiles.add_sentences(segments, named, levels):
        own = named[named["segment"] == segment["name"]]
        mix = levels[levels["segment"] == segment["name"]]
        known = {f"{v:.1f}" for v in [*own["mean"], *own["overall_mean"]]}
        known |= {f"{100 * v:.1f}" for v in [*mix["level_share"], *mix["overall_share"]]}
        known |= {f"{segment['size']}", f"{100 * segment['share']:.1f}"}
        told = " ".join(segment["sentences"]).replace(segment["name"], "")
        assert set(re.findall(r"\d+(?:\.\d+)?", told)) <= known


def test_level_shares_and_lift(cut, card):
    clustered, _, _ = cut
    levels = profiles.profile_levels(clustered, card)
    assert levels.groupby("cluster")["level_share"].sum().to_numpy() == pytest.approx(1)
    np.testing.assert_allclose(levels["lift"], levels["level_share"] / levels["overall_share"])
    assert levels["customers"].sum() == 200


def test_the_table_for_people_ends_with_everyone(cut):
    _, profile, segments = cut
    shown = profiles.tabulate_profile(profiles.name_clusters(profile, segments))
    assert shown["Segment"].iloc[-1] == "Everyone"
    assert list(shown["Customers"]) == [str(s["size"]) for s in segments] + ["200"]
    assert shown["Age (years)"].iloc[-1] == "38.9"


def test_equal_names_are_told_apart():
    rows = [(c, v, e) for c, e in [(0, 0.9), (1, 0.8), (2, -1.0)] for v in ("x", "y")]
    profile = pd.DataFrame(rows, columns=["cluster", "variable", "effect"])
    profile.loc[(profile["variable"] == "y"), "effect"] = [0.3, -0.3, 0.0]
    names = profiles.name_segments(profile)
    assert names == {0: "High x, slightly high y", 1: "High x, slightly low y", 2: "Low x"}
    profile["effect"] = 0.7
    assert len(set(profiles.name_segments(profile).values())) == 3


def test_variance_shares_are_between_none_and_all(cut, card):
    clustered, _, segments = cut
    shares = profiles.explain_variance(clustered, card)
    assert shares.between(0, 1).all()
    assert (shares.max() < 1e-9) == (len(segments) == 1)


def test_sentences_stand_for_any_number_of_segments(cut, card):
    clustered, profile, segments = cut
    named = profiles.name_clusters(profile, segments)
    sentences = [
        profiles.summarize_segments(segments),
        profiles.summarize_effects(named),
        profiles.summarize_overlap(named),
        profiles.summarize_limits(named),
        profiles.summarize_descriptors(clustered, card),
        profiles.summarize_separation(clustered, card),
    ]
    assert all(s.endswith(".") and "nan" not in s and "  " not in s for s in sentences)
