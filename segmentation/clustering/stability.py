"""Do the segments come back? Resampling: overall, per segment, across K, and against a null.

Every figure is defined as in its original R implementation (flexclust, fpc, cluster); the fits
are `kmeans.fit_many`. Each function works on all the rows that it is given: for a long table,
take `resampling_rows` first and say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.special import ndtr, ndtri

from segmentation.clustering import kmeans
from segmentation.clustering.kmeans import Floats, Labels, stream

RESAMPLED_ROWS = 2_000
DISSOLVED = 0.5
BANDS = {
    **{0.5: "dissolved", 0.6: "not to be trusted", 0.75: "doubtful"},
    **{0.85: "stable", 1.0: "highly stable"},
}
"""Upper ends of the bands of a segment's mean Jaccard (Hennig 2007)."""
GAP_RULES = ("firstSEmax", "Tibs2001SEmax", "globalSEmax")
_GRID = 8_192
_LEAST_MODE = 1e-3


def resampling_rows(
    n: int, *, limit: int = RESAMPLED_ROWS, weights: ArrayLike | None = None, seed: int = 0
) -> Labels:
    """Choose the rows to resample, sorted: those of all customers, or of a seeded sample.

    A row that stands for several customers (`weights`) comes up once for each that is drawn. See
    `kmeans.draw_rows`.
    """
    return kmeans.draw_rows(n, limit=limit, weights=weights, seed=seed)


# Agreement of labellings, all read off one kind of table


def contingency(first: ArrayLike, second: ArrayLike, *, weights: ArrayLike | None = None) -> Floats:
    """Cross-tabulate b pairs of labellings, (b, n) or (n,) each: (b, k, l) weighted counts."""
    one, two = np.broadcast_arrays(np.atleast_2d(first), np.atleast_2d(second))
    k, size = int(one.max()) + 1, int(two.max()) + 1
    cells = (np.arange(len(one))[:, None] * k + one) * size + two
    weight = np.ones(one.shape) if weights is None else np.broadcast_to(weights, one.shape)
    counts = np.bincount(cells.ravel(), weight.ravel(), minlength=len(one) * k * size)
    return counts.reshape(len(one), k, size).astype(np.float64)


def adjusted_rand(tables: Floats) -> Floats:
    """Adjusted Rand index of each of b contingency tables: (b,). Hubert & Arabie (1985)."""
    together, rows, columns, total = (
        (x * (x - 1)).sum(axis=-1)
        for x in (
            tables.reshape(len(tables), -1),
            tables.sum(axis=2),
            tables.sum(axis=1),
            tables.sum(axis=(1, 2))[:, None],
        )
    )
    chance, most = rows * columns / total, (rows + columns) / 2
    same = most == chance
    return np.where(same, 1.0, (together - chance) / np.where(same, 1.0, most - chance))


def jaccard(tables: Floats) -> Floats:
    """Largest |S∩T| / |S∪T| of each row-segment S over the column-segments T: (b, k)."""
    union = tables.sum(axis=2, keepdims=True) + tables.sum(axis=1, keepdims=True) - tables
    return (tables / np.maximum(union, 1)).max(axis=2)


def kept_together(tables: Floats) -> Floats:
    """Smallest share, over row-segments, of the pairs that one column-segment keeps: (b,)."""
    sizes = tables.sum(axis=2)
    pairs = sizes * (sizes - 1)
    kept = (tables * (tables - 1)).sum(axis=2)
    return np.where(pairs > 0, kept / np.maximum(pairs, 1), 1.0).min(axis=1)


# Resampling


def bootstrap_pairs(
    matrix: ArrayLike,
    k: int,
    *,
    pairs: int = 100,
    starts: int = 20,
    seed: int = 0,
    threads: int | None = None,
) -> Labels:
    """Label all n rows by the fits to pairs of bootstrap samples: (2, pairs, n) labels."""
    rows = np.asarray(matrix, dtype=np.float64)
    draws = _bootstrap_counts(len(rows), 2 * pairs, seed)
    centres = kmeans.fit_many(rows, k, draws, starts=starts, seed=seed, threads=threads)
    return kmeans.assign(rows, centres).reshape(2, pairs, len(rows))


