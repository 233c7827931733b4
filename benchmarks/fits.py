"""Fits on many rows beside scikit-learn's KMeans on all of them.

    python benchmarks/fits.py [--rows 10000000]

*polish*: the rows lie in a Parquet file; 20 starts see a sample of 50,000, and Lloyd's iterations
go on over all rows by aggregate queries in DuckDB; reading and checking are counted. *whole*: all
rows in memory, 20 starts on a sample of 50,000, polished on all. The peer fits all rows in memory
with `n_init=10`. The best inertia known is the lowest of all; how far each lies above it is told.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from comparisons import Row, compare, read_peak, time_call, write_table
from numpy.typing import NDArray
from sklearn import cluster
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline

from segmentation.clustering import KMeans, kmeans
from segmentation.customers import Card, database, read_customers
from segmentation.segments.model import polish

Table = NDArray[np.float64]
FEATURES, GROUPS, K = 8, 10, 10
NAMES = [f"x{i}" for i in range(FEATURES)]
CHUNK = 500_000
STARTS, PEER_STARTS = 20, 10
LEAST, MOST_ABOVE = 10, 0.02
"""At least so many times as fast as the peer; at most so many percent above the best inertia."""


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
    return sum(float(((part - centres[kmeans.assign(part, centres)]) ** 2).sum()) for part in parts)


def write_rows(table: Table, path: Path) -> None:
    """The rows as a Parquet file of an id and the features, chunk by chunk."""
    import pyarrow as pa
    from pyarrow import parquet

    kinds = pa.schema([("id", pa.int64()), *((name, pa.float64()) for name in NAMES)])
    with parquet.ParquetWriter(path, kinds) as file:
        for first in range(0, len(table), CHUNK):
            part = table[first : first + CHUNK]
            ids = np.arange(first, first + len(part))
            columns = dict(zip(NAMES, np.ascontiguousarray(part.T), strict=True))
            file.write(pa.table({"id": ids} | columns, kinds))


def fit_polished(path: Path) -> Table:
    """Centres of a sample, polished on all rows where they lie."""
    card = Card.model_validate(
        {"title": "Made up", "table": path.name, "id": "id", "path": path,
         "features": {name: {} for name in NAMES}}
    )  # fmt: skip
    table = read_customers(card).table
    plain = ColumnTransformer([("features", "passthrough", NAMES)])
    model = Pipeline([("preprocess", plain), ("kmeans", KMeans(K, n_init=STARTS))])
    polished, _ = polish(model.fit(table[NAMES]), table, card)
    return polished[-1].cluster_centers_


def fit_whole(table: Table) -> Table:
    """Centres of all rows in memory."""
    return KMeans(K, n_init=STARTS).fit(table).cluster_centers_


def fit_peer(table: Table) -> Table:
    """The same of scikit-learn."""
    return cluster.KMeans(K, n_init=PEER_STARTS, random_state=0).fit(table).cluster_centers_


def time_fits(rows: int) -> dict[str, tuple[float, float]]:
    """Seconds and inertia of all rows, of each way."""
    table, taken = draw_table(rows), {}
    with TemporaryDirectory(prefix="segmentation-bench-") as folder:
        path = Path(folder) / "rows.parquet"
        write_rows(table, path)
        taken["polish"] = time_call(lambda: fit_polished(path))
    taken["whole"] = time_call(lambda: fit_whole(table))
    taken["peer"] = time_call(lambda: fit_peer(table))
    return {name: (took, measure_inertia(table, found)) for name, (took, found) in taken.items()}


def measure(rows: int = 10_000_000, *, rounds: int = 1) -> list[Row]:  # noqa: ARG001
    """Rows of seconds and of inertias. Of one round: the seconds are many enough."""
    warm_up()
    taken = time_fits(rows)
    best = min(inertia for _, inertia in taken.values())
    excess = {name: 100 * (inertia / best - 1) for name, (_, inertia) in taken.items()}
    what = f"{rows:,} rows × {FEATURES}, K = {K}; scikit-learn, ten starts"
    told, size = f"how far the inertia lies above the best known; {what}", f"{rows / 1e6:g} M"
    found = []
    for name in ("polish", "whole"):
        seconds = taken[name][0], taken["peer"][0]
        found.append(compare(f"fit, {name}, {size}", *seconds, what, least=LEAST))
        above = excess[name], excess["peer"]
        found.append(compare(f"inertia, {name}, {size}", *above, told, unit="%", most=MOST_ABOVE))
    return found


def warm_up() -> None:
    """Compile what is compiled, load what is loaded on the first call."""
    KMeans(2, n_init=2).fit(draw_table(kmeans.STARTED + 1))
    with TemporaryDirectory(prefix="segmentation-bench-") as folder:
        path = Path(folder) / "rows.parquet"
        write_rows(draw_table(10), path)
        database.open_file(path).count().execute()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    found = measure(parser.parse_args().rows)
    print(write_table(found))
    print(f"peak memory, the peer's included: {read_peak():,.0f} MiB")


if __name__ == "__main__":
    main()
