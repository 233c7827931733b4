"""Structureless data like yours: what cuts of a table without segments look like."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import isotonic_regression
from scipy.special import ndtr, ndtri

from segmentation.clustering import kernels, kmeans, stability
from segmentation.clustering.kernels import Floats, Labels
from segmentation.clustering.silhouettes import measure_silhouettes

FAMILY_WISE = 0.95  # the quantile of the null draws that a figure must exceed
LEAST_EXCESS = 0.02  # a silhouette must lie so far above the null's mean, whatever its spread
LEAST_SHARE = 0.05  # a K whose smallest segment has a smaller share than this is not taken
QUANTILE_SE = 2.11  # standard error of a normal 95 % quantile, in sd / √draws
_FIGURES = ["silhouette", "prediction_strength", "ari"]
_VALLEYS = ["valley", "small_valley"]  # the shallowest of a cut, and of its smallest segment
_FORMS = ["null_{}", "null_{}_q95", "compared_{}"]
_COLUMNS = [
    *(form.format(name) for form in _FORMS for name in _FIGURES),
    *("excess", "z", "gated", "clear", "z_needed", "z_se"),
    *(form.format(name) for form in _FORMS for name in _VALLEYS),
    "valley_se",
]
STARTS = 10
FEW = 0.2  # a feature with fewer distinct values than this share of n keeps to them
_PROBED, _ROUNDS = 10_000, 3  # rows drawn to see what correlation a copula gives, and how often


def gate_cuts(
    X: ArrayLike, ks: Iterable[int], shares: pd.Series, *, resamples: int = 100, seed: int = 0
) -> pd.DataFrame:
    """Cut an (n, p) table and tables like it without segments: one row a K ≥ 2 of `ks`.

    100 resamples give 99 draws, each with 10 halvings and 5 pairs; others in proportion. Of a
    seeded sample above 2 000 rows, table and draws alike. `fit_null` tells what structureless
    means; `shares` are those of the smallest segments by K. NaN: a ValueError. Columns and the
    gate: see `open_gate`.

    Examples
    --------
    >>> rows = [[0.0], [0.1], [0.2], [0.3], [9.0], [9.1], [9.2], [9.3]]
    >>> gate_cuts(rows, [2], pd.Series({2: 0.5}), resamples=20)["gated"].tolist()
    [True]
    """
    wanted = [k for k in ks if k > 1]
    if not wanted:
        return pd.DataFrame(columns=_COLUMNS, index=pd.Index([], name="k"), dtype=float)
    rows = stability.draw_resampled(X, seed)
    counts: dict[str, Any] = {"halvings": max(1, resamples // 10), "pairs": max(1, resamples // 20)}
    own = measure_cuts(rows, wanted, seed=seed, **counts)
    chance = null_table(rows, wanted, draws=max(19, resamples - 1), seed=seed, **counts)
    return open_gate(own, describe_chance(chance), shares)


def warm_up() -> None:
    """Compile the kernels once, so that the first run need not wait for them: `make` does."""
    table = np.random.default_rng(0).normal(size=(40, 2))
    gate_cuts(table, [2], pd.Series({2: 0.5}), resamples=1)
    stability.resample(table, [2], resamples=1)


def describe_chance(figures: pd.DataFrame) -> pd.DataFrame:
    """One row a K of what `null_table` gives: how its figures spread over the draws.

    Columns null_silhouette (likewise prediction_strength, ari, valley, small_valley), the mean, and
    null_silhouette_q95 …, the 95 % quantile; z_needed, the 95 % quantile of a draw's largest z over
    K (family-wise); sd, of the silhouette; draws; valley_se, the quantile's standard error.
    """
    by_k = figures.reindex(columns=["k", *_FIGURES, *_VALLEYS]).groupby("k")
    wide = figures.pivot(index="draw", columns="k", values="silhouette")
    sd = wide.std().where(lambda spread: spread > 0)
    table = by_k.mean().add_prefix("null_")
    table = table.join(by_k.quantile(FAMILY_WISE).add_prefix("null_").add_suffix("_q95"))
    needed = ((wide - wide.mean()) / sd).max(axis=1).quantile(FAMILY_WISE)
    valley_se = QUANTILE_SE * by_k["valley"].std() / np.sqrt(len(wide))
    return table.assign(sd=sd, z_needed=needed, draws=len(wide), valley_se=valley_se)


def open_gate(own: pd.DataFrame, chance: pd.DataFrame, smallest_share: pd.Series) -> pd.DataFrame:
    """The figures of a table beside the null's, and which K stand clear of it: one row a K.

    `own` is what `measure_cuts` gives, `chance` what `describe_chance` does. Columns as there, and
    compared_silhouette …, the table's own; `excess` over the null's mean and `z` of the silhouette,
    with `z_se`, its standard error by the number of draws. `clear`: z exceeds z_needed and the
    excess is at least 0.02. `gated`: no segment is smaller than 5 % either.
    """
    compared = own.set_index("k").reindex(columns=[*_FIGURES, *_VALLEYS]).astype(float)
    table = chance.join(compared.add_prefix("compared_"))
    table["excess"] = table["compared_silhouette"] - table["null_silhouette"]
    table["z"] = table["excess"] / table["sd"]
    table["z_se"] = np.sqrt((1 + table["z"] ** 2 / 2) / table["draws"])
    return mark_gate(table, smallest_share)[_COLUMNS].rename_axis("k")


def mark_gate(table: pd.DataFrame, smallest_share: pd.Series) -> pd.DataFrame:
    """A table with excess, z and z_needed a row, and whether it is clear, and gated."""
    beyond = table["z"].fillna(np.inf) > table["z_needed"].fillna(-np.inf)
    clear = (beyond & (table["excess"] >= LEAST_EXCESS)).astype("boolean")
    large = smallest_share.reindex(table.index) >= LEAST_SHARE
    return table.assign(gated=clear & large, clear=clear)


@dataclass(frozen=True)
class Null:
    """Structureless data like a table: one-mode features, joined by a Gaussian copula.

    `marginals` hold each feature's values, the share of the population below each, and whether it
    takes these values only; `correlation` (p, p) is that of the copula.
    """

    marginals: list[tuple[Floats, Floats, bool]]
    correlation: Floats

    def draw(self, n: int, *, seed: int = 0) -> Floats:
        """Draw an (n, p) table."""
        normal = kmeans.stream(seed, "null").standard_normal((n, len(self.correlation)))
        drawn = ndtr(normal @ np.linalg.cholesky(self.correlation).T)
        for column, (values, below, few) in zip(drawn.T, self.marginals, strict=True):
            place = np.searchsorted(below, column, side="right") - 1
            column[:] = values[place] if few else np.interp(column, below, values)
        return drawn


def fit_null(matrix: ArrayLike) -> Null:
    """Fit the null to an (n, p) table.

    Each feature gets the closest unimodal distribution to its own (`fit_unimodal`), with the
    feature's mean and variance; one with few distinct values (at most a fifth of n) keeps to
    these, so that a heap at zero stays one. They are joined by the Gaussian copula that gives the
    correlation of the table's normal scores. A constant stays constant.
    """
    rows = np.asarray(matrix, dtype=np.float64)
    marginals = [_fit_marginal(column) for column in rows.T]
    wanted: Floats = _correlate_scores(rows)
    if not any(few for *_, few in marginals):
        return Null(marginals, wanted)
    correlation = wanted  # ties weaken the correlation of the scores, so the copula's is larger
    for _ in range(_ROUNDS):
        probe = Null(marginals, correlation).draw(_PROBED)
        correlation = _near_correlation(correlation + wanted - _correlate_scores(probe))
    return Null(marginals, correlation)


def fit_unimodal(mass: Floats, width: Floats) -> Floats:
    """The closest unimodal distribution to (m,) `mass` on pieces of some width: (m,) masses.

    Left of the mode the greatest convex minorant of the distribution function, right of it the
    least concave majorant, with the mode, an end of a piece, that makes the larger of their
    distances smallest: the halves of the dip (Hartigan & Hartigan 1985). Both are isotonic
    regressions of the density. What has one mode stays as it is.

    Examples
    --------
    >>> fit_unimodal(np.array([0.1, 0.4, 0.0, 0.4, 0.1]), np.ones(5)).round(2).tolist()
    [0.1, 0.4, 0.2, 0.2, 0.1]
    """

    def split(at: int) -> tuple[Floats, float, float]:
        rise, fall = slice(0, at), slice(at, None)
        parts = [_smooth(mass[rise], width[rise], True), _smooth(mass[fall], width[fall], False)]
        apart = np.abs(np.cumsum(np.concatenate(parts) - mass))
        return np.concatenate(parts), apart[rise].max(initial=0), apart[fall].max(initial=0)

    low, high = 0, len(mass)
    while low < high:  # the left distance grows with the mode's place, the right one falls
        middle = (low + high) // 2
        _, left, right = split(middle)
        low, high = (middle + 1, high) if left < right else (low, middle)
    return min(map(split, {max(low - 1, 0), low}), key=lambda found: max(found[1:]))[0]


def _smooth(mass: Floats, width: Floats, increasing: bool) -> Floats:
    if len(mass) < 2:
        return mass
    density = isotonic_regression(mass / width, weights=width, increasing=increasing)
    return density.x * width


def _fit_marginal(column: Floats) -> tuple[Floats, Floats, bool]:
    """A feature's values, the share of the population below each, and whether they are few."""
    values, counts = np.unique(column, return_counts=True)
    mass, gaps, few = counts / len(column), np.diff(values), len(values) <= FEW * len(column)
    if len(values) < 3:
        return values, np.cumsum(mass) - mass, True
    if few:  # a value stands for the half gaps beside it
        width = (np.append(gaps[:1], gaps) + np.append(gaps, gaps[-1:])) / 2
        mass = fit_unimodal(mass, width)
        below = np.cumsum(mass) - mass
        mean, sd = mass @ values, np.sqrt(mass @ values**2 - (mass @ values) ** 2)
    else:
        halves = mass / 2
        pieces = halves[:-1] + halves[1:]
        pieces[[0, -1]] += halves[[0, -1]]
        pieces = fit_unimodal(pieces, gaps)
        below = np.append(0.0, np.cumsum(pieces))
        middle = (values[:-1] + values[1:]) / 2
        mean = pieces @ middle
        sd = np.sqrt(pieces @ ((middle - mean) ** 2 + gaps**2 / 12))
    return column.mean() + (values - mean) * column.std() / sd, below, few


