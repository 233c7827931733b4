"""The silhouettes of K = 2 … 10 together beside scikit-learn's `silhouette_score`, once per K.

    python benchmarks/silhouettes.py [--rows 200 2000 10000] [--rounds 3]

Both in turn in one run, after a first call each; medians and their ratio are printed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import silhouette_score

from segmentation import kmeans

KS = range(2, 11)
FEATURES = 3


def time_call(call: Callable[[], Any]) -> tuple[float, Any]:
    """The seconds that a call takes, and what it gives."""
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def measure_rows(rows: int, *, rounds: int) -> dict[str, Any]:
    """Time both on one table of so many rows; they must give the same means."""
    matrix = np.random.default_rng(rows).normal(size=(rows, FEATURES))
    solutions = np.stack([kmeans.fit(matrix, k, starts=5).labels for k in KS])

    def run_ours() -> list[float]:
        return list(kmeans.silhouettes(matrix, solutions).mean(axis=1))

    def run_peer() -> list[float]:
        return [silhouette_score(matrix, labels) for labels in solutions]

    np.testing.assert_allclose(run_ours(), run_peer(), atol=1e-8)
    pairs = [(time_call(run_ours)[0], time_call(run_peer)[0]) for _ in range(rounds)]
    ours, peer = (median(times) for times in zip(*pairs, strict=True))
    what = f"seconds, {rows:,} rows × {FEATURES}, K = {KS[0]} … {KS[-1]} together"
    return {"name": "silhouettes", "ours": ours, "peer": peer, "ratio": peer / ours, "what": what}


def measure(
    sizes: Sequence[int] = (200, 2_000, 10_000), *, rounds: int = 3
) -> list[dict[str, Any]]:
    """One row a size: name, ours, peer, ratio, what."""
    return [measure_rows(rows, rounds=rounds) for rows in sizes]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[200, 2_000, 10_000])
    parser.add_argument("--rounds", type=int, default=3, help="how often each runs, in turn")
    chosen = parser.parse_args()
    found = measure(chosen.rows, rounds=chosen.rounds)
    print(pd.DataFrame(found).to_markdown(index=False, floatfmt=".4g"))


if __name__ == "__main__":
    main()
