"""From a Parquet file of millions of customers to the scored file, beside pandas + scikit-learn.

    python benchmarks/end_to_end.py [--rows 10000000] [--rounds 3]

The customers are made up by DuckDB: an id and three whole numbers, like the bundled table's. Ours
takes two steps, each in a process of its own: it reads the card's table (checked where it lies; a
sample comes of a large one), fits K = 1 … 10, polishes the chosen cut, K = 4, on all rows, as the
series does, and saves the model; then it scores all rows where they are into a new Parquet file.
The peer reads all rows by pandas, scales them, fits K = 1 … 10 by scikit-learn with one start each,
predicts, and writes, in one process. They run in turn: medians of the seconds, those of the imports
told apart, and of the peak memory with them, of the steps' the highest. Ours also says distance,
second, confidence and status of each row.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

from comparisons import Row, compare, read_peak, run_apart, time_call, write_table

if TYPE_CHECKING:
    from segmentation.customers import Card

FEATURES = {"age": (18, 70), "income": (15, 137), "spending": (1, 100)}
GROUPS = ((54.0, 47.7, 40.0, 9.3, 14.5, 16.3), (25.4, 40.0, 60.3, 5.7, 16.9, 18.3))
GROUPS += ((32.9, 86.1, 81.5, 3.8, 16.1, 9.9), (39.4, 86.5, 19.6, 10.5, 16.5, 11.5))
"""Mean age, income and spending of the bundled table's segments, then their deviations."""

CUSTOMERS, SCORED = "customers.parquet", "scored.parquet"
K, K_MAX = 4, 10
SEGMENTS: list[Any] = [{"id": i, "name": f"Segment {i}"} for i in range(K)]
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


def describe_customers(source: Path) -> Card:
    """The card of the customers."""
    from segmentation.customers import Card

    wanted = {name: {"range": span} for name, span in FEATURES.items()}
    return Card.model_validate(
        {"title": "Made up", "table": source.name, "id": "id", "features": wanted, "path": source}
    )


def fit_ours(source: Path, place: Path, starts: int) -> float:
    """Read and check, fit K = 1 … 10, polish the chosen cut on all rows, save it; its inertia."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline, make_pipeline
    from sklearn.preprocessing import StandardScaler

    from segmentation.clustering import KMeans
    from segmentation.customers import read_customers
    from segmentation.segments import build_figures, model

    card = describe_customers(source)
    customers = read_customers(card)
    used = customers.table[card.distance]
    chain = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    preprocessor = ColumnTransformer([("features", chain, card.distance)]).fit(used)
    scaled = preprocessor.transform(used)
    fits = [KMeans(k, n_init=starts).fit(scaled) for k in range(1, K_MAX + 1)]
    fitted = Pipeline([("preprocess", preprocessor), ("kmeans", fits[K - 1])])
    chosen, scans = model.polish(fitted, customers.table, card)
    inertia = fits[K - 1].inertia_ if scans.empty else scans["inertia"].iloc[-1]
    figures = build_figures(chosen, customers.table, card)
    model.save_model(place, chosen, figures, SEGMENTS)
    return float(inertia)


def score_ours(source: Path, place: Path, starts: int) -> None:  # noqa: ARG001
    """Score all rows where they are, into a new file."""
    from segmentation.customers import database
    from segmentation.segments import Scorer, queries

    figures = json.loads((place / "segmenter.json").read_text("utf-8"))
    scored = queries.score_table(database.open_file(source), Scorer(figures), SEGMENTS)
    scored.to_parquet(place / SCORED, row_group_size=database.ROWS_TOGETHER)


def run_peer(source: Path, place: Path, starts: int) -> float:
    """The same by pandas and scikit-learn, with everything in memory."""
    import pandas as pd
    from sklearn.cluster import KMeans
    from sklearn.preprocessing import StandardScaler

    table = pd.read_parquet(source)
    scaled = StandardScaler().fit_transform(table[[*FEATURES]])
    ks = range(1, K_MAX + 1)
    models = [KMeans(k, n_init=starts, random_state=0).fit(scaled) for k in ks]
    table["cluster"] = models[K - 1].predict(scaled)
    table.to_parquet(place / SCORED, index=False)
    return float(models[K - 1].inertia_)


def copy_columns(source: Path, place: Path, starts: int) -> None:  # noqa: ARG001
    """The floor: a bare scan of the features, then columns like the scored ones, copied."""
    import duckdb

    near = "(hash(age * 8 + income) % 5)::BIGINT"
    made = f"{near} AS cluster, 'Segment ' || {near} AS segment, age / 7 AS distance, "
    made += f"'Segment ' || (4 - {near}) AS second, spending / 100 AS confidence, 'ok' AS status"
    copied = f"COPY (SELECT *, {made} FROM '{source}') TO '{place / SCORED}' (FORMAT parquet)"
    with duckdb.connect() as db:
        db.execute("SET preserve_insertion_order = false")
        db.execute(f"SELECT {', '.join(f'sum({name})' for name in FEATURES)} FROM '{source}'")
        db.execute(copied)


class Step(NamedTuple):
    """What one process of a way calls, and what it imports before."""

    call: Callable[[Path, Path, int], float | None]
    modules: tuple[str, ...]


OURS, ONE_START, PEER, FLOOR = "ours", "ours-one-start", "peer", "floor"
STEPS = (
    Step(fit_ours, ("ibis.backends.duckdb", "segmentation.segments", "segmentation.clustering")),
    Step(score_ours, ("ibis.backends.duckdb", "segmentation.segments")),
)
WAYS: dict[str, tuple[int, tuple[Step, ...]]] = {
    OURS: (10, STEPS),
    ONE_START: (1, STEPS),
    PEER: (1, (Step(run_peer, ("pandas", "sklearn.cluster", "sklearn.preprocessing")),)),
    FLOOR: (0, (Step(copy_columns, ("duckdb",)),)),
}
"""Each way's starts and steps, which run one after the other."""


