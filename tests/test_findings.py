"""What leads the report, what a segment is worth, and the drawings: small tables, right answers."""

import re

import numpy as np
import pandas as pd
import pytest

from segmentation.customers import Card
from segmentation.customers.card import keep_features
from segmentation.reports import drawings, findings
from segmentation.segments import profiles, value

PARTS = {"Yearly spend": {"unit": "€"}, "Orders a year": {"unit": "orders"}, "Age": {}}
CARD = Card.model_validate({"title": "t", "table": "", "features": PARTS})


def make_customers(n=100, seed=0):
    """Three segments: few who spend much, many who spend little, and the old."""
    rng = np.random.default_rng(seed)
    spend = np.r_[rng.normal(900, 30, n), rng.normal(100, 10, 2 * n), rng.normal(110, 10, n)]
    orders = np.r_[rng.normal(9, 1, n), rng.normal(5, 1, 2 * n), rng.normal(5, 1, n)]
    age = np.r_[rng.normal(40, 3, 3 * n), rng.normal(70, 3, n)]
    cluster = np.repeat([0, 1, 2], [n, 2 * n, n])
    return pd.DataFrame(dict(zip(PARTS, (spend, orders, age), strict=True)) | {"cluster": cluster})


@pytest.fixture
def customers():
    return make_customers()


@pytest.fixture
def measures(customers):
    return profiles.measure_features(customers, CARD)


@pytest.fixture
def features(measures):
    profile = profiles.profile_features(measures, CARD)
    return profile.assign(segment=profile["cluster"].map({0: "A", 1: "B", 2: "C"}))


NOTHING = pd.DataFrame(columns=["points", "previous_size", "size", "previous_share", "share"])
NO_VALUE = pd.DataFrame(columns=value.VALUES)


def test_the_value_of_a_segment_is_its_sum(customers, measures):
    worth = value.measure_value(measures, CARD).set_index("cluster")
    sums = customers.groupby("cluster")["Yearly spend"].sum()
    assert worth["total"].to_numpy() == pytest.approx(sums)
    assert worth["value_share"].to_numpy() == pytest.approx(sums / sums.sum())
    assert worth["share"].tolist() == [0.25, 0.5, 0.25]


@pytest.mark.parametrize(
    ("label", "adds_up"),
    [
        ("Total spend", True),
        ("Spend per year", True),
        ("Spend per order", False),
        ("Average spend", False),
        ("Share of sales", False),
        ("Spending score", False),
        ("Height", False),
    ],
)
def test_only_what_adds_up_is_a_value(label, adds_up):
    card = Card.model_validate({"title": "t", "table": "", "features": {label: {}, "Age": {}}})
    assert (value.find_value(card) == label) == adds_up


def test_the_card_may_say_what_the_value_is():
    parts = {"Total spend": {}, "Margin": {"unit": "€"}, "Age": {}}
    given = {"title": "t", "table": "", "features": parts}
    assert value.find_value(Card.model_validate(given)) == "Total spend"
    assert value.find_value(Card.model_validate(given | {"value": "Margin"})) == "Margin"
    with pytest.raises(ValueError, match="value: Margn is no column of numbers; did you mean"):
        Card.model_validate(given | {"value": "Margn"})


OTHERS = {"inputs": {"Orders": {}, "Visits": {}}, "outcomes": {"Answered": {"kind": "yes/no"}}}
OTHERS["outcomes"] |= {"Margin": {"label": "Yearly margin", "unit": "€"}}


def make_card(value, **parts):
    features = PARTS | {"Basket": {"expression": "Yearly spend / Orders"}}
    given = {"title": "t", "table": "", "features": features, "value": value} | OTHERS
    return Card.model_validate(given | parts)


def test_the_value_may_be_an_outcome_or_an_input_that_a_feature_is_made_of():
    for name, label in (("Margin", "Yearly margin"), ("Orders", "Orders")):
        card = make_card(name)
        assert (value.find_value(card), value.find_spending(card)) == (name, label)
        assert name in card.columns
        assert name not in {*card.features, *card.distance}
    assert keep_features(make_card("Margin"), "Age,Orders a year").value == "Margin"
    assert keep_features(make_card("Yearly spend"), "Age,Basket").value == "Yearly spend"
    assert keep_features(make_card("Orders"), "Age,Orders a year").value == ""


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Answered", "value: Answered is no column of numbers; known are Yearly spend"),
        ("Visits", "value: no feature is made of Visits; move it from inputs to `outcomes:`"),
    ],
)
def test_a_value_that_cannot_be_measured_is_refused(name, told):
    with pytest.raises(ValueError, match=told):
        make_card(name)