def bootstrap_ari(
    matrix: ArrayLike,
    k: int,
    *,
    pairs: int = 100,
    starts: int = 20,
    seed: int = 0,
    threads: int | None = None,
) -> Floats:
    """Global stability of K-means with `k` segments: (pairs,) adjusted Rand indices.

    Two samples of n rows with replacement are clustered, all n rows are given to the nearest
    centre of either fit, and the two labellings compared (`flexclust::bootFlexclust`;
    Dolnicar & Leisch 2010).

    Parameters
    ----------
    matrix : (n, p) array
        What the distance sees.
    k : int
        1 … n − 1; every index is 1 at `k` = 1.

    Raises
    ------
    ValueError
        If `k` does not fit the matrix or a value is not finite.
    """
    one, two = bootstrap_pairs(matrix, k, pairs=pairs, starts=starts, seed=seed, threads=threads)
    return adjusted_rand(contingency(one, two))


def prediction_strength(
    matrix: ArrayLike,
    k: int,
    *,
    halvings: int = 50,
    starts: int = 20,
    seed: int = 0,
    threads: int | None = None,
) -> Floats:
    """Prediction strength of `k` segments in each of (halvings,) random halvings; 1 at `k` = 1.

    Both halves are clustered; the rows of one go to the nearest centre of the other; the value
    is the smallest share of an own segment's pairs that stay together, and the mean of the two
    directions (Tibshirani & Walther 2005; `fpc::prediction.strength`). Its mean is the figure.

    Raises
    ------
    ValueError
        If a half has fewer than `k` rows.
    """
    rows = np.asarray(matrix, dtype=np.float64)
    if not 1 <= k <= len(rows) // 2:
        raise ValueError(f"k must be 1…{len(rows) // 2} for halves of {len(rows)}, got {k}")
    rng = stream(seed, "halves")
    half = np.argsort(rng.random((halvings, len(rows))), axis=1).argsort(axis=1) < len(rows) // 2
    halves = np.concatenate([half, ~half])
    centres = kmeans.fit_many(rows, k, halves, starts=starts, seed=seed, threads=threads)
    own = kmeans.assign(rows, centres)
    other = np.roll(own, halvings, axis=0)
    return kept_together(contingency(own, other, weights=halves)).reshape(2, -1).mean(axis=0)


def jaccard_bootstrap(
    matrix: ArrayLike,
    labels: ArrayLike,
    *,
    resamples: int = 100,
    starts: int = 20,
    seed: int = 0,
    threads: int | None = None,
) -> Floats:
    """Per-segment stability as `fpc::clusterboot`: (resamples, k) Jaccard similarities.

    Of n rows drawn with replacement the duplicates are dropped, the rest clustered, and each
    segment compared with its most similar new one on the drawn rows only (Hennig 2007). A
    segment with a value ≤ 0.5 has dissolved in that resample: see `dissolutions`.
    """
    rows, own = _with_labels(matrix, labels)
    drawn = _bootstrap_counts(len(rows), resamples, seed) > 0
    k = int(own.max()) + 1
    centres = kmeans.fit_many(rows, k, drawn, starts=starts, seed=seed, threads=threads)
    return jaccard(contingency(own, kmeans.assign(rows, centres), weights=drawn))


def dissolutions(jaccards: Floats) -> Labels:
    """Count, for each of k segments, the resamples in which it dissolved (≤ 0.5): (k,)."""
    return (jaccards <= DISSOLVED).sum(axis=0)


def name_band(jaccard: float) -> str:
    """What a mean Jaccard says of a segment, in a word or three."""
    inclusive = jaccard <= DISSOLVED
    bands = [word for bound, word in BANDS.items() if jaccard < bound]
    return BANDS[DISSOLVED] if inclusive else bands[0] if bands else BANDS[1.0]


def slsw(
    matrix: ArrayLike,
    labels: ArrayLike,
    *,
    pairs: int = 100,
    starts: int = 20,
    seed: int = 0,
    threads: int | None = None,
) -> Floats:
    """Segment level stability within a solution: (pairs, k), flexclust's `slswFlexclust`.

    As `bootstrap_ari`, but for each segment of `labels` the largest Jaccard similarity with
    a segment of either fit, on all n rows; the mean of the two (Dolnicar & Leisch 2017).
    """
    rows, own = _with_labels(matrix, labels)
    k = int(own.max()) + 1
    one, two = bootstrap_pairs(rows, k, pairs=pairs, starts=starts, seed=seed, threads=threads)
    return (jaccard(contingency(own, one)) + jaccard(contingency(own, two))) / 2


def _bootstrap_counts(n: int, count: int, seed: int) -> Labels:
    rng = stream(seed, "bootstrap")
    return rng.multinomial(n, np.full(n, 1 / n), size=count)


