"""Which customers are used, and how many segments they may be cut into: known without a fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from segmentation import InputError
from segmentation.customers import Card, cards

FEWEST = 10  # customers that each segment has at least, on average
FENCE = 3.0  # outliers lie so many interquartile ranges beyond the quartiles (Tukey's outer fence)


def find_fences(values: ArrayLike) -> tuple[float, float]:
    """Lower and upper outer fence of (n,) values, in their own unit; NaN are left out."""
    numbers = np.asarray(values, dtype=np.float64)
    known = numbers[~np.isnan(numbers)]
    low, high = np.quantile(known, [0.25, 0.75]) if len(known) else (np.nan, np.nan)
    return float(low - FENCE * (high - low)), float(high + FENCE * (high - low))


def check_k(k: int, customers: int) -> None:
    """Refuse a K that leaves fewer than ten customers a segment on average, by an InputError."""
    most = max(1, customers // FEWEST)
    if k > most:
        few = f"k = {k} leaves fewer than ten customers a segment ({customers:,} customers)"
        raise InputError(f"{few}: at most {most:,}.")


def name_code(column: Any, level: Any) -> str:
    """The name of a one-hot column: "Region is north", "Region is missing".

    Examples
    --------
    >>> name_code("Region", None)
    'Region is missing'
    """
    return f"{column} is {'missing' if pd.isna(level) else level}"


def keep_rows(table: pd.DataFrame, card: Card) -> pd.DataFrame:
    """The rows (m ≤ n) that the card's `drop` policies leave for the fit.

    Examples
    --------
    >>> features = {"age": {"missing": "drop"}, "income": {}}
    >>> card = Card(title="t", table="t.csv", id="id", features=features)
    >>> table = pd.DataFrame({"age": [31.0, None, 54.0], "income": [20.0, 30.0, 40.0]})
    >>> keep_rows(table, card).index.tolist()
    [0, 2]
    """
    kept = pd.Series(True, index=table.index)
    for name, feature in card.features.items():
        if feature.missing == "drop":
            kept &= table[name].notna()
        if feature.outliers == "drop":
            kept &= ~_find_outliers(table[name], feature)
    return table[kept]


def describe_quality(table: pd.DataFrame, quality: pd.DataFrame, card: Card) -> pd.DataFrame:
    """What was found while reading, then outliers by their policy, then the customers used.

    Columns as of `Customers.quality`: column, finding, rows, done.
    """
    done = {"keep": "kept", "clip": "clipped", "drop": "left out"}
    rows = [*quality.itertuples(index=False, name=None)]
    for name, feature in card.features.items():
        if count := int(_find_outliers(table[name], feature).sum()):
            rows.append((name, "values beyond the outer fences", count, done[feature.outliers]))
    used = len(keep_rows(table, card))
    rows.append(("", "customers used", used, f"of {len(table):,} in the table"))
    return pd.DataFrame(rows, columns=quality.columns)


def _find_outliers(values: pd.Series, feature: cards.Feature) -> pd.Series:
    """Outliers on the scale on which they are judged."""
    seen = np.log1p(values) if feature.transform == "log" else values
    low, high = find_fences(seen)
    return (seen < low) | (seen > high)