class Run(NamedTuple):
    """What a way took: its seconds, its peak in MiB, its inertia, the seconds of its imports."""

    seconds: float
    peak: float
    inertia: float
    imports: float


# What they take ----------------------------------------------------------------------------


def run_step(name: str, number: int, folder: Path) -> None:
    """Print what one step of a way takes."""
    starts, steps = WAYS[name]
    call, modules = steps[number]
    place = folder / name
    place.mkdir(exist_ok=True)
    imports, _ = time_call(lambda: [import_module(module) for module in modules])
    seconds, inertia = time_call(lambda: call(folder / CUSTOMERS, place, starts))
    print(json.dumps(Run(seconds, read_peak(), inertia or 0.0, imports)))


def run_way(name: str, folder: Path) -> Run:
    """What a way takes: its steps' seconds together, the highest of their peaks."""
    told = [
        Run(*run_apart(__file__, "--folder", folder, "--way", name, "--step", number))
        for number in range(len(WAYS[name][1]))
    ]
    inertia = sum(run.inertia for run in told)  # one step alone tells it
    seconds, imports = sum(run.seconds for run in told), sum(run.imports for run in told)
    return Run(seconds, max(run.peak for run in told), inertia, imports)


def run_ways(rows: int, ways: Sequence[str], rounds: int) -> dict[str, Run]:
    """What each way takes, in turn: medians."""
    told: dict[str, list[Run]] = {way: [] for way in ways}
    with TemporaryDirectory(prefix="segmentation-bench-") as folder:
        run_apart(__file__, "--folder", folder, "--rows", rows)
        for _ in range(rounds):
            for way in ways:
                told[way].append(run_way(way, Path(folder)))
        check_segments(Path(folder), ways)
    return {way: _find_middle(runs) for way, runs in told.items()}


def _find_middle(runs: Sequence[Run]) -> Run:
    seconds, peak, imports = (
        median(getattr(run, name) for run in runs) for name in ("seconds", "peak", "imports")
    )
    return Run(seconds, peak, runs[0].inertia, imports)


def check_segments(folder: Path, ways: Sequence[str]) -> None:
    """Refuse figures of ways that do not cut the customers alike, but for a few on the border."""
    import duckdb

    if PEER not in ways:
        return
    one, two = (f"'{folder / way / SCORED}'" for way in (OURS, PEER))
    counted = f"SELECT a.cluster, count(*) AS n FROM {one} a JOIN {two} b USING (id) "
    best = f"SELECT max(n) AS n FROM ({counted} GROUP BY a.cluster, b.cluster) GROUP BY cluster"
    with duckdb.connect() as db:
        query = f"SELECT sum(n) / (SELECT count(*) FROM {one}) FROM ({best})"
        share = db.execute(query).fetchone()[0]
    if share < ALIKE:
        raise RuntimeError(f"only {share:.1%} of the customers are in the same segments")


def measure(rows: int = 1_000_000, *, rounds: int = 3) -> list[Row]:
    """Rows of seconds and of peak memory, and one of the inertia at K = 4."""
    alone = rows > ALONE
    runs = run_ways(rows, [OURS] if alone else [OURS, ONE_START, PEER], rounds)
    seconds, peak, inertia, imports = runs[OURS]
    what = f"{rows:,} rows × 3 read, K = 1 … {K_MAX}, scored, written"
    name = f"end to end, {rows / 1e6:g} M"
    if alone:
        told = f"{what}; ours alone, ten starts, {imports:.1f} s of imports not counted"
        return [
            compare(f"{name}, ten starts", seconds, None, told, most=LONGEST),
            compare(f"{name}, memory", peak, None, told, unit="MiB", most=HIGHEST),
        ]
    one, (theirs, their_peak, their_inertia, their_imports) = runs[ONE_START], runs[PEER]
    asked = {"one": 10, "ten": 3, "memory": 3} if rows >= BOUND_FROM else {}
    uncounted = f"imports of {imports:.1f} and {their_imports:.1f} s not counted"
    peer = f"pandas + scikit-learn, one start; {uncounted}"
    return [
        compare(f"{name}, one start", one.seconds, theirs, f"{what}; {peer}",
                least=asked.get("one")),
        compare(f"{name}, ten starts", seconds, theirs, f"{what}; ours ten starts, {peer}",
                least=asked.get("ten")),
        compare(f"{name}, imports counted", one.seconds + one.imports,
                theirs + their_imports, "the same, one start each, with the imports of every step"),
        compare(f"{name}, memory", peak, their_peak, "peak of the same, ours ten starts",
                unit="MiB", least=asked.get("memory")),
        compare(f"{name}, inertia", inertia, their_inertia,
                f"the cut into {K}; each in its own scale, ours the sample's", unit=""),
    ]  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3, help="how often each runs, in turn")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--step", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        run_step(options.way, options.step, options.folder)
    elif options.folder:
        write_customers(options.folder / CUSTOMERS, options.rows)
        print("null")
    else:
        print(write_table(measure(options.rows, rounds=options.rounds)))


if __name__ == "__main__":
    main()
