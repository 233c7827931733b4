"""From a Parquet file of millions of customers to the scored file, beside pandas + scikit-learn.

    python benchmarks/end_to_end.py [--rows 10000000] [--rounds 3]

The customers are made up by DuckDB: an id and three whole numbers, like the bundled table's. Ours
reads the card's table as the series does (checked, equal rows as one with their count), scales it,
fits K = 1 … 10 and the segmenter, and scores all rows where they are into a new Parquet file. The
peer reads all rows by pandas, scales them, fits K = 1 … 10 by scikit-learn with one start each,
predicts, and writes. Each runs in a process of its own, in turn: medians of its seconds, those of
its imports told apart, and of its peak memory with them. Ours also says distance, second,
confidence and status of each row.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from comparisons import Row, compare, read_peak, run_apart, time_call, write_table

if TYPE_CHECKING:
    import pandas as pd

    from segmentation.cards import Card
    from segmentation.scorer import Scorer

FEATURES = {"age": (18, 70), "income": (15, 137), "spending": (1, 100)}
GROUPS = ((54.0, 47.7, 40.0, 9.3, 14.5, 16.3), (25.4, 40.0, 60.3, 5.7, 16.9, 18.3))
GROUPS += ((32.9, 86.1, 81.5, 3.8, 16.1, 9.9), (39.4, 86.5, 19.6, 10.5, 16.5, 11.5))
"""Mean age, income and spending of the bundled table's segments, then their deviations."""

K, K_MAX = 4, 10
ALONE = 50_000_000
"""Beyond so many rows ours runs alone: the peer needs more memory than there is."""

BOUND_FROM = 10_000_000
LONGEST, HIGHEST = 60, 1_000
"""Seconds and MiB that 100 million rows may take."""

ALIKE = 0.99
"""Share of the customers that ours and the peer's must put into the same segments."""


# The customers -----------------------------------------------------------------------------


def write_customers(path: Path, rows: int) -> None:
    """Customers in a Parquet file: the same ones for the same number of rows."""
    import duckdb

    sizes = len(GROUPS)
    means = (f"[{', '.join(str(group[i]) for group in GROUPS)}]" for i in range(3))
    sds = (f"[{', '.join(str(group[i + 3]) for group in GROUPS)}]" for i in range(3))
    drawn = ", ".join(
        f"greatest({low}, least({high}, round({mean}[g] + {sd}[g] * {_normal(2 * i)})))::SMALLINT "
        f"AS {name}"
        for i, ((name, (low, high)), mean, sd) in enumerate(
            zip(FEATURES.items(), means, sds, strict=True)
        )
    )
    source = f"SELECT i, (1 + hash(i * 8 + 7) % {sizes})::INTEGER AS g FROM range({rows}) t(i)"
    with duckdb.connect() as db:
        db.execute("SET enable_progress_bar = false")
        db.execute("SET preserve_insertion_order = false")
        db.execute(f"COPY (SELECT i AS id, {drawn} FROM ({source})) TO '{path}' (FORMAT parquet)")


def _normal(place: int) -> str:
    """SQL of a standard normal draw for row i (Box & Muller 1958)."""
    one, two = (f"((hash(i * 8 + {place + j}) % 1000003 + 0.5) / 1000003)" for j in (0, 1))
    return f"(sqrt(-2 * ln({one})) * cos(2 * pi() * {two}))"


# The two ways ------------------------------------------------------------------------------


def run_ours(source: Path, target: Path, starts: int) -> list[float]:
    """Read, fit, score and write; the inertia of each K."""
    from segmentation import customers
    from segmentation.cards import Card

    wanted = {name: {"range": span} for name, span in FEATURES.items()}
    card = Card.model_validate(
        {"title": "Made up", "table": source.name, "id": "id", "features": wanted, "path": source}
    )
    inertias, scorer = fit_ours(customers.read_customers(card), card, starts)
    score_ours(source, target, scorer)
    return inertias


def fit_ours(table: pd.DataFrame, card: Card, starts: int) -> tuple[list[float], Scorer]:
    """The inertia of each K, and the scorer of the fitted segmenter."""
    from segmentation import customers, features, kmeans, segmenter

    weights = customers.count_customers(table)
    _, scaled = features.fit_preprocessor(table, card)
    ks = range(1, K_MAX + 1)
    fits = [kmeans.fit(scaled, k, starts=starts, weights=weights) for k in ks]
    inertias = [fit.inertia for fit in fits]
    del fits, scaled
    pipeline = segmenter.fit(table, card, k=K)
    limits = segmenter.measure_limits(pipeline, table, card)
    return inertias, segmenter.build_scorer(pipeline, card, limits)


def score_ours(source: Path, target: Path, scorer: Scorer) -> None:
    """Score all rows where they are, into a new file."""
    from segmentation import expressions, warehouse

    segments = [{"id": i, "name": f"Segment {i}"} for i in range(K)]
    scored = expressions.score_table(warehouse.open_file(source), scorer, segments)
    warehouse.save_file(scored, target)


def run_peer(source: Path, target: Path, starts: int) -> list[float]:
    """The same by pandas and scikit-learn, with everything in memory."""
    import pandas as pd
    from sklearn.cluster import KMeans
    from sklearn.preprocessing import StandardScaler

    table = pd.read_parquet(source)
    scaled = StandardScaler().fit_transform(table[[*FEATURES]])
    ks = range(1, K_MAX + 1)
    models = [KMeans(k, n_init=starts, random_state=0).fit(scaled) for k in ks]
    table["cluster"] = models[K - 1].predict(scaled)
    table.to_parquet(target, index=False)
    return [float(model.inertia_) for model in models]


