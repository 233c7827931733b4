"""Run benchmarks, each in a process of its own, and write what they found into docs/benchmarks.md.

    python benchmarks/bench.py [NAME …] [--large] [--rounds 3]

Without names, all of `make bench`, or with `--large` of `make bench-large`. A benchmark is a module
here whose `measure` gives rows of `comparisons.Row`; one that fails is a row that says why. The
page keeps the sections of those that were not run; README's sentence on speed follows the page.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from comparisons import Row, write_table

ROOT = Path(__file__).parents[1]
PAGE, README = ROOT / "docs/benchmarks.md", ROOT / "README.md"
START, END = "<!-- measured: begin -->", "<!-- measured: end -->"
SPEED = ("<!-- speed: begin -->", "<!-- speed: end -->")
PACKAGES = ("scikit-learn", "pandas", "numpy", "numba", "duckdb", "pyspark", "yellowbrick")

SMALL: dict[str, dict[str, Any]] = {
    "end_to_end": {"rounds": 1},
    "growth": {"rounds": 1},
    "scoring": {"rows": 1_000_000},
    "fits": {"rows": 1_000_000, "rounds": 1},
    "silhouettes": {"rounds": 1},
    "resampling": {"rounds": 1},
    "transactions": {"rounds": 1},
    "peers": {"rounds": 1},
    "service": {"rounds": 1},
    "soak": {"rounds": 1},
    "series": {"rounds": 1},
}
LARGE: dict[str, dict[str, Any]] = {
    "end_to_end_10M": {"rows": 10_000_000},
    "end_to_end_100M": {"rows": 100_000_000},
    "growth_10M_100M": {"least": 1e7, "most": 1e8},
    "scoring_10M": {"rows": 10_000_000},
    "fits_10M": {"rows": 10_000_000, "rounds": 1},
}
"""What is run, and how; behind a name's module its size."""

TOLD = {
    "end to end, 10 M, ten starts": "a table of ten million customers is segmented and scored "
    "{} times as fast as by pandas and scikit-learn once both are loaded, with ten starts for "
    "their one",
    "resampling": "the resampling of a small table takes one part in {} of the same loops in "
    "scikit-learn",
    "service, 1 row": "a customer is scored {} times as fast as by the usual endpoint",
}
"""README's clauses, by the row whose ratio they tell."""


def find_module(name: str) -> str:
    """The module of a benchmark: its name without a size."""
    return re.sub(r"(_\d+M)+$", "", name)


def run_here(name: str, rounds: int) -> None:
    """Measure one benchmark and print its rows."""
    options = {"rounds": rounds} | (SMALL | LARGE)[name]
    rows = importlib.import_module(find_module(name)).measure(**options)
    print(json.dumps([row._asdict() for row in rows]))


def run_apart(name: str, rounds: int) -> list[Row]:
    """The same in a process of its own; where it fails, a row that says why."""
    command = [sys.executable, __file__, name, "--here", "--rounds", str(rounds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True)
    told = done.stdout.decode(errors="replace").splitlines()
    if done.returncode == 0 and told:
        return [Row(**row) for row in json.loads(told[-1])]
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    why = (lines or [f"exit code {done.returncode}"])[-1].replace("|", "/")
    return [Row(name, None, None, "", None, "", f"failed: {why[:200]}")]


# The page ----------------------------------------------------------------------------------


def describe_machine() -> str:
    """Date, machine and versions, in a line."""
    found = [f"{name} {version(name)}" for name in PACKAGES if _is_installed(name)]
    return (
        f"{date.today():%Y-%m-%d} · {find_processor()}, {os.cpu_count()} cores, "
        f"{find_memory():.0f} GiB · Python {platform.python_version()}, {', '.join(found)}"
    )


def _is_installed(name: str) -> bool:
    try:
        return bool(version(name))
    except importlib.metadata.PackageNotFoundError:
        return False


def find_processor() -> str:
    """The model of the processor."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def find_memory() -> float:
    """The machine's memory in GiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def read_sections(page: str) -> dict[str, str]:
    """The sections between the page's markers, by benchmark."""
    block = page.partition(START)[2].partition(END)[0]
    parts = re.split(r"^### (\w+)$", block, flags=re.M)
    return {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def replace_block(page: str, found: Mapping[str, str]) -> str:
    """The page with new sections for what was measured; the others and all else stay."""
    sections = read_sections(page) | dict(found)
    kept = [name for name in (*SMALL, *LARGE) if name in sections]
    block = "\n\n".join(f"### {name}\n\n{sections[name]}" for name in kept)
    return _put(page, (START, END), f"\n{block}\n")


def _put(text: str, marks: tuple[str, str], block: str) -> str:
    before, begin, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        raise SystemExit(f"the text has no {marks[0]} … {marks[1]}; put them back.")
    return f"{before}{begin}{block}{end}{after}"


def read_ratios(page: str) -> dict[str, str]:
    """The ratios of the page's rows as they are written, by name."""
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    return {row[0]: row[3] for row in rows if len(row) == 6 and re.match(r"[\d.,]+$", row[3])}


def tell_speed(page: str) -> str:
    """README's sentence on speed, of the ratios on the page; empty where none is there."""
    ratios = read_ratios(page)
    told = [text.format(ratios[name]) for name, text in TOLD.items() if name in ratios]
    if not told:
        return "\n"
    joined = told[0] if len(told) == 1 else f"{'; '.join(told[:-1])}; and {told[-1]}"
    return f"\n{joined[0].upper()}{joined[1:]} ([docs/benchmarks.md](docs/benchmarks.md)).\n"


def save(found: Mapping[str, str]) -> None:
    """Write the page's block, and README's sentence from it."""
    page = replace_block(PAGE.read_text("utf-8"), found)
    PAGE.write_text(page, "utf-8")
    README.write_text(_put(README.read_text("utf-8"), SPEED, tell_speed(page)), "utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and write; what was measured before a benchmark ends is on the page already."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join([*SMALL, *LARGE]))
    parser.add_argument("--large", action="store_true", help="the ten and a hundred million")
    parser.add_argument("--rounds", type=int, default=3, help="how often each runs, in turn")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if unknown := {*options.names} - {*SMALL, *LARGE}:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; see --help")
    if options.here:
        return run_here(options.names[0], options.rounds)
    for name in options.names or (LARGE if options.large else SMALL):
        print(f"{name} …", file=sys.stderr, flush=True)
        started = time.perf_counter()
        rows = run_apart(name, options.rounds)
        table = write_table(rows)
        print(f"\n{table}\n", flush=True)
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        save({name: f"{describe_machine()}\n\n{table}"})
    return None


if __name__ == "__main__":
    main()
