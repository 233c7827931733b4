"""What the distance sees: which rows are used, outliers clipped, one-hot codes as one feature."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from segmentation.clustering.kernels import Floats
from segmentation.customers import Card, cards

FENCE = 3.0  # outliers lie so many interquartile ranges beyond the quartiles (Tukey's outer fence)


def find_fences(values: ArrayLike) -> tuple[float, float]:
    """Lower and upper outer fence of (n,) values, in their own unit; NaN are left out."""
    numbers = np.asarray(values, dtype=np.float64)
    known = numbers[~np.isnan(numbers)]
    low, high = np.quantile(known, [0.25, 0.75]) if len(known) else (np.nan, np.nan)
    return float(low - FENCE * (high - low)), float(high + FENCE * (high - low))


class Clipper(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Clip each column to the outer fences of the rows it was fitted on.

    They, `low_` and `high_` (p,), are three interquartile ranges beyond the quartiles (Tukey 1977).

    Examples
    --------
    >>> Clipper().fit([[1.0], [2.0], [3.0], [4.0]]).transform([[99.0]]).tolist()
    [[7.75]]
    """

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002
        """Learn the fences of a table (n, p)."""
        values = validate_data(self, X, dtype=float)
        self.low_, self.high_ = np.array([find_fences(column) for column in values.T]).T
        return self

    def transform(self, X: Any) -> Floats:
        """Clip a table (n, p)."""
        check_is_fitted(self)
        return np.clip(validate_data(self, X, dtype=float, reset=False), self.low_, self.high_)


class BlockScaler(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Centre the columns and give all of them together the variance `weight`².

    So the one-hot codes of a descriptor count in the distance as one feature of that weight:
    (X − `mean_`) / `scale_`, of which `mean_` is (p,) and `scale_` a float.

    Examples
    --------
    >>> scaled = BlockScaler(2.0).fit_transform([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> round(float(scaled.var(axis=0).sum()), 9)
    4.0
    """

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002
        """Learn means and spread of a table (n, p)."""
        values = validate_data(self, X, dtype=float)
        self.mean_, spread = values.mean(axis=0), np.sqrt(values.var(axis=0).sum())
        self.scale_ = spread / self.weight if spread > 0 and self.weight > 0 else 1.0
        return self

    def transform(self, X: Any) -> Floats:
        """Centre and scale a table (n, p)."""
        check_is_fitted(self)
        return (validate_data(self, X, dtype=float, reset=False) - self.mean_) / self.scale_


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
