"""The compiled loops of K-means and of the silhouette: the only module that imports numba.

Tables come as (p, n) columns. Every start owns a seeded random stream and sums run in one order, so
that a seed gives the same answer on any number of threads and on every processor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.signedinteger[Any]]
Function = TypeVar("Function", bound=Callable[..., Any])

BLOCK = 256
BINS = 60  # of a density between two centres


def compiled(function: Function) -> Function:
    """Compile without the interpreter lock; keep the machine code where a folder can be written."""
    try:
        return cast(Function, njit(cache=True, nogil=True)(function))
    except RuntimeError:
        return cast(Function, njit(nogil=True)(function))


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
def kept(columns: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Keep the rows of positive weight: (p, m) columns and (m,) weights."""
    drawn = np.flatnonzero(weights)
    if len(drawn) == len(weights):
        return columns, weights
    return columns[:, drawn], weights[drawn]


@compiled
def tolerance(columns: Floats, weights: Floats, tol: float) -> float:
    """The squared way of the centres below which they rest: `tol` of the mean variance."""
    total, variance = weights.sum(), 0.0
    for f in range(columns.shape[0]):
        mean = _dot(weights, columns[f]) / total
        for i in range(columns.shape[1]):
            variance += weights[i] * (columns[f, i] - mean) ** 2 / total
    return tol * variance / columns.shape[0]


@compiled
def _distances(columns: Floats, centre: Floats, first: int, out: Floats) -> None:
    """Write the squared distances of the rows from `first` on to one centre."""
    out[:] = 0.0
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
def find_nearest(columns: Floats, centres: Floats, labels: Labels, start: int, stop: int) -> bool:
    """Write the nearest centre of the rows start … stop − 1 (ties to the lower one); any change?"""
    size, changed = min(BLOCK, stop - start), False
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
def step(
    columns: Floats, weights: Floats, centres: Floats, labels: Labels, start: int, stop: int
) -> tuple[bool, float, Floats, Floats]:
    """Label the rows start … stop − 1: any change? Inertia, (k, p) weighted sums, (k,) weights."""
    changed, inertia = find_nearest(columns, centres, labels, start, stop), 0.0
    sums, sizes = np.zeros(centres.shape), np.zeros(len(centres))
    for i in range(start, stop):
        label, weight = labels[i], weights[i]
        sizes[label] += weight
        for f in range(columns.shape[0]):
            sums[label, f] += columns[f, i] * weight
            inertia += weight * (columns[f, i] - centres[label, f]) ** 2
    return changed, inertia, sums, sizes


@compiled
def _relocate(
    columns: Floats, weights: Floats, old: Floats, labels: Labels, sums: Floats, sizes: Floats
) -> None:
    """Give each empty cluster the row farthest from its own centre (as scikit-learn does)."""
    n = columns.shape[1]
    far = np.array([np.sum((columns[:, i] - old[labels[i]]) ** 2) for i in range(n)])
    for empty in range(len(old)):
        i = int(np.argmax(far))
        if sizes[empty] == 0 and far[i] > 0:
            row, far[i] = columns[:, i] * weights[i], 0.0
            sums[labels[i]] -= row
            sizes[labels[i]] -= weights[i]
            sums[empty], sizes[empty] = row, weights[i]


