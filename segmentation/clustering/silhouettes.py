"""The silhouette over the compiled loops, with scikit-learn's signatures."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_X_y

from segmentation.clustering import kernels
from segmentation.clustering.kernels import Floats
from segmentation.clustering.kmeans import spread

_PAIRS = 32  # so many distances take as long as a row and segment of a start


def silhouette_samples(X: ArrayLike, labels: ArrayLike, *, metric: str = "euclidean") -> Floats:
    """The silhouette (b − a) / max(a, b) of each row: (n,), as `sklearn.metrics` has it.

    a is the mean distance to the other rows of the own cluster, b that to the rows of the nearest
    other one; a row alone in its cluster has 0. Rousseeuw (1987).

    Raises
    ------
    ValueError
        If there are not 2 … n − 1 different labels, or the metric is not "euclidean".

    Examples
    --------
    >>> silhouette_samples([[0.0], [1.0], [9.0]], ["a", "a", "b"]).round(2).tolist()
    [0.89, 0.88, 0.0]
    """
    rows, given = check_X_y(X, labels, dtype=np.float64)
    if metric != "euclidean":
        raise ValueError(f'metric must be "euclidean", which this is compiled for, got {metric!r}')
    names, codes = np.unique(given, return_inverse=True)
    if not 1 < len(names) < len(rows):
        raise ValueError(f"labels must be 2…{len(rows) - 1} different ones, got {len(names)}")
    return measure_silhouettes(rows, codes)[0]


def measure_silhouettes(matrix: ArrayLike, solutions: ArrayLike) -> Floats:
    """The silhouette of every row under each of m labellings 0 … k − 1, (m, n) or (n,): (m, n).

    All labellings share one pass over the n² distances: rows with the same label in every one of
    them lie together, and their distances are added up once. One segment has no silhouette (NaN).
    """
    given = np.atleast_2d(np.asarray(solutions, dtype=np.int64))
    order = np.lexsort(given)
    rows = np.asarray(matrix, dtype=np.float64)[order]
    labels = np.ascontiguousarray(given[:, order])
    columns = np.ascontiguousarray((rows - rows.mean(axis=0)).T)
    ends = np.append((labels[:, 1:] != labels[:, :-1]).any(axis=0), True)
    counts = [np.bincount(each, minlength=int(labels.max()) + 1) for each in labels]
    sizes = np.array(counts, dtype=np.float64)

    def compare_some(part: slice) -> Floats:
        return kernels.silhouettes(columns, labels, ends, sizes, part.start, part.stop)

    values = np.empty(given.shape)
    parts = spread(compare_some, len(rows), len(rows) ** 2 // _PAIRS)
    values[:, order] = np.concatenate(parts, axis=1)
    return values
