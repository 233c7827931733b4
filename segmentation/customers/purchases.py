"""Transactions become customers: recency, frequency and spending, of files larger than memory.

One scan groups the file by customer; DuckDB puts what does not fit into memory into a temporary
folder. No name or value of the file ever becomes SQL: column i is c<i>, whatever its header.
"""

from __future__ import annotations

import codecs
import csv
import os
import re
import shutil
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from segmentation import InputError

FEWEST_CUSTOMERS = 10
STAMP = r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d(:?\d\d)?)?)?"
NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
EXACT = "DECIMAL(25, 10)"  # cents add up in any order; below 1e15, as in a customer table
ISO_DAY = f"""CASE
    WHEN length(dated) = 10 AND try_cast(dated AS DATE)::VARCHAR = dated THEN dated::DATE
    WHEN regexp_full_match(dated, '{STAMP}') THEN try_cast(dated AS TIMESTAMPTZ)::DATE END"""

Name = Annotated[str, Field(min_length=1)]


class Transactions(BaseModel):
    """Which columns of a table of purchases hold what; without `order`, each row is a purchase."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)
    customer: Name
    date: Name
    amount: Name
    order: str = ""
    date_format: str = ""


class Scan(NamedTuple):
    """What DuckDB selects from, with its parameters, the header, and where the first row stands."""

    sql: str
    parameters: dict[str, Any]
    header: list[str]
    place: str = "row"
    first: int = 1


def read_transactions(
    source: Path,
    columns: Transactions,
    *,
    as_of: date | None = None,
    delimiter: str = ",",
    decimal: str = ".",
    encoding: str = "utf-8",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row a customer, by id, and one row a finding: rule, rows, what was done.

    A purchase is an order of a customer with a positive amount, or a row with one where the
    table has no orders. Days are calendar days (of UTC where a timestamp names its offset).
    `as_of` is the table's last day unless given; rows after it are left out.

    customer : the id, text.
    recency, tenure : days from the last and from the first purchase to `as_of`.
    frequency : number of purchases, at least 1.
    monetary : sum of all amounts: refunds, which are negative amounts, are subtracted.
    basket : sum of the positive amounts divided by frequency: refunds do not shrink it.

    Raises
    ------
    InputError
        The file cannot be read, or columns or cells are wrong; the message lists each problem.
    """
    if not source.is_file():
        raise InputError(f"{source}: no such table; correct `table:` in the card.")
    with TemporaryDirectory() as name, _connect(name) as db:
        link = Path(name) / "source"  # a name that DuckDB takes for no pattern
        if source.suffix.lower() == ".parquet":
            scan = _open_parquet(db, source, link)
        else:
            scan = _open_csv(source, link, delimiter, encoding)
        problems = _check_header(db, scan, columns)
        if not problems:
            scan = _parse_cells(scan, columns, decimal, as_of)
            _group_rows(db, scan, source.name, columns)
            problems = _check_cells(db, scan, columns, decimal)
        if problems:
            raise InputError("\n".join(f"{source.name}: {problem}" for problem in problems))
        as_of = as_of or db.execute("SELECT max(latest) FROM customers").fetchone()[0]
        return _list_customers(db, as_of), _list_findings(db, as_of)


def _connect(folder: str) -> Any:
    """A database in at most 1 GiB of memory that spills into the folder; its days are of UTC."""
    try:
        import duckdb
    except ImportError:
        mend = "pip install 'segmentation[tables]'"
        raise InputError(f"transactions are read with DuckDB, which is missing; {mend}.") from None
    db = duckdb.connect(
        config={
            "memory_limit": "1GiB",
            "threads": min(4, os.cpu_count() or 1),
            "temp_directory": f"{folder}/spilled",
            "autoinstall_known_extensions": False,
        }
    )
    db.execute("SET TimeZone = 'UTC'")
    return db


def _open_parquet(db: Any, source: Path, link: Path) -> Scan:
    import duckdb

    link.symlink_to(source.resolve())
    parameters = {"path": str(link)}
    try:
        found = db.execute("DESCRIBE FROM read_parquet($path)", parameters).fetchall()
    except duckdb.Error:
        raise InputError(f"{source.name} is not a Parquet file; correct the file.") from None
    names = ", ".join(f"c{i}" for i in range(len(found)))
    return Scan(f"read_parquet($path) AS t({names})", parameters, [name for name, *_ in found])


