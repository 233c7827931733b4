"""The fitted model as plain arrays: the same answers as its Pipeline, one row or millions.

It is read from `segmenter.json`, so that nothing has to be unpickled and no table to be built.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segmentation import InputError
from segmentation.clustering import kmeans
from segmentation.clustering.kmeans import Floats, Labels
from segmentation.customers.card import Card, Feature

if TYPE_CHECKING:
    from pandas import DataFrame

BORDERLINE = 0.8
"""Customers with a larger shadow value are borderline (1 is half way between two centroids)."""

SLACK = 1e-9  # relative; the training rows themselves are never outside
STATUSES = ("ok", "borderline", "outside", "dropped")
OK, NEAR, OUTSIDE, DROPPED = range(4)
FEW = 0.25
"""A second reason is told if it has at least this share of d2² − d1²."""


def find_limits(feature: Feature) -> tuple[float, float]:
    """The hard limits of a feature: the card's range, from 0 on for a logarithm."""
    low, high = feature.range
    return (max(low, 0.0) if feature.transform == "log" else low), high


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
    typical : (p,), the medians of the training rows, which also fill gaps.
    logged, needed : (p,), whose logarithm is taken; whose gaps drop a customer.
    clip, fence : (2, p), of the logarithm where there is one; infinite where there is none.
    mean, spread : (p,), what scales a feature; for a descriptor's levels they are in `codes`.
    bounds : (2, p), beyond which a raw value is outside; `spans` with some slack.
    groups : (q,), which column each scaled one belongs to.
    centres, radius : (k, q), scaled; (k,), beyond which a customer is outside.
    spans : (p, 2), what the training rows spanned in raw units.
    """

    card: Card
    columns: list[str]
    levels: dict[str, dict[str | None, int]]
    typical: Floats
    logged: NDArray[np.bool_]
    clip: Floats
    fence: Floats
    mean: Floats
    spread: Floats
    bounds: Floats
    needed: NDArray[np.bool_]
    codes: list[tuple[Floats, float]]
    groups: Labels
    centres: Floats
    radius: Floats
    spans: Floats

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

        card = Card.model_validate({"table": "", **figures["card"]})
        drop = [card.features[f["column"]].missing == "drop" for f in features]
        spans, widths = bounds("range"), [len(code["mean"]) for code in figures["codes"]]
        return cls(
            card=card,
            columns=[f["column"] for f in features],
            levels={
                c["column"]: {v: i for i, v in enumerate(c["levels"])} for c in figures["codes"]
            },
            typical=take("fill"),
            logged=np.array([f["transform"] == "log" for f in features]),
            clip=bounds("clip"),
            fence=bounds("fence"),
            mean=take("mean"),
            spread=take("scale"),
            bounds=spans + [[-SLACK], [SLACK]] * np.abs(spans),
            needed=np.array(drop),
            codes=[(np.array(c["mean"]), c["scale"]) for c in figures["codes"]],
            groups=np.repeat(np.arange(len(features) + len(widths)), [1] * len(features) + widths),
            centres=np.array(figures["centres"], dtype=np.float64),
            radius=np.array(figures["radius"], dtype=np.float64) * (1 + SLACK),
            spans=spans.T,
        )

    def encode(self, column: str, levels: Iterable[Any]) -> Labels:
        """The codes (n,) of levels; one never seen is “Other” where that is a level, else −1."""
        known = self.levels[column]
        other = known.get("Other", -1)
        return np.array([known.get(level, other) for level in levels], dtype=np.int64)

    def take(self, table: DataFrame) -> tuple[Floats, Labels | None]:
        """What is scored of a table (n rows): raw values (n, p) and codes (n, c) of its levels."""
        levels = [
            [None if gap else str(level) for level, gap in zip(cells, cells.isna(), strict=True)]
            for cells in (table[name] for name in self.levels)
        ]
        codes = [self.encode(name, own) for name, own in zip(self.levels, levels, strict=True)]
        values = table[self.columns].to_numpy(dtype=np.float64)
        return values, np.stack(codes, axis=1) if codes else None

    def scale(self, values: Floats, codes: Labels | None = None) -> Floats:
        """Raw values (n, p), NaN where missing, and codes (n, c) as the distance sees them."""
        return self._scale_rows(self._transform(values), codes)

    def _transform(self, values: Floats) -> Floats:
        """Raw values (n, p) with logarithms taken, gaps left."""
        if not self.logged.any():
            return values
        return np.log1p(values, out=values.copy(), where=self.logged)

    def _scale_rows(self, rows: Floats, codes: Labels | None) -> Floats:
        filled = np.where(np.isnan(rows), self._transform(self.typical), rows)
        parts = [(np.clip(filled, *self.clip) - self.mean) / self.spread]
        for i, (mean, spread) in enumerate(self.codes):
            hot = np.asarray(codes)[:, [i]] == np.arange(len(mean))
            parts.append((hot - mean) / spread)
        return np.hstack(parts) if self.codes else parts[0]

    def score(self, values: Floats, codes: Labels | None = None) -> Scores:
        """Put customers into segments: raw values (n, p), NaN where missing, and codes (n, c).

        Source of confidence, 1 − 2·d1/(d1 + d2): the shadow value of Leisch (2010).
        """
        rows, unseen = self._transform(values), NONE if codes is None else codes
        scaled, size = self._scale_rows(rows, codes), len(values)
        places, away = np.empty((2, size), np.int64), np.empty((2, size))
        confidence, status = np.empty(size), np.empty(size, np.int8)
        kmeans.find_nearest_two(scaled, self.centres, places, away)
        bounds = (self.bounds, self.fence, self.needed, self.radius)
        _judge(values, rows, unseen, *bounds, places, away, confidence, status)
        return Scores(places[0], places[1], away[0], away[1], confidence, status)

    def explain(self, values: Floats, codes: Labels | None, scores: Scores) -> Labels:
        """The one or two columns that speak most against the second segment: (n, 2), −1 for none.

        They have the largest shares of d2² − d1²; a number beyond the features is a descriptor.
        """
        reasons = np.full((len(values), 2), -1, dtype=np.int64)
        shares = np.empty(len(self.columns) + len(self.codes))
        scaled = self.scale(values, codes)
        places = (scores.position, scores.second)
        _explain(scaled, self.centres, self.groups, *places, shares, reasons)
        return reasons


NONE = np.empty((0, 0), np.int64)


@kmeans.compiled
def _judge(
    values: Floats,
    rows: Floats,
    codes: Labels,
    span: Floats,
    fence: Floats,
    needed: NDArray[np.bool_],
    reach: Floats,
    places: Labels,
    away: Floats,
    confidence: Floats,
    status: NDArray[np.int8],
) -> None:
    """Write confidence and status (n,), distances for their squares; empty the dropped rows."""
    for i in range(len(values)):
        near, far = np.sqrt(away[0, i]), np.sqrt(away[1, i])
        shadow = 2 * near / (near + far) if near + far > 0 else 1.0
        state = NEAR if 1 - (1 - shadow) > BORDERLINE else OK
        if near > reach[places[0, i]] or (codes.size > 0 and codes[i].min() < 0):
            state = OUTSIDE
        for j in range(values.shape[1]):
            if values[i, j] < span[0, j] or values[i, j] > span[1, j]:
                state = OUTSIDE
        for j in range(values.shape[1]):
            gap = needed[j] and np.isnan(values[i, j])
            if gap or rows[i, j] < fence[0, j] or rows[i, j] > fence[1, j]:
                state = DROPPED
        away[0, i], away[1, i], status[i] = near, far, state
        confidence[i] = np.nan if np.isinf(far) else 1 - shadow
        if state == DROPPED:
            places[:, i], away[:, i], confidence[i] = -1, np.nan, np.nan


@kmeans.compiled
def _explain(
    scaled: Floats,
    centres: Floats,
    groups: Labels,
    position: Labels,
    second: Labels,
    shares: Floats,
    reasons: Labels,
) -> None:
    """Write the reasons (n, 2); `groups` (q,) tells which column each scaled one belongs to."""
    for i in range(len(scaled)):
        if second[i] < 0:
            continue
        shares[:] = 0
        for f in range(len(groups)):
            own, other = centres[position[i], f], centres[second[i], f]
            shares[groups[f]] += (scaled[i, f] - other) ** 2 - (scaled[i, f] - own) ** 2
        total, first = shares.sum(), shares.argmax()
        if shares[first] <= 0:
            continue
        reasons[i, 0], shares[first] = first, -np.inf
        next_ = shares.argmax()
        if shares[next_] > 0 and shares[next_] >= FEW * total:
            reasons[i, 1] = next_
