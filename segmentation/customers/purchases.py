"""Purchases become customers: recency, frequency and spending, of files larger than memory.

One query groups the rows by customer; DuckDB puts what does not fit into memory into a temporary
folder. A file is read as a customer table is; Parquet and a very large CSV are scanned where they
lie. No name or value of the file ever becomes SQL: column i is c<i>, whatever its header.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from segmentation import InputError
from segmentation.customers import columns
from segmentation.customers import text as tables
from segmentation.customers.card import ROW, Card, Transactions, suggest
from segmentation.customers.text import Notes

SCANNED = 10_000_000  # bytes of a CSV from which on it is scanned: UTF-8, with plain numbers
STAMP = r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d(:?\d\d)?)?)?"
NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
EXACT = "DECIMAL(25, 10)"  # cents add up in any order; below 1e15, as in a customer table
ISO_DAY = f"""CASE
    WHEN length(dated) = 10 AND try_cast(dated AS DATE)::VARCHAR = dated THEN dated::DATE
    WHEN regexp_full_match(dated, '{STAMP}') THEN try_cast(dated AS TIMESTAMPTZ)::DATE END"""
GROUPED = """CREATE TABLE customers AS SELECT customer, max(day) AS latest, min(day) AS earliest,
    max(day) FILTER (bought) AS last_day, min(day) FILTER (bought) AS first_day,
    {purchases} FILTER (bought) AS frequency, sum(amount) FILTER (bought) AS spent,
    sum(amount) FILTER (in_time) AS monetary, count(*) FILTER (NOT in_time) AS later,
    count(*) AS rows, count(*) - count(DISTINCT whole) AS repeated,
    count(*) FILTER (in_time AND amount < 0) AS refunds,
    count(*) FILTER (in_time AND amount = 0) AS zeros,
    count(*) FILTER (customer = '' OR day IS NULL OR amount IS NULL OR bought AND bill = '')
        AS wrong FROM rows GROUP BY customer"""
COUNTED = """SELECT {rows: coalesce(sum(rows), 0), wrong: coalesce(sum(wrong), 0),
    customers: count(*) FILTER (customer <> ''), buyers: count(*) FILTER (frequency > 0),
    first: min(earliest), last: max(latest), repeated: sum(repeated), later: sum(later),
    refunds: sum(refunds), zeros: sum(zeros), left_out: sum(rows) FILTER (frequency = 0),
    idle: count(*) FILTER (frequency = 0)} FROM customers"""
FIGURES = """SELECT customer, $as_of - last_day AS recency, frequency,
    monetary::DOUBLE AS monetary, $as_of - first_day AS tenure, spent::DOUBLE / frequency AS basket
    FROM customers WHERE frequency > 0 ORDER BY customer"""


def gather_customers(card: Card) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row a customer of a card with `transactions:`, by id; and what was found.

    A purchase is an order of a customer with a positive amount, or a row with one where the
    table has no orders. Days are calendar days (of UTC where a timestamp names its offset).
    `as_of` is the table's last day unless the card says it; rows after it are left out.

    The customers have the id (text) and those features that the card keeps, float64:
    recency, tenure : days from the last and from the first purchase to `as_of`.
    frequency : number of purchases, at least 1.
    monetary : sum of all amounts: refunds, which are negative amounts, are subtracted.
    basket : sum of the positive amounts divided by frequency: refunds do not shrink it.
    """
    notes = Notes()
    tables.check_file(card.source, card, limit=None)
    with _connect() as db:
        kinds = _open_rows(db, card, notes)
        _group_rows(db, card)
        counts = db.execute(COUNTED).fetchall()[0][0]
        _check_cells(db, counts, kinds, notes)
        notes.check(card.name)
        as_of = card.as_of or counts["last"]
        made = db.execute(FIGURES, {"as_of": as_of}).df().astype({"customer": "str"})
    _tell_findings(counts, as_of, notes)
    table = pd.DataFrame({card.id: made["customer"]} | columns.compute_features(card, made))
    for name, feature in card.features.items():
        if feature.transform == "log" and table[name].min() < 0:
            mend = "leave `transform: log` out of the card"
            notes.refuse(name, "negative for some customers, which has no logarithm", mend)
    notes.check(card.name)
    return table.astype(dict.fromkeys(card.features, float)), notes.tabulate()