def _with_labels(matrix: ArrayLike, labels: ArrayLike) -> tuple[Floats, Labels]:
    rows, own = np.asarray(matrix, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if own.shape != rows.shape[:1] or own.min() < 0:
        raise ValueError(f"labels must be {len(rows)} integers from 0, got shape {own.shape}")
    return rows, own


# Across K


@dataclass(frozen=True)
class Flow:
    """Segments over a series of K, in an order in which the series can be read.

    Attributes
    ----------
    nodes : DataFrame
        One row a segment: k, segment (0 … k − 1 in reading order), label (as given), size, score
        (mean on the first principal axis) and slsa, empty for the first K and after K = 1.
    edges : DataFrame
        One row a pair of segments of successive K that share customers: k, segment (of the
        larger K), previous_k, previous, customers and share (customers / n).
    """

    nodes: pd.DataFrame
    edges: pd.DataFrame


def slsa(
    matrix: ArrayLike,
    solutions: Mapping[int, ArrayLike],
    *,
    weights: ArrayLike | None = None,
) -> Flow:
    """Segment level stability across solutions, from {K: (n,) labels 0 … K − 1} (`slsaplot`).

    For segment l of the larger solution, p_j is the share of its members that come from segment
    j of the smaller one with K segments: SLSa = 1 − H / ln K, H = −Σ p_j ln p_j (Dolnicar &
    Leisch 2017). The first solution is ordered by the row sums of its centres, each next one by
    best overlap with the one before (Hungarian method). A row counts as so many customers as its
    weight says.
    """
    rows = np.asarray(matrix, dtype=np.float64)
    weight = kmeans.weigh(len(rows), weights)
    ks, nodes, edges, axis = sorted(solutions), [], [], _principal_scores(rows, weight)
    order, before = np.arange(0), np.zeros(len(rows), dtype=np.int64)
    for position, k in enumerate(ks):
        labels = _with_labels(rows, solutions[k])[1]
        counts = contingency(before, labels, weights=weight)[0]
        order = _read_on(counts) if position else _by_centre(rows, labels, weight)
        counts = counts[:, order]
        stable = _slsa(counts) if position else np.full(len(order), np.nan)
        scores = _means(axis, labels, weight)[order]
        nodes.append(_nodes(k, order, counts.sum(axis=0), stable, scores))
        if position:
            edges.append(_edges(k, ks[position - 1], counts, weight.sum()))
        before = np.argsort(order)[labels]
    return Flow(pd.concat(nodes, ignore_index=True), _joined(edges))


def _principal_scores(rows: Floats, weights: Floats) -> Floats:
    """Each row on the first principal axis, whose largest loading is positive."""
    middle = weights @ rows / weights.sum()
    spread = (rows.T * weights) @ rows / weights.sum() - np.outer(middle, middle)
    loadings = np.linalg.eigh(spread)[1][:, -1]
    return (rows - middle) @ loadings * np.sign(loadings[np.abs(loadings).argmax()])


def _means(values: Floats, labels: Labels, weights: Floats) -> Floats:
    return np.bincount(labels, values * weights) / np.bincount(labels, weights)


def _by_centre(rows: Floats, labels: Labels, weights: Floats) -> Labels:
    return np.argsort(_means(rows.sum(axis=1), labels, weights), kind="stable")


def _read_on(counts: Floats) -> Labels:
    """Order the columns (new segments) after the rows (previous ones, in reading order)."""
    _, matched = linear_sum_assignment(counts, maximize=True)
    order = [int(column) for column in matched]
    left = [column for column in range(counts.shape[1]) if column not in order]
    for column in sorted(left, key=lambda column: -counts[:, column].max()):
        after = int(counts[:, column].argmax()) + 1
        order.insert(after if after < len(order) else len(order) - 1, column)
    return np.array(order)


def _slsa(counts: Floats) -> Floats:
    if len(counts) == 1:
        return np.full(counts.shape[1], np.nan)
    share = counts / counts.sum(axis=0)
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=0)
    return 1 - entropy / np.log(len(counts))


def _nodes(k: int, order: Labels, sizes: Floats, stable: Floats, score: Floats) -> pd.DataFrame:
    columns = {"k": k, "segment": np.arange(len(order)), "label": order}
    size = sizes.round().astype(int)
    return pd.DataFrame({**columns, "size": size, "score": score, "slsa": stable})


def _edges(k: int, previous_k: int, counts: Floats, n: float) -> pd.DataFrame:
    previous, segment = np.nonzero(counts)
    customers = counts[previous, segment].round().astype(int)
    place = {"k": k, "segment": segment, "previous_k": previous_k, "previous": previous}
    return pd.DataFrame({**place, "customers": customers, "share": customers / n})


