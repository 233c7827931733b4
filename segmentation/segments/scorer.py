"""The fitted model as plain figures and arrays: the answers of its Pipeline, one row or millions.

Both are read from `segmenter.json`, so that nothing has to be unpickled and no table to be built.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from segmentation import InputError
from segmentation.customers import Card, cards

if TYPE_CHECKING:
    from pandas import DataFrame

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

BORDERLINE = 0.8  # who keeps the segment less often is; without a curve, beyond this shadow value
SLACK = 1e-9  # relative; a row at the limit itself is not outside
STATUSES = ("ok", "borderline", "outside", "dropped")
OK, NEAR, OUTSIDE, DROPPED = range(4)
FEW = 0.25  # share of d2² − d1² from which on a second reason is told


# What a model consists of ------------------------------------------------------------------


def _check_order(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(f"the lower end {ends[0]:g} lies above the upper one {ends[1]:g}")
    return ends


# A card's values end at 1e15, fences some quartile distances beyond; squares stay finite.
Number = Annotated[float, Field(ge=-1e16, le=1e16, allow_inf_nan=False)]
Scale = Annotated[float, Field(ge=1e-30, le=1e16, allow_inf_nan=False)]
Ends = Annotated[tuple[Number, Number], AfterValidator(_check_order)]
Part = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


def _read_card(card: Any) -> Any:
    return {"table": "", **card} if isinstance(card, dict) else card


def _write_card(card: Card) -> dict[str, Any]:
    """What the columns mean; not where the table lies."""
    hidden = {"table", "backend", "path"}
    return card.model_dump(mode="json", exclude=hidden, exclude_defaults=True)


def _check_knots(knots: list[tuple[float, float]]) -> list[tuple[float, float]]:
    pairs = [*pairwise(knots)]
    if any(a[0] >= b[0] for a, b in pairs) or any(a[1] < b[1] for a, b in pairs):
        raise ValueError("shadow values have to rise and frequencies not to")
    return knots


class FeatureFigures(BaseModel):
    """How a feature is scaled; `clip` and `fence` are of the logarithm where there is one."""

    column: str
    label: str = ""
    unit: str = ""
    fill: Number
    transform: Literal["none", "log"] = "none"
    clip: Ends | None = None
    fence: Ends | None = None
    mean: Number
    scale: Scale
    range: Ends


class CodeFigures(BaseModel):
    """How a descriptor in the distance is scaled: one code a level, None for a gap."""

    column: str
    levels: Annotated[list[str | None], Field(min_length=1)]
    mean: list[Number]
    scale: Scale


class ModelFigures(BaseModel):
    """The content of `segmenter.json`: all that it takes to score without the Pipeline.

    `centres` (k, q) are scaled, features first, then codes; `radius` (k,) is the distance beyond
    which a customer is outside; `confidence` has knots (shadow value, how often such customers
    keep their segment), `borderline` is the shadow value where that falls below 0.8. NaN, numbers
    beyond 1e16, scales of 0, dimensions that do not fit and columns that the card does not know
    are refused; files of earlier versions are read. `docs/model.md` describes every key.
    """

    format: Literal[1] = 1
    features: Annotated[list[FeatureFigures], Field(min_length=1)]
    codes: list[CodeFigures] = []
    centres: Annotated[list[list[Number]], Field(min_length=1)]
    radius: list[Annotated[Number, Field(ge=0)]]
    confidence: Annotated[
        list[tuple[Part, Part]], Field(min_length=2), AfterValidator(_check_knots)
    ] = [(0.0, 1.0), (1.0, 0.0)]
    borderline: Number = BORDERLINE
    card: Annotated[Card, BeforeValidator(_read_card), PlainSerializer(_write_card)]
    versions: dict[str, str] = {}
    ids: list[int] = []
    names: list[str] = []
    highest_id: int = 0
    sha256: dict[str, str] = {}

    @classmethod
    def read(cls, figures: Any) -> Self:
        """The figures of a file's content.

        Raises
        ------
        InputError
            Something is missing or cannot be; the message names the place.
        """
        try:
            return cls.model_validate(figures)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "figures"
            raise InputError(
                f"segmenter.json is damaged or of another version ({place}: {first['msg']}); "
                "run the series again."
            ) from None

    @model_validator(mode="after")
    def _check_shapes(self) -> Self:
        """Refuse figures that do not fit each other or the card."""
        width = len(self.features) + sum(len(code.levels) for code in self.codes)
        if any(len(centre) != width for centre in self.centres):
            raise ValueError(f"every centre needs {width} numbers")
        if any(len(code.mean) != len(code.levels) for code in self.codes):
            raise ValueError("every level needs a mean")
        k = len(self.centres)
        if len(self.radius) != k or {len(self.ids), len(self.names)} - {0, k}:
            raise ValueError(f"radius, ids and names need one entry for each of {k} centres")
        columns = [f.column for f in self.features] + [c.column for c in self.codes]
        lists: list[list[Any]] = [columns, self.ids, *(code.levels for code in self.codes)]
        if any(len({*own}) < len(own) for own in lists):
            raise ValueError("a column, a level or an id is there twice")
        if any(f.transform == "log" and f.fill <= -1 for f in self.features):
            raise ValueError("what fills the gaps has no logarithm")
        named = {f.column for f in self.features} - self.card.features.keys()
        named |= {c.column for c in self.codes} - self.card.descriptors.keys()
        if named:
            raise ValueError(f"the card does not know the column {min(named)}")
        return self

    def add_confidence(self, curve: Floats) -> Self:
        """The same with a confidence by the knots (m, 2) that `stability.resample_cut` gives."""
        shadow, kept = curve.T
        borderline = float(np.interp(-BORDERLINE, -kept, shadow, left=-1.0, right=1.0))
        knots = [*zip(shadow.tolist(), kept.tolist(), strict=True)]
        return self.model_copy(update={"confidence": knots, "borderline": borderline})

    def list_centres(self) -> DataFrame:
        """The centres (k, p) in raw units, one row a position, a column a feature."""
        import pandas as pd

        raw = {}
        for i, feature in enumerate(self.features):
            values = np.array([centre[i] for centre in self.centres]) * feature.scale + feature.mean
            raw[feature.column] = np.expm1(values) if feature.transform == "log" else values
        return pd.DataFrame(raw)


def find_limits(feature: cards.Feature) -> tuple[float, float]:
    """The hard limits of a feature: the card's range, from 0 on for a logarithm."""
    low, high = feature.range
    return (max(low, 0.0) if feature.transform == "log" else low), high