def copy_columns(source: Path, target: Path, starts: int) -> list[float]:  # noqa: ARG001
    """The floor: a bare scan of the features, then columns like the scored ones, copied."""
    import duckdb

    near = "(hash(age * 8 + income) % 5)::BIGINT"
    made = f"{near} AS cluster, 'Segment ' || {near} AS segment, age / 7 AS distance, "
    made += f"'Segment ' || (4 - {near}) AS second, spending / 100 AS confidence, 'ok' AS status"
    with duckdb.connect() as db:
        db.execute("SET preserve_insertion_order = false")
        db.execute(f"SELECT {', '.join(f'sum({name})' for name in FEATURES)} FROM '{source}'")
        db.execute(f"COPY (SELECT *, {made} FROM '{source}') TO '{target}' (FORMAT parquet)")
    return []


OURS, ONE_START, PEER, FLOOR = "ours", "ours-one-start", "peer", "floor"
OUR_MODULES = ("ibis.backends.duckdb", "segmentation.segmenter")
WAYS: dict[str, tuple[Callable[[Path, Path, int], list[float]], int, tuple[str, ...]]] = {
    OURS: (run_ours, 10, OUR_MODULES),
    ONE_START: (run_ours, 1, OUR_MODULES),
    PEER: (run_peer, 1, ("pandas", "sklearn.cluster", "sklearn.preprocessing")),
    FLOOR: (copy_columns, 0, ("duckdb",)),
}
"""What each way calls, its starts, and what it imports."""


class Run(NamedTuple):
    """What a way took: its seconds, its peak in MiB, its inertias, the seconds of its imports."""

    seconds: float
    peak: float
    inertias: list[float]
    imports: float


# What they take ----------------------------------------------------------------------------


def run_here(name: str, folder: Path) -> None:
    """Print what one way takes."""
    way, starts, modules = WAYS[name]
    imports, _ = time_call(lambda: [import_module(module) for module in modules])
    seconds, inertias = time_call(
        lambda: way(folder / "customers.parquet", folder / f"{name}.parquet", starts)
    )
    print(json.dumps(Run(seconds, read_peak(), inertias, imports)))


def run_ways(rows: int, ways: Sequence[str], rounds: int) -> dict[str, Run]:
    """What each way takes, in turn: medians."""
    told: dict[str, list[Run]] = {way: [] for way in ways}
    with TemporaryDirectory(prefix="segmentation-bench-") as folder:
        run_apart(__file__, "--folder", folder, "--rows", rows)
        for _ in range(rounds):
            for way in ways:
                told[way].append(Run(*run_apart(__file__, "--folder", folder, "--way", way)))
        check_segments(Path(folder), ways)
    return {way: _find_middle(runs) for way, runs in told.items()}


def _find_middle(runs: Sequence[Run]) -> Run:
    seconds, peak, imports = (
        median(getattr(run, name) for run in runs) for name in ("seconds", "peak", "imports")
    )
    return Run(seconds, peak, runs[0].inertias, imports)


def check_segments(folder: Path, ways: Sequence[str]) -> None:
    """Refuse figures of ways that do not cut the customers alike, but for a few on the border."""
    import duckdb

    if PEER not in ways:
        return
    one, two = (f"'{folder}/{way}.parquet'" for way in (OURS, PEER))
    counted = f"SELECT a.cluster, count(*) AS n FROM {one} a JOIN {two} b USING (id) "
    best = f"SELECT max(n) AS n FROM ({counted} GROUP BY a.cluster, b.cluster) GROUP BY cluster"
    with duckdb.connect() as db:
        query = f"SELECT sum(n) / (SELECT count(*) FROM {one}) FROM ({best})"
        share = db.execute(query).fetchone()[0]
    if share < ALIKE:
        raise RuntimeError(f"only {share:.1%} of the customers are in the same segments")


def measure(rows: int = 1_000_000, *, rounds: int = 3) -> list[Row]:
    """Rows of seconds and of peak memory, and one of the inertia at K = 10."""
    alone = rows > ALONE
    runs = run_ways(rows, [OURS] if alone else [OURS, ONE_START, PEER], rounds)
    seconds, peak, inertias, imports = runs[OURS]
    what = f"{rows:,} rows × 3 read, K = 1 … {K_MAX}, scored, written"
    name = f"end to end, {rows / 1e6:g} M"
    if alone:
        told = f"{what}; ours alone, ten starts, {imports:.1f} s of imports not counted"
        return [
            compare(f"{name}, ten starts", seconds, None, told, most=LONGEST),
            compare(f"{name}, memory", peak, None, told, unit="MiB", most=HIGHEST),
        ]
    theirs, their_peak, their_inertias, their_imports = runs[PEER]
    asked = {"one": 10, "ten": 3, "memory": 5} if rows >= BOUND_FROM else {}
    uncounted = f"imports of {imports:.1f} and {their_imports:.1f} s not counted"
    peer = f"pandas + scikit-learn, one start; {uncounted}"
    return [
        compare(f"{name}, one start", runs[ONE_START][0], theirs, f"{what}; {peer}",
                least=asked.get("one")),
        compare(f"{name}, ten starts", seconds, theirs, f"{what}; ours ten starts, {peer}",
                least=asked.get("ten")),
        compare(f"{name}, memory", peak, their_peak, "peak of the same, ours ten starts",
                unit="MiB", least=asked.get("memory")),
        compare(f"{name}, inertia", inertias[-1], their_inertias[-1],
                f"the cut into {K_MAX}, ours ten starts", unit=""),
    ]  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3, help="how often each runs, in turn")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        run_here(options.way, options.folder)
    elif options.folder:
        write_customers(options.folder / "customers.parquet", options.rows)
        print("null")
    else:
        print(write_table(measure(options.rows, rounds=options.rounds)))


if __name__ == "__main__":
    main()
