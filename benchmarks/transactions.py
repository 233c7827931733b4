"""Customers from five million transactions beside the same figures in pandas.

    python benchmarks/transactions.py

The transactions are made up and written as CSV and Parquet. Ours reads either; the peer is the
plain way, `pandas.read_csv` and `groupby`, of the CSV. Each runs in a process of its own, in turn;
medians of its seconds and the peak of its memory are printed with their ratios to ours on CSV.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from tabulate import tabulate

from segmentation.transactions import Transactions, read_transactions

FIGURES = ["recency", "frequency", "monetary", "tenure", "basket"]
COLUMNS = Transactions(customer="customer", date="day", amount="amount", order="order")
MEBIBYTE = 2**10  # ru_maxrss counts KiB


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
    return read_transactions(path, COLUMNS)[0]


READERS: dict[str, tuple[Callable[[Path], pd.DataFrame], str]] = {
    "ours, CSV": (read_in_ours, "sales.csv"),
    "ours, Parquet": (read_in_ours, "sales.parquet"),
    "pandas, CSV": (read_in_pandas, "sales.csv"),
}


def run_here(name: str, folder: Path) -> None:
    """Print seconds, peak MiB and the sums of the figures of one reader."""
    reader, file = READERS[name]
    started = time.perf_counter()
    table = reader(folder / file)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEBIBYTE
    print(json.dumps([seconds, peak, [len(table), *table[FIGURES].sum()]], default=float))


def run_apart(*arguments: object) -> str:
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def compare(folder: Path, rounds: int) -> pd.DataFrame:
    """One row a reader: median seconds, highest peak in MiB, and both over ours on CSV."""
    rows = []
    for name in [*READERS] * rounds:
        seconds, peak, figures = json.loads(run_apart("--folder", folder, "--reader", name))
        rows.append((name, seconds, peak, figures))
        np.testing.assert_allclose(figures, rows[0][-1], rtol=1e-9)
    runs = pd.DataFrame(rows, columns=["reader", "seconds", "peak MiB", "figures"])
    by = runs.groupby("reader", sort=False)
    table = pd.DataFrame({"seconds": by["seconds"].median(), "peak MiB": by["peak MiB"].max()})
    return table.assign(**{f"{c} / ours": table[c] / table[c].iloc[0] for c in table})


def main() -> None:
    """Make the transactions, let each reader read them in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--customers", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=3, help="how often each runs, in turn")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--reader", choices=READERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reader:
        return run_here(options.reader, options.folder)
    if options.folder:
        return write_transactions(options.folder, options.rows, options.customers)
    with TemporaryDirectory() as name:
        size = ["--rows", options.rows, "--customers", options.customers]
        run_apart("--folder", name, *size)  # apart, as a child's peak starts at its parent's
        table = compare(Path(name), options.rounds)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(
        f"{options.rows:,} rows, {options.customers:,} customers, {options.rounds} rounds in turn"
    )
    print(tabulate(table.reset_index(), headers="keys", showindex=False, floatfmt=".2f"))
    return None


if __name__ == "__main__":
    main()
