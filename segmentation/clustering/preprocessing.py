"""What the distance sees: outliers clipped, one-hot codes as one feature."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from segmentation.clustering.kernels import Floats
from segmentation.clustering.rows import find_fences


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
