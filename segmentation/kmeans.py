"""K-means in a compiled kernel: many small fits at once, with scikit-learn's behaviour.

Starts are greedy k-means++ (Arthur & Vassilvitskii 2007, 2 + ln k trials), the iterations Lloyd's,
and an empty cluster moves to the row farthest from its centre, as in `sklearn.cluster.KMeans`.
Every start owns a seeded random stream and threads share nothing, so one seed gives the same
labels on any number of threads. The only module that imports numba.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar, cast

import joblib
import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Function = TypeVar("Function", bound=Callable[..., Any])

MAX_ITERATIONS = 300
TOLERANCE = 1e-4
SAME_INERTIA = 1e-6
_BLOCK = 256
_WORTH_A_THREAD = 100_000


@dataclass(frozen=True)
class Fit:
    """The best of many starts: `k` centres in the units of the matrix, and a label a row.

    Attributes
    ----------
    centres : (k, p) array
    labels : (n,) array of 0 … k − 1, numbered as found
    inertia : float
        Weighted sum of squared distances to the own centre.
    best_share : float
        Share of the starts whose inertia is within a relative 1e-6 of the best.
    """

    centres: Floats
    labels: Labels
    inertia: float
    best_share: float


def fit(
    matrix: ArrayLike,
    k: int,
    *,
    starts: int = 20,
    seed: int = 0,
    weights: ArrayLike | None = None,
    centres: ArrayLike | None = None,
    threads: int | None = None,
) -> Fit:
    """Cluster an (n, p) matrix into `k` segments: the best of `starts` K-means runs.

    Parameters
    ----------
    matrix : (n, p) array
        Rows in the units that the distance is to see; finite.
    k : int
        1 … n − 1.
    weights : (n,) array, optional
        Non-negative weight of each row; rows of weight 0 get a label but move no centre.
    centres : (k, p) array, optional
        Start once from these centres instead of `starts` random times.
    threads : int, optional
        As many as there are processors; the answer does not depend on it.

    Raises
    ------
    ValueError
        If `k`, `starts`, `weights` or `centres` do not fit the matrix, or a value is not finite.
    """
    rows, weight = _checked(matrix, k, starts, weights)
    columns, middle = _centred(rows)
    if centres is None:
        found, inertia = _best_of(columns, weight, k, _seeds(seed, starts), threads)
    else:
        found, inertia = _refined(columns, weight, _start_centres(centres, k, rows) - middle)
    best = float(inertia.min())
    share = float(np.mean(inertia <= best * (1 + SAME_INERTIA)))
    return Fit(found + middle, assign(rows, found + middle), best, share)


def fit_many(
    matrix: ArrayLike,
    k: int,
    weights: ArrayLike,
    *,
    starts: int = 20,
    seed: int = 0,
    threads: int | None = None,
) -> Floats:
    """Cluster b weightings of one (n, p) matrix: the best centres of each, (b, k, p).

    A row of the (b, n) `weights` is one resample: how often each customer was drawn, 0 for not at
    all. Counting a row twice is the same problem as having it twice, and cheaper.

    Raises
    ------
    ValueError
        As `fit`; also if a resample draws nobody.
    """
    resamples = np.atleast_2d(np.asarray(weights, dtype=np.float64))
    rows, _ = _checked(matrix, k, starts, resamples.sum(axis=0))
    if not (resamples.min(initial=0.0) >= 0 and (resamples.sum(axis=1) > 0).all()):
        raise ValueError("every resample needs weights ≥ 0 with a positive sum")
    columns, middle = _centred(rows)
    seeds = _seeds(seed, len(resamples) * starts).reshape(-1, starts)
    work = rows.shape[0] * k * seeds.size

    def fit_some(part: slice) -> Floats:
        return _fit_resamples(columns, resamples[part], k, seeds[part])

    return np.concatenate(spread(fit_some, len(seeds), threads, work)) + middle


def assign(matrix: ArrayLike, centres: ArrayLike) -> Labels:
    """Label each row of an (n, p) matrix with its nearest of k centres: (n,) labels.

    A (b, k, p) stack of centres gives (b, n) labels. A tie goes to the lower label. A row's label
    does not depend on the rows beside it, to the last bit.
    """
    stack = np.asarray(centres, dtype=np.float64)
    columns = np.ascontiguousarray(np.asarray(matrix, dtype=np.float64).T)
    each = np.ascontiguousarray(stack.reshape(-1, *stack.shape[-2:]))
    labels = np.zeros((len(each), columns.shape[1]), dtype=np.int64)
    _assign(columns, each, labels)
    return labels if stack.ndim == 3 else labels[0]


def nearest_two(matrix: ArrayLike, centres: ArrayLike) -> tuple[Labels, Labels, Floats, Floats]:
    """Find the nearest and the second nearest of k centres for each row of an (n, p) matrix.

    Both labels and both distances, each (n,); a tie goes to the lower label. With one centre the
    second label is -1 and its distance infinite.
    """
    rows = np.ascontiguousarray(matrix, dtype=np.float64)
    labels, squares = np.empty((2, len(rows)), np.int64), np.empty((2, len(rows)))
    find_nearest_two(rows, np.ascontiguousarray(centres, dtype=np.float64), labels, squares)
    return labels[0], labels[1], np.sqrt(squares[0]), np.sqrt(squares[1])


def shade(nearest: Floats, second: Floats) -> Floats:
    """Shadow values 2·d1/(d1 + d2) from the distances (n,) to the two nearest centres.

    0 on the centroid, 1 on the border, or where both centres are at no distance. Leisch (2010).
    """
    with np.errstate(invalid="ignore"):
        shadow = 2 * nearest / (nearest + second)
    return np.where(nearest + second > 0, shadow, 1.0)


def silhouettes(matrix: ArrayLike, solutions: ArrayLike) -> Floats:
    """Give the silhouette of every row under each of m labellings: (m, n), as in scikit-learn.

    `solutions` is (m, n), labels 0 … k − 1; all share one pass over the n² distances. A row alone
    in its segment has 0, and a labelling with one segment is undefined (NaN). Rousseeuw (1987).
    """
    labels = np.atleast_2d(np.asarray(solutions, dtype=np.int64))
    columns, _ = _centred(np.asarray(matrix, dtype=np.float64))
    values: Floats = _silhouettes(columns, labels, int(labels.max()) + 1)
    return values


def stream(seed: int, purpose: str) -> np.random.Generator:
    """Open the random stream of one purpose, apart from every other one of the same seed."""
    return np.random.default_rng([seed, *purpose.encode()])


def _checked(
    matrix: ArrayLike, k: int, starts: int, weights: ArrayLike | None
) -> tuple[Floats, Floats]:
    rows = np.ascontiguousarray(matrix, dtype=np.float64)
    if rows.ndim != 2 or not rows.size or not np.isfinite(rows).all():
        raise ValueError(f"matrix must be n × p and finite, got shape {rows.shape}")
    most = max(1, len(rows) - 1)
    if not 1 <= k <= most:
        raise ValueError(f"k must be 1…{most} for {len(rows)} customers, got {k}")
    if starts < 1:
        raise ValueError(f"starts must be 1 or more, got {starts}")
    weight = np.ones(len(rows)) if weights is None else np.asarray(weights, dtype=np.float64)
    if weight.shape != rows.shape[:1] or not np.isfinite(weight).all():
        raise ValueError(f"weights must be {len(rows)} finite numbers, got shape {weight.shape}")
    if weight.min() < 0 or weight.sum() == 0:
        raise ValueError(f"weights must be ≥ 0 with a positive sum, got {weight.min():g} as least")
    return rows, weight


def _start_centres(centres: ArrayLike, k: int, rows: Floats) -> Floats:
    start = np.array(centres, dtype=np.float64)
    if start.shape != (k, rows.shape[1]):
        raise ValueError(f"centres must be {k} × {rows.shape[1]}, got {start.shape}")
    return start


def _centred(rows: Floats) -> tuple[Floats, Floats]:
    middle = rows.mean(axis=0)
    return np.ascontiguousarray((rows - middle).T), middle


def _seeds(seed: int, count: int) -> NDArray[np.uint64]:
    return stream(seed, "starts").integers(2**64, size=count, dtype=np.uint64)


def spread(
    function: Callable[[slice], Any], count: int, threads: int | None, work: int
) -> list[Any]:
    """Call `function` on contiguous slices of range(count), one a thread, results in order.

    `work` is rows × segments × starts in all; a little of it stays on the calling thread.
    """
    wanted = joblib.cpu_count() if threads is None else threads
    parts = 1 if work < _WORTH_A_THREAD else max(1, min(wanted, count))
    edges = np.linspace(0, count, parts + 1).astype(int)
    slices = [slice(a, b) for a, b in pairwise(edges)]
    if parts == 1:
        return [function(slices[0])]
    with ThreadPoolExecutor(parts) as pool:
        return list(pool.map(function, slices))


def _best_of(
    columns: Floats, weights: Floats, k: int, seeds: NDArray[np.uint64], threads: int | None
) -> tuple[Floats, Floats]:
    drawn, counted = _kept(columns, weights)

    def run(part: slice) -> tuple[Floats, Floats]:
        return _best_start(drawn, counted, k, seeds[part])

    found = spread(run, len(seeds), threads, drawn.shape[1] * k * len(seeds))
    centres, _ = min(found, key=lambda part: part[1].min())
    return centres, np.concatenate([inertia for _, inertia in found])


def _refined(columns: Floats, weights: Floats, centres: Floats) -> tuple[Floats, Floats]:
    drawn, counted = _kept(columns, weights)
    inertia = _lloyd(drawn, counted, centres, _tolerance(drawn, counted))
    return centres, np.array([inertia])


def compiled(function: Function) -> Function:
    """Compile without the interpreter lock; keep the machine code where a folder can be written."""
    compiled: Any
    try:
        compiled = njit(cache=True, nogil=True)(function)
    except RuntimeError:
        compiled = njit(nogil=True)(function)
    return cast(Function, compiled)


@compiled
def _uniform(state: NDArray[np.uint64]) -> float:
    """Draw from [0, 1) by SplitMix64 (Steele, Lea & Flood 2014)."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.float64((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


