"""What the customers are worth: by segment, in bands, and how large an action would be."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

from segmentation import words
from segmentation.customers import Card
from segmentation.segments.outcomes import bootstrap_mean
from segmentation.segments.profiles import Segment

VALUES = ["cluster", "size", "share", "variable", "unit", "customers", "mean", "total"]
VALUES += ["value_share", "low", "high"]
ACTIONS = ["cluster", "customers", "role", "action", "variable", "unit", "event", "worth"]


def find_value(card: Card) -> str | None:
    """The column of what a customer is worth: the card's `value:`, else the first feature of the
    kind spending that adds up.

    An average, a share or a score does not; None where no feature does.

    >>> parts = {"Average basket": {"kind": "spending"}, "Spent": {"kind": "spending"}}
    >>> find_value(Card.model_validate({"title": "t", "table": "", "features": parts}))
    'Spent'
    """
    if card.value:
        return card.value
    pattern = words.read_words()["value"]["no sum"]
    spent = [n for n, f in card.features.items() if card.kinds[f.label] == "spending"]
    told = (n for n in spent if not re.search(pattern, card.titles[n], re.I))
    return next(told, None)


def find_spending(card: Card) -> str:
    """The label of what a customer is worth or spends, also where it does not add up; else empty.

    >>> card = Card.model_validate({"title": "t", "table": "", "features": {"Score": {}, "A": {}}})
    >>> find_spending(card)
    ''
    """
    name = find_value(card)
    spent = [label for label, kind in card.kinds.items() if kind == "spending"]
    return card.measured[name].label if name else next(iter(spent), "")


def measure_value(
    measures: pd.DataFrame, card: Card, clustered: pd.DataFrame | None = None, *, seed: int = 0
) -> pd.DataFrame:
    """What each segment is worth, of what `measure_features` gives; no rows without a value.

    One row a segment: cluster, size, share, variable (the value's label), unit, customers (of
    whom it is known), mean, total (of them), value_share (of everyone's total, 0…1), low and
    high: the 95 % interval of the mean, that of `add_intervals` (the whole cut resampled) where
    the measures have it, else the bootstrap's (1 000 resamples of the customers `clustered`, the
    segments taken as given), empty without them.
    """
    name = find_value(card)
    rows = measures[(measures["variable"] == name) & measures["cluster"].notna()]
    if name is None or not rows["customers"].any() or (rows["min"] < 0).any():
        return pd.DataFrame(columns=VALUES)
    column = card.measured[name]
    told = rows.assign(
        share=rows["size"] / rows["size"].sum(), variable=column.label, unit=column.unit,
        total=(rows["mean"] * rows["customers"]).fillna(0.0),
    )  # fmt: skip
    if "mean_low" in rows:
        told = told.rename(columns={"mean_low": "low", "mean_high": "high"})
    elif clustered is not None:
        rng, known = np.random.default_rng(seed), clustered.dropna(subset=name)
        found = {
            i: bootstrap_mean(own.to_numpy(float), rng) for i, own in known.groupby("cluster")[name]
        }
        told[["low", "high"]] = [found.get(i, (np.nan, np.nan)) for i in told["cluster"]]
    told["value_share"] = told["total"] / max(told["total"].sum(), 1e-12)
    return told.reindex(columns=VALUES).reset_index(drop=True)


def plan_actions(segments: Iterable[Segment], measures: pd.DataFrame, card: Card) -> pd.DataFrame:
    """How large an action on each segment would be.

    One row a segment: cluster, customers, role, action, variable and unit of the value, event and
    worth (where orders, visits … are a feature too: one more of them from each customer, at the
    segment's mean spending for one). What a test of it could show: `campaigns.plan_campaigns`.

    Examples
    --------
    >>> parts = {"Yearly spend": {"unit": "€"}, "Orders a year": {}}
    >>> card = Card.model_validate({"title": "t", "table": "", "features": parts})
    >>> rows = {"cluster": 0, "size": 100, "variable": ["Yearly spend", "Orders a year"]}
    >>> measures = pd.DataFrame(rows | {"mean": [300.0, 6.0]})
    >>> segment = {"id": 0, "size": 100, "roles": ["core"], "actions": ["Keep it."]}
    >>> plan_actions([segment], measures, card)[["event", "worth"]].values.tolist()
    [['order', 5000.0]]
    """
    name, event = find_value(card), ""
    feature = card.measured[name] if name else None
    orders = next((n for n, f in card.features.items() if card.kinds[f.label] == "frequency"), "")
    if feature and orders:
        counted = card.features[orders].label
        same = words.find_period(feature.label) == words.find_period(counted)
        event = words.find_event(counted) if same else ""
    table = measures.dropna(subset="cluster").set_index(["cluster", "variable"])
    rows = []
    for segment in segments:
        row = {"cluster": segment["id"], "customers": segment["size"], "event": event}
        row |= {"role": words.join(segment["roles"]), "action": " ".join(segment["actions"])}
        if feature:
            own = table.loc[segment["id"], name]
            row |= {"variable": feature.label, "unit": feature.unit}
            often = table.loc[(segment["id"], orders), "mean"] if event else 0
            row["worth"] = segment["size"] * own["mean"] / often if often > 0 else np.nan
        rows.append(row)
    return pd.DataFrame(rows, columns=ACTIONS)
