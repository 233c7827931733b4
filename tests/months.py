"""Twelve months of a customer table: people come and go, a segment splits, another fades out."""

import numpy as np
import pandas as pd
from modelling import build_model, name_customers

from segmentation.customers import Card
from segmentation.segments import assign_customers, build_figures, profiles, tracking
from segmentation.segments.scorer import Scorer

SPLIT, FADED = 5, 9
"""The months in which a segment splits, and from which on another has gone."""

SIZES = {"A": 90, "B": 110, "C": 60, "D": 80, "E": 50}
PLACES = {
    **{"A": (0, 0, 0), "B": (1, 0, 0), "C": (0, 1, 0), "D": (0, 0, 1), "E": (1, 1, 0)},
    "F": (1, 0, 1),
}
"""Where the groups lie, in distances between neighbours; F breaks off from B."""

CARD = Card.model_validate(
    {
        "title": "Months",
        "table": "months.csv",
        "id": "id",
        "features": {
            "income": {"label": "Income", "unit": "k€", "range": [0, 10_000]},
            "visits": {"label": "Visits", "unit": "a month"},
            "basket": {"label": "Basket", "unit": "€"},
        },
        "descriptors": {"region": {"label": "Region"}},
    }
)
UNITS, MEANS = np.array([4.0, 2.0, 5.0]), np.array([60.0, 30.0, 80.0])


def make_months(*, apart=5.0, seed=0, months=12, churn=0.03, inflation=0.02):
    """The tables of each month (by number from 1), each customer's true group in `truth`.

    Groups lie `apart` within-group standard deviations from their neighbours; a customer's own
    figures wander a little from month to month, incomes inflate.
    """
    rng = np.random.default_rng(seed)
    people = pd.concat([_recruit(rng, group, size, 0) for group, size in SIZES.items()])
    tables = {}
    for month in range(1, months + 1):
        if month > 1:
            people = _pass_a_month(rng, people, month, churn)
        tables[month] = _measure(rng, people, apart, (1 + inflation) ** (month - 1))
    return tables


def _recruit(rng, group, size, month):
    own = pd.DataFrame(rng.normal(size=(size, 3)), columns=[0, 1, 2])
    names = [f"{group}{month:02}{i:03}" for i in range(size)]
    regions = rng.choice(["North", "South"], size)
    return own.assign(id=names, truth=group, region=regions)


def _pass_a_month(rng, people, month, churn):
    stays = people[rng.random(len(people)) > churn].reset_index(drop=True)
    if month == SPLIT:
        stays.loc[
            stays[stays["truth"] == "B"].sample(frac=0.4, random_state=rng).index, "truth"
        ] = "F"
    if month >= FADED - 1:
        keep = {FADED - 1: 0.5}.get(month, 0.05)
        stays = stays[(stays["truth"] != "E") | (rng.random(len(stays)) < keep)]
    joins = [
        _recruit(rng, group, rng.binomial(size, churn), month)
        for group, size in stays["truth"].value_counts().items()
        if group != "E" or month < FADED - 1
    ]
    return pd.concat([stays, *joins], ignore_index=True)


def _measure(rng, people, apart, prices):
    places = np.array([PLACES[group] for group in people["truth"]]) * apart
    wander = 0.2 * rng.normal(size=(len(people), 3))
    values = MEANS + UNITS * (places + people[[0, 1, 2]].to_numpy() + wander)
    table = pd.DataFrame(values.round(2), columns=list(CARD.features))
    table["income"] = (table["income"] * prices).round(2)
    columns = people[["id", "region", "truth"]].reset_index(drop=True)
    return pd.concat([columns, table], axis=1).sample(frac=1, random_state=rng)


def count_groups(table):
    """The number of groups that are still more than a few stragglers."""
    return int((table["truth"].value_counts() >= 10).sum())


def take_month(table, before, *, k, card=CARD, seed=0, run_id="run"):
    """What notebook 04 does with a table, without its figures: a snapshot of the month."""
    figures = build_figures(build_model(table, card, k, seed), table, card)
    clustered = assign_customers(figures, table, card)
    profile = profiles.profile_features(profiles.measure_features(clustered, card), card)
    segments = tracking.identify_segments(
        clustered, profile, card, before=before, centres=figures.list_centres()
    )
    named = name_customers(clustered, segments)
    highest = max([s["id"] for s in segments] + ([before.highest_id] if before else []))
    customers = tracking.index_customers(named, card)
    return tracking.Snapshot(run_id, customers, segments, Scorer(figures), highest)


def take_year(tables, count=count_groups):
    """A snapshot a month, each compared with the one before."""
    year, before = {}, None
    for month, table in tables.items():
        before = year[month] = take_month(table, before, k=count(table), run_id=f"month {month}")
    return year


def list_events(year):
    """What but survival was called in each month, by its number."""
    events = {}
    for month, now in year.items():
        table = tracking.list_changes(year.get(month - 1), now)
        called = sorted(set(table["transition"]) - {"survived"})
        events |= {month: called} if called else {}
    return events


def measure_constancy(year):
    """The share of customer-months in which people have the id (and name) that is their group's.

    A group's own is the one that most of its people had in the first month that it was there.
    """
    told = pd.concat(now.customers.assign(month=month) for month, now in year.items())
    own = {}
    for group, rows in told.groupby("truth"):
        first = rows[rows["month"] == rows["month"].min()]
        own[group] = tuple(first[["cluster", "segment"]].value_counts().index[0])
    right = [(c, s) == own[g] for c, s, g in told[["cluster", "segment", "truth"]].to_numpy()]
    return float(np.mean(right))
