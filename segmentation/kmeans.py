"""K-means with many starts: the best fit, and how many of the starts found it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.cluster import KMeans

STARTS = 20


@dataclass(frozen=True)
class Fit:
    """The best of many starts: centres (k, p), labels (n,), inertia and the share that found it."""

    centres: NDArray[np.float64]
    labels: NDArray[np.int64]
    inertia: float
    best_share: float


def fit(matrix: ArrayLike, k: int, *, starts: int = STARTS, seed: int = 0) -> Fit:
    """Fit K-means to a matrix (n, p) from many k-means++ starts and keep the lowest inertia."""
    matrix = np.asarray(matrix, dtype=float)
    seeds = np.random.SeedSequence(seed).generate_state(starts)
    fits = [KMeans(k, n_init=1, random_state=int(s)).fit(matrix) for s in seeds]
    inertias = np.array([one.inertia_ for one in fits])
    best = fits[int(inertias.argmin())]
    share = float(np.mean(inertias <= inertias.min() * (1 + 1e-6)))
    return Fit(best.cluster_centers_, best.labels_.astype(np.int64), float(inertias.min()), share)