def _correlate_scores(rows: Floats) -> Floats:
    """The correlation of the normal scores of an (n, p) table; 0 with a constant."""
    scores = ndtri(pd.DataFrame(rows).rank().to_numpy() / (len(rows) + 1))
    scale = scores.std(axis=0)
    scores = (scores - scores.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
    return _near_correlation(scores.T @ scores / len(rows))


def _near_correlation(matrix: Floats) -> Floats:
    """The correlation matrix beside a symmetric one that may not be definite."""
    np.fill_diagonal(matrix, 1.0)
    values, axes = np.linalg.eigh(matrix)
    near = (axes * np.maximum(values, 1e-9)) @ axes.T
    scale = np.sqrt(np.diag(near))
    return near / np.outer(scale, scale)


def null_table(
    matrix: ArrayLike,
    ks: Sequence[int],
    *,
    n: int | None = None,
    draws: int = 99,
    seed: int = 0,
    **counts: int,
) -> pd.DataFrame:
    """Figures of structureless data like an (n, p) table: one row a draw and K of `ks`.

    The draws have as many rows, or the `n` given. Columns draw and those of `measure_cuts`, which
    takes the `counts` and gives the same figures of the table itself.
    """
    rows = np.asarray(matrix, dtype=np.float64)
    fitted, size = fit_null(rows), len(rows) if n is None else n
    seeds = np.random.SeedSequence(seed).generate_state(draws).tolist()

    def describe(part: slice) -> list[pd.DataFrame]:
        return [measure_cuts(fitted.draw(size, seed=s), ks, seed=s, **counts) for s in seeds[part]]

    work = draws * size * rows.shape[1] * max(ks) * STARTS
    frames = chain(*kmeans.spread(describe, draws, work))
    figures = pd.concat(frames, keys=range(draws), names=["draw"])
    return figures.reset_index(0).reset_index(drop=True)


def measure_cuts(
    matrix: ArrayLike, ks: Sequence[int], *, halvings: int = 20, pairs: int = 10, seed: int = 0
) -> pd.DataFrame:
    """Figures of K-means cuts of an (n, p) table that may be held against the null's.

    One row per K ≥ 2 of `ks`; columns k, silhouette (mean over the rows), prediction_strength and
    ari (means over `halvings` and `pairs`; empty where the count is 0 or K exceeds n / 2), valley
    and small_valley (depth of the shallowest, and of the shallowest of the smallest segment).
    """
    table = np.asarray(matrix, dtype=np.float64)
    how: dict[str, Any] = {"starts": STARTS, "seed": seed}
    figures = measure_fits(table, [kmeans.fit(table, k, **how) for k in ks])
    for i, k in enumerate(ks):
        if halvings and k <= len(table) // 2:
            kept = stability.prediction_strength(table, k, halvings=halvings, **how)
            figures.at[i, "prediction_strength"] = kept.mean()
        if pairs:
            figures.at[i, "ari"] = stability.bootstrap_ari(table, k, pairs=pairs, **how).mean()
    return figures


def measure_fits(matrix: Floats, fits: Sequence[kmeans.Fit]) -> pd.DataFrame:
    """The same of fits at hand; empty is what takes resampling."""
    labels = np.array([fit.labels for fit in fits])
    figures = pd.DataFrame(index=range(len(fits)), columns=[*_FIGURES, *_VALLEYS], dtype=float)
    figures.insert(0, "k", [len(fit.centres) for fit in fits])
    figures["silhouette"] = measure_silhouettes(matrix, labels).mean(axis=1)
    for i, fit in enumerate(fits):
        valleys = measure_valleys(matrix, fit.labels, fit.centres)
        smallest = np.bincount(fit.labels).argmin()
        figures.at[i, "valley"] = min(valleys.values(), default=0.0)
        beside = [depth for pair, depth in valleys.items() if smallest in pair]
        figures.at[i, "small_valley"] = min(beside, default=0.0)
    return figures


def measure_valleys(
    matrix: Floats, labels: Labels, centres: Floats
) -> dict[tuple[int, int], float]:
    """How deep the valley between each two neighbouring segments is: 0 none … 1 empty.

    Of an (n, p) table with (n,) labels and (k, p) centres. Two segments are neighbours where they
    are somebody's two nearest. Their customers are projected on the line between the centres; the
    depth is one less the lowest density between the two peaks, as a share of the lower peak, by
    Gaussian kernels of Silverman's width.
    """
    columns = np.ascontiguousarray(np.asarray(matrix, dtype=np.float64).T)
    depths = kernels.valleys(columns, np.asarray(labels, np.int64), np.ascontiguousarray(centres))
    pairs = np.argwhere(~np.isnan(depths)).tolist()
    return {(a, b): float(depths[a, b]) for a, b in pairs}