@pytest.mark.parametrize("name", ["Margin", "Orders"])
def test_a_value_that_is_no_feature_is_measured_of_whom_it_is_known(customers, name):
    rng, card = np.random.default_rng(1), make_card(name)
    customers = customers.assign(Basket=1.0, **{name: rng.lognormal(size=len(customers))})
    customers.loc[rng.random(len(customers)) < 0.2, name] = np.nan
    customers.loc[customers["cluster"] == 2, name] = np.nan
    measures = profiles.measure_features(customers, card)
    worth = value.measure_value(measures, card, customers).set_index("cluster")
    own = customers.groupby("cluster")[name]
    assert worth["customers"].tolist() == own.count().tolist()
    assert worth["total"].to_numpy() == pytest.approx(own.sum())
    assert worth["value_share"].to_numpy() == pytest.approx(own.sum() / own.sum().sum())
    assert worth["mean"].to_numpy() == pytest.approx(own.mean().to_numpy(), nan_ok=True)
    half = 1.96 * own.std() / own.count() ** 0.5
    for end, wanted in (("low", own.mean() - half), ("high", own.mean() + half)):
        assert worth[end].to_numpy() == pytest.approx(wanted.to_numpy(), rel=0.1, nan_ok=True)
    profile = profiles.profile_features(measures, card)
    assert set(profile["variable"]) == {f.label for f in card.features.values()}
    segments = [{"id": i, "size": 100, "roles": [], "actions": []} for i in range(3)]
    plans = value.plan_actions(segments, measures, card)
    assert set(plans["variable"]) == {card.measured[name].label}
    assert value.measure_value(measures[measures["customers"] == 0], card).empty


def test_the_interval_of_the_whole_cut_is_taken_where_it_is_known(customers, measures):
    told = measures.assign(mean_low=measures["mean"] - 7, mean_high=measures["mean"] + 9)
    worth = value.measure_value(told, CARD, customers)
    assert (worth["mean"] - worth["low"]).tolist() == pytest.approx([7] * 3)
    assert (worth["high"] - worth["mean"]).tolist() == pytest.approx([9] * 3)
    assert list(worth) == value.VALUES
    assert value.measure_value(measures, CARD)[["low", "high"]].isna().all(axis=None)


def test_what_falls_below_zero_has_no_shares(customers):
    customers.loc[0, "Yearly spend"] = -5
    assert value.measure_value(profiles.measure_features(customers, CARD), CARD).empty


def test_an_order_more_is_worth_what_the_segment_spends_on_one(measures):
    segments = [{"id": i, "size": n, "roles": ["r"], "actions": ["A."]}
                for i, n in enumerate((100, 200, 100))]  # fmt: skip
    plans = value.plan_actions(segments, measures, CARD)
    means = measures.dropna(subset="cluster").pivot(
        index="cluster", columns="variable", values="mean"
    )
    basket = means["Yearly spend"] / means["Orders a year"]
    assert plans["worth"].to_numpy() == pytest.approx(plans["customers"] * basket.to_numpy())
    assert plans["event"].tolist() == ["order"] * 3


def lead(measures, features, changes=NOTHING, values=None):
    values = value.measure_value(measures, CARD) if values is None else values
    return findings.find_headline(values, pd.DataFrame(), features, changes, customers=400)


def test_concentrated_value_leads(measures, features):
    assert lead(measures, features) == (
        "A quarter of the customers bring three quarters of the yearly spend"
    )


CHANGES = {"segment": ["B"], "previous_size": [400], "size": [500], "previous_share": [0.4]}


@pytest.mark.parametrize(
    ("share", "size", "led"), [(0.5, 500, True), (0.41, 410, False), (0.5, 5, False)]
)
def test_a_clear_change_leads_where_value_does_not(measures, features, share, size, led):
    changes = pd.DataFrame(CHANGES | {"share": [share], "size": [size]})
    changes["previous_size"] = size * 0.8
    changes["points"] = 100 * (changes["share"] - changes["previous_share"])
    told = lead(measures, features, changes, NO_VALUE)
    assert (told == "B grew from 40% to 50% of the customers") == led