@compiled
def _dot(a: Floats, b: Floats) -> float:
    """Sum a·b in four strands: fast, and the same to the last bit on every processor."""
    n = len(a) - len(a) % 4
    s0 = s1 = s2 = s3 = 0.0
    for i in range(0, n, 4):
        s0 += a[i] * b[i]
        s1 += a[i + 1] * b[i + 1]
        s2 += a[i + 2] * b[i + 2]
        s3 += a[i + 3] * b[i + 3]
    for i in range(n, len(a)):
        s0 += a[i] * b[i]
    return (s0 + s1) + (s2 + s3)


@compiled
def _kept(columns: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Keep the customers of positive weight: (p, m) columns and (m,) weights."""
    drawn = np.flatnonzero(weights)
    kept = np.empty((columns.shape[0], len(drawn)))
    for f in range(columns.shape[0]):
        for i in range(len(drawn)):
            kept[f, i] = columns[f, drawn[i]]
    return kept, weights[drawn]


@compiled
def _tolerance(columns: Floats, weights: Floats) -> float:
    """Stop when the centres move by less than 1e-4 of the mean variance (squared distance)."""
    total, variance = weights.sum(), 0.0
    for f in range(columns.shape[0]):
        mean = _dot(weights, columns[f]) / total
        for i in range(columns.shape[1]):
            variance += weights[i] * (columns[f, i] - mean) ** 2 / total
    return TOLERANCE * variance / columns.shape[0]


@compiled
def _distances(columns: Floats, centre: Floats, first: int, out: Floats) -> None:
    """Write the squared distances of the rows from `first` on to one centre."""
    for i in range(len(out)):
        out[i] = 0.0
    for f in range(columns.shape[0]):
        column, middle = columns[f, first : first + len(out)], centre[f]
        for i in range(len(out)):
            gap = column[i] - middle
            out[i] += gap * gap


@compiled
def _pick(weights: Floats, nearest: Floats, total: float, state: NDArray[np.uint64]) -> int:
    """Draw a row with probability weight · squared distance to its nearest centre / total."""
    threshold = _uniform(state) * total
    for i in range(len(weights)):
        threshold -= weights[i] * nearest[i]
        if threshold < 0:
            return i
    return len(weights) - 1


@compiled
def _start(columns: Floats, weights: Floats, k: int, state: NDArray[np.uint64]) -> Floats:
    """Choose k start centres by greedy k-means++: the best of 2 + ln k candidates each."""
    n, centres = columns.shape[1], np.empty((k, columns.shape[0]))
    nearest, best, candidate = np.ones(n), np.empty(n), np.empty(n)
    centres[0] = columns[:, _pick(weights, nearest, _dot(weights, nearest), state)]
    _distances(columns, centres[0], 0, nearest)
    left = _dot(weights, nearest)
    for j in range(1, k):
        least = np.inf
        for _ in range(2 + int(np.log(k))):
            row = _pick(weights, nearest, left, state)
            _distances(columns, columns[:, row].copy(), 0, candidate)
            for i in range(n):
                candidate[i] = candidate[i] if candidate[i] < nearest[i] else nearest[i]
            total = _dot(weights, candidate)
            if total < least:
                least, best, candidate = total, candidate, best
                centres[j] = columns[:, row]
        nearest, best, left = best, nearest, least
    return centres


@compiled
def _nearest(columns: Floats, centres: Floats, labels: Labels) -> bool:
    """Write the nearest centre of every row (ties to the lower one); tell if any label changed."""
    size, changed = min(_BLOCK, len(labels)), False
    distance, least, nearest = np.empty(size), np.empty(size), np.empty(size, np.int64)
    for first in range(0, len(labels), size):
        label = labels[first : first + size]
        least[:], nearest[:] = np.inf, 0
        for j in range(len(centres)):
            _distances(columns, centres[j], first, distance[: len(label)])
            for i in range(len(label)):
                closer = distance[i] < least[i]
                least[i] = distance[i] if closer else least[i]
                nearest[i] = j if closer else nearest[i]
        for i in range(len(label)):
            changed |= label[i] != nearest[i]
            label[i] = nearest[i]
    return changed


@compiled
def _relocate(
    columns: Floats, weights: Floats, old: Floats, labels: Labels, sums: Floats, sizes: Floats
) -> None:
    """Give each empty cluster the row farthest from its own centre (as scikit-learn does)."""
    far = np.zeros(columns.shape[1])
    for i in range(len(far)):
        for f in range(columns.shape[0]):
            far[i] += (columns[f, i] - old[labels[i], f]) ** 2
    for empty in range(len(old)):
        i = int(np.argmax(far))
        if sizes[empty] == 0 and far[i] > 0:
            far[i] = 0.0
            sizes[labels[i]] -= weights[i]
            sizes[empty] = weights[i]
            for f in range(columns.shape[0]):
                sums[labels[i], f] -= columns[f, i] * weights[i]
                sums[empty, f] = columns[f, i] * weights[i]


@compiled
def _move(columns: Floats, weights: Floats, centres: Floats, labels: Labels) -> float:
    """Move each centre, in place, to the mean of its rows; give the squared way they went."""
    sums, sizes, shift = np.zeros(centres.shape), np.zeros(len(centres)), 0.0
    for i in range(columns.shape[1]):
        sizes[labels[i]] += weights[i]
        for f in range(columns.shape[0]):
            sums[labels[i], f] += columns[f, i] * weights[i]
    if sizes.min() == 0:
        _relocate(columns, weights, centres, labels, sums, sizes)
    for j in range(len(centres)):
        source = j if sizes[j] > 0 else int(np.argmax(sizes))
        for f in range(columns.shape[0]):
            mean = sums[source, f] / sizes[source]
            shift += (mean - centres[j, f]) ** 2
            centres[j, f] = mean
    return shift


@compiled
def _inertia(columns: Floats, weights: Floats, centres: Floats, labels: Labels) -> float:
    total = 0.0
    for i in range(columns.shape[1]):
        for f in range(columns.shape[0]):
            total += weights[i] * (columns[f, i] - centres[labels[i], f]) ** 2
    return total


@compiled
def _lloyd(columns: Floats, weights: Floats, centres: Floats, tolerance: float) -> float:
    """Move the centres, in place, until no label changes or they rest; give the inertia."""
    labels, shift = np.full(columns.shape[1], -1), np.inf
    for left in range(MAX_ITERATIONS, -1, -1):
        changed = _nearest(columns, centres, labels)
        if not changed or shift <= tolerance or left == 0:
            break
        shift = _move(columns, weights, centres, labels)
    return _inertia(columns, weights, centres, labels)


@compiled
def _best_start(
    columns: Floats, weights: Floats, k: int, seeds: NDArray[np.uint64]
) -> tuple[Floats, Floats]:
    """Run one start a seed: the centres of the best, and the inertia of each."""
    tolerance, inertia = _tolerance(columns, weights), np.empty(len(seeds))
    best, least = np.zeros((k, columns.shape[0])), np.inf
    for s in range(len(seeds)):
        centres = _start(columns, weights, k, seeds[s : s + 1].copy())
        inertia[s] = _lloyd(columns, weights, centres, tolerance)
        if inertia[s] < least:
            best, least = centres, inertia[s]
    return best, inertia


@compiled
def _fit_resamples(columns: Floats, weights: Floats, k: int, seeds: NDArray[np.uint64]) -> Floats:
    """Fit each row of the (b, n) weights with its own row of seeds: (b, k, p) centres."""
    centres = np.empty((len(weights), k, columns.shape[0]))
    for b in range(len(weights)):
        drawn, counted = _kept(columns, weights[b])
        centres[b], _ = _best_start(drawn, counted, k, seeds[b])
    return centres


@compiled
def _assign(columns: Floats, stack: Floats, labels: Labels) -> None:
    for b in range(len(stack)):
        _nearest(columns, stack[b], labels[b])


@compiled
def find_nearest_two(rows: Floats, centres: Floats, labels: Labels, squares: Floats) -> None:
    """The kernel of `nearest_two`: labels (2, n) and squared distances (2, n) are written."""
    for i in range(len(rows)):
        first, second, least, next_least = -1, -1, np.inf, np.inf
        for j in range(len(centres)):
            square = 0.0
            for f in range(rows.shape[1]):
                square += (rows[i, f] - centres[j, f]) ** 2
            if square < least:
                first, second, least, next_least = j, first, square, least
            elif square < next_least:
                second, next_least = j, square
        labels[0, i], labels[1, i], squares[0, i], squares[1, i] = first, second, least, next_least


@compiled
def _silhouettes(columns: Floats, labels: Labels, k: int) -> Floats:
    """Silhouette of each row under each labelling, all from one row of distances at a time."""
    m, n = labels.shape
    sizes, sums = np.zeros((m, k)), np.empty((m, k))
    for s in range(m):
        for i in range(n):
            sizes[s, labels[s, i]] += 1
    values, distance = np.empty((m, n)), np.empty(n)
    for i in range(n):
        _distances(columns, columns[:, i].copy(), 0, distance)
        distance[:] = np.sqrt(distance)
        sums[:] = 0.0
        for s in range(m):
            for j in range(n):
                sums[s, labels[s, j]] += distance[j]
            values[s, i] = _silhouette(sums[s], sizes[s], labels[s, i])
    return values


@compiled
def _silhouette(sums: Floats, sizes: Floats, own: int) -> float:
    """Compare the mean distance to the own segment with that to the nearest other."""
    other = np.inf
    for j in range(len(sums)):
        if j != own and sizes[j] > 0:
            other = min(other, sums[j] / sizes[j])
    if other == np.inf:
        return np.nan
    if sizes[own] == 1:
        return 0.0
    inside = sums[own] / (sizes[own] - 1)
    return (other - inside) / max(inside, other) if max(inside, other) > 0 else 0.0