def _open_csv(source: Path, link: Path, delimiter: str, encoding: str) -> Scan:
    """The scan of a CSV, every cell as text; the file is copied unless it is UTF-8."""
    try:
        if codecs.lookup(encoding).name in ("utf-8", "utf-8-sig"):
            link.symlink_to(source.resolve())
        else:
            with (
                source.open(encoding=encoding, newline="") as old,
                link.open("w", encoding="utf-8", newline="") as new,
            ):
                shutil.copyfileobj(old, new)
        with link.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, delimiter=delimiter, strict=True)
            skip, header = next(((n, row) for n, row in enumerate(lines, 1) if row), (0, []))
    except (UnicodeError, LookupError) as error:
        raise InputError(f"{source.name} is not {encoding}: {error}; set `encoding:`.") from None
    except csv.Error as error:
        raise InputError(f"{source.name} is not a regular CSV: {error}.") from None
    if not header:
        raise InputError(f"{source.name} is empty; give a table with a header.")
    cells = ", ".join(f"c{i}: 'VARCHAR'" for i in range(len(header)))
    sql = (
        f"read_csv($path, delim=$delimiter, quote='\"', escape='\"', header=false, skip={skip}, "
        f"auto_detect=false, columns={{{cells}}})"
    )
    parameters = {"path": str(link), "delimiter": delimiter}
    return Scan(sql, parameters, header, "line", lines.line_num + 1)


def _find_column(header: list[str], wanted: str) -> list[int]:
    names = [name.strip().casefold() for name in header]
    return [i for i, name in enumerate(names) if name == wanted.strip().casefold()]


def _check_header(db: Any, scan: Scan, columns: Transactions) -> list[str]:
    """Columns that are missing or stand twice, and a date format that is none."""
    import duckdb

    if len(scan.header) == 1:
        return ["the table has one column; set `delimiter:`, if it is a CSV at all."]
    problems = []
    for key in ("customer", "date", "amount", "order"):
        wanted = getattr(columns, key)
        found = _find_column(scan.header, wanted)
        if wanted and not found:
            mend = f"{_suggest(wanted, scan.header)} Correct `{key}:`."
            problems.append(f"column {wanted} is missing; {mend}")
        if wanted and len(found) > 1:
            problems.append(f"column {wanted} stands {len(found)} times; keep one.")
    try:
        db.execute("SELECT try_strptime('', $format)", {"format": columns.date_format or "%d"})
    except duckdb.Error:
        problems.append(f"`date_format:` {columns.date_format!r} is unknown; write %d, %m, %Y.")
    return problems


def _suggest(wanted: str, header: list[str]) -> str:
    """The nearest name of the header, or all; but a first line of data is not repeated."""
    names = {name.strip().casefold(): name.strip() for name in header}
    if any(re.fullmatch(f"{STAMP}|{NUMBER}", name, re.IGNORECASE) for name in names):
        return "the first line looks like data: give the table a header."
    near = get_close_matches(wanted.strip().casefold(), names, n=1)
    return f"did you mean {names[near[0]]}?" if near else f"known are {', '.join(names.values())}."


def _parse_cells(scan: Scan, columns: Transactions, decimal: str, as_of: date | None) -> Scan:
    """The scan of customer, bill, day and amount; a cell that cannot be parsed is NULL."""
    found = {key: _find_column(scan.header, name) for key, name in columns if name}
    at = {key: f"c{places[0]}" for key, places in found.items() if places}
    text = {key: f"trim(coalesce({cell}::VARCHAR, ''))" for key, cell in at.items()}
    number, day, parameters = "written", ISO_DAY, scan.parameters | {"until": as_of or date.max}
    if decimal == ",":
        swapped = "replace(replace(written, '.', '?'), ',', '.')"
        number = f"IF(typeof({at['amount']}) = 'VARCHAR', {swapped}, written)"
    if columns.date_format:
        said = "try_strptime(dated, $format)::DATE"
        day = f"CASE WHEN typeof({at['date']}) = 'VARCHAR' THEN {said} ELSE {ISO_DAY} END"
        parameters["format"] = columns.date_format
    sql = f"""(
        SELECT {text["customer"]} AS customer, {text["date"]} AS dated, {text["amount"]} AS written,
            {text.get("order", "'a row'")} AS bill, {number} AS number,
            {day} AS day,
            IF(regexp_full_match(number, '{NUMBER}'), try_cast(number AS {EXACT}), NULL) AS amount,
            amount > 0 AND day <= $until AS bought,
            hash({", ".join(f"c{i}" for i in range(len(scan.header)))}) AS whole
        FROM {scan.sql})"""
    return scan._replace(sql=sql, parameters=parameters)