def test_else_a_contrast_between_segments_that_are_alike_leads(measures, features):
    told = lead(measures, features, values=NO_VALUE)
    assert told == "Two segments alike in age are far apart in yearly spend: €902 against €99"
    alone = features[features["cluster"] == 0]
    assert findings.find_headline(NO_VALUE, NOTHING, alone, NOTHING, customers=400) == (
        "400 customers, no separate groups"
    )


SELECTION = {"verdict": "reproducible", "reading": "reproducible"}


def test_a_check_is_passed_by_its_own_figure_alone():
    steady = {"jaccard": 0.9, "found": 99, "dissolved": 1, "resamples": 100}
    segments = [{"stability": steady}, {"stability": steady | {"jaccard": 0.7, "found": 80}}]
    shares = {"shares": {"4 reproducible": 30, "4 natural": 11, "3 none": 9}}
    checks = findings.check_answer(SELECTION | shares, segments, k=4, edged=0.2, agrees=False)
    told = {check["name"]: check["passed"] for check in checks}
    passed = {"chance": True, "repeats": False, "methods": False, "borderline": False}
    assert told == passed | {"samples": True}
    (samples,) = [check for check in checks if check["name"] == "samples"]
    assert (samples["same"], samples["samples"]) == (41, 50)
    none = findings.check_answer(SELECTION, [], k=1, edged=float("nan"), agrees=None)
    assert none == []


# The drawings ------------------------------------------------------------------------------


def test_the_ribbons_of_both_bars_lie_side_by_side_in_one_order():
    ways = [("b", "a", 0.2, 0.2), ("a", "a", 0.3, 0.4), ("b", "b", 0.5, 0.4)]
    ribbons = drawings.draw_ribbons(ways, order="ab")
    assert [(band["from"], band["to"]) for band in ribbons] == [("a", "a"), ("b", "a"), ("b", "b")]
    ends = [[float(n) for n in re.findall(r"[\d.]+", band["path"])] for band in ribbons]
    above = [(end[0], end[-2]) for end in ends]  # M left 0 … right 0Z
    below = [(end[6], end[8]) for end in ends]  # … left 100 H right C …
    assert above == [(0, 300), (300, 500), (500, 1000)]
    assert below == [(0, 400), (400, 600), (600, 1000)]


def test_a_far_customer_stands_at_the_edge_of_the_map_and_is_counted(customers):
    customers.loc[0, "Age"] = 900
    plane = ["Yearly spend", "Age"]
    centres = customers.groupby("cluster")[plane].mean().to_dict("index")
    maps = drawings.draw_maps(customers, CARD, plane, centres, {})
    assert maps["beyond"] == 1
    assert re.search(r"M\d+ 0h0", maps["dots"][0])
    assert sum(dots.count("M") for dots in maps["dots"].values()) == len(customers)
    for ticks in maps["ticks"]:
        assert len(ticks) >= 2
        assert all(0 <= at <= 1 for at, _ in ticks)
    assert maps["before"] == {}


def test_where_a_centre_came_from_is_drawn_only_where_it_moved(customers):
    plane = ["Yearly spend", "Age"]
    centres = customers.groupby("cluster")[plane].mean().to_dict("index")
    before = {0: centres[0], 1: centres[1] | {"Age": 60.0}, 9: centres[2]}
    assert set(drawings.draw_maps(customers, CARD, plane, centres, before)["before"]) == {1}


def test_a_third_feature_is_named_where_the_map_hides_what_parts(customers):
    assert drawings.find_third(customers, CARD, ["Yearly spend", "Orders a year"]) == "Age"
    assert drawings.find_third(customers, CARD, ["Yearly spend", "Age"]) is None


def test_a_tree_leads_each_segment_to_where_it_comes_from():
    rows = [
        (2, 0, "A", 0.4, None),
        (2, 1, "B", 0.6, None),
        (4, 0, "A", 0.4, 0),
        (4, 1, "C", 0.3, 1),
    ]
    cuts = pd.DataFrame(rows, columns=["k", "segment", "name", "share", "parent"])
    tree = drawings.draw_tree(cuts.assign(chosen=cuts["k"] == 4))
    assert (len(tree["nodes"]), len(tree["edges"]), tree["chosen"]) == (4, 2, 4)
    assert [edge["width"] for edge in tree["edges"]] == [6.6, 5.2]
    assert drawings.draw_tree(cuts[:0].assign(chosen=True)) == {}
