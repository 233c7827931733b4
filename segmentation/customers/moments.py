"""Means, spreads and quantiles of values that stand for several customers each.

A weight counts customers: the figures are those of the table in which every row stands as often
as its weight says. Missing values (NaN) are left out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def mean(values: ArrayLike, weights: ArrayLike) -> float:
    """Weighted mean of (n,) values; NaN where all are missing."""
    known, counts = _keep_known(values, weights)
    return float(np.average(known, weights=counts)) if counts.sum() else np.nan


def sd(values: ArrayLike, weights: ArrayLike, *, ddof: int = 0) -> float:
    """Weighted standard deviation of (n,) values, with divisor Σ weights − ddof."""
    known, counts = _keep_known(values, weights)
    if counts.sum() <= ddof:
        return np.nan
    squares = np.average((known - mean(known, counts)) ** 2, weights=counts)
    return float(np.sqrt(squares * counts.sum() / (counts.sum() - ddof)))


def quantile(values: ArrayLike, shares: ArrayLike, weights: ArrayLike) -> Floats:
    """Quantiles (q,) of (n,) values at (q,) shares, as `numpy.quantile` of the expanded table."""
    known, counts = _keep_known(values, weights)
    wanted = np.asarray(shares, dtype=np.float64)
    if not counts.sum():
        return np.full(wanted.shape, np.nan)
    if (counts == 1).all():
        return np.quantile(known, wanted)
    order = np.argsort(known, kind="stable")
    last = np.cumsum(counts[order]) - 1  # the last place of each value in the expanded table
    place = wanted * last[-1]
    low, high = (np.searchsorted(last, side(place)) for side in (np.floor, np.ceil))
    ends = known[order][np.minimum(np.stack([low, high]), len(last) - 1)]
    return ends[0] + (place - np.floor(place)) * (ends[1] - ends[0])


def _keep_known(values: ArrayLike, weights: ArrayLike) -> tuple[Floats, Floats]:
    numbers, counts = np.asarray(values, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    known = ~np.isnan(numbers) & (counts > 0)
    return numbers[known], counts[known]
