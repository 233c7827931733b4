"""Profiles in raw units, names and sentences that hold their table's figures."""

import re

import numpy as np
import pandas as pd
import pytest
from modelling import build_model
from scipy.stats import contingency

from segmentation.customers import Card
from segmentation.segments import assign_customers, build_figures, profiles


@pytest.fixture(scope="module", params=[1, 2, 3, 4, 5, 6, 9])
def cut(request, table, card):
    figures = build_figures(build_model(table, card, request.param), table, card)
    clustered = assign_customers(figures, table, card)
    profile = profiles.profile_features(profiles.measure_features(clustered, card), card)
    segments = profiles.list_segments(profile, figures.list_centres(), card)
    return clustered, profile, segments


def add_names(profile, segments):
    return profile.assign(segment=profile["cluster"].map({s["id"]: s["name"] for s in segments}))


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


def test_a_rule_is_true_of_as_many_customers_as_it_says(cut, card, table):
    clustered, _, segments = cut
    rules = profiles.find_rules(clustered, card)
    found = 0
    for rule in rules.to_dict("records"):
        if not rule["rule"]:
            continue
        inside = np.ones(len(table), dtype=bool)
        asked = 0
        for name, feature in card.features.items():
            said = re.search(
                rf"{feature.label} ((above|up to|at most) [\d.]+ ?)+", rule["rule"], re.I
            )
            for side, bound in re.findall(
                r"(above|up to|at most) ([\d.]+)", said[0] if said else ""
            ):
                asked += 1
                values = table[name].to_numpy()
                inside &= values > float(bound) if side == "above" else values <= float(bound)
        own = (clustered["cluster"] == rule["cluster"]).to_numpy()
        assert 1 <= asked <= 3
        assert rule["customers"] == inside.sum()
        assert rule["hits"] == (inside & own).sum()
        found += rule["hits"]
    assert (found > 0) == (len(segments) > 1)
    if len(segments) == 4:  # groups that two questions tell apart
        assert (rules["rule"] != "").all()
        assert rules[["precision", "coverage"]].min(axis=None) > 0.8
        assert rules["fidelity"].iloc[0] > 0.9


def test_a_rule_is_judged_by_customers_that_it_was_not_made_from():
    card = Card.model_validate({"title": "t", "table": "", "features": {"a": {}, "b": {}}})
    shares, told = [], []
    for seed in range(20):  # nothing tells these segments, however well a rule fits them
        rng = np.random.default_rng([41, seed])
        table = pd.DataFrame(rng.normal(size=(120, 2)), columns=["a", "b"])
        table["cluster"] = rng.permutation([0] * 90 + [1] * 30)
        rule = profiles.find_rules(table, card, seed=seed).loc[1]
        shares.append(rule["precision"])
        told.append(rule["hits"] / rule["customers"])
    assert np.mean(shares) == pytest.approx(0.25, abs=0.05)
    assert np.mean(told) > 0.33


