"""How time and memory grow with the rows: a thousand, ten thousand, … a hundred million.

    python benchmarks/growth.py [--least 1e3] [--most 1e6] [--rounds 3]

The way is that of `end_to_end`, with ten starts. Beside it stands the least that it can take: a
bare scan of the features, then reading them and writing as many columns, both in DuckDB. A row a
size; the memory is told in words.
"""

from __future__ import annotations

import argparse

from comparisons import Row, compare, write_table
from end_to_end import FLOOR, OURS, run_ways


def measure_rows(rows: int, *, rounds: int) -> Row:
    """The row of one size."""
    runs = run_ways(rows, [OURS, FLOOR], rounds)
    ours, floor = runs[OURS], runs[FLOOR]
    what = (
        f"the series' way beside scan and copy; peak {ours.peak:,.0f} MiB beside {floor.peak:,.0f}"
    )
    return compare(f"growth, {rows:,} rows", ours.seconds, floor.seconds, what)


def measure(least: float = 1e3, most: float = 1e6, *, rounds: int = 3) -> list[Row]:
    """A row a size, each ten times the one before."""
    sizes = [10**power for power in range(1, 10) if least <= 10**power <= most]
    return [measure_rows(rows, rounds=rounds) for rows in sizes]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--least", type=float, default=1e3)
    parser.add_argument("--most", type=float, default=1e6)
    parser.add_argument("--rounds", type=int, default=3, help="how often each runs, in turn")
    options = parser.parse_args()
    print(write_table(measure(options.least, options.most, rounds=options.rounds)))


if __name__ == "__main__":
    main()
