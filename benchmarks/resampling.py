"""The resampling of the bundled table beside the same analysis in scikit-learn loops.

    python benchmarks/resampling.py

Ours runs whole; of the peer's resamples a tenth is timed and its time multiplied by ten. Both in
turn in one run; medians and their ratio are printed.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from comparisons import Row, alternate, compare, time_call, write_table
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, silhouette_score
from sklearn.preprocessing import StandardScaler

from segmentation.clustering import null, stability
from segmentation.customers import read_card, read_customers

KS = range(2, 11)
TENTH = 10


def fit(rows: np.ndarray, k: int, starts: int) -> KMeans:
    return KMeans(k, n_init=starts, random_state=0).fit(rows)


def draw_bootstrap(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(len(rows), size=len(rows))


def peer_ari(rows: np.ndarray, pairs: int, starts: int, rng: np.random.Generator) -> None:
    """Bootstrap pairs, everyone predicted by both fits."""
    for k in KS:
        for _ in range(pairs):
            one, two = (fit(rows[draw_bootstrap(rows, rng)], k, starts) for _ in range(2))
            adjusted_rand_score(one.predict(rows), two.predict(rows))


def peer_strength(rows: np.ndarray, halvings: int, starts: int, rng: np.random.Generator) -> None:
    """Halves that predict each other: pairs kept together, the worst segment."""
    for k in KS:
        for _ in range(halvings):
            order = rng.permutation(len(rows))
            halves = rows[order[::2]], rows[order[1::2]]
            fits = [fit(half, k, starts) for half in halves]
            for own, other, half in zip(fits, fits[::-1], halves, strict=True):
                predicted = other.predict(half)
                [_kept(predicted[own.labels_ == h]) for h in range(k)]


def _kept(labels: np.ndarray) -> float:
    counts = np.bincount(labels)
    return float((counts * (counts - 1)).sum() / max(1, len(labels) * (len(labels) - 1)))


def peer_jaccard(rows: np.ndarray, resamples: int, starts: int, rng: np.random.Generator) -> None:
    """Bootstrap without duplicates, each segment's best match."""
    for k in KS:
        own = fit(rows, k, starts).labels_
        for _ in range(resamples):
            drawn = np.unique(draw_bootstrap(rows, rng))
            new = fit(rows[drawn], k, starts).labels_
            for h in range(k):
                members = own[drawn] == h
                max((members & (new == j)).sum() / (members | (new == j)).sum() for j in range(k))


def peer_null(rows: np.ndarray, draws: int, rng: np.random.Generator) -> None:
    """The figures of structureless tables, with the null's counts (the draws are ours)."""
    for table in (null.fit_null(rows).draw(len(rows), seed=seed) for seed in range(draws)):
        for k in KS:
            silhouette_score(table, fit(table, k, 10).labels_)
        peer_strength(table, 20, 10, rng)
        peer_ari(table, 10, 10, rng)


def run_peer(rows: np.ndarray, part: int = TENTH) -> float:
    """Seconds of the whole analysis in scikit-learn loops, from a part of its resamples."""
    rng, many = np.random.default_rng(0), 100 // part
    parts = [
        lambda: peer_ari(rows, many, 20, rng),
        lambda: peer_strength(rows, max(1, many // 2), 20, rng),
        lambda: peer_jaccard(rows, many, 20, rng),
    ]
    null, _ = time_call(lambda: peer_null(rows, 2, rng))
    return part * sum(time_call(call)[0] for call in parts) + 99 / 2 * null


def run_ours(rows: np.ndarray) -> float:
    """Seconds of the same analysis in the package."""
    shares = pd.Series(0.1, index=[*KS])
    return time_call(lambda: (stability.resample(rows, KS), null.gate_cuts(rows, KS, shares)))[0]


def measure(part: int = TENTH, *, rounds: int = 3) -> list[Row]:
    """One row: ours whole, the peer's from a tenth of its resamples and 2 of 99 null draws."""
    card = read_card("data/mall_customers.yaml")
    table = read_customers(card).table[[*card.features]]
    rows = StandardScaler().fit_transform(table)
    null.warm_up()
    ways = [lambda: run_ours(rows), lambda: run_peer(rows, part)]
    what = "all resamples of the bundled table; scikit-learn loops, from a tenth of them"
    return [compare("resampling", *alternate(ways, rounds), what)]


def main() -> None:
    """Run both in turn and print the row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often each runs, in turn")
    print(write_table(measure(rounds=parser.parse_args().rounds)))


if __name__ == "__main__":
    main()