def _group_rows(db: Any, scan: Scan, name: str, columns: Transactions) -> None:
    """Make the table `customers`: sums and counts of each customer, in the one scan."""
    import duckdb

    purchases = "count(DISTINCT bill)" if columns.order else "count(*)"
    sql = f"""CREATE TABLE customers AS SELECT customer, max(day) AS latest, min(day) AS earliest,
        max(day) FILTER (bought) AS last_day, min(day) FILTER (bought) AS first_day,
        {purchases} FILTER (bought) AS frequency, sum(amount) FILTER (bought) AS spent,
        sum(amount) FILTER (day <= $until) AS monetary,
        count(*) AS rows, count(*) - count(DISTINCT whole) AS repeated,
        count(*) FILTER (day > $until) AS later,
        count(*) FILTER (day <= $until AND amount < 0) AS refunds,
        count(*) FILTER (day <= $until AND amount = 0) AS zeros,
        count(*) FILTER (customer = '' OR day IS NULL OR amount IS NULL OR bought AND bill = '')
            AS wrong
        FROM {scan.sql} GROUP BY customer"""
    try:
        db.execute(sql, scan.parameters)
    except duckdb.InvalidInputException as error:  # its text holds the row
        line = re.match(r".*CSV Error on Line: (\d+)", str(error))
        raise InputError(
            f"{name} is not a regular table{f' at line {line[1]}' if line else ''}; give each row "
            f"{len(scan.header)} cells, close the quotes, and set `encoding:` unless it is UTF-8."
        ) from None


def _check_cells(db: Any, scan: Scan, columns: Transactions, decimal: str) -> list[str]:
    """Cells that are empty or not understood, with their places, and too few rows or customers."""
    rows, wrong, customers, buyers = db.execute(
        "SELECT coalesce(sum(rows), 0), coalesce(sum(wrong), 0), count(*) FILTER (customer <> ''),"
        " count(*) FILTER (frequency > 0) FROM customers"
    ).fetchone()
    if not rows:
        return ["the table has no rows; give one a transaction."]
    form = f"of the form {columns.date_format!r}" if columns.date_format else "ISO (2024-12-31)"
    days = f"dates are not {form}", "correct them or say `date_format:`."
    sums = (
        f"amounts are not plain numbers with decimal {decimal!r}",
        "drop signs or say `decimal:`.",
    )
    kinds = [
        (columns.customer, "customer = ''", "''", "customer ids are empty", "fill them."),
        (columns.date, "day IS NULL", "dated", *days),
        (columns.amount, "amount IS NULL", "written", *sums),
        (columns.order, "bought AND bill = ''", "''", "purchases have no order id", "fill them."),
    ]
    problems = [_find_cells(db, scan, *kind) for kind in kinds] if wrong else []
    count, who = (customers, "customers") if wrong else (buyers, "customers with a purchase")
    if count < FEWEST_CUSTOMERS:
        problems.append(f"{count} {who} are too few; give at least {FEWEST_CUSTOMERS}.")
    return [problem for problem in problems if problem]


def _find_cells(db: Any, scan: Scan, column: str, wrong: str, cell: str, what: str, do: str) -> str:
    """How many cells are wrong, the first one and where the first three stand; empty if none."""
    sql = f"SELECT *, row_number() OVER () + {scan.first - 1} AS line FROM {scan.sql}"
    count, lines, sample = db.execute(
        f"SELECT count(*), min(line, 3), arg_min({cell}, line) FROM ({sql}) WHERE {wrong}",
        scan.parameters,
    ).fetchone()
    if not count:
        return ""
    places = f"{scan.place}{'s' * (count > 1)} {', '.join(map(str, lines))}{'…' * (count > 3)}"
    shown = f"{sample[:40]!r}, " if sample else ""
    return f"column {column}: {count} {what} ({shown}{places}); {do}"


def _list_customers(db: Any, as_of: date) -> pd.DataFrame:
    table = db.execute(
        "SELECT customer, $as_of - last_day AS recency, frequency, monetary::DOUBLE AS monetary, "
        "$as_of - first_day AS tenure, spent::DOUBLE / frequency AS basket "
        "FROM customers WHERE frequency > 0 ORDER BY customer",
        {"as_of": as_of},
    ).df()
    return table.astype({"customer": "str"})


def _list_findings(db: Any, as_of: date) -> pd.DataFrame:
    rows, first, last, *counts, idle, customers = db.execute(
        "SELECT sum(rows), min(earliest), max(latest), sum(repeated), sum(later), sum(refunds), "
        "sum(zeros), sum(rows) FILTER (frequency = 0), count(*) FILTER (frequency = 0) "
        "FROM customers"
    ).fetchone()
    repeated, later, refunds, zeros = counts
    findings = [
        ("rows read", rows, f"dated from {first} to {last}; days are counted up to {as_of}"),
        ("exact duplicate rows", repeated, "kept, as purchases may be alike; remove what is not"),
        (f"dates after {as_of}", later, "left out"),
        ("refunds: amounts below zero", refunds, "subtracted from the total; no purchase"),
        ("amounts of zero", zeros, "left aside: no purchase, nothing to add"),
        ("customers without a purchase", idle or 0, f"left out: {customers} customers"),
    ]
    found = [(rule, int(count), done) for rule, count, done in findings if count]
    return pd.DataFrame(found, columns=["rule", "rows", "what was done"])