@contextmanager
def _connect() -> Iterator[Any]:
    """A database in at most 1 GiB of memory that spills into a folder; its days are of UTC."""
    duckdb = tables.load_extra("duckdb", "a table of purchases")
    settings = {"memory_limit": "1GiB", "threads": min(4, os.cpu_count() or 1)}
    with TemporaryDirectory() as folder:
        settings |= {"temp_directory": folder, "autoinstall_known_extensions": False}
        with duckdb.connect(config=settings) as db:
            db.execute("SET TimeZone = 'UTC'")
            yield db


def _open_rows(db: Any, card: Card, notes: Notes) -> list[list[str]]:
    """Make the view `rows`, NULL where a cell is not understood; what may be wrong in it."""
    assert card.transactions
    said = card.transactions
    text = None if _is_scanned(card) else tables.read_text(card.source, notes, card=card)
    notes.check(card.name)
    header, line = _scan(db, card, notes) if text is None else (list(text), "line")
    found = _find_columns(db, header, said, notes)
    notes.check(card.name)
    mend, plain = "drop signs or say `decimal:`", "plain "
    if text is not None:
        numbers, mend = _parse_amounts(text.iloc[:, found["amount"]], card, notes)
        cells, plain = text.set_axis([f"c{i}" for i in range(text.shape[1])], axis=1), ""
        db.register("cells", cells.assign(line=text.index, number=numbers))
    db.execute("SET VARIABLE until = $day", {"day": card.as_of or date.max})
    db.execute("SET VARIABLE form = $form", {"form": said.date_format})
    db.execute(_write_rows(db.view("cells"), found, card, len(header)))
    db.execute(f"CREATE VIEW placed AS SELECT *, {line} AS place FROM rows")
    form = f"of the form {said.date_format!r}" if said.date_format else "ISO (2024-12-31)"
    date_mend = "correct them or say `date_format:`"
    return [
        [said.customer, "customer = ''", "''", "customer ids are empty", "fill them"],
        [said.date, "day IS NULL", "dated", f"dates are not {form}", date_mend],
        [said.amount, "amount IS NULL", "written", f"amounts are not {plain}numbers", mend],
        [said.order, "bought AND bill = ''", "''", "purchases have no order id", "fill them"],
    ]


def _is_scanned(card: Card) -> bool:
    """Whether a file stays where it lies: Parquet, or a large CSV that may be UTF-8."""
    kind, encoding = card.source.suffix.lower(), card.encoding.casefold().replace("-", "")
    text = kind not in tables.EXCEL and encoding in ("", "utf8", "utf8sig")
    return kind == ".parquet" or (text and card.source.stat().st_size > SCANNED)


def _scan(db: Any, card: Card, notes: Notes) -> tuple[list[str], str]:
    """Make the view `cells` of a file where it lies; its header, and the SQL of a row's line."""
    path = glob.escape(str(card.source))
    if card.source.suffix.lower() == ".parquet":
        tables.count_rows(card.source)  # refuses what is none
        found = db.read_parquet(path)
        header, line = found.columns, "row_number() OVER () + 1"
        found = found.project(", ".join(f"#{i + 1} AS c{i}" for i in range(len(header))))
    else:
        header, first, above, delimiter = tables.read_header(card.source, notes, card)
        form = {"delimiter": delimiter, "quotechar": '"', "escapechar": '"', "header": False}
        names = {f"c{i}": "VARCHAR" for i in range(len(header))}
        found = db.read_csv(path, **form, skiprows=above, auto_detect=False, columns=names)
        line = f"row_number() OVER () + {first - 1}"
    found.create_view("cells")
    return header, line


def _find_columns(db: Any, header: list[str], said: Transactions, notes: Notes) -> dict[str, int]:
    """Where the column of each part stands; what is missing, or no format of dates, is noted."""
    import duckdb

    parts = {key: name for key, name in said if name and key != "date_format"}
    found = columns.match_names(header, {name: [] for name in parts.values()})
    for key, name in parts.items():
        if name not in found:
            mend = f"{suggest(name, header)} Correct `{key}:`"
            notes.refuse("", f"column {name} is missing", mend)
    try:
        db.execute("SELECT try_strptime('', $form)", {"form": said.date_format or "%d"}).fetchall()
    except duckdb.Error:
        rule = f"`date_format:` {said.date_format!r} is unknown"
        notes.refuse("", rule, "write it with %d, %m and %Y")
    return {key: header.index(found[name]) for key, name in parts.items() if name in found}


