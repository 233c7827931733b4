"""K-means in a compiled kernel: many small fits at once, with scikit-learn's behaviour.

Starts are greedy k-means++ (Arthur & Vassilvitskii 2007, 2 + ln k trials), the iterations Lloyd's,
and an empty cluster moves to the row farthest from its centre, as in `sklearn.cluster.KMeans`.
Every start owns a seeded random stream and threads share nothing, so one seed gives the same
labels on any number of threads. Many rows are started on a sample and polished as a whole. The only
module that imports numba.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, TypeVar, cast

import joblib
import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.signedinteger[Any]]
Function = TypeVar("Function", bound=Callable[..., Any])

MAX_ITERATIONS = 300
TOLERANCE = 1e-4
SAME_INERTIA, NEAR_INERTIA = 1e-6, 1e-3
"""Starts within so much of the best found it; many rows stop Lloyd before the last digits."""

STARTED = 50_000
"""Above so many rows the random starts run on a seeded sample of so many customers."""

_BLOCK = 256
_PART = 65_536
"""Rows of a large table that are taken, and added up, together, whatever the threads."""

_WORTH_A_THREAD = 100_000
_PAIRS = 32
"""So many distances take as long as a row and segment of a start."""


@dataclass(frozen=True)
class Fit:
    """The best of many starts: `k` centres in the units of the matrix, and a label a row.

    Attributes
    ----------
    centres : (k, p) array
    labels : (n,) int32 array of 0 … k − 1, numbered as found
    inertia : float
        Weighted sum of squared distances to the own centre.
    best_share : float
        Share of the starts whose inertia is within a relative 1e-6 of the best. Above 50 000 rows
        the share of the starts on the sample that come within 1e-3 of the best of them.
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

    Above 50 000 rows the starts run on a seeded sample of as many customers, drawn by weight, and
    Lloyd's iterations go on from the best of them over all rows.

    Parameters
    ----------
    matrix : (n, p) array
        Rows in the units that the distance is to see; finite.
    k : int
        1 … n − 1, or n where the weights stand for more customers.
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
    columns, weight = _kept(columns, weight)
    if centres is not None:
        found, inertia = _start_centres(centres, k, rows) - middle, np.zeros(1)
    else:
        found, inertia = _best_of(*_draw(columns, weight, seed), k, _seeds(seed, starts), threads)
    many, best = len(weight) > STARTED, float(inertia.min())
    share = float(np.mean(inertia <= best * (1 + (NEAR_INERTIA if many else SAME_INERTIA))))
    if many or centres is not None:
        found, best = _polish(columns, weight, found, threads)
    return Fit(found + middle, assign(rows, found + middle, threads=threads), best, share)


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
    rows, _ = _checked(matrix, k, starts, None)
    fit = resamples.shape[1] == len(rows) and np.isfinite(resamples.sum())
    if not (fit and resamples.min(initial=0.0) >= 0 and (resamples.sum(axis=1) > 0).all()):
        raise ValueError("every resample needs weights ≥ 0 with a positive sum")
    columns, middle = _centred(rows)
    seeds = _seeds(seed, len(resamples) * starts).reshape(-1, starts)
    work = rows.shape[0] * k * seeds.size

    def fit_some(part: slice) -> Floats:
        return _fit_resamples(columns, resamples[part], k, seeds[part])

    return np.concatenate(spread(fit_some, len(seeds), threads, work)) + middle