def _joined(edges: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(edges or [_edges(0, 0, np.zeros((0, 0)), 1)], ignore_index=True)


# Per customer


def distances(matrix: ArrayLike, centres: ArrayLike) -> Floats:
    """Euclidean distance of each of n rows to each of k centres: (n, k)."""
    rows, middle = np.asarray(matrix, dtype=np.float64), np.asarray(centres, dtype=np.float64)
    return np.stack([np.linalg.norm(rows - centre, axis=1) for centre in middle], axis=1)


def shadow_values(matrix: ArrayLike, centres: ArrayLike) -> Floats:
    """Shadow value 2·d1 / (d1 + d2) of each row: 0 on its centre, 1 half way to the second: (n,).

    Undefined (NaN) with one centre; 1 where the two nearest centres coincide with the row.
    Leisch (2010).
    """
    _, second, nearest, next_nearest = kmeans.nearest_two(matrix, centres)
    return np.where(second < 0, np.nan, kmeans.shade(nearest, next_nearest))


def gorge(matrix: ArrayLike, centres: ArrayLike) -> Floats:
    """Similarity √(e^−d_h / Σ_l e^−d_l) of all n rows to each of k centres: (n, k).

    flexclust's `histogram`: natural segments pile up at both ends, with a gorge between
    (Dolnicar & Leisch 2017).
    """
    away = distances(matrix, centres)
    near = np.exp(away.min(axis=1, keepdims=True) - away)
    return np.sqrt(near / near.sum(axis=1, keepdims=True))


# Gap statistic


def gap_statistic(
    matrix: ArrayLike,
    *,
    k_max: int = 10,
    references: int = 100,
    starts: int = 25,
    seed: int = 0,
    threads: int | None = None,
) -> pd.DataFrame:
    """Gap statistic with squared distances: one row per k = 1 … `k_max` with gap and gap_se.

    E*[ln W_k] − ln W_k, the reference uniform in the box along the principal axes, and
    gap_se = sd·√(1 + 1/B) (Tibshirani, Walther & Hastie 2001; `cluster::clusGap` with
    d.power = 2, spaceH0 = "scaledPCA"). See `gap_choices` for the rules.

    Raises
    ------
    ValueError
        If `k_max` does not fit the matrix or a value is not finite.
    """
    rows = np.asarray(matrix, dtype=np.float64)
    ks = np.arange(1, k_max + 1)
    own = _log_dispersions(rows, k_max, starts, seed, threads)
    boxes = _reference_boxes(rows, references, seed)
    seeds = np.random.SeedSequence(seed).generate_state(references)

    def disperse(part: slice) -> Floats:
        each = zip(boxes[part], seeds[part], strict=True)
        return np.array([_log_dispersions(box, k_max, starts, int(s), 1) for box, s in each])

    work = references * starts * rows.shape[0] * k_max
    drawn = np.concatenate(kmeans.spread(disperse, references, threads, work))
    spread = drawn.std(axis=0, ddof=1) * np.sqrt(1 + 1 / references)
    return pd.DataFrame({"k": ks, "gap": drawn.mean(axis=0) - own, "gap_se": spread})


def gap_choices(gap: ArrayLike, gap_se: ArrayLike) -> dict[str, int]:
    """Answer K by each rule of `cluster::maxSE`, from the gaps of k = 1, 2, … in order."""
    gaps, errors = np.asarray(gap, dtype=np.float64), np.asarray(gap_se, dtype=np.float64)
    falls = np.flatnonzero(gaps[1:] <= gaps[:-1])
    peak = int(falls[0]) if len(falls) else len(gaps) - 1
    highest = int(gaps.argmax())
    last = np.append(gaps[:-1] >= gaps[1:] - errors[1:], True)
    firsts = (gaps >= gaps[peak] - errors[peak], last, gaps >= gaps[highest] - errors[highest])
    return {rule: int(first.argmax()) + 1 for rule, first in zip(GAP_RULES, firsts, strict=True)}


def _log_dispersions(
    rows: Floats, k_max: int, starts: int, seed: int, threads: int | None
) -> Floats:
    fits = (
        kmeans.fit(rows, k, starts=starts, seed=seed, threads=threads) for k in range(1, k_max + 1)
    )
    inertia = np.array([fit.inertia for fit in fits])
    with np.errstate(divide="ignore"):
        return np.log(inertia / 2)


def _reference_boxes(rows: Floats, references: int, seed: int) -> Floats:
    """Draw uniform tables in the box along the principal axes; K-means need not turn them back."""
    centred = rows - rows.mean(axis=0)
    turned = centred @ np.linalg.svd(centred, full_matrices=False)[2].T
    low, high = turned.min(axis=0), turned.max(axis=0)
    return stream(seed, "boxes").uniform(low, high, (references, *turned.shape))


# Structureless data like yours


@dataclass(frozen=True)
class Null:
    """Structureless data like a table: one-mode features, joined by a Gaussian copula.

    Attributes
    ----------
    grid, cdf : (p, g) arrays
        Values of each feature and the share of the population below them.
    root : (p, p) array
        Lower Cholesky root of the correlation of the features' normal scores.
    """

    grid: Floats
    cdf: Floats
    root: Floats

    def draw(self, n: int, *, seed: int = 0) -> Floats:
        """Draw an (n, p) table."""
        normal = stream(seed, "null").standard_normal((n, len(self.root))) @ self.root.T
        share = ndtr(normal)
        features = zip(share.T, self.cdf, self.grid, strict=True)
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


def draw_null(matrix: ArrayLike, *, draws: int = 99, seed: int = 0) -> Floats:
    """Draw structureless tables like an (n, p) one: (draws, n, p). See `fit_null`."""
    null, n = fit_null(matrix), len(np.asarray(matrix))
    seeds = np.random.SeedSequence(seed).generate_state(draws)
    return np.stack([null.draw(n, seed=int(one)) for one in seeds])


def null_table(
    matrix: ArrayLike,
    ks: Sequence[int],
    *,
    draws: int = 99,
    starts: int = 10,
    halvings: int = 20,
    pairs: int = 10,
    seed: int = 0,
    threads: int | None = None,
) -> pd.DataFrame:
    """Figures of structureless data like an (n, p) table: one row a draw and K of `ks`.

    Columns draw and those of `measure_cuts`, which gives the same figures of the table itself.
    """
    tables = draw_null(matrix, draws=draws, seed=seed)
    seeds = np.random.SeedSequence(seed).generate_state(draws)
    counts = {"starts": starts, "halvings": halvings, "pairs": pairs}

    def describe(part: slice) -> list[pd.DataFrame]:
        each = zip(tables[part], seeds[part], strict=True)
        return [measure_cuts(table, ks, seed=int(s), **counts) for table, s in each]

    parts = kmeans.spread(describe, draws, threads, tables.size * max(ks) * starts)
    frames = [frame for part in parts for frame in part]
    figures = pd.concat(frames, keys=range(draws), names=["draw", None])
    return figures.reset_index("draw").reset_index(drop=True)


def measure_cuts(
    matrix: ArrayLike,
    ks: Sequence[int],
    *,
    starts: int = 10,
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
    options: dict[str, Any] = {"starts": starts, "seed": seed, "threads": threads}
    labels = [kmeans.fit(table, k, **options).labels for k in ks]
    halved = [halvings if k <= len(table) // 2 else 0 for k in ks]
    each = [prediction_strength(table, k, halvings=h, **options) if h else np.nan
            for k, h in zip(ks, halved, strict=True)]  # fmt: skip
    paired = [bootstrap_ari(table, k, pairs=pairs, **options) if pairs else np.nan for k in ks]
    columns = {"k": list(ks), "silhouette": mean_silhouettes(table, labels, threads=threads)}
    means = {"prediction_strength": each, "ari": paired}
    return pd.DataFrame(
        columns | {name: [float(np.mean(v)) for v in m] for name, m in means.items()}
    )


def warm_up() -> None:
    """Compile the kernels once, so that the first run need not wait for them."""
    table = np.random.default_rng(0).normal(size=(40, 2))
    null_table(table, [2], draws=1)
    jaccard_bootstrap(table, kmeans.fit(table, 2).labels, resamples=1)


def mean_silhouettes(
    matrix: ArrayLike, solutions: ArrayLike, *, threads: int | None = None
) -> Floats:
    """Mean silhouette of each of m labellings, (m, n) or a list of (n,): (m,). NaN at K = 1."""
    return kmeans.silhouettes(matrix, np.asarray(solutions), threads=threads).mean(axis=1)


def _one_mode(column: Floats) -> tuple[Floats, Floats]:
    """Smooth a feature until it has one mode: its values on a grid and the share below them."""
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
    return _rescaled(grid, density, column), np.cumsum(density) - density / 2


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


def _rescaled(grid: Floats, density: Floats, column: Floats) -> Floats:
    """Move and shrink the grid so that the smoothed feature keeps mean and variance."""
    mean = density @ grid
    return column.mean() + (grid - mean) * column.std() / np.sqrt(density @ (grid - mean) ** 2)
