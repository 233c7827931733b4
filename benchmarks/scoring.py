"""Ten million customers scored inside DuckDB, beside the least that it can take and beside pandas.

    python benchmarks/scoring.py [--rows 10000000]

The customers are made up by DuckDB in a temporary file: an id and three whole numbers. Ours checks
them, scores them and writes the scored table, as `segmentation score --backend` does. The floor is
a bare scan of the features, then reading and writing the very columns of the scored table. The
peer is the plain way: all rows into pandas, `Pipeline.predict` of scikit-learn, and back into the
database; it says the segment alone, neither distance nor confidence nor status. Medians of seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
from comparisons import Row, alternate, compare, time_call, write_table
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from segmentation.clustering import KMeans
from segmentation.customers import Card
from segmentation.segments import Scorer, build_figures
from segmentation.serving import batch as scoring
from segmentation.serving.model import Model

FEATURES = {"age": 62, "income": 120, "spending": 100}
"""The features and how many values each has."""

SEGMENTS = 4
MOST_FLOORS = 4
"""So many times the floor scoring may take."""

CARD = Card.model_validate(
    {"title": "Made up", "table": "", "id": "id", "features": dict.fromkeys(FEATURES)}
)


def write_customers(path: Path, rows: int) -> None:
    """A table of customers in a new database: the same for the same number of rows."""
    drawn = ", ".join(
        f"(hash(i * 8 + {place}) % {values})::INTEGER AS {name}"
        for place, (name, values) in enumerate(FEATURES.items())
    )
    with duckdb.connect(str(path)) as db:
        db.execute(f"CREATE TABLE customers AS SELECT i AS id, {drawn} FROM range({rows}) t(i)")


def fit_model(path: Path) -> tuple[Model, Any]:
    """A model of the first two thousand customers, as ours and as scikit-learn's Pipeline."""
    with duckdb.connect(str(path)) as db:
        table = db.sql("SELECT * FROM customers WHERE id < 2000").df()
    preprocessor = ColumnTransformer([("features", StandardScaler(), CARD.distance)])
    pipeline = Pipeline([("preprocess", preprocessor), ("kmeans", KMeans(SEGMENTS))])
    scorer = Scorer(build_figures(pipeline.fit(table[CARD.distance]), table, CARD))
    segments = [{"id": i, "name": f"Segment {i}"} for i in range(SEGMENTS)]
    return Model(path, {"run_id": "benchmark"}, scorer, segments), pipeline


def score_in_pandas(path: Path, pipeline: Any) -> None:
    """The peer: everything in memory, there and back."""
    with duckdb.connect(str(path)) as db:
        table = db.sql("FROM customers").df()
        table["cluster"] = pipeline.predict(table[[*FEATURES]])
        db.register("predicted", table)
        db.execute("CREATE OR REPLACE TABLE peer AS FROM predicted")


def copy_columns(path: Path) -> None:
    """The floor: a bare scan, then the scored columns read and written."""
    with duckdb.connect(str(path)) as db:
        db.execute(f"SELECT {', '.join(f'sum({name})' for name in FEATURES)} FROM customers")
        db.execute("CREATE OR REPLACE TABLE copied AS FROM scored")


def score_in_place(path: Path, model: Model) -> None:
    """Ours, the table of the round before dropped first."""
    with duckdb.connect(str(path)) as db:
        db.execute("DROP TABLE IF EXISTS scored")
    scoring.score_into(f"duckdb://{path}", "customers", "scored", model)


def check_answers(path: Path) -> None:
    """Refuse figures of two ways that do not put the customers into the same segments."""
    asked = "SELECT count(*) FROM scored JOIN peer USING (id) WHERE scored.cluster <> peer.cluster"
    with duckdb.connect(str(path)) as db:
        differ = db.execute(asked).fetchone()[0]
    if differ:
        raise SystemExit(f"{differ:,} customers are in different segments")


def measure(rows: int = 10_000_000, *, rounds: int = 3) -> list[Row]:
    """A row beside the floor, one beside pandas."""
    with TemporaryDirectory() as name:
        path = Path(name) / "customers.ddb"
        write_customers(path, rows)
        model, pipeline = fit_model(path)
        ways: list[Callable[[], None]] = [
            lambda: score_in_place(path, model),
            lambda: copy_columns(path),
            lambda: score_in_pandas(path, pipeline),
        ]
        timed = [lambda way=way: time_call(way)[0] for way in ways]
        ours, floor, pandas = alternate(timed, rounds)
        check_answers(path)
    what = f"{rows:,} customers scored and written in DuckDB"
    size = f"{rows / 1e6:g} M"
    return [
        compare(f"scoring beside the floor, {size}", ours, floor, what, least=1 / MOST_FLOORS),
        compare(
            f"scoring, {size}", ours, pandas, f"{what}; pandas + scikit-learn, the segment alone"
        ),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3, help="how often each runs, in turn")
    options = parser.parse_args()
    print(write_table(measure(options.rows, rounds=options.rounds)))


if __name__ == "__main__":
    main()
