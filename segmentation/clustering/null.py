"""Structureless data like yours: what cuts of a table without segments look like."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from segmentation.clustering import kmeans, stability
from segmentation.clustering.kernels import Floats
from segmentation.clustering.silhouettes import measure_silhouettes

FAMILY_WISE = 0.95  # the quantile of the null draws that a figure must exceed
LEAST_EXCESS = 0.06  # a silhouette must lie so far above the null's mean, whatever its spread
LEAST_SHARE = 0.05  # a K whose smallest segment has a smaller share than this is not taken
_FIGURES = ["silhouette", "prediction_strength", "ari"]
STARTS = 10
_GRID = 8_192
_LEAST_MODE = 1e-3


def compare_with_null(
    X: ArrayLike, ks: Iterable[int], *, resamples: int = 100, seed: int = 0
) -> pd.DataFrame:
    """Cut an (n, p) table and tables like it without segments, for each K ≥ 2 of `ks`.

    100 resamples give 99 draws, each with 20 halvings and 10 pairs; others in proportion. Of a
    seeded sample above 2 000 rows. `fit_null` tells what structureless means. NaN: a ValueError.
    Columns k, silhouette, prediction_strength, ari and draw (−1 for the table's own), all with the
    same counts on the same number of rows, so that they compare.

    Examples
    --------
    >>> rows = [[0.0], [0.1], [0.2], [0.3], [9.0], [9.1], [9.2], [9.3]]
    >>> int(compare_with_null(rows, [2], resamples=20)["draw"].max())
    18
    """
    rows = stability.draw_resampled(X, seed)
    wanted = [k for k in ks if k > 1]
    if not wanted:
        return pd.DataFrame(columns=["k", *_FIGURES, "draw"], dtype=float)
    counts: dict[str, Any] = {"halvings": max(1, resamples // 5), "pairs": max(1, resamples // 10)}
    own = measure_cuts(rows, wanted, seed=seed, threads=None, **counts).assign(draw=-1)
    chance = null_table(rows, wanted, draws=max(19, resamples - 1), seed=seed, **counts)
    return pd.concat([own, chance])


def gate_cuts(
    X: ArrayLike, ks: Iterable[int], shares: pd.Series, *, resamples: int = 100, seed: int = 0
) -> pd.DataFrame:
    """One row a K ≥ 2, its figures beside the null's, and the gate: see `summarize`."""
    return summarize(compare_with_null(X, ks, resamples=resamples, seed=seed), shares)


def warm_up() -> None:
    """Compile the kernels once, so that the first run need not wait for them: `make` does."""
    table = np.random.default_rng(0).normal(size=(40, 2))
    compare_with_null(table, [2], resamples=1)
    stability.resample(table, [2], resamples=1)


def summarize(figures: pd.DataFrame, smallest_share: pd.Series) -> pd.DataFrame:
    """One row a K ≥ 2 of what `compare_with_null` gives, and the gate.

    `smallest_share` is that of each K's segments, by k. Columns null_silhouette (likewise
    prediction_strength, ari), the null's mean, null_silhouette_q95 …, its 95 % quantile,
    compared_silhouette … (the table's own figures, with the null's counts) and those of
    `open_gate`.
    """
    own = figures[figures["draw"] < 0].set_index("k")[_FIGURES].astype(float)
    chance = figures[figures["draw"] >= 0].groupby("k")[_FIGURES]
    parts = [
        chance.mean().add_prefix("null_"),
        chance.quantile(FAMILY_WISE).add_prefix("null_").add_suffix("_q95"),
        own.add_prefix("compared_"),
        open_gate(figures, smallest_share),
    ]
    return pd.concat(parts, axis=1).rename_axis("k")


def open_gate(figures: pd.DataFrame, smallest_share: pd.Series) -> pd.DataFrame:
    """Which K stand clear of structureless data: columns excess, z, gated, one row a K.

    The silhouette's z-score in the null must exceed the 95 % quantile of the null draws' own
    largest z over K (family-wise), the silhouette lie 0.06 above the null's mean, and no segment
    be smaller than 5 %.
    """
    wide = figures.pivot_table(index="draw", columns="k", values="silhouette")
    drawn = wide[wide.index >= 0]
    spread = drawn.std().where(lambda sd: sd > 0)
    threshold = ((drawn - drawn.mean()) / spread).max(axis=1).quantile(FAMILY_WISE)
    gate = pd.DataFrame({"excess": wide.reindex([-1]).loc[-1] - drawn.mean()})
    gate["z"] = gate["excess"] / spread
    clear = (gate["z"].fillna(np.inf) > threshold) & (gate["excess"] >= LEAST_EXCESS)
    large = smallest_share.reindex(gate.index) >= LEAST_SHARE
    return gate.assign(gated=(clear & large).astype("boolean"))


@dataclass(frozen=True)
class Null:
    """Structureless data like a table: one-mode features, joined by a Gaussian copula.

    `grid` and `cdf` (p, g) are values of each feature and the share of the population below them,
    `root` (p, p) the lower Cholesky root of the correlation of the features' normal scores.
    """

    grid: Floats
    cdf: Floats
    root: Floats

    def draw(self, n: int, *, seed: int = 0) -> Floats:
        """Draw an (n, p) table."""
        normal = kmeans.stream(seed, "null").standard_normal((n, len(self.root)))
        features = zip(ndtr(normal @ self.root.T).T, self.cdf, self.grid, strict=True)
        return np.stack([np.interp(u, cdf, grid) for u, cdf, grid in features], axis=1)


def fit_null(matrix: ArrayLike) -> Null:
    """Fit the null to an (n, p) table.

    Each feature is smoothed until it has one mode (the critical bandwidth of Silverman 1981: the
    smallest at which the Gaussian kernel estimate has one local maximum above 0.1 % of its
    peak), mean and variance kept. The features are joined by the Gaussian copula with the
    correlation of the table's normal scores. A constant stays constant.
    """
    rows = np.asarray(matrix, dtype=np.float64)
    smooth = [_one_mode(column) for column in rows.T]
    scores = ndtri(pd.DataFrame(rows).rank().to_numpy() / (len(rows) + 1))
    scale = scores.std(axis=0)
    scores = (scores - scores.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
    correlation = scores.T @ scores / len(rows) * (1 - 1e-9)
    np.fill_diagonal(correlation, 1.0)
    grid, cdf = (np.stack(part) for part in zip(*smooth, strict=True))
    return Null(grid, cdf, np.linalg.cholesky(correlation))


def null_table(
    matrix: ArrayLike,
    ks: Sequence[int],
    *,
    draws: int = 99,
    seed: int = 0,
    threads: int | None = None,
    **counts: int,
) -> pd.DataFrame:
    """Figures of structureless data like an (n, p) table: one row a draw and K of `ks`.

    Columns draw and those of `measure_cuts`, which takes the `counts` and gives the same figures
    of the table itself.
    """
    rows = np.asarray(matrix, dtype=np.float64)
    fitted, n = fit_null(rows), len(rows)
    seeds = np.random.SeedSequence(seed).generate_state(draws).tolist()

    def describe(part: slice) -> list[pd.DataFrame]:
        return [measure_cuts(fitted.draw(n, seed=s), ks, seed=s, **counts) for s in seeds[part]]

    work = draws * rows.size * max(ks) * STARTS
    frames = chain(*kmeans.spread(describe, draws, threads, work))
    figures = pd.concat(frames, keys=range(draws), names=["draw"])
    return figures.reset_index(0).reset_index(drop=True)


def measure_cuts(
    matrix: ArrayLike,
    ks: Sequence[int],
    *,
    halvings: int = 20,
    pairs: int = 10,
    seed: int = 0,
    threads: int | None = 1,
) -> pd.DataFrame:
    """Figures of K-means cuts of an (n, p) table that may be held against the null's.

    One row per K ≥ 2 of `ks`; columns k, silhouette (mean over the rows), prediction_strength and
    ari (means over `halvings` and `pairs`; empty where the count is 0 or K exceeds n / 2).
    """
    table = np.asarray(matrix, dtype=np.float64)
    how: dict[str, Any] = {"starts": STARTS, "seed": seed, "threads": threads}
    figures = pd.DataFrame({"k": ks}, columns=["k", *_FIGURES], dtype=float).astype({"k": int})
    labels = np.array([kmeans.fit(table, k, **how).labels for k in ks])
    figures["silhouette"] = measure_silhouettes(table, labels, threads=threads).mean(axis=1)
    for i, k in enumerate(ks):
        if halvings and k <= len(table) // 2:
            kept = stability.prediction_strength(table, k, halvings=halvings, **how)
            figures.at[i, "prediction_strength"] = kept.mean()
        if pairs:
            figures.at[i, "ari"] = stability.bootstrap_ari(table, k, pairs=pairs, **how).mean()
    return figures


def _one_mode(column: Floats) -> tuple[Floats, Floats]:
    """Smooth a feature until it has one mode: its values on a grid and the share below them.

    The grid is moved and shrunk, so that the feature keeps mean and variance.
    """
    width = np.ptp(column)
    if width == 0:
        return np.full(_GRID, column[0]), np.linspace(0, 1, _GRID)
    grid = np.linspace(column.min() - 2.5 * width, column.max() + 2.5 * width, _GRID)
    spectrum = np.fft.rfft(_binned(column, grid))
    low, high = np.log(grid[1] - grid[0]), np.log(width / 2)
    for _ in range(24):
        middle = (low + high) / 2
        one = _modes(_smoothed(spectrum, np.exp(middle), grid)) == 1
        low, high = (low, middle) if one else (middle, high)
    density = _smoothed(spectrum, np.exp(high), grid)
    away = grid - density @ grid
    kept = column.mean() + away * column.std() / np.sqrt(density @ away**2)
    return kept, np.cumsum(density) - density / 2


def _binned(column: Floats, grid: Floats) -> Floats:
    """Share of the rows at each grid point, each row split between its two neighbours."""
    place = (column - grid[0]) / (grid[1] - grid[0])
    left = np.minimum(place.astype(int), len(grid) - 2)
    right = place - left
    size = len(grid)
    counts = np.bincount(left, 1 - right, size) + np.bincount(left + 1, right, size)
    return counts / len(column)


def _smoothed(spectrum: NDArray[np.complex128], bandwidth: float, grid: Floats) -> Floats:
    """Gaussian kernel estimate on the grid, as probabilities; from the transform of the bins."""
    frequency = 2 * np.pi * np.fft.rfftfreq(len(grid), grid[1] - grid[0])
    smooth = np.fft.irfft(spectrum * np.exp(-0.5 * (bandwidth * frequency) ** 2), len(grid))
    smooth = np.maximum(smooth, 0)
    return smooth / smooth.sum()


def _modes(density: Floats) -> int:
    """Count the local maxima above 0.1 % of the peak; a plateau is one."""
    height = np.round(density / density.max(), 9)
    height = height[height > _LEAST_MODE]
    slope = np.sign(np.diff(np.concatenate([[0.0], height, [0.0]])))
    slope = slope[slope != 0]
    return int((np.diff(slope) < 0).sum())