def assign(matrix: ArrayLike, centres: ArrayLike, *, threads: int | None = 1) -> Labels:
    """Label each row of an (n, p) matrix with its nearest of k centres: (n,) int32 labels.

    A (b, k, p) stack of centres gives (b, n) labels. A tie goes to the lower label. A row's label
    does not depend on the rows beside it, to the last bit.
    """
    rows, stack = np.asarray(matrix, dtype=np.float64), np.asarray(centres, dtype=np.float64)
    each = np.ascontiguousarray(stack.reshape(-1, *stack.shape[-2:]))
    labels = np.empty((len(each), len(rows)), dtype=np.int32)

    def assign_some(part: slice) -> None:
        for first in range(part.start, part.stop, _PART):
            last = min(first + _PART, part.stop)
            labels[:, first:last] = _assign(np.ascontiguousarray(rows[first:last].T), each)

    spread(assign_some, len(rows), threads, labels.size * stack.shape[-2])
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


def silhouettes(
    matrix: ArrayLike,
    solutions: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    threads: int | None = None,
) -> Floats:
    """Give the silhouette of every row under each of m labellings: (m, n), as in scikit-learn.

    All labellings share one pass over the n² distances: rows with the same label in every one of
    them lie together, and their distances are added up once. A row alone in its segment has 0,
    and a labelling with one segment is undefined (NaN). Rousseeuw (1987).

    Parameters
    ----------
    solutions : (m, n) array
        Labels 0 … k − 1.
    weights : (n,) array, optional
        How many customers each row stands for, at no distance from each other.
    threads : int, optional
        As many as there are processors; the answer does not depend on it.
    """
    given = np.atleast_2d(np.asarray(solutions, dtype=np.int64))
    order = np.lexsort(given)
    labels, n = np.ascontiguousarray(given[:, order]), len(order)
    columns, _ = _centred(np.asarray(matrix, dtype=np.float64)[order])
    weight = weigh(n, weights)[order]
    ends = np.append((labels[:, 1:] != labels[:, :-1]).any(axis=0), True)
    counts = [np.bincount(each, weight, int(labels.max()) + 1) for each in labels]
    sizes = np.array(counts, dtype=np.float64)

    def compare_some(part: slice) -> Floats:
        return _silhouettes(columns, weight, labels, ends, sizes, part.start, part.stop)

    values = np.empty(given.shape)
    parts = spread(compare_some, n, threads, n * n // _PAIRS)
    values[:, order] = np.concatenate(parts, axis=1)
    return values


def weigh(n: int, weights: ArrayLike | None) -> Floats:
    """How many customers each of n rows stands for: (n,), one each where nothing else is given."""
    return np.ones(n) if weights is None else np.array(weights, dtype=np.float64)


def draw_rows(n: int, *, limit: int, weights: ArrayLike | None = None, seed: int = 0) -> Labels:
    """Draw `limit` of the customers that n rows stand for, one each or `weights`: sorted rows.

    Without replacement among customers, so that a row may come up as often as it stands for; all
    customers where there are no more than `limit`.
    """
    ends = None if weights is None else np.cumsum(np.asarray(weights, dtype=np.float64))
    total = n if ends is None else int(ends[-1])
    rng = stream(seed, "rows")
    drawn = np.arange(total) if total <= limit else np.sort(rng.choice(total, limit, replace=False))
    return drawn if ends is None else np.searchsorted(ends, drawn, side="right")


def stream(seed: int, purpose: str) -> np.random.Generator:
    """Open the random stream of one purpose, apart from every other one of the same seed."""
    return np.random.default_rng([seed, *purpose.encode()])


def _checked(
    matrix: ArrayLike, k: int, starts: int, weights: ArrayLike | None
) -> tuple[Floats, Floats]:
    rows = np.ascontiguousarray(matrix, dtype=np.float64)
    if rows.ndim != 2 or not rows.size or not np.isfinite(rows).all():
        raise ValueError(f"matrix must be n × p and finite, got shape {rows.shape}")
    if starts < 1:
        raise ValueError(f"starts must be 1 or more, got {starts}")
    weight = weigh(len(rows), weights)
    if weight.shape != rows.shape[:1] or not np.isfinite(weight).all():
        raise ValueError(f"weights must be {len(rows)} finite numbers, got shape {weight.shape}")
    if weight.min() < 0 or weight.sum() == 0:
        raise ValueError(f"weights must be ≥ 0 with a positive sum, got {weight.min():g} as least")
    most = max(1, len(rows) - int(weight.sum() <= len(rows)))
    if not 1 <= k <= most:
        raise ValueError(f"k must be 1…{most} for {len(rows)} customers, got {k}")
    return rows, weight


def _start_centres(centres: ArrayLike, k: int, rows: Floats) -> Floats:
    start = np.array(centres, dtype=np.float64)
    if start.shape != (k, rows.shape[1]):
        raise ValueError(f"centres must be {k} × {rows.shape[1]}, got {start.shape}")
    return start


def _centred(rows: Floats) -> tuple[Floats, Floats]:
    middle, columns = rows.mean(axis=0), np.empty(rows.shape[::-1])
    np.subtract(rows.T, middle[:, None], out=columns)
    return columns, middle


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
    def run(part: slice) -> tuple[Floats, Floats]:
        return _best_start(columns, weights, k, seeds[part])

    found = spread(run, len(seeds), threads, columns.shape[1] * k * len(seeds))
    centres, _ = min(found, key=lambda part: part[1].min())
    return centres, np.concatenate([inertia for _, inertia in found])


def _draw(columns: Floats, weights: Floats, seed: int) -> tuple[Floats, Floats]:
    """What the starts see: all rows of a small table, a sample of the customers of a large one."""
    if (n := len(weights)) <= STARTED:
        return columns, weights
    customers = weights * max(1.0, n / weights.sum())
    drawn = draw_rows(n, limit=STARTED, weights=customers, seed=seed)
    rows, counts = np.unique(drawn, return_counts=True)
    return np.take(columns, rows, axis=1), counts.astype(np.float64)


def _polish(
    columns: Floats, weights: Floats, centres: Floats, threads: int | None
) -> tuple[Floats, float]:
    """Run Lloyd's iterations from some centres, part by part of the rows: centres, inertia."""
    moved, labels, n = centres.copy(), np.full(len(weights), -1), len(weights)
    tolerance, shift = _tolerance(columns, weights), np.inf

    def step(some: slice) -> list[Any]:
        firsts = range(some.start * _PART, min(n, some.stop * _PART), _PART)
        return [_step(columns, weights, moved, labels, a, min(n, a + _PART)) for a in firsts]

    for left in range(MAX_ITERATIONS, -1, -1):
        steps = spread(step, -(-n // _PART), threads, n * len(moved))
        changed, inertia, sums, sizes = zip(*chain(*steps), strict=True)
        if not any(changed) or shift <= tolerance or left == 0:
            break
        shift = _settle(columns, weights, moved, labels, sum(sums), sum(sizes))
    return moved, float(sum(inertia))


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
    if len(drawn) == len(weights):
        return columns, weights
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
def _nearest(columns: Floats, centres: Floats, labels: Labels, start: int, stop: int) -> bool:
    """Write the nearest centre of the rows start … stop − 1 (ties to the lower one); any change?"""
    size, changed = min(_BLOCK, stop - start), False
    distance, least, nearest = np.empty(size), np.empty(size), np.empty(size, np.int64)
    for first in range(start, stop, size):
        label = labels[first : min(first + size, stop)]
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
def _gather(
    columns: Floats, weights: Floats, labels: Labels, k: int, start: int, stop: int
) -> tuple[Floats, Floats]:
    """Add up the rows start … stop − 1 by segment: (k, p) weighted sums and (k,) weights."""
    sums, sizes = np.zeros((k, columns.shape[0])), np.zeros(k)
    for i in range(start, stop):
        sizes[labels[i]] += weights[i]
        for f in range(columns.shape[0]):
            sums[labels[i], f] += columns[f, i] * weights[i]
    return sums, sizes


@compiled
def _settle(
    columns: Floats, weights: Floats, centres: Floats, labels: Labels, sums: Floats, sizes: Floats
) -> float:
    """Move each centre, in place, to the mean of its rows; give the squared way they went."""
    shift = 0.0
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
def _inertia(
    columns: Floats, weights: Floats, centres: Floats, labels: Labels, start: int, stop: int
) -> float:
    total = 0.0
    for i in range(start, stop):
        for f in range(columns.shape[0]):
            total += weights[i] * (columns[f, i] - centres[labels[i], f]) ** 2
    return total


@compiled
def _step(
    columns: Floats, weights: Floats, centres: Floats, labels: Labels, start: int, stop: int
) -> tuple[bool, float, Floats, Floats]:
    """Label the rows start … stop − 1: whether any label changed, inertia, sums and sizes."""
    changed = _nearest(columns, centres, labels, start, stop)
    inertia = _inertia(columns, weights, centres, labels, start, stop)
    sums, sizes = _gather(columns, weights, labels, len(centres), start, stop)
    return changed, inertia, sums, sizes


@compiled
def _lloyd(columns: Floats, weights: Floats, centres: Floats, tolerance: float) -> float:
    """Move the centres, in place, until no label changes or they rest; give the inertia."""
    n, shift = columns.shape[1], np.inf
    labels = np.full(n, -1)
    for left in range(MAX_ITERATIONS, -1, -1):
        changed = _nearest(columns, centres, labels, 0, n)
        if not changed or shift <= tolerance or left == 0:
            break
        sums, sizes = _gather(columns, weights, labels, len(centres), 0, n)
        shift = _settle(columns, weights, centres, labels, sums, sizes)
    return _inertia(columns, weights, centres, labels, 0, n)


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
def _assign(columns: Floats, stack: Floats) -> Labels:
    labels = np.zeros((len(stack), columns.shape[1]), np.int64)
    for b in range(len(stack)):
        _nearest(columns, stack[b], labels[b], 0, columns.shape[1])
    return labels


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
def _silhouettes(
    columns: Floats,
    weights: Floats,
    labels: Labels,
    ends: NDArray[np.bool_],
    sizes: Floats,
    first: int,
    last: int,
) -> Floats:
    """Silhouettes of the rows first … last − 1; `ends` tells where rows of equal labels end."""
    m, n = labels.shape
    values, size = np.empty((m, last - first)), min(_BLOCK, last - first)
    sums = np.empty((m, sizes.shape[1], size))
    distance, group, row = np.empty(size), np.zeros(size), np.empty(len(columns))
    for start in range(first, last, size):
        away = distance[: min(size, last - start)]
        sums[:] = 0.0
        for j in range(n):
            row[:] = columns[:, j]
            _distances(columns, row, start, away)
            for i in range(len(away)):
                group[i] += weights[j] * np.sqrt(away[i])
            if ends[j]:
                _fold(group, labels[:, j], sums)
        for s in range(m):
            for i in range(len(away)):
                own = labels[s, start + i]
                values[s, start - first + i] = _silhouette(sums[s, :, i], sizes[s], own)
    return values


@compiled
def _fold(group: Floats, labels: Labels, sums: Floats) -> None:
    """Add a group's distances to the sums of its segment in each labelling, and clear them."""
    for s in range(len(labels)):
        total = sums[s, labels[s]]
        for i in range(len(group)):
            total[i] += group[i]
    group[:] = 0.0


@compiled
def _silhouette(sums: Floats, sizes: Floats, own: int) -> float:
    """Compare the mean distance to the own segment with that to the nearest other."""
    other = np.inf
    for j in range(len(sums)):
        if j != own and sizes[j] > 0:
            other = min(other, sums[j] / sizes[j])
    if other == np.inf:
        return np.nan
    if sizes[own] <= 1:
        return 0.0
    inside = sums[own] / (sizes[own] - 1)
    return (other - inside) / max(inside, other) if max(inside, other) > 0 else 0.0
