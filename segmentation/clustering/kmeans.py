"""K-means over the compiled loops: a scikit-learn estimator, and the engine of every resampling.

Starts are greedy k-means++ (Arthur & Vassilvitskii 2007, 2 + ln k trials), the iterations Lloyd's,
and an empty cluster moves to the row farthest from its centre, as in `sklearn.cluster.KMeans`.
Threads share nothing, so one seed gives the same labels on any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, pairwise
from threading import current_thread
from typing import Any, Self, TypeVar

import joblib
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    ClusterMixin,
    TransformerMixin,
)
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from segmentation.clustering import kernels
from segmentation.clustering.kernels import Floats, Labels

Rows = TypeVar("Rows", pd.DataFrame, Floats)

MAX_ITERATIONS = 300
TOLERANCE = 1e-4
SAME_INERTIA, NEAR_INERTIA = 1e-6, 1e-3  # starts so near the best found it; of many rows
STARTED = 50_000  # above so many rows the random starts run on a seeded sample of so many
_PART = 65_536  # rows of a large table that are taken, and added up, together, whatever the threads
_WORTH_A_THREAD = 100_000
_ROUNDS = 9  # polishing may change which cluster is larger; so often are they numbered anew


class KMeans(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):
    """K-means as `sklearn.cluster.KMeans`, some ten times as fast on small tables with many starts.

    Clusters are numbered by size, the largest 0, ties by centre, so that neither the order of the
    rows nor the threads change an answer. Above 50 000 rows the starts run on a seeded sample and
    the best of them is polished on all rows.

    Parameters
    ----------
    n_clusters, n_init : int
        1 … n clusters, and random starts, of which the best is kept.
    random_state : int, RandomState or None
    init : "k-means++" or (n_clusters, p) array, which is the one start there is
    max_iter, tol : int, float
        The most Lloyd iterations of a start, and of the polish after it; a start rests when its
        centres move by less than this share of the mean variance (squared distances). The best
        goes on until no row changes its cluster; not above 50 000 rows.

    Attributes
    ----------
    cluster_centers_ : (n_clusters, p) array
    labels_ : (n,) int32 array
    inertia_ : float
        Sum of squared distances to the own centre, each times its sample weight.
    n_iter_ : int, of the best start and of its polish
    best_share_ : float
        Share of the starts whose inertia is within a relative 1e-6 of the best (1e-3, on the
        sample, above 50 000 rows).

    Examples
    --------
    >>> model = KMeans(2, random_state=0).fit([[0.0], [1.0], [2.0], [9.0]])
    >>> model.labels_.tolist(), model.cluster_centers_.tolist()
    ([0, 0, 0, 1], [[1.0], [9.0]])
    >>> model.predict([[6.0]]).tolist()
    [1]
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        n_init: int = 20,
        random_state: int | np.random.RandomState | None = 0,
        init: str | ArrayLike = "k-means++",
        max_iter: int = MAX_ITERATIONS,
        tol: float = TOLERANCE,
    ) -> None:
        self.n_clusters = n_clusters
        self.n_init = n_init
        self.random_state = random_state
        self.init = init
        self.max_iter = max_iter
        self.tol = tol

    def fit(self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:  # noqa: ARG002
        """Cluster an (n, p) table of finite numbers.

        Raises
        ------
        ValueError
            If a parameter or `sample_weight` does not fit the table, or a value is not finite.
        """
        table = validate_data(self, X, dtype=np.float64)
        weight = _weigh(sample_weight, table)
        many, seed = len(table) > STARTED, self.random_state
        order = np.arange(len(table)) if many else np.lexsort(table.T[::-1])
        rows, weight = table[order], weight[order]
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(2**31)
        how: dict[str, Any] = {"sample_weight": weight, "max_iter": self.max_iter}
        init = None if isinstance(self.init, str) else self.init
        found = fit(rows, self.n_clusters, starts=self.n_init, seed=int(seed), centres=init,
                    tol=self.tol, **how)  # fmt: skip
        self.best_share_, self.n_iter_ = found.best_share, found.iterations
        how["tol"] = self.tol if many else -1.0
        for _ in range(_ROUNDS):
            centres = found.centres[_order_clusters(found, weight)]
            found = fit(rows, self.n_clusters, centres=centres, **how)
            self.n_iter_ += found.iterations
            if (np.diff(_order_clusters(found, weight)) > 0).all():
                break
        self.cluster_centers_, self.inertia_ = found.centres, found.inertia
        self.labels_, self.n_iter_ = found.labels[np.argsort(order)], max(1, self.n_iter_)
        self._n_features_out = self.n_clusters
        return self

    def predict(self, X: Any) -> Labels:
        """The nearest centre of each row of an (m, p) table: (m,) int32; ties go to the lower."""
        return assign(self._check(X), self.cluster_centers_)

    def transform(self, X: Any) -> Floats:
        """The distance of each row of an (m, p) table to each centre: (m, n_clusters)."""
        return cdist(self._check(X), self.cluster_centers_)

    def score(self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None) -> float:  # noqa: ARG002
        """The inertia of an (m, p) table around these centres, negated: larger is better."""
        rows = self._check(X)
        nearest = cdist(rows, self.cluster_centers_, "sqeuclidean").min(axis=1)
        return -float(_weigh(sample_weight, rows) @ nearest)

    def _check(self, X: Any) -> Floats:
        check_is_fitted(self)
        return validate_data(self, X, dtype=np.float64, reset=False)


@dataclass(frozen=True)
class Fit:
    """The best of many starts: centres (k, p), labels (n,) int32 as found; else see `KMeans`."""

    centres: Floats
    labels: Labels
    inertia: float
    best_share: float
    iterations: int


def _order_clusters(found: Fit, weight: Floats) -> NDArray[np.intp]:
    """Clusters by size, descending; ties by centre, lexicographic."""
    sizes = np.bincount(found.labels, weight, minlength=len(found.centres))
    return np.lexsort((*found.centres.T[::-1], -sizes))


def fit(
    matrix: ArrayLike,
    k: int,
    *,
    starts: int = 20,
    seed: int = 0,
    sample_weight: ArrayLike | None = None,
    centres: ArrayLike | None = None,
    max_iter: int = MAX_ITERATIONS,
    tol: float = TOLERANCE,
) -> Fit:
    """Cluster an (n, p) matrix into `k` segments: the best of `starts` runs, as it was found.

    Rows of weight 0 get a label but move no centre. With `centres` (k, p) there is one start, from
    these. The answer does not depend on the number of threads.

    Raises
    ------
    ValueError
        If an argument does not fit the matrix, or a value is not finite.
    """
    rows = _check(matrix, k, starts)
    weight = np.ones(len(rows)) if sample_weight is None else _weigh(sample_weight, rows)
    columns, middle = _centre(rows)
    columns, weight = kernels.kept(columns, weight)
    many, limits = len(weight) > STARTED, (tol, max_iter)
    if centres is None:
        seen = draw_positions(len(weight), STARTED, seed=seed) if many else slice(None)
        some = np.ascontiguousarray(columns[:, seen]), weight[seen]
        seeds, work = _draw_seeds(seed, starts), len(some[1]) * k * starts

        def run(part: slice) -> tuple[Floats, Floats, int]:
            return kernels.best_start(*some, k, seeds[part], *limits)

        parts = spread(run, starts, work)
        found, _, done = min(parts, key=lambda part: part[1].min())
        inertia = np.concatenate([part[1] for part in parts])
    else:
        found, inertia, done = check_array(centres, dtype=np.float64) - middle, np.zeros(1), 0
        if found.shape != (k, rows.shape[1]):
            raise ValueError(f"centres must be {k} × {rows.shape[1]}, got {found.shape}")
    best = float(inertia.min())
    share = float(np.mean(inertia <= best * (1 + (NEAR_INERTIA if many else SAME_INERTIA))))
    if many or centres is not None:
        found, best, more = _polish((columns, weight), found, limits)
        done += more
    return Fit(found + middle, assign(rows, found + middle), best, share, done)


def fit_many(
    matrix: ArrayLike, k: int, counts: ArrayLike, *, starts: int = 20, seed: int = 0
) -> Floats:
    """Cluster b resamples of one (n, p) matrix: the best centres of each, (b, k, p).

    A row of the (b, n) `counts` is one resample: how often each row was drawn, 0 for not at all.
    Counting a row twice is the same problem as having it twice, and cheaper.
    """
    rows, drawn = _check(matrix, k, starts), np.asarray(counts, dtype=np.float64)
    columns, middle = _centre(rows)
    seeds = _draw_seeds(seed, len(drawn) * starts).reshape(-1, starts)

    def fit_some(part: slice) -> list[Floats]:
        kept = [kernels.kept(columns, count) for count in drawn[part]]
        each = zip(kept, seeds[part], strict=True)
        return [kernels.best_start(*seen, k, s, TOLERANCE, MAX_ITERATIONS)[0] for seen, s in each]

    found = spread(fit_some, len(seeds), drawn.size * k * starts)
    return np.stack([*chain(*found)]) + middle


def assign(matrix: ArrayLike, centres: ArrayLike) -> Labels:
    """Label each row of an (n, p) matrix with its nearest of k centres: (n,) int32 labels.

    A (b, k, p) stack of centres gives (b, n) labels. A tie goes to the lower label. A row's label
    does not depend on the rows beside it, to the last bit.
    """
    rows, stack = np.asarray(matrix, dtype=np.float64), np.asarray(centres, dtype=np.float64)
    each = np.ascontiguousarray(stack.reshape(-1, *stack.shape[-2:]))
    labels = np.empty((len(each), len(rows)), dtype=np.int32)

    def assign_some(part: slice) -> None:
        for first in range(part.start, part.stop, _PART):
            columns = np.ascontiguousarray(rows[first : min(first + _PART, part.stop)].T)
            found = np.zeros(columns.shape[1], np.int64)
            for label, middle in zip(labels[:, first:], each, strict=True):
                kernels.find_nearest(columns, middle, found, 0, len(found))
                label[: len(found)] = found

    spread(assign_some, len(rows), labels.size * stack.shape[-2])
    return labels if stack.ndim == 3 else labels[0]


def draw_rows(X: Rows, most: int, *, seed: int = 0) -> Rows:
    """A seeded sample of `most` rows of a frame or an array, in their order; all if no more.

    Examples
    --------
    >>> draw_rows(np.arange(10), 3, seed=0).tolist()
    [2, 7, 8]
    """
    return X.take(draw_positions(len(X), most, seed=seed), axis=0)


def draw_positions(n: int, most: int, *, seed: int) -> NDArray[np.intp]:
    """Draw `most` of n positions without replacement, sorted; all where there are no more."""
    if n <= most:
        return np.arange(n)
    return np.sort(stream(seed, "rows").choice(n, most, replace=False))


def stream(seed: int, purpose: str) -> np.random.Generator:
    """Open the random stream of one purpose, apart from every other one of the same seed."""
    return np.random.default_rng([seed, *purpose.encode()])


def spread(function: Callable[[slice], Any], count: int, work: int) -> list[Any]:
    """Call `function` on contiguous slices of range(count), one a processor, results in order.

    `work` is rows × segments × starts in all; a little of it stays on the calling thread, as does
    what is spread within one of these threads.
    """
    few = work < _WORTH_A_THREAD or current_thread().name.startswith(__name__)
    parts = 1 if few else max(1, min(joblib.cpu_count(), count))
    if parts == 1:
        return [function(slice(0, count))]
    slices = [slice(a, b) for a, b in pairwise(np.linspace(0, count, parts + 1).astype(int))]
    with ThreadPoolExecutor(parts, thread_name_prefix=__name__) as pool:
        return list(pool.map(function, slices))


def _check(matrix: ArrayLike, k: int, starts: int) -> Floats:
    rows = np.ascontiguousarray(matrix, dtype=np.float64)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise ValueError(f"the matrix must be n × p and finite, got shape {rows.shape}")
    if not 1 <= k <= len(rows) or starts < 1:
        raise ValueError(f"k must be 1…n_samples={len(rows)}, starts 1 or more: {k}, {starts}")
    return rows


def _weigh(sample_weight: ArrayLike | None, rows: Floats) -> Floats:
    return _check_sample_weight(sample_weight, rows, dtype=np.float64, ensure_non_negative=True)


def _centre(rows: Floats) -> tuple[Floats, Floats]:
    """The columns (p, n) less their means, and these."""
    middle = rows.mean(axis=0)
    return np.subtract(rows.T, middle[:, None], order="C"), middle


def _draw_seeds(seed: int, count: int) -> NDArray[np.uint64]:
    return stream(seed, "starts").integers(2**64, size=count, dtype=np.uint64)


def _polish(
    rows: tuple[Floats, Floats], centres: Floats, limits: tuple[float, int]
) -> tuple[Floats, float, int]:
    """Lloyd's iterations from some centres, part by part of the rows: centres, inertia, number.

    `rows` are columns (p, n) and weights (n,), `limits` tol and max_iter of `KMeans`.
    """
    n, moved = len(rows[1]), centres.copy()
    labels, rest = np.full(n, -1), kernels.tolerance(*rows, limits[0])
    shift, done = np.inf, 0

    def step(some: slice) -> list[Any]:
        firsts = range(some.start * _PART, min(n, some.stop * _PART), _PART)
        return [kernels.step(*rows, moved, labels, a, min(n, a + _PART)) for a in firsts]

    while True:
        steps = spread(step, -(-n // _PART), n * len(moved))
        changed, inertia, sums, sizes = zip(*chain(*steps), strict=True)
        if not any(changed) or shift <= rest or done == limits[1]:
            return moved, float(sum(inertia)), done
        shift = kernels.settle(*rows, moved, labels, sum(sums), sum(sizes))
        done += 1
