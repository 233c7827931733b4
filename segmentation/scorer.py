"""The fitted model as plain arrays: the same answers as its Pipeline, one row or millions.

It is read from `segmenter.json`, so that nothing has to be unpickled and no table to be built.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segmentation import InputError, kmeans
from segmentation.cards import Card
from segmentation.kmeans import Floats, Labels

BORDERLINE = 0.8
"""Customers with a larger shadow value are borderline (1 is half way between two centroids)."""

SLACK = 1e-9  # relative; the training rows themselves are never outside
STATUSES = ("ok", "borderline", "outside", "dropped")
OK, NEAR, OUTSIDE, DROPPED = range(4)
FEW = 0.25
"""A second reason is told if it has at least this share of d2² − d1²."""


class Scores(NamedTuple):
    """Where n customers belong, each field (n,): positions, scaled distances, codes of STATUSES.

    With one centre `second` is −1, its distance infinite and the confidence NaN; a dropped row
    has the position −1 and NaN.
    """

    position: Labels
    second: Labels
    distance: Floats
    rival: Floats
    confidence: Floats
    status: NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Scorer:
    """Scaling, centres and limits of a model: `score` is all that a customer needs.

    Attributes
    ----------
    card : what the columns mean, their policies and hard limits.
    columns : the p features, in the order of the arrays.
    levels : of each of the c descriptors in the distance, the code of each level.
    """

    card: Card
    columns: list[str]
    levels: dict[str, dict[str | None, int]]
    _fill: Floats
    _logged: NDArray[np.bool_]
    _clip: Floats
    _fence: Floats
    _mean: Floats
    _scale: Floats
    _range: Floats
    _codes: list[tuple[Floats, float]]
    centres: Floats
    _radius: Floats

    @classmethod
    def from_figures(cls, figures: dict[str, Any]) -> Scorer:
        """Build it from the content of `segmenter.json`.

        Raises
        ------
        InputError
            The figures lack something: another version wrote them.
        """
        try:
            return cls._build(figures, figures["features"])
        except (KeyError, TypeError, ValueError):
            raise InputError(
                "segmenter.json was written by another version; run the series again."
            ) from None

    @classmethod
    def _build(cls, figures: dict[str, Any], features: list[dict[str, Any]]) -> Scorer:
        def take(key: str) -> Floats:
            return np.array([f[key] for f in features], dtype=np.float64)

        def bounds(key: str) -> Floats:
            pairs = [f[key] or (-np.inf, np.inf) for f in features]
            return np.array(pairs, dtype=np.float64).T

        return cls(
            card=Card.model_validate({"table": "", **figures["card"]}),
            columns=[f["column"] for f in features],
            levels={
                c["column"]: {v: i for i, v in enumerate(c["levels"])} for c in figures["codes"]
            },
            _fill=take("fill"),
            _logged=np.array([f["transform"] == "log" for f in features]),
            _clip=bounds("clip"),
            _fence=bounds("fence"),
            _mean=take("mean"),
            _scale=take("scale"),
            _range=bounds("range"),
            _codes=[(np.array(c["mean"]), c["scale"]) for c in figures["codes"]],
            centres=np.array(figures["centres"], dtype=np.float64),
            _radius=np.array(figures["radius"], dtype=np.float64),
        )

    @property
    def typical(self) -> Floats:
        """The medians (p,) of the training rows, which also fill gaps."""
        return self._fill

    @property
    def spans(self) -> Floats:
        """What the training rows spanned (p, 2), in raw units."""
        return self._range.T

    def encode(self, column: str, levels: Iterable[Any]) -> Labels:
        """The codes (n,) of levels; one never seen is “Other” where that is a level, else −1."""
        known = self.levels[column]
        other = known.get("Other", -1)
        return np.array([known.get(level, other) for level in levels], dtype=np.int64)

    def scale(self, values: Floats, codes: Labels | None = None) -> Floats:
        """Raw values (n, p), NaN where missing, and codes (n, c) as the distance sees them."""
        rows = self._transform(np.where(np.isnan(values), self._fill, values))
        parts = [(np.clip(rows, *self._clip) - self._mean) / self._scale]
        for i, (mean, spread) in enumerate(self._codes):
            hot = np.asarray(codes)[:, [i]] == np.arange(len(mean))
            parts.append((hot - mean) / spread)
        return np.hstack(parts) if self._codes else parts[0]

    def _transform(self, values: Floats) -> Floats:
        return np.log1p(values, out=values.copy(), where=self._logged)

    def score(self, values: Floats, codes: Labels | None = None) -> Scores:
        """Put customers into segments: raw values (n, p), NaN where missing, and codes (n, c).

        Source of confidence, 1 − 2·d1/(d1 + d2): the shadow value of Leisch (2010).
        """
        rows = self.scale(values, codes)
        position, second, distance, rival = kmeans.nearest_two(rows, self.centres)
        confidence = 1 - kmeans.shade(distance, rival)
        status = np.where(1 - confidence > BORDERLINE, NEAR, OK).astype(np.int8)
        if len(self.centres) == 1:
            confidence = np.full(len(rows), np.nan)
        outside = self._find_beyond(values) | (distance > self._radius[position] * (1 + SLACK))
        if codes is not None and self._codes:
            outside |= (np.asarray(codes) < 0).any(axis=1)
        status[outside] = OUTSIDE
        scores = Scores(position, second, distance, rival, confidence, status)
        dropped = self._find_dropped(values)
        return _drop(scores, dropped) if dropped.any() else scores

    def _find_beyond(self, values: Floats) -> NDArray[np.bool_]:
        """Rows beyond what the training rows spanned; a missing value is not beyond."""
        (low, high), slack = self._range, SLACK * np.abs(self._range)
        return ((values < low - slack[0]) | (values > high + slack[1])).any(axis=1)

    def _find_dropped(self, values: Floats) -> NDArray[np.bool_]:
        """Rows that the card's `drop` policies leave out."""
        low, high = self._fence
        features = [self.card.features[name] for name in self.columns]
        needed = np.array([feature.missing == "drop" for feature in features])
        rows = self._transform(values)
        return ((np.isnan(values) & needed) | (rows < low) | (rows > high)).any(axis=1)

    def explain(self, values: Floats, codes: Labels | None, scores: Scores) -> Labels:
        """The one or two columns that speak most against the second segment: (n, 2), −1 for none.

        They have the largest shares of d2² − d1²; a number beyond the features is a descriptor.
        """
        if len(self.centres) == 1:
            return np.full((len(values), 2), -1, dtype=np.int64)
        rows = self.scale(values, codes)
        parts = (rows - self.centres[scores.second]) ** 2 - (
            rows - self.centres[scores.position]
        ) ** 2
        shares = np.add.reduceat(parts, self._starts(), axis=1)
        best = np.argsort(-shares, axis=1, kind="stable")[:, :2]
        most = np.take_along_axis(shares, best, axis=1)
        told = most >= FEW * shares.sum(axis=1, keepdims=True)
        told[:, 0] = True
        told &= (most > 0) & (scores.position >= 0)[:, None]
        return np.where(told, best, -1)

    def _starts(self) -> list[int]:
        """Where the columns of each feature and descriptor begin in a scaled row."""
        widths = [1] * len(self.columns) + [len(mean) for mean, _ in self._codes]
        return [sum(widths[:i]) for i in range(len(widths))]


def _drop(scores: Scores, dropped: NDArray[np.bool_]) -> Scores:
    """The scores with the dropped rows emptied."""
    pairs: Any = zip((-1, -1, np.nan, np.nan, np.nan, np.int8(DROPPED)), scores, strict=True)
    return Scores(*(np.where(dropped, empty, field) for empty, field in pairs))