@compiled
def settle(
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
def _lloyd(
    columns: Floats, weights: Floats, centres: Floats, rest: float, max_iter: int
) -> tuple[float, int]:
    """Move the centres, in place, until no label changes or they rest: inertia, iterations."""
    n, shift, inertia = columns.shape[1], np.inf, 0.0
    labels = np.full(n, -1)
    for done in range(max_iter + 1):
        changed, inertia, sums, sizes = step(columns, weights, centres, labels, 0, n)
        if not changed or shift <= rest or done == max_iter:
            break
        shift = settle(columns, weights, centres, labels, sums, sizes)
    return inertia, done


@compiled
def best_start(
    columns: Floats, weights: Floats, k: int, seeds: NDArray[np.uint64], tol: float, max_iter: int
) -> tuple[Floats, Floats, int]:
    """Run one start a seed: the centres of the best, the inertia of each, the best's iterations."""
    rest, inertia = tolerance(columns, weights, tol), np.empty(len(seeds))
    best, least, iterations = np.zeros((k, columns.shape[0])), np.inf, 0
    for s in range(len(seeds)):
        centres = _start(columns, weights, k, seeds[s : s + 1].copy())
        inertia[s], done = _lloyd(columns, weights, centres, rest, max_iter)
        if inertia[s] < least:
            best, least, iterations = centres, inertia[s], done
    return best, inertia, iterations


@compiled
def silhouettes(
    columns: Floats, labels: Labels, ends: NDArray[np.bool_], sizes: Floats, first: int, last: int
) -> Floats:
    """Silhouettes of the rows first … last − 1; `ends` tells where rows of equal labels end."""
    m, n = labels.shape
    values, size = np.empty((m, last - first)), min(BLOCK, last - first)
    sums = np.empty((m, sizes.shape[1], size))
    distance, group, row = np.empty(size), np.zeros(size), np.empty(len(columns))
    for start in range(first, last, size):
        away = distance[: min(size, last - start)]
        sums[:] = 0.0
        for j in range(n):
            row[:] = columns[:, j]
            _distances(columns, row, start, away)
            for i in range(len(away)):
                group[i] += np.sqrt(away[i])
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
    if other == np.inf or sizes[own] <= 1:
        return np.nan if other == np.inf else 0.0
    inside = sums[own] / (sizes[own] - 1)
    return (other - inside) / max(inside, other) if max(inside, other) > 0 else 0.0


@compiled
def valleys(columns: Floats, labels: Labels, centres: Floats) -> Floats:
    """The depth of the valley between the segments a < b, at [a, b]; NaN where no neighbours."""
    k = len(centres)
    depths = np.full((k, k), np.nan)
    for i in range(columns.shape[1]):
        first, second, least, next_least = 0, 0, np.inf, np.inf
        for j in range(k):
            away = 0.0
            for f in range(len(columns)):
                away += (columns[f, i] - centres[j, f]) ** 2
            if away < least:
                first, second, least, next_least = j, first, away, least
            elif away < next_least:
                second, next_least = j, away
        depths[min(first, second), max(first, second)] = 0.0
    for a in range(k):
        depths[a, a] = np.nan
        for b in range(a + 1, k):
            if depths[a, b] == 0.0:
                depths[a, b] = _depth(columns, labels, centres, a, b)
    return depths


@compiled
def _depth(columns: Floats, labels: Labels, centres: Floats, a: int, b: int) -> float:
    """The same of two segments; on their line the centre of a lies at 0, that of b at 1."""
    way = centres[b] - centres[a]
    length, size, counts = _dot(way, way), np.zeros(2), np.zeros(3 * BINS)
    total, squares = np.zeros(2), np.zeros(2)
    for i in range(columns.shape[1]):
        if labels[i] == a or labels[i] == b:
            place, own = 0.0, int(labels[i] == b)
            for f in range(len(way)):
                place += (columns[f, i] - centres[a, f]) * way[f] / length
            size[own] += 1
            total[own] += place
            squares[own] += place * place
            if -1 <= place < 2:
                counts[int((place + 1) * BINS)] += 1
    if size.min() == 0:
        return 0.0
    inside = (squares - total * total / size).sum() / size.sum()
    density = _smooth(counts, max(0.9 * np.sqrt(max(inside, 0.0)) * size.sum() ** -0.2 * BINS, 0.3))
    middle = len(density) // 2
    left, right = np.argmax(density[:middle]), middle + np.argmax(density[middle:])
    peak = min(density[left], density[right])
    return 1 - density[left : right + 1].min() / peak if peak > 0 else 0.0


@compiled
def _smooth(counts: Floats, width: float) -> Floats:
    """Gaussian kernels of some width, in bins, cut at four of it."""
    reach, density = int(np.ceil(4 * width)), np.zeros(len(counts))
    weights = np.exp(-0.5 * (np.arange(reach + 1) / width) ** 2)
    for i in range(len(counts)):
        if counts[i] > 0:
            for j in range(max(0, i - reach), min(len(counts), i + reach + 1)):
                density[j] += counts[i] * weights[abs(i - j)]
    return density