def _parse_amounts(text: pd.Series, card: Card, notes: Notes) -> tuple[pd.Series, str]:
    """Amounts as in a customer table, and the mend where one is none."""
    cells = text.str.strip()
    known = cells[~tables.find_missing(cells)]
    decimal = card.decimal or tables.find_decimal(known.to_frame())
    values, rule, mend = tables.parse_numbers(known, decimal, point=notes.point)
    if values.isna().any():
        return values.reindex(text.index), mend.partition(", or")[0]
    if mend:
        notes.tell(str(text.name), rule, len(known), mend)
    return values.reindex(text.index), "correct them"


def _write_rows(cells: Any, found: dict[str, int], card: Card, width: int) -> str:
    """SQL of the view `rows`; what is no text in the file needs no format and no decimal sign."""
    assert card.transactions
    texts = {key for key, i in found.items() if str(cells.types[i]) == "VARCHAR"}
    part = {key: f"trim(coalesce(c{i}::VARCHAR, ''))" for key, i in found.items()}
    formatted = card.transactions.date_format and "date" in texts
    day = "try_strptime(dated, getvariable('form'))::DATE" if formatted else ISO_DAY
    comma = card.decimal == "," and "amount" in texts
    number = "replace(replace(written, '.', '?'), ',', '.')" if comma else "written"
    amount = f"IF(regexp_full_match({number}, '{NUMBER}'), try_cast({number} AS {EXACT}), NULL)"
    if "number" in cells.columns:
        amount = f"try_cast(number AS {EXACT})"
    return f"""CREATE VIEW rows AS SELECT *, {part["customer"]} AS customer,
        {part["date"]} AS dated, {part["amount"]} AS written,
        {part.get("order", "'a row'")} AS bill, {day} AS day, {amount} AS amount,
        day <= getvariable('until') AS in_time, amount > 0 AND in_time AS bought,
        hash({", ".join(f"c{i}" for i in range(width))}) AS whole FROM cells"""


def _group_rows(db: Any, card: Card) -> None:
    """Make the table `customers`: sums and counts of each customer, in the one scan."""
    import duckdb

    assert card.transactions
    purchases = "count(DISTINCT bill)" if card.transactions.order else "count(*)"
    try:
        db.execute(GROUPED.format(purchases=purchases))
    except duckdb.InvalidInputException as error:  # its text holds the row
        line = re.match(r".*CSV Error on Line: (\d+)", str(error))
        width = len(db.view("cells").columns)
        raise InputError(
            f"{card.name} is not a regular table{f' at line {line[1]}' if line else ''}; give each "
            f"row {width} cells, close the quotes, and save it as UTF-8, or as Parquet."
        ) from None


def _check_cells(db: Any, counts: columns.Counts, kinds: list[list[str]], notes: Notes) -> None:
    """Note what is wrong (column, condition, cell shown, rule, mend), and too few customers."""
    if not counts["rows"]:
        notes.refuse("", "the table has no rows", "give one a purchase")
        return
    for column, where, cell, what, mend in kinds if counts["wrong"] else []:
        sql = f"SELECT place, {cell} AS cell, count(*) OVER () AS rows FROM placed WHERE {where}"
        found = db.execute(f"{sql} ORDER BY place LIMIT 4").df().set_index("place")
        name = "cell" if (found["cell"] != "").any() else ROW  # ids, and empty cells, are not shown
        for rows in found["rows"].head(1):
            notes.refuse(column, f"{rows:,} {what}", mend, found["cell"].rename(name))
    found = counts["customers" if counts["wrong"] else "buyers"]
    if found < columns.FEWEST_ROWS:
        who = "customers" if counts["wrong"] else "customers with a purchase"
        notes.refuse("", f"{found} {who} are too few", f"give at least {columns.FEWEST_ROWS}")


def _tell_findings(counts: columns.Counts, as_of: date, notes: Notes) -> None:
    dated = f"dated from {counts['first']} to {counts['last']}; days are counted up to {as_of}"
    idle = f"left out: {counts['idle']} customers"
    findings = [
        ("rows", "rows read", dated),
        ("repeated", "exact duplicate rows", "kept, as purchases may be alike; remove what is not"),
        ("later", f"dates after {as_of}", "left out"),
        ("refunds", "refunds: amounts below zero", "subtracted from the total; no purchase"),
        ("zeros", "amounts of zero", "left aside: no purchase, nothing to add"),
        ("left_out", "customers without a purchase", idle),
    ]
    for figure, rule, done in findings:
        if counts[figure]:
            notes.tell("", rule, int(counts[figure]), done)
