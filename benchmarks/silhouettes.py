"""The silhouettes of K = 2 … 10 together beside scikit-learn's `silhouette_score`, once per K.

    python benchmarks/silhouettes.py [--rows 200 2000 10000] [--rounds 3]

Both in turn in one run, after a first call of ours; medians and their ratio are printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
from comparisons import Row, alternate, compare, time_call, write_table
from sklearn.metrics import silhouette_score

from segmentation.clustering import kmeans
from segmentation.clustering.silhouettes import measure_silhouettes

KS = range(2, 11)
FEATURES = 3
QUICK = 2_000
"""Up to so many rows a round takes no time, so that five are taken for one."""

BOUNDS = {200: 1, 10_000: 50}
"""How many times as fast as the peer ours is to be, by the number of rows."""


def measure_rows(rows: int, *, rounds: int) -> Row:
    """Time both on one table of so many rows; they must give the same means."""
    matrix = np.random.default_rng(rows).normal(size=(rows, FEATURES))
    solutions = np.stack([kmeans.fit(matrix, k, starts=5).labels for k in KS])

    def run_ours() -> list[float]:
        return list(measure_silhouettes(matrix, solutions).mean(axis=1))

    def run_peer() -> list[float]:
        return [silhouette_score(matrix, labels) for labels in solutions]

    run_ours()  # compiles
    answers = {}

    def time_way(way: Callable[[], list[float]]) -> float:
        seconds, answers[way] = time_call(way)
        return seconds

    ways = [lambda way=way: time_way(way) for way in (run_ours, run_peer)]
    seconds = alternate(ways, rounds if rows > QUICK else 5 * rounds)
    np.testing.assert_allclose(answers[run_ours], answers[run_peer], atol=1e-8)
    what = f"{rows:,} rows × {FEATURES}, K = {KS[0]} … {KS[-1]} together; scikit-learn, K by K"
    least = BOUNDS.get(rows)
    return compare(f"silhouettes, {rows:,} rows", *seconds, what, least=least)


def measure(sizes: Sequence[int] = (200, 2_000, 10_000), *, rounds: int = 3) -> list[Row]:
    """One row a size."""
    return [measure_rows(rows, rounds=rounds) for rows in sizes]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[200, 2_000, 10_000])
    parser.add_argument("--rounds", type=int, default=3, help="how often each runs, in turn")
    chosen = parser.parse_args()
    print(write_table(measure(chosen.rows, rounds=chosen.rounds)))


if __name__ == "__main__":
    main()