# Scoring -----------------------------------------------------------------------------------


class Scores(NamedTuple):
    """Where n customers belong, each field (n,): positions, scaled distances, codes of STATUSES.

    With one centre `second` is −1, its distance infinite and the confidence NaN; a dropped row
    has the position −1 and NaN.
    """

    position: Codes
    second: Codes
    distance: Floats
    rival: Floats
    confidence: Floats
    status: NDArray[np.int8]


class Scorer:
    """Scaling, centres and limits of a model as arrays: `score` is all that a customer needs.

    Attributes
    ----------
    figures, card : the model's figures; what its columns mean, their policies and hard limits.
    columns, levels : the p features, in order; the codes of the levels of each of c descriptors.
    typical, filler : (p,), the medians of the training rows; what fills gaps, after a logarithm.
    logged, needed : (p,), whose logarithm is taken; whose gaps drop a customer.
    clip, fence : (2, p), of the logarithm where there is one; infinite where there is none.
    mean, spread : (p,), what scales a feature; for a descriptor's levels they are in `codes`.
    spans : (p, 2), what the training rows spanned.
    fenced : whether any policy drops a customer.
    centres, radius : (k, q), scaled; (k,), beyond which a customer is outside.
    curve, borderline : (2, m), shadow values and confidence; the shadow value of a borderline.

    Raises
    ------
    InputError
        The figures, or the content of `segmenter.json`, are damaged or of another version.

    Examples
    --------
    >>> age = {"column": "age", "fill": 40, "mean": 40, "scale": 10, "range": [18, 70]}
    >>> visits = {"column": "visits", "fill": 2, "mean": 3, "scale": 2, "range": [0, 9]}
    >>> card = {"title": "t", "features": {"age": {}, "visits": {}}}
    >>> figures = {"features": [age, visits], "centres": [[-1, 0], [1, 0]], "radius": [3, 3]}
    >>> scorer = Scorer(figures | {"card": card})
    >>> scorer.score(np.array([[30.0, 3.0], [52.0, 3.0]])).position.tolist()
    [0, 1]
    """

    def __init__(self, figures: ModelFigures | Mapping[str, Any]) -> None:
        figures = ModelFigures.read(figures)
        features, codes = figures.features, figures.codes
        self.figures, self.card = figures, figures.card
        self.columns = [f.column for f in features]
        self.levels = {c.column: {level: i for i, level in enumerate(c.levels)} for c in codes}
        self.codes = [(np.array(c.mean), c.scale) for c in codes]
        self.logged = np.array([f.transform == "log" for f in features])
        told = np.array([(f.fill, f.mean, f.scale, *f.range) for f in features])
        self.typical, self.mean, self.spread = told.T[:3]
        self.spans = told[:, 3:]
        policies = [self.card.features[name].missing for name in self.columns]
        self.needed = np.array(policies) == "drop"
        self.clip, self.fence = _stack(f.clip for f in features), _stack(f.fence for f in features)
        self.centres = np.array(figures.centres)
        self.radius = np.array(figures.radius) * (1 + SLACK)
        self.curve, self.borderline = np.transpose(figures.confidence), figures.borderline
        widths = [1] * len(features) + [len(c.levels) for c in codes]
        self._blocks = np.cumsum([0, *widths[:-1]])
        self.filler = self._transform(self.typical[None])[0]
        self._clipped = bool(np.isfinite(self.clip).any())
        self.fenced = bool(np.isfinite(self.fence).any() or self.needed.any())

    def encode(self, column: str, levels: Iterable[Any]) -> Codes:
        """The codes (n,) of levels; one never seen is “Other” where that is a level, else −1."""
        known = self.levels[column]
        other = known.get("Other", -1)
        return np.array([known.get(level, other) for level in levels], dtype=np.int64)

    def take(self, table: DataFrame) -> tuple[Floats, Codes | None]:
        """What is scored of a table (n rows): raw values (n, p) and codes (n, c) of its levels."""
        codes = [self.encode(name, clean_levels(table[name])) for name in self.levels]
        values = table[self.columns].to_numpy(dtype=np.float64)
        return values, np.stack(codes, axis=1) if codes else None

    def scale(self, values: Floats, codes: Codes | None = None) -> Floats:
        """Raw values (n, p), NaN where missing, and codes (n, c) as the distance sees them."""
        return self._scale_rows(self._transform(values), codes)

    def _transform(self, values: Floats) -> Floats:
        if not self.logged.any():
            return values
        return np.log1p(values, out=values.copy(), where=self.logged)

    def _scale_rows(self, rows: Floats, codes: Codes | None) -> Floats:
        filled = np.where(np.isnan(rows), self.filler, rows)
        if self._clipped:
            filled = np.minimum(np.maximum(filled, self.clip[0]), self.clip[1])
        parts = [(filled - self.mean) / self.spread]
        for i, (mean, spread) in enumerate(self.codes):
            hot = np.asarray(codes)[:, [i]] == np.arange(len(mean))
            parts.append((hot - mean) / spread)
        return np.hstack(parts) if self.codes else parts[0]

    def score(self, values: Floats, codes: Codes | None = None) -> Scores:
        """Put customers into segments: raw values (n, p), NaN where missing, and codes (n, c).

        Confidence is how often such customers kept their segment in the resamples. Outside is who
        is farther out than all but 1 % of held-out customers, or has a level never seen.
        """
        rows = self._transform(values)
        position, second, near, far = find_nearest_two(self._scale_rows(rows, codes), self.centres)
        sums = near + far
        shadow = np.where(sums > 0, 2 * near / np.where(sums > 0, sums, 1.0), 1.0)
        confidence = np.interp(shadow, *self.curve)
        status = (shadow > self.borderline).astype(np.int8)
        outside = near > self.radius[position]
        if self.codes:
            outside |= (np.asarray(codes) < 0).any(axis=1)
        status[outside] = OUTSIDE
        confidence[second < 0] = np.nan
        if self.fenced:
            gone = (self.needed & np.isnan(values)).any(axis=1)
            gone |= ((rows < self.fence[0]) | (rows > self.fence[1])).any(axis=1)
            position[gone] = second[gone] = -1
            near[gone] = far[gone] = confidence[gone] = np.nan
            status[gone] = DROPPED
        return Scores(position, second, near, far, confidence, status)

    def explain(self, values: Floats, codes: Codes | None, scores: Scores) -> Codes:
        """The one or two columns that speak most against the second segment: (n, 2), −1 for none.

        They have the largest shares of d2² − d1²; a number beyond the features is a descriptor.
        """
        scaled = self.scale(values, codes)
        gaps = (scaled - self.centres[scores.second]) ** 2
        gaps -= (scaled - self.centres[scores.position]) ** 2
        shares = np.add.reduceat(gaps, self._blocks, axis=1) if self.codes else gaps
        order = np.argsort(-shares, axis=1, kind="stable")[:, :2]
        largest = np.take_along_axis(shares, order, axis=1)
        known = (largest > 0) & (scores.second >= 0)[:, None]
        known[:, 1] &= largest[:, 1] >= FEW * shares.sum(axis=1)
        return np.where(known, order, -1)


def _stack(pairs: Iterable[tuple[float, float] | None]) -> Floats:
    return np.array([pair or (-np.inf, np.inf) for pair in pairs]).T


def find_nearest_two(rows: Floats, centres: Floats) -> tuple[Codes, Codes, Floats, Floats]:
    """The nearest and the second of k centres for n rows, and both distances: each (n,).

    A tie goes to the lower position; with one centre the second is −1 at an infinite distance.
    Squares are added column by column, so that a row's answer is the same to the last bit beside
    any others, and in a database.
    """
    away, each = np.zeros((len(rows), len(centres))), np.arange(len(rows))
    for column, own in zip(rows.T, centres.T, strict=True):
        gaps = column[:, None] - own
        away += gaps * gaps
    position = away.argmin(axis=1)
    near = np.sqrt(away[each, position])
    away[each, position] = np.inf
    second = away.argmin(axis=1)
    far = np.sqrt(away[each, second])
    return position, np.where(np.isinf(far), -1, second), near, far


def clean_levels(levels: Iterable[Any]) -> list[str | None]:
    """The levels of a descriptor as a model knows them, None where there is none."""
    import pandas as pd

    return [None if pd.isna(level) else str(level) for level in levels]
