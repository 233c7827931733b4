"""Do the segments come back? Resampling: overall, per segment, and across K.

Every figure is defined as in its original R implementation (flexclust, fpc, cluster); the fits
are `kmeans.fit_many`. What notebooks call draws a seeded sample of 2 000 rows of a longer table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import isotonic_regression, linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.special import entr
from sklearn.decomposition import PCA

from segmentation.clustering import kmeans
from segmentation.clustering.kernels import Floats, Labels
from segmentation.clustering.kmeans import draw_positions, draw_rows, stream

RESAMPLED_ROWS, RESAMPLED_CELLS = 2_000, 40_000  # what a longer or wider table is sampled to
CUT_STARTS = 100  # starts of the cut whose segments are looked for again
PREDICTED = 0.7  # prediction strength above which a K is eligible for the calibrated rule
STRONG = 0.8  # that of halves that predict each other (Tibshirani & Walther 2005)
NEAR = 4.0  # a mean strength is settled when so many standard errors from both
DISSOLVED = 0.5
BANDS = {  # upper ends of the bands of a segment's mean Jaccard (Hennig 2007)
    0.5: "dissolved",
    0.6: "not to be trusted",
    0.75: "doubtful",
    0.85: "stable",
    1.0: "highly stable",
}
# Ends of the classes of shadow values in which kept customers are counted: finer by a border.
SHADOWS = (0.5, 0.7, 0.8, 0.85, 0.9, 0.94, 0.96, 0.98, 0.99)


def contingency(first: ArrayLike, second: ArrayLike, *, drawn: ArrayLike | None = None) -> Floats:
    """Cross-tabulate b pairs of labellings, (b, n) or (n,) each, on the rows drawn: (b, k, l)."""
    one, two = np.broadcast_arrays(np.atleast_2d(first), np.atleast_2d(second))
    k, size = int(one.max()) + 1, int(two.max()) + 1
    cells = (np.arange(len(one))[:, None] * k + one) * size + two
    seen = np.ones(one.shape) if drawn is None else np.broadcast_to(drawn, one.shape)
    counts = np.bincount(cells.ravel(), seen.ravel(), minlength=len(one) * k * size)
    return counts.reshape(len(one), k, size).astype(np.float64)


def adjusted_rand(tables: Floats) -> Floats:
    """Adjusted Rand index of each of b contingency tables: (b,). Hubert & Arabie (1985)."""
    counts = (tables, tables.sum(axis=2), tables.sum(axis=1), tables.sum(axis=(1, 2)))
    together, rows, columns, total = (
        (x * (x - 1)).reshape(len(tables), -1).sum(axis=1) for x in counts
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


def bootstrap_ari(
    matrix: ArrayLike, k: int, *, pairs: int = 100, seed: int = 0, **options: Any
) -> Floats:
    """Global stability of `k` segments of an (n, p) matrix: (pairs,) adjusted Rand indices.

    Two samples of n rows with replacement are clustered, all n rows are given to the nearest
    centre of either fit, and the two labellings compared (`flexclust::bootFlexclust`;
    Dolnicar & Leisch 2010). Every index is 1 at `k` = 1. `options` here and below may be
    `starts`, as of `kmeans.fit_many`.
    """
    again = _label_again(matrix, k, _draw_bootstrap(matrix, 2 * pairs, seed), seed=seed, **options)
    return adjusted_rand(contingency(again[:pairs], again[pairs:]))


def prediction_strength(
    matrix: ArrayLike, k: int, *, halvings: int = 50, seed: int = 0, **options: Any
) -> Floats:
    """Prediction strength of `k` segments in each of (halvings,) random halvings; 1 at `k` = 1.

    Both halves are clustered; the rows of one go to the nearest centre of the other; the value
    is the smallest share of an own segment's pairs that stay together, and the mean of the two
    directions (Tibshirani & Walther 2005; `fpc::prediction.strength`). Its mean is the figure.
    A `k` that a half has not rows enough for is a ValueError.
    """
    n = len(np.asarray(matrix))
    if not 1 <= k <= n // 2:
        raise ValueError(f"k must be 1…{n // 2} for halves of {n}, got {k}")
    drawn = stream(seed, "halves").random((halvings, n))
    half = np.argsort(drawn, axis=1).argsort(axis=1) < n // 2
    halves = np.concatenate([half, ~half])
    own = _label_again(matrix, k, halves, seed=seed, **options)
    kept = kept_together(contingency(own, np.roll(own, halvings, axis=0), drawn=halves))
    return kept.reshape(2, -1).mean(axis=0)


def jaccard_bootstrap(
    matrix: ArrayLike, labels: ArrayLike, *, resamples: int = 100, seed: int = 0, **options: Any
) -> Floats:
    """Per-segment stability as `fpc::clusterboot`: (resamples, k) Jaccard similarities.

    Of n rows drawn with replacement the duplicates are dropped, the rest clustered, and each
    segment compared with its most similar new one on the drawn rows only (Hennig 2007).
    """
    rows, own = _with_labels(matrix, labels)
    drawn = _draw_bootstrap(rows, resamples, seed) > 0
    again = _label_again(rows, int(own.max()) + 1, drawn, seed=seed, **options)
    return jaccard(contingency(own, again, drawn=drawn))


def name_band(jaccard: float) -> str:
    """What a mean Jaccard says of a segment, in a word or three; see `BANDS`."""
    reached = (word for end, word in BANDS.items() if jaccard < end or jaccard <= DISSOLVED)
    return next(reached, BANDS[1.0])


def count_resampled(features: int) -> int:
    """How many rows are resampled at most: 2 000, fewer of more than twenty features, but 500."""
    return min(RESAMPLED_ROWS, max(500, RESAMPLED_CELLS // features))


def draw_resampled(X: ArrayLike, seed: int) -> Floats:
    rows = np.asarray(X, dtype=np.float64)
    return draw_rows(rows, count_resampled(rows.shape[1]), seed=seed)


def _draw_bootstrap(matrix: ArrayLike, count: int, seed: int) -> Labels:
    n = len(np.asarray(matrix))
    return stream(seed, "bootstrap").multinomial(n, np.full(n, 1 / n), size=count)


def _label_again(matrix: ArrayLike, k: int, counts: ArrayLike, **options: Any) -> Labels:
    """Label all n rows by the fit to each of b resamples: (b, n)."""
    return kmeans.assign(matrix, kmeans.fit_many(matrix, k, counts, **options))


def _with_labels(matrix: ArrayLike, labels: ArrayLike) -> tuple[Floats, Labels]:
    rows, own = np.asarray(matrix, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if own.shape != rows.shape[:1] or own.min() < 0:
        raise ValueError(f"labels must be {len(rows)} integers from 0, got shape {own.shape}")
    return rows, own


@dataclass(frozen=True)
class Resamples:
    """What resampling gave: a column per K of ARIs and prediction strengths, Jaccards per K.

    `aris` is (pairs, K), `strengths` (halvings, K), `jaccards` {K: (resamples, K) array}, `rows`
    the number of rows that were resampled: all, or a seeded sample of 2 000.
    """

    aris: pd.DataFrame
    strengths: pd.DataFrame
    jaccards: dict[int, Floats]
    rows: int

    def summarize(self) -> pd.DataFrame:
        """One row a K, 1 among them: prediction_strength (1 at K = 1), ari_mean, ari_q25,
        ari_median, ari_q75, jaccard_min (of the segments' means)."""
        columns = {
            "prediction_strength": self.strengths.mean(),
            "ari_mean": self.aris.mean(),
            "ari_q25": self.aris.quantile(0.25),
            "ari_median": self.aris.median(),
            "ari_q75": self.aris.quantile(0.75),
            "jaccard_min": {k: v.mean(axis=0).min() for k, v in self.jaccards.items()},
        }
        table = pd.DataFrame(columns, index=pd.Index([1, *self.jaccards], name="k"), dtype=float)
        table.loc[1, "prediction_strength"] = 1.0
        return table

    def errors(self) -> pd.DataFrame:
        """The standard errors of these figures by the number of resamples, one row a K ≥ 2:
        prediction_strength_se, ari_se, jaccard_se (of the least stable segment)."""
        worst = pd.DataFrame({k: v[:, v.mean(axis=0).argmin()] for k, v in self.jaccards.items()})
        columns = {"prediction_strength_se": self.strengths.sem(), "ari_se": self.aris.sem()}
        columns["jaccard_se"] = worst.sem()
        return pd.DataFrame(columns, index=pd.Index([*self.jaccards], name="k"), dtype=float)


def resample(X: ArrayLike, ks: Iterable[int], *, resamples: int = 100, seed: int = 0) -> Resamples:
    """Cut an (n, p) table again and again, for each K ≥ 2 of `ks` that halves of it can have.

    `resamples` pairs of bootstrap samples (ARI), half as many halvings (prediction strength; four
    times as many where a threshold is near), as many resamples for the Jaccards: see
    `bootstrap_ari`, `prediction_strength`, `jaccard_bootstrap`. Of a seeded sample above 2 000
    rows. What is not finite is a ValueError.

    Examples
    --------
    >>> pairs = [[0.0], [0.1], [0.2], [0.3], [9.0], [9.1], [9.2], [9.3]]
    >>> resample(pairs, [1, 2], resamples=4).summarize()["prediction_strength"].tolist()
    [1.0, 1.0]
    """
    rows = draw_resampled(X, seed)
    halvings = max(1, resamples // 2)
    wanted = [k for k in ks if 1 < k <= len(rows) // 2]
    aris = {k: bootstrap_ari(rows, k, pairs=resamples, seed=seed) for k in wanted}
    strengths = {k: _measure_strengths(rows, k, halvings, seed) for k in wanted}
    jaccards = {}
    for k in wanted:
        labels = kmeans.fit(rows, k, starts=CUT_STARTS, seed=seed).labels
        jaccards[k] = jaccard_bootstrap(rows, labels, resamples=resamples, seed=seed)
    return Resamples(pd.DataFrame(aris), pd.DataFrame(strengths), jaccards, len(rows))


@dataclass(frozen=True)
class Recut:
    """One cut of n rows beside the cuts of b = 2 · resamples bootstrap samples of them.

    `jaccards` and `slsw` are (resamples, k), `curve` (at most 11, 2) how often customers with a
    shadow value keep their segment; of the `rows` (m,) resampled, `counts` (b + 1, m) how often
    each was drawn and `labels` (b + 1, m) its segment, first in the cut itself.
    """

    jaccards: Floats
    slsw: Floats
    curve: Floats
    rows: Labels
    counts: Labels
    labels: Labels

    def measure_errors(self, values: pd.DataFrame, *, customers: int) -> pd.DataFrame:
        """What to add to a segment's share and means for 95 % intervals of the whole cut.

        Of (n, p) `values` in any units, gaps allowed: a row a segment and column, with share_low,
        share_high, mean_low, mean_high. Percentile bootstrap (Efron & Tibshirani 1993), shrunk by
        the root of m / `customers` where these are more (Bickel, Götze & van Zwet 1997).
        """
        some, k = values.iloc[self.rows], self.jaccards.shape[1]
        known, numbers = some.notna().to_numpy(), (some - some.mean()).fillna(0.0).to_numpy()
        drawn = (self.labels[:, None] == np.arange(k)[:, None]) * self.counts[:, None]
        means = drawn @ numbers / np.maximum(drawn @ known, 1)
        shares = np.broadcast_to(drawn.mean(axis=2)[..., None], means.shape)
        index = pd.MultiIndex.from_product([range(k), some.columns], names=["cluster", "variable"])
        errors = pd.DataFrame(index=index)
        for name, figures in (("share", shares), ("mean", means)):
            ends = np.quantile(figures[1:], [0.025, 0.975], axis=0, method="weibull") - figures[0]
            errors[[f"{name}_low", f"{name}_high"]] = ends.reshape(2, -1).T
        return errors * np.sqrt(len(some) / customers)


def resample_cut(X: ArrayLike, labels: ArrayLike, *, resamples: int = 100, seed: int = 0) -> Recut:
    """Do the segments of one cut come back, and who keeps a segment? One bootstrap for all.

    `labels` are 0 … k − 1 of an (n, p) table (else a ValueError). For the Jaccards see
    `jaccard_bootstrap` (Hennig 2007); `slsw` takes pairs of samples as `bootstrap_ari` does, and of
    each segment its largest Jaccards in the two fits, on all rows, of which the mean
    (`flexclust::slswFlexclust`; Dolnicar & Leisch 2017). Of a seeded sample above 2 000 rows.

    Examples
    --------
    >>> pairs = [[0.0], [0.1], [0.2], [0.3], [9.0], [9.1], [9.2], [9.3]]
    >>> recut = resample_cut(pairs, [0, 0, 0, 0, 1, 1, 1, 1], resamples=20)
    >>> recut.jaccards.shape, recut.curve[[0, -1], 1].tolist()
    ((20, 2), [1.0, 0.5])
    """
    rows, own = _with_labels(X, labels)
    drawn = draw_positions(len(rows), count_resampled(rows.shape[1]), seed=seed)
    rows, own = rows[drawn], own[drawn]
    counts = _draw_bootstrap(rows, 2 * resamples, seed)
    centres = kmeans.fit_many(rows, int(own.max()) + 1, counts, seed=seed)
    again = kmeans.assign(rows, centres)
    curve = _trace_kept(rows, centres[:resamples], counts[resamples:] == 0, again)
    jaccards = jaccard_bootstrap(rows, own, resamples=resamples, seed=seed)
    counts = np.vstack([np.ones_like(own), counts])
    found = np.vstack([own, _match_labels(own, again)])
    slsw = jaccard(contingency(own, again)).reshape(2, resamples, -1).mean(axis=0)
    return Recut(jaccards, slsw, curve, drawn, counts, found)


def _match_labels(first: Labels, second: Labels) -> Labels:
    """Number the labels `second` (b, n) as those of `first`, (n,) or (b, n), with most overlap."""
    tables = contingency(first, second)
    numbers = np.full((len(tables), tables.shape[2]), -1)
    for own, table in zip(numbers, tables, strict=True):
        old, new = linear_sum_assignment(table, maximize=True)
        own[new] = old
    return np.take_along_axis(numbers, second, axis=1)


def _trace_kept(rows: Floats, centres: Floats, left: Labels, again: Labels) -> Floats:
    """How often customers keep their segment, by shadow value: the curve of a `Recut`.

    Of b fits with `centres` (b, k, p) the rows are looked for in b others, matched to them, that
    `left` them out (b, n), as a fresh sample would: do both give them the same segment? `again`
    (2b, n) are the labels.
    """
    if centres.shape[1] == 1 or not left.any():
        return np.array([[0.0, 1.0], [1.0, 0.0]])
    first, second = again[: len(left)], again[len(left) :]
    away = np.stack([np.partition(cdist(rows, own), 1, axis=1)[:, :2] for own in centres])
    near, sums = away[..., 0], away.sum(axis=2)
    shadow = np.divide(2 * near, sums, out=np.ones_like(near), where=sums > 0)
    kept = _match_labels(first, second) == first
    told = pd.DataFrame({"shadow": shadow[left], "kept": kept[left]})
    classes = told.astype(float).groupby(np.digitize(told["shadow"], SHADOWS))
    knots = classes.mean().assign(customers=classes.size()).query("shadow < 1")
    weights = knots["customers"].to_numpy()
    falling = isotonic_regression(knots["kept"], weights=weights, increasing=False).x
    border = 1.0, falling.min(initial=0.5)  # half way, chance decides
    return np.vstack([np.column_stack([knots["shadow"], falling]), border])


def _measure_strengths(rows: Floats, k: int, halvings: int, seed: int) -> pd.Series:
    few = prediction_strength(rows, k, halvings=halvings, seed=seed)
    near = NEAR * pd.Series(few).sem()
    if not any(abs(few.mean() - threshold) < near for threshold in (PREDICTED, STRONG)):
        return pd.Series(few)
    return pd.Series(prediction_strength(rows, k, halvings=4 * halvings, seed=seed))


@dataclass(frozen=True)
class Flow:
    """Segments over a series of K, in an order in which the series can be read.

    `nodes` has a row a segment: k, segment (0 … k − 1 in reading order), label (as given), size,
    score (mean on the first principal axis) and slsa, empty for the first K and after K = 1;
    `edges` a row a pair of segments of successive K that share customers: k, segment (of the
    larger K), previous_k, previous, customers and share (customers / n).
    """

    nodes: pd.DataFrame
    edges: pd.DataFrame

    def tabulate(self) -> pd.DataFrame:
        """One row a segment with where it comes from: k, segment, label, size, share, parent (the
        segment of the K before that gives most of its customers), from_parent (their share) and
        slsa; of the first K without a parent."""
        most = self.edges.sort_values("customers", ascending=False, kind="stable")
        most = most.drop_duplicates(["k", "segment"]).rename(columns={"previous": "parent"})
        most = most[["k", "segment", "parent", "customers"]]
        table = self.nodes.merge(most, on=["k", "segment"], how="left").astype({"parent": "Int64"})
        table["share"] = table["size"] / table.groupby("k")["size"].transform("sum")
        table["from_parent"] = table["customers"] / table["size"]
        return table[["k", "segment", "label", "size", "share", "parent", "from_parent", "slsa"]]


def track_cuts(X: ArrayLike, cuts: Mapping[int, ArrayLike]) -> Flow:
    """Follow segments from K to K: a `Flow` of {K: (n,) labels 0 … K − 1} on an (n, p) table.

    For segment l of the larger cut, p_j is the share of its members that come from segment j of
    the smaller one with K segments: SLSa = 1 − H / ln K, H = −Σ p_j ln p_j (`flexclust::slsaplot`;
    Dolnicar & Leisch 2017). The first cut is ordered by the row sums of its centres, each next one
    by best overlap with the one before (Hungarian method). Without a cut all are in one segment.
    Other labels are a ValueError.

    Examples
    --------
    >>> flow = track_cuts([[0.0], [1.0], [8.0], [9.0]], {2: [0, 0, 1, 1], 3: [0, 0, 1, 2]})
    >>> flow.nodes["slsa"].tolist()
    [nan, nan, 1.0, 1.0, 1.0]
    """
    rows = np.asarray(X, dtype=np.float64)
    (axis,) = PCA(1, svd_solver="covariance_eigh").fit_transform(rows).T
    before, previous = np.zeros(len(rows), dtype=np.int64), 0
    cuts, nodes, edges = cuts or {1: before}, [], []
    for k in sorted(cuts):
        labels = _with_labels(rows, cuts[k])[1]
        counts = contingency(before, labels)[0]
        by_centre = np.argsort(_means(rows.sum(axis=1), labels), kind="stable")
        order = _read_on(counts) if previous else by_centre
        counts = counts[:, order]
        sizes = counts.sum(axis=0)
        columns = {"k": k, "segment": np.arange(len(order)), "label": order}
        columns |= {"size": sizes.astype(int), "score": _means(axis, labels)[order]}
        told = len(counts) > 1  # the first cut, and what comes after one segment, have one row
        slsa = 1 - entr(counts / sizes).sum(axis=0) / np.log(len(counts)) if told else np.nan
        nodes.append(pd.DataFrame(columns | {"slsa": slsa}))
        sources, targets = np.nonzero(counts if previous else counts[:0])
        place = {"k": k, "segment": targets, "previous_k": previous, "previous": sources}
        edges.append(pd.DataFrame(place | {"customers": counts[sources, targets].astype(int)}))
        before, previous = np.argsort(order)[labels], k
    ways = pd.concat(edges, ignore_index=True)
    ways["share"] = ways["customers"] / len(rows)
    return Flow(pd.concat(nodes, ignore_index=True), ways)


def _means(values: Floats, labels: Labels) -> Floats:
    return np.bincount(labels, values) / np.bincount(labels)


def _read_on(counts: Floats) -> Labels:
    """Order the columns (new segments) after the rows (previous ones, in reading order)."""
    order = [int(column) for column in linear_sum_assignment(counts, maximize=True)[1]]
    left = {*range(counts.shape[1])}.difference(order)
    for column in sorted(left, key=lambda column: -counts[:, column].max()):
        after = int(counts[:, column].argmax()) + 1
        order.insert(after if after < len(order) else len(order) - 1, column)
    return np.array(order)


def gap_statistic(
    X: ArrayLike, *, k_max: int = 10, references: int = 100, starts: int = 25, seed: int = 0
) -> pd.DataFrame:
    """Gap statistic with squared distances: one row per k = 1 … `k_max` with gap and gap_se.

    E*[ln W_k] − ln W_k, the reference uniform in the box along the principal axes, and
    gap_se = sd·√(1 + 1/B) (Tibshirani, Walther & Hastie 2001; `cluster::clusGap` with
    d.power = 2, spaceH0 = "scaledPCA"). Of a seeded sample above 2 000 rows; K ends one below the
    number of different rows. What is not finite is a ValueError. See `gap_choices` for the rules.

    Examples
    --------
    >>> gaps = gap_statistic([[0.0], [0.1], [9.0], [9.1]], k_max=2, references=10)
    >>> list(gaps.columns), len(gaps)
    (['k', 'gap', 'gap_se'], 2)
    """
    rows = draw_resampled(X, seed)
    most = max(1, min(k_max, len(np.unique(rows, axis=0)) - 1))
    own = _log_dispersions(rows, most, starts=starts, seed=seed)
    centred = rows - rows.mean(axis=0)
    turned = centred @ np.linalg.svd(centred, full_matrices=False)[2].T  # K-means needs no way back
    ends = turned.min(axis=0), turned.max(axis=0)
    boxes = stream(seed, "boxes").uniform(*ends, (references, *turned.shape))
    seeds = np.random.SeedSequence(seed).generate_state(references)

    def disperse(part: slice) -> Floats:
        each = zip(boxes[part], seeds[part].tolist(), strict=True)
        return np.array([_log_dispersions(box, most, starts=starts, seed=s) for box, s in each])

    work = references * starts * rows.shape[0] * most
    drawn = np.concatenate(kmeans.spread(disperse, references, work))
    spread = drawn.std(axis=0, ddof=1) * np.sqrt(1 + 1 / references)
    gap = drawn.mean(axis=0) - own
    return pd.DataFrame({"k": np.arange(1, most + 1), "gap": gap, "gap_se": spread})


def gap_choices(gap: ArrayLike, gap_se: ArrayLike) -> dict[str, int]:
    """Answer K by each rule of `cluster::maxSE`, from the gaps of k = 1, 2, … in order."""
    gaps, errors = np.asarray(gap, dtype=np.float64), np.asarray(gap_se, dtype=np.float64)
    falls = np.flatnonzero(gaps[1:] <= gaps[:-1])
    peak = int(falls[0]) if len(falls) else len(gaps) - 1
    highest = int(gaps.argmax())
    rules = {
        "firstSEmax": gaps >= gaps[peak] - errors[peak],
        "Tibs2001SEmax": np.append(gaps[:-1] >= gaps[1:] - errors[1:], True),
        "globalSEmax": gaps >= gaps[highest] - errors[highest],
    }
    return {rule: int(first.argmax()) + 1 for rule, first in rules.items()}


def _log_dispersions(rows: Floats, k_max: int, **how: Any) -> Floats:
    inertia = [kmeans.fit(rows, k, **how).inertia for k in range(1, k_max + 1)]
    with np.errstate(divide="ignore"):
        return np.log(np.array(inertia) / 2)
