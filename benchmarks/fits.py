"""Fits on many rows beside scikit-learn's KMeans on all of them.

    python benchmarks/fits.py [--rows 10000000]

*sample*: 200,000 customers are drawn, 20 starts see 50,000 of them, the best is polished on the
sample, and all rows are given to its centres, chunk by chunk. *whole*: the same, polished on all
rows. The peer fits all rows with `n_init=10`. The best inertia known is the lowest of all three;
how far each lies above it is printed. *weighted*: 500,000 different rows standing for 100 million
customers, K = 1 … 10, ten starts each.
"""

from __future__ import annotations

import argparse

import numpy as np
from comparisons import Row, compare, read_peak, time_call, write_table
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from segmentation.clustering import kmeans

Table = NDArray[np.float64]
FEATURES, GROUPS, K = 8, 10, 10
CHUNK = 500_000
SAMPLE, STARTS, PEER_STARTS = 200_000, 20, 10
LEAST, MOST_ABOVE = 10, 0.02
"""At least so many times as fast as the peer; at most so many percent above the best inertia."""

DISTINCT, CUSTOMERS = 500_000, 100_000_000


def draw_table(rows: int, *, features: int = FEATURES, seed: int = 0) -> Table:
    """A table (rows, features) of overlapping groups, drawn in chunks."""
    rng = np.random.default_rng(seed)
    middles, table = rng.normal(size=(GROUPS, features)) * 1.5, np.empty((rows, features))
    for first in range(0, rows, CHUNK):
        part = table[first : first + CHUNK]
        rng.standard_normal(out=part)
        part += middles[rng.integers(GROUPS, size=len(part))]
    return table


def measure_inertia(table: Table, centres: Table) -> float:
    """The sum of squared distances of all rows to their nearest centre, chunk by chunk."""
    parts = (table[first : first + CHUNK] for first in range(0, len(table), CHUNK))
    return sum(
        float(((part - centres[kmeans.assign(part, centres, threads=None)]) ** 2).sum())
        for part in parts
    )


def fit_sample(table: Table) -> tuple[Table, float]:
    """Centres of a sample of the rows, and the inertia of all rows."""
    drawn = kmeans.draw_rows(len(table), limit=SAMPLE)
    centres = kmeans.fit(table[drawn], K, starts=STARTS).centres
    return centres, measure_inertia(table, centres)


def fit_whole(table: Table) -> tuple[Table, float]:
    """Centres of all rows, and their inertia."""
    fit = kmeans.fit(table, K, starts=STARTS)
    return fit.centres, fit.inertia


def fit_peer(table: Table) -> tuple[Table, float]:
    """The same of scikit-learn."""
    model = KMeans(K, n_init=PEER_STARTS, random_state=0).fit(table)
    return model.cluster_centers_, float(model.inertia_)


def measure_continuous(rows: int) -> list[Row]:
    """A row for seconds and one for the excess of inertia, of the sample and of all rows."""
    table = draw_table(rows)
    ours = {"sample": fit_sample, "whole": fit_whole}
    timed = {name: time_call(lambda fit=fit: fit(table)) for name, fit in ours.items()}
    seconds, (_, theirs) = time_call(lambda: fit_peer(table))
    polished = kmeans.fit(table, K, centres=timed["whole"][1][0]).inertia
    best = min(theirs, polished, *(inertia for _, (_, inertia) in timed.values()))
    what, size = (
        f"{rows:,} rows × {FEATURES}, K = {K}; scikit-learn, ten starts",
        f"{rows / 1e6:g} M",
    )
    found = []
    for name, (taken, (_, inertia)) in timed.items():
        found.append(compare(f"fit, {name}, {size}", taken, seconds, what, least=LEAST))
        excess, other = (100 * (value / best - 1) for value in (inertia, theirs))
        told = f"how far the inertia lies above the best known; {what}"
        found.append(
            compare(f"inertia, {name}, {size}", excess, other, told, unit="%", most=MOST_ABOVE)
        )
    return found


def measure_weighted(rows: int = DISTINCT) -> Row:
    """Seconds of K = 1 … 10 on a compressed table, ten starts each, and of the peer's."""
    table = draw_table(rows, features=3)
    weights = np.random.default_rng(1).geometric(rows / CUSTOMERS, rows).astype(float)

    def run_ours() -> None:
        for k in range(1, 11):
            kmeans.fit(table, k, starts=PEER_STARTS, weights=weights)

    def run_peer() -> None:
        for k in range(1, 11):
            KMeans(k, n_init=PEER_STARTS, random_state=0).fit(table, sample_weight=weights)

    what = f"{rows:,} weighted rows × 3, K = 1 … 10, ten starts; scikit-learn"
    seconds = [time_call(run)[0] for run in (run_ours, run_peer)]
    return compare(f"fit, weighted, {rows:,} rows", *seconds, what)


def measure(rows: int = 10_000_000, *, rounds: int = 1) -> list[Row]:  # noqa: ARG001
    """Rows of seconds and inertias. Of one round: the seconds are many enough."""
    kmeans.fit(draw_table(kmeans.STARTED + 1), 2, starts=2)  # compiles
    return [*measure_continuous(rows), measure_weighted(min(rows // 10, DISTINCT))]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    found = measure(parser.parse_args().rows)
    print(write_table(found))
    print(f"peak memory, the peer's included: {read_peak():,.0f} MiB")


if __name__ == "__main__":
    main()