def test_a_segment_in_the_middle_has_a_rule_of_two_bounds():
    card = Card.model_validate({"title": "t", "table": "", "features": {"a": {}, "b": {}}})
    table = pd.DataFrame({"a": np.arange(300.0), "b": 0.0}).assign(cluster=np.arange(300) // 100)
    rules = profiles.find_rules(table, card)
    assert rules["rule"].tolist() == ["A at most 99.5", "A above 99.5 up to 199.5", "A above 199.5"]
    assert (rules[["precision", "coverage", "fidelity"]] > 0.95).all(axis=None)
    one = profiles.find_rules(table.assign(cluster=0), card).iloc[0]
    assert (one["rule"], one["customers"], one["precision"]) == ("", 0, 0)


def name_in_card(card, **names):
    given = [{"name": name, "when": when} for name, when in names.items()]
    return type(card).model_validate(card.model_dump(exclude={"path"}) | {"segments": given})


def test_a_name_of_the_card_goes_where_what_it_stands_for_holds(cut, card):
    _, profile, segments = cut
    big = {"Annual income": "high", "Spending score": "high"}
    grades = profile.pivot(index="cluster", columns="variable", values="grade")
    centres = pd.DataFrame([segment["centre"] for segment in segments])
    listed = profiles.list_segments(profile, centres, name_in_card(card, Big=big))
    holding = grades[(grades["Annual income"] >= 2) & (grades["Spending score"] >= 2)]
    named = [segment["id"] for segment in listed if segment["name"] == "Big"]
    if len(holding):
        assert named[0] in holding.index
        assert listed[named[0]]["given"]["fails_in"] == ""
    for segment in listed:
        assert ("given" in segment) == (segment["name"] == "Big")


def test_a_name_that_stopped_holding_is_kept_and_flagged(card):
    variables = ["Age", "Annual income", "Spending score"]
    rows = [(c, v, e) for c, es in enumerate([(0, 1, 0.4), (0, -1, 0.1)])
            for v, e in zip(variables, es, strict=True)]  # fmt: skip
    profile = pd.DataFrame(rows, columns=["cluster", "variable", "effect"])
    profile["grade"] = [0, 3, 1, 0, -3, 0]
    profile = profile.assign(size=10, share=0.5, mean=0.0, sd=1.0, median=0.0)
    centres = pd.DataFrame(0.0, index=[0, 1], columns=list(card.features))
    whens = {"Annual income": "high", "Spending score": "high"}
    named = name_in_card(card, Big=whens, Gone={"Age": "very low"})
    first, second = profiles.list_segments(profile, centres, named)
    assert (first["name"], first["given"]["fails_in"]) == ("Big", "Spending score")
    assert second["name"] == "Low annual income"
    warned = profiles.list_warnings([first, second], named)
    assert warned == [
        "The name “Big” no longer holds for Spending score.",
        "The card names “Gone”, but no segment is like that.",
    ]


def test_a_card_s_action_replaces_ours(cut, card):
    _, profile, segments = cut
    own = profile[profile["cluster"] == 0]
    given = {"name": segments[0]["name"], "when": {"Age": "high"}, "action": "Call them."}
    named = type(card).model_validate(card.model_dump(exclude={"path"}) | {"segments": [given]})
    ours = profiles.find_role(own, card, segments[0], len(segments))
    theirs = profiles.find_role(own, named, segments[0], len(segments))
    assert theirs["action"] == "Call them."
    assert theirs["role"] == ours["role"]


def find_role(effects, had=()):
    """The role of a segment with these effects, and its actions."""
    labels = {"spending": "Spending", "income": "Income", "visits": "Shoe size"}
    card = Card.model_validate(
        {"title": "t", "table": "t", "features": {n: {"label": v} for n, v in labels.items()}}
    )
    profile = pd.DataFrame({"variable": labels.values(), "effect": effects})
    role = profiles.find_role(profile, card, {"name": "x"}, 3, had)
    return role["role"], [role["action"]]


@pytest.mark.parametrize(
    ("then", "now", "afresh", "kept"),
    [
        ((-0.4, 0, 0), (-0.5, 0, 0), "occasional", "core"),  # a hair's breadth is no news
        ((-0.5, 0, 0), (-0.4, 0, 0), "core", "occasional"),
        ((-0.4, 0, 0), (-0.64, 0, 0), "occasional", "core"),
        ((-0.4, 0, 0), (-0.66, 0, 0), "occasional", "occasional"),  # and then it is
        ((0.5, 0, 0), (0.34, 0, 0), "core", "core"),
        ((0.6, -0.6, 0), (0.6, -0.45, 0), "high-value", "enthusiast"),
        ((0.8, 0, 0), (0.8, -0.7, 0), "enthusiast", "enthusiast"),  # a clear one goes before
        ((0.6, 0, 0), (0.6, -0.6, 0), "enthusiast", "high-value"),
    ],
)
def test_a_role_stays_until_its_figures_clearly_leave_it(then, now, afresh, kept):
    _, had = find_role(then)
    assert find_role(now)[0] == afresh
    role, actions = find_role(now, had)
    assert role == kept
    assert find_role(now, actions)[0] == kept  # and goes on staying


def test_roles_flap_less_than_figures():
    rng = np.random.default_rng(8)
    moves, (last, had) = {"afresh": 0, "kept": 0}, find_role((-0.5, 0, 0))
    for _ in range(100):
        effects = (-0.5 + rng.normal(0, 0.05), 0.0, 0.0)
        (own, _), (_, actions) = find_role(effects), find_role(effects, had)
        moves["kept"] += actions != had
        moves["afresh"] += own != last
        last, had = own, actions
    assert moves["kept"] == 0 < 30 < moves["afresh"]


def test_marked_levels_are_common_or_rare_enough():
    cluster = np.repeat([0, 1], [40, 60])
    kind = np.array(["x"] * 30 + ["y"] * 10 + ["x"] * 10 + ["y"] * 45 + ["z"] * 5)
    table = pd.DataFrame({"cluster": cluster, "kind": kind})
    kinds = Card.model_validate(
        {"title": "t", "table": "t", "id": "i", "features": {"a": {}, "b": {}},
         "descriptors": {"kind": {}}}
    )  # fmt: skip
    marked = profiles.profile_levels(profiles.measure_levels(table, kinds), kinds).set_index(
        ["cluster", "level"]
    )["marked"]
    assert marked.to_dict() == {
        (0, "x"): True, (0, "y"): True, (0, "z"): False,
        (1, "x"): True, (1, "y"): False, (1, "z"): False,
    }  # fmt: skip


@pytest.mark.long
def test_cramers_v_is_freed_of_what_chance_gives():
    card = Card.model_validate(
        {"title": "t", "table": "t", "features": {"a": {}, "b": {}}, "descriptors": {"kind": {}}}
    )

    def measure(cluster, kind):
        table = pd.DataFrame({"cluster": cluster, "kind": kind})
        levels = profiles.profile_levels(profiles.measure_levels(table, card), card)
        counts = pd.crosstab(table["cluster"], table["kind"])
        plain = contingency.association(counts) if len(counts) > 1 else 0
        return levels["cramers_v"].unique().item(), plain

    sizes = [40, 10, 10, 40]
    cluster, kind = np.repeat([0, 0, 1, 1], sizes), np.repeat([*"xyxy"], sizes)
    worked = ((0.36 - 1 / 99) / (1 - 1 / 99)) ** 0.5  # Bergsma (2013), by hand
    assert measure(cluster, kind) == pytest.approx((worked, 0.6))
    assert measure(cluster, cluster.astype(str)) == pytest.approx((1, 1))
    assert measure(np.zeros(9, int), [*"xxxyyyzzz"])[0] == 0
    assert measure(np.arange(9) % 3, [*"abcdefghi"])[0] == 0  # each customer a level
    rng = np.random.default_rng(5)
    by_chance = [measure(rng.integers(0, 4, 80), rng.choice([*"abcdef"], 80)) for _ in range(40)]
    ours, plain = np.mean(by_chance, axis=0)
    assert ours < 0.08 < 0.2 < plain


def test_two_levels_make_one_sentence():
    rows = [("women", 75, 1.5, True), ("men", 25, 0.5, True)]
    levels = pd.DataFrame(rows, columns=["level", "customers", "lift", "marked"])
    levels = levels.assign(variable="Sex", p=0.0, level_share=[0.75, 0.25], overall_share=0.5)
    three = pd.concat([levels, levels.iloc[[0]].assign(level="unknown", marked=False)])
    said = {}
    for name, shown in {"two": levels, "three": three}.items():
        segment = {"id": 0, "name": "Some", "size": 100, "share": 0.5}
        none = pd.DataFrame(columns=["cluster", "effect", "unit", "variable", "grade"])
        own = none, shown.assign(segments=2), none
        said[name] = profiles._describe_segment(segment, 2, *own)[1:]
    assert said["two"] == ["More often women (Sex): 75%, everyone 50%."]
    assert said["three"][1] == "Less often men (Sex): 25%, everyone 50%."


def test_level_shares_and_lift(cut, card):
    clustered, _, _ = cut
    levels = profiles.profile_levels(profiles.measure_levels(clustered, card), card)
    assert levels.groupby("cluster")["level_share"].sum().to_numpy() == pytest.approx(1)
    np.testing.assert_allclose(levels["lift"], levels["level_share"] / levels["overall_share"])
    assert levels["customers"].sum() == 200


def test_the_table_for_people_ends_with_everyone(cut):
    _, profile, segments = cut
    shown = profiles.tabulate_profile(add_names(profile, segments))
    assert shown["Segment"].iloc[-1] == "Everyone"
    assert list(shown["Customers"]) == [str(s["size"]) for s in segments] + ["200"]
    assert shown["Age (years)"].iloc[-1] == "38.9"


def test_equal_names_are_told_apart():
    rows = [(c, v, e) for c, e in [(0, 0.9), (1, 0.8), (2, -1.0)] for v in ("x", "y")]
    profile = pd.DataFrame(rows, columns=["cluster", "variable", "effect"])
    profile.loc[(profile["variable"] == "y"), "effect"] = [0.3, -0.3, 0.0]
    names = profiles.find_names(profile)
    assert names == {0: "High x, slightly high y", 1: "High x, slightly low y", 2: "Low x"}
    profile["effect"] = 0.7
    assert len(set(profiles.find_names(profile).values())) == 3


def test_variance_shares_are_between_none_and_all(cut, card):
    clustered, _, segments = cut
    measures = profiles.measure_features(clustered, card)
    shares = profiles.profile_features(measures, card)["explained"]
    assert shares.between(0, 1).all()
    assert (shares.max() < 1e-9) == (len(segments) == 1)


def test_a_gap_is_no_value_and_a_flat_feature_has_no_effect():
    card = Card.model_validate({"title": "t", "table": "", "features": {"a": {}, "b": {}}})
    table = pd.DataFrame({"cluster": [0, 0, 1, None], "a": [1.0, None, None, 9.0], "b": 3.0})
    measures = profiles.measure_features(table.astype({"cluster": "Int64"}), card)
    own = measures.set_index(["variable", measures["cluster"].fillna(-1)])
    assert own["customers"].to_dict() == {
        **{("a", -1): 1, ("a", 0): 1, ("a", 1): 0, ("b", -1): 3, ("b", 0): 2, ("b", 1): 1}
    }
    profile = profiles.profile_features(measures, card).set_index(["variable", "cluster"])
    assert profile.loc[("a", 1), ["mean", "sd"]].tolist() == [1.0, 0.0]  # filled by the median
    assert (profile.loc["b", "effect"] == 0).all()
    assert profile["explained"].between(0, 1).all()


def test_limits_are_told_of_the_smallest_segment(cut):
    _, profile, segments = cut
    told = profiles.summarize_limits(add_names(profile, segments))
    assert (segments[-1]["name"] in told) == (len(segments) > 1)


@pytest.mark.parametrize(
    ("jaccard", "band"),
    [(0.5, "dissolved"), (0.59, "not to be trusted"), (0.61, "doubtful"), (0.75, "stable"),
     (0.85, "highly stable"), (1.0, "highly stable")],
)  # fmt: skip
def test_stability_is_summed_up_by_segment(jaccard, band):
    jaccards = np.full((10, 1), jaccard)
    (told,) = profiles.add_stability([{"name": "x"}], jaccards, jaccards)
    dissolved = 10 if jaccard <= 0.5 else 0
    wanted = {"jaccard": jaccard, "band": band, "slsw": jaccard, "resamples": 10}
    wanted |= {"found": 10 - dissolved, "dissolved": dissolved}
    assert told["stability"] == pytest.approx(wanted)


def test_effects_and_words_are_of_what_the_distance_sees():
    parts = {"spend": {"label": "Spend", "unit": "€", "transform": "log"}, "age": {"label": "Age"}}
    card = Card.model_validate({"title": "t", "table": "", "features": parts})
    rng = np.random.default_rng(0)
    spend = np.r_[rng.lognormal(3, 0.5, 60), rng.lognormal(6, 0.5, 60)].round(2)
    table = pd.DataFrame({"cluster": [0] * 60 + [1] * 60, "spend": spend, "age": 40.0})
    table.loc[119, "spend"] = 1e6  # in the own unit, this one customer would decide
    profile = profiles.profile_features(profiles.measure_features(table, card), card)
    low, high = (row for _, row in profile[profile["variable"] == "Spend"].iterrows())
    logs = np.log1p(table["spend"])
    assert high["effect"] == pytest.approx((logs[60:].mean() - logs.mean()) / logs.std(ddof=0))
    assert low["effect"] == pytest.approx(-high["effect"])
    assert (low["grade"], high["grade"]) == (-3, 3)
    assert high["explained"] == pytest.approx(
        1 - (logs[:60].var(ddof=0) + logs[60:].var(ddof=0)) / 2 / logs.var(ddof=0)
    )
    assert high["overall_median"] == pytest.approx(table["spend"].median())
    segments = profiles.list_segments(
        profile, pd.DataFrame({"spend": [3.0, 6.0], "age": 40.0}), card
    )
    told = profiles.add_words(
        segments,
        profile,
        profiles.profile_levels(profiles.measure_levels(table, card), card),
        profiles.find_rules(table, card),
        card,
    )
    median = f"{spend[60:119].tolist() and np.median(table['spend'][60:]):,.0f}"
    assert any(f"Spend is high: a median of €{median}" in line for line in told[1]["sentences"])
    assert "on average" not in " ".join(told[1]["sentences"]).split("Age")[0]


@pytest.mark.long
def test_nothing_is_said_of_a_descriptor_that_chance_explains():
    labels = {"title": "t", "table": "", "features": {"a": {}, "b": {}}}
    card = Card.model_validate(labels | {"descriptors": {"region": {}, "plan": {}}})
    wrong = 0
    for seed in range(60):
        rng = np.random.default_rng([40, seed])
        cluster = rng.integers(0, 4, 300)
        plan = np.where(rng.random(300) < 0.7, cluster > 1, rng.random(300) < 0.5)
        table = pd.DataFrame({"cluster": cluster, "region": rng.choice([*"ABCDEFGH"], 300)})
        table = table.assign(plan=np.where(plan, "yes", "no"), a=cluster + 0.0, b=0.0)
        levels = profiles.profile_levels(profiles.measure_levels(table, card), card)
        by_name = levels.groupby("variable")
        assert by_name["p"].nunique().tolist() == [1, 1]
        assert by_name["marked"].any()["plan"]
        wrong += by_name["marked"].any()["region"]
        counts = pd.crosstab(table["cluster"], table["region"])
        exact = contingency.chi2_contingency(counts).pvalue
        assert levels.loc[levels["variable"] == "region", "p"].iloc[0] == pytest.approx(exact)
    assert wrong <= 3
    profile = profiles.profile_features(profiles.measure_features(table, card), card)
    centres = table.groupby("cluster")[["a", "b"]].mean()
    segments = profiles.list_segments(profile, centres, card)
    rules = profiles.find_rules(table, card)
    told = profiles.add_words(segments, profile, levels, rules, card)
    said = " ".join(line for segment in told for line in segment["sentences"])
    assert "(plan)" in said
    assert ("egion" in said) == (levels.loc[levels["variable"] == "region", "p"].iloc[0] <= 0.05)
