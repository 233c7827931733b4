"""Customers from five million transactions beside the same figures in pandas.

    python benchmarks/transactions.py

The transactions are made up and written as CSV and Parquet. Ours reads either; the peer is the
plain way, `pandas.read_csv` and `groupby`, of the CSV. Each runs in a process of its own, in turn;
medians of its seconds and of its peak memory are printed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from comparisons import Row, compare, read_peak, run_apart, time_call, write_table

from segmentation.customers import Card, read_customers

FIGURES = ["recency", "frequency", "monetary", "tenure", "basket"]
COLUMNS = {"customer": "customer", "date": "day", "amount": "amount", "order": "order"}


def write_transactions(folder: Path, rows: int, customers: int) -> None:
    """Two rows an order, three years, few customers buying most, 3 % refunds."""
    import duckdb

    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "customer": (customers * rng.random(rows // 2) ** 1.5).astype(int).repeat(2),
            "order": np.arange(rows // 2).repeat(2),
            "day": rng.integers(0, 1096, rows // 2).repeat(2),
            "cents": rng.integers(1, 20_000, rows) * np.where(rng.random(rows) < 0.03, -1, 1),
        }
    )
    with duckdb.connect() as db:
        db.register("drawn", table)
        shaped = """SELECT format('C{:07d}', customer) AS customer, format('{:08d}', "order")
            AS "order", DATE '2022-01-01' + day::INT AS day, (cents / 100)::DECIMAL(9, 2) AS amount
            FROM drawn"""
        for ending in ("csv", "parquet"):
            db.execute(f"COPY ({shaped}) TO '{folder}/sales.{ending}'")


def read_in_pandas(path: Path) -> pd.DataFrame:
    """The peer: the same figures and findings of a CSV, with everything in memory."""
    rows = pd.read_csv(path, dtype={"customer": "str", "order": "str"}, parse_dates=["day"])
    as_of = rows["day"].max()
    bought = rows[rows["amount"] > 0]
    by = bought.groupby("customer")
    frequency = by["order"].nunique()
    table = pd.DataFrame(
        {
            "recency": (as_of - by["day"].max()).dt.days,
            "frequency": frequency,
            "monetary": rows.groupby("customer")["amount"].sum().reindex(frequency.index),
            "tenure": (as_of - by["day"].min()).dt.days,
            "basket": by["amount"].sum() / frequency,
        }
    )
    rows.duplicated().sum(), (rows["amount"] < 0).sum(), (rows["amount"] == 0).sum()
    return table.reset_index()


def read_in_ours(path: Path) -> pd.DataFrame:
    card = Card.model_validate({"title": "Sales", "table": str(path), "transactions": COLUMNS})
    return read_customers(card).table


READERS: dict[str, tuple[Callable[[Path], pd.DataFrame], str]] = {
    "ours, CSV": (read_in_ours, "sales.csv"),
    "ours, Parquet": (read_in_ours, "sales.parquet"),
    "pandas, CSV": (read_in_pandas, "sales.csv"),
}


def run_here(name: str, folder: Path) -> None:
    """Print seconds, peak MiB and the sums of the figures of one reader."""
    reader, file = READERS[name]
    seconds, table = time_call(lambda: reader(folder / file))
    print(json.dumps([seconds, read_peak(), [len(table), *table[FIGURES].sum()]], default=float))


def measure(rows: int = 5_000_000, customers: int = 400_000, *, rounds: int = 3) -> list[Row]:
    """Seconds of ours on CSV and on Parquet, and the memory, beside pandas on the CSV."""
    told: dict[str, list[list[float]]] = {name: [] for name in READERS}
    found: list[list[float]] = []
    with TemporaryDirectory(prefix="segmentation-bench-") as folder:
        size = ["--rows", rows, "--customers", customers]
        run_apart(__file__, "--folder", folder, *size)  # apart, for the memory's sake
        for name in [*READERS] * rounds:
            seconds, peak, sums = run_apart(__file__, "--folder", folder, "--reader", name)
            told[name].append([seconds, peak])
            found.append(sums)
    np.testing.assert_allclose(found, [found[0]] * len(found), rtol=1e-9)
    middle = {
        name: [median(each) for each in zip(*runs, strict=True)] for name, runs in told.items()
    }
    (csv, peak), (parquet, _), (pandas, high) = (middle[name] for name in READERS)
    what = f"{rows:,} purchases of {customers:,} customers read from {{}}; pandas from CSV"
    return [
        compare("transactions, CSV", csv, pandas, what.format("CSV")),
        compare("transactions, Parquet", parquet, pandas, what.format("Parquet")),
        compare("transactions, memory", peak, high, what.format("CSV"), unit="MiB"),
    ]


def main() -> None:
    """Make the transactions, let each reader read them in turn, and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--customers", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=3, help="how often each runs, in turn")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--reader", choices=READERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reader:
        run_here(options.reader, options.folder)
    elif options.folder:
        write_transactions(options.folder, options.rows, options.customers)
        print("null")
    else:
        print(write_table(measure(options.rows, options.customers, rounds=options.rounds)))


if __name__ == "__main__":
    main()
