"""Purchases become customers: recency, frequency and spending, of files larger than memory.

One query groups the rows by customer; DuckDB puts what does not fit into memory into a temporary
folder. A file is read as a customer table is; Parquet and a large plain CSV are scanned where they
lie. No name or value of the file ever becomes SQL: column i is c<i>, whatever its header.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pandas as pd

from segmentation import InputError
from segmentation.customers import columns
from segmentation.customers import text as tables
from segmentation.customers.card import ROW, Card, Transactions, suggest
from segmentation.customers.dates import AMBIGUOUS, STAMP, find_date_format
from segmentation.customers.numbers import MISSING, ODD, find_decimal, find_missing, parse_numbers
from segmentation.customers.text import Notes

SCANNED = 10_000_000  # bytes of a CSV from which on it is scanned: UTF-8, with plain numbers
FIRST_ROWS = 20_000  # of a scanned table, which tell the decimal sign of its numbers
NUMBERS = {"amount": "amounts", "quantity": "quantities", "price": "prices"}
POINT = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
PLAIN = {".": POINT, ",": POINT.replace(r"\.", ","), "": r"[+-]?\d+"}  # by the decimal sign
EXACT = "DECIMAL(25, 10)"  # cents add up in any order; below 1e15, as in a customer table
FACTOR = "DECIMAL(19, 8)"  # a quantity or a price, so that the product is exact
NOBODY = f"lower(customer) IN ({', '.join(map(repr, sorted(MISSING)))})"
CANCELLED = "[Cc][- ]?[0-9]+"  # an order where most are numbers: C536379
ISO_DAY = f"""CASE
    WHEN length(dated) = 10 AND try_cast(dated AS DATE)::VARCHAR = dated THEN dated::DATE
    WHEN regexp_full_match(dated, '{STAMP}') THEN try_cast(dated AS TIMESTAMPTZ)::DATE END"""
GROUPED = """CREATE OR REPLACE TABLE customers AS SELECT *,
    CASE WHEN {nobody} THEN 'nobody' WHEN aside THEN 'return' ELSE 'kept' END AS put FROM (
    SELECT customer, {aside} AS aside, max(day) AS latest, min(day) AS earliest,
    max(day) FILTER (bought) AS last_day, min(day) FILTER (bought) AS first_day,
    {purchases} FILTER (bought) AS frequency, sum(amount) FILTER (bought) AS spent,
    sum(amount) FILTER (in_time) AS monetary, count(*) FILTER (NOT in_time) AS later,
    coalesce(sum(amount) FILTER (NOT in_time), 0)::DOUBLE AS spent_after,
    (count(*) FILTER (NOT in_time AND amount > 0) > 0)::DOUBLE AS bought_after,
    count(*) AS rows, count(*) - count(DISTINCT whole) AS repeated,
    count(*) FILTER (in_time AND amount < 0) AS refunds,
    count(*) FILTER (in_time AND amount = 0) AS zeros,
    count(*) FILTER (in_time AND cancelled) AS cancelled,
    count(*) FILTER (starts_with(bill, 'C') OR starts_with(bill, 'c')) AS marked,
    count(*) FILTER (day IS NULL OR amount IS NULL OR bought AND bill = '') AS wrong
    FROM rows GROUP BY {by})"""
SPELLED = r"""SELECT coalesce(bool_or(regexp_matches(customer, '[.,]'))
    AND bool_and(regexp_full_match(customer, '-?\d+(\.0+|,00?)?')), false),
    coalesce(sum(marked), 0) > 0 FROM customers WHERE put <> 'nobody'"""
NUMBERED = rf"""SELECT count(*) FILTER (regexp_full_match(bill, '\d+(\.0+)?')) > count(*) / 2
    AND bool_or(regexp_full_match(bill, '{CANCELLED}')) FROM rows WHERE bill <> ''"""
COUNTED = """SELECT {rows: (SELECT coalesce(sum(rows), 0) FROM customers),
    nobody: (SELECT coalesce(sum(rows), 0) FROM customers WHERE put = 'nobody'),
    returned: (SELECT coalesce(sum(rows), 0) FROM customers WHERE put = 'return'),
    wrong: coalesce(sum(wrong), 0), customers: count(*), buyers: count(*) FILTER (frequency > 0),
    first: min(earliest), last: max(latest), repeated: sum(repeated), later: sum(later),
    refunds: sum(refunds), zeros: sum(zeros), left_out: sum(rows) FILTER (frequency = 0),
    cancelled: sum(cancelled), idle: count(*) FILTER (frequency = 0)}
    FROM customers WHERE put = 'kept'"""
FAR = "DATE '2101-01-01'"  # no day of a purchase
APART = f"""SELECT coalesce(bool_or(day >= {FAR} OR day - before > 366), false) FROM (
    SELECT day, lag(day) OVER (ORDER BY day) AS before
    FROM (SELECT DISTINCT latest AS day FROM customers WHERE put = 'kept'))"""
STRAY = f"""SELECT min(day), arg_min(before, day) FROM (
    SELECT day, lag(day) OVER (ORDER BY day) AS before, sum(rows) OVER () AS total,
    sum(rows) OVER (ORDER BY day DESC) AS behind
    FROM (SELECT day, count(*) FILTER (day < {FAR}) AS rows FROM rows
    WHERE NOT aside AND NOT {NOBODY} GROUP BY day))
    WHERE day >= {FAR} OR day - before > 366 AND 100 * behind < total"""
FIGURES = """SELECT customer, $as_of - last_day AS recency, frequency,
    monetary::DOUBLE AS monetary, $as_of - first_day AS tenure, spent::DOUBLE / frequency AS basket,
    spent_after, bought_after
    FROM customers WHERE put = 'kept' AND frequency > 0 ORDER BY customer"""


class Wrong(NamedTuple):
    """A kind of wrong rows: their column, the condition and the cell shown, in SQL; rule, mend."""

    column: str
    where: str
    cell: str
    rule: str
    mend: str


def gather_customers(card: Card) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row a customer of a card with `transactions:`, by id; and what was found.

    A purchase is an order of a customer with a positive amount, or a row with one where the
    table has no orders. Days are calendar days (of UTC where a timestamp names its offset).
    `as_of` is the table's last day unless the card says it; rows after it are left out. An order
    `C536379` among numbers is a cancellation, whose amounts are negative whatever their sign.

    The customers have the id (text) and those features that the card keeps, float64:
    recency, tenure : days from the last and from the first purchase to `as_of`.
    frequency : number of purchases, at least 1.
    monetary : sum of all amounts: refunds, which are negative amounts, are subtracted.
    basket : sum of the positive amounts divided by frequency: refunds do not shrink it.

    The card's outcomes are what came after `as_of`: bought_after (1 or 0) and spent_after.
    """
    tables.check_file(card.source, card, limit=None)
    kind, size = card.source.suffix.lower(), card.source.stat().st_size
    stored = kind == ".parquet"
    scanned = stored or (kind not in tables.EXCEL and size > SCANNED and tables.is_utf8(card))
    fits = size <= (SCANNED if stored else tables.LARGEST_FILE)
    if scanned and fits:
        with suppress(InputError):  # signs, totals, short rows: the reader of text may know them
            return _gather(card, scanned=True)
    return _gather(card, scanned=scanned and not fits)


def _gather(card: Card, *, scanned: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    assert card.transactions
    said, notes = card.transactions, Notes()
    with _connect(card) as db:
        wrong = _open_rows(db, card, notes, scanned=scanned)
        counts = db.execute(COUNTED).fetchall()[0][0]
        stray = [] if card.as_of else _find_stray(db, said)
        odd = counts["wrong"] or (counts["nobody"] and said.missing == "refuse")
        _check_cells(db, counts, [*(wrong if odd else []), *stray], said, notes)
        notes.check(card.name)
        as_of = card.as_of or counts["last"]
        made = db.execute(FIGURES, {"as_of": as_of}).df().astype({"customer": "str"})
    if card.outcomes and not counts["later"]:
        mend = "leave `outcomes:` out, or name an earlier day"
        notes.refuse("", f"there is no purchase after the {as_of} of `as_of:`", mend)
    _tell_findings(
        counts, as_of, notes, later="counted as outcomes" if card.outcomes else "left out"
    )
    table = pd.DataFrame({card.id: made["customer"]} | columns.compute_features(card, made))
    table = table.join(made[[*card.outcomes]])
    for name, feature in card.features.items():
        if feature.transform == "log" and table[name].min() < 0:
            mend = "leave `transform: log` out of the card"
            notes.refuse(name, "negative for some customers, which has no logarithm", mend)
    notes.check(card.name)
    return table.astype(dict.fromkeys(card.features, float)), notes.tabulate()


@contextmanager
def _connect(card: Card) -> Iterator[Any]:
    """A database in at most 1 GiB of memory that spills into a folder; its days are of UTC.

    What it finds to be no regular table is refused.
    """
    duckdb = tables.load_extra("duckdb", "a table of purchases")
    settings = {"memory_limit": "1GiB", "threads": min(4, os.cpu_count() or 1)}
    with TemporaryDirectory() as folder:
        settings |= {"temp_directory": folder, "autoinstall_known_extensions": False}
        with duckdb.connect(config=settings) as db:
            db.execute("SET TimeZone = 'UTC'")
            try:
                yield db
            except duckdb.InvalidInputException as error:  # its text holds the row
                line = re.match(r".*CSV Error on Line: (\d+)", str(error))
                told = f"is not a regular table{f' at line {line[1]}' if line else ''}; give each"
                mend = "close the quotes, and save it as UTF-8, or as Parquet."
                width = len(db.view("cells").columns)
                raise InputError(f"{card.name} {told} row {width} cells, {mend}") from None


def _open_rows(db: Any, card: Card, notes: Notes, *, scanned: bool) -> list[Wrong]:
    """Make the view `placed` of all rows, NULL where a cell is not understood, and the table
    `customers`; what may be wrong in them."""
    assert card.transactions
    said, numbers, wrong = card.transactions, dict[str, str](), list[Wrong]()
    text = None if scanned else tables.read_text(card.source, notes, card=card)
    notes.check(card.name)
    header, line = _scan(db, card, notes) if text is None else (list(text), "line")
    found = _find_columns(db, header, said, notes)
    notes.check(card.name)
    names = [f"c{i}" for i in range(len(header))]
    cells = pd.DataFrame() if text is None else text.set_axis(names, axis=1)
    for key in [key for key in NUMBERS if key in found]:
        if text is None:
            numbers[key], rule, mend = _plan_number(db, key, found[key], card, notes)
        else:
            cells[f"{key}_read"], rule, mend = _read_number(text.iloc[:, found[key]], card, notes)
            numbers[key] = f"{key}_read::VARCHAR"
        rule = rule.replace("{} values", NUMBERS[key])
        wrong += [Wrong(said.columns[key], f"{key}_value IS NULL", f"{key}_cell", rule, mend)]
    if text is not None:
        db.register("cells", cells.assign(line=text.index))
    db.execute("SET VARIABLE until = $day", {"day": card.as_of or date.max})
    db.execute("SET VARIABLE form = $form", {"form": said.date_format})
    _group_rows(db, said, partial(_write_rows, db, said, found, numbers, names))
    db.execute(f"CREATE VIEW placed AS SELECT *, {line} AS place FROM rows")
    form = f"of the form {said.date_format!r}" if said.date_format else "ISO (2024-12-31)"
    idle = "fill them, or leave these rows out by `missing: drop` in `transactions:`"
    beyond = " AND ".join(["amount IS NULL", *(f"{key}_value IS NOT NULL" for key in numbers)])
    return [
        Wrong(said.customer, NOBODY, "''", "customer ids are empty", idle),
        Wrong(said.date, "day IS NULL", "dated", f"dates are not {form}", _mend_dates(db, said)),
        *wrong,
        Wrong(said.price, beyond, "''", "amounts are 1e15 or more", "correct them"),
        Wrong(said.order, "bought AND bill = ''", "''", "purchases have no order id", "fill them"),
    ]


def _mend_dates(db: Any, said: Transactions) -> str:
    """What to do about dates that are not understood: the format that they seem to have."""
    if not db.execute("SELECT sum(wrong) > 0 FROM customers").fetchall()[0][0]:
        return ""
    dated = db.execute(f"SELECT dated FROM placed LIMIT {FIRST_ROWS}").df()["dated"]
    found = find_date_format(dated)
    if found is None or found == said.date_format:
        return "correct them or say `date_format:`"
    if found == AMBIGUOUS:
        return 'say which is the day: `date_format:` with "%d" and "%m" in their places'
    return f'say `date_format: "{found}"`' if found else "leave `date_format:` out"


def _scan(db: Any, card: Card, notes: Notes) -> tuple[list[str], str]:
    """Make the view `cells` of a file where it lies; its header, and the SQL of a row's line."""
    path = glob.escape(str(card.source))
    if card.source.suffix.lower() == ".parquet":
        tables.count_rows(card.source)  # refuses what is none
        notes.point = True
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

    parts = said.columns
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


def _plan_number(db: Any, key: str, column: int, card: Card, notes: Notes) -> tuple[str, str, str]:
    """SQL of a number where it lies: plain, with the decimal sign that the first rows settle;
    what is told where it is none, and the mend."""
    sign, cells = ".", db.view("cells").project(f"trim(coalesce(c{column}::VARCHAR, ''))")
    if str(db.view("cells").types[column]) == "VARCHAR":
        sign = _find_sign(cells.limit(FIRST_ROWS).df().iloc[:, 0], card) or "." * notes.point
    plain = f"regexp_full_match({key}_cell, '{PLAIN[sign]}')"
    number = f"replace({key}_cell, ',', '.')" if sign == "," else f"{key}_cell"
    mend = "drop signs or say `decimal:`"
    return f"IF({plain}, {number}, NULL)", "{} values are not plain numbers", mend


def _read_number(cells: pd.Series, card: Card, notes: Notes) -> tuple[pd.Series, str, str]:
    """Numbers as in a customer table; what is told where a cell is none, and the mend."""
    own = cells.str.strip()
    known = own[~find_missing(own)]
    values, rule, mend = parse_numbers(known, _find_sign(known, card), point=notes.point)
    if values.isna().any():
        return values.reindex(own.index), rule, mend.partition(", or")[0]
    if mend:
        notes.tell(str(own.name), rule, len(known), mend)
    return values.reindex(own.index), ODD[0], "correct them"


def _find_sign(cells: pd.Series, card: Card) -> str:
    """The decimal sign that a column settles by itself, else the card's."""
    return find_decimal(cells.to_frame()) or card.decimal


def _group_rows(db: Any, said: Transactions, write: Callable[..., str]) -> None:
    """Make the view `rows` and the table `customers`: sums and counts of each, in the one scan.

    Ids that are whole numbers with `.0`, and orders that are cancellations, are known only after
    it; where there are some, the rows are grouped a second time.
    """
    purchases = "count(DISTINCT bill)" if said.order else "count(*)"
    aside, by = ("aside", "customer, aside") if said.returns == "drop" else ("false", "customer")
    grouped = GROUPED.format(nobody=NOBODY, purchases=purchases, aside=aside, by=by)
    db.execute(write()).execute(grouped)
    whole, marked = db.execute(SPELLED).fetchall()[0]
    marked = marked and db.execute(NUMBERED).fetchall()[0][0]
    if whole or marked:
        db.execute(write(whole=whole, cancelled=marked)).execute(grouped)


def _write_rows(
    db: Any,
    said: Transactions,
    found: dict[str, int],
    numbers: dict[str, str],
    cells: list[str],
    *,
    whole: bool = False,
    cancelled: bool = False,
) -> str:
    """SQL of the view `rows`; what is no text in the file needs no format and no decimal sign."""
    part = {key: f"trim(coalesce(c{i}::VARCHAR, ''))" for key, i in found.items()}
    bare = f"regexp_replace({part['customer']}, '^(-?[0-9]+)(\\.0+|,00?)$', '\\1')"
    text = str(db.view("cells").types[found["date"]]) == "VARCHAR"
    day = "try_strptime(dated, getvariable('form'))::DATE" if said.date_format and text else ISO_DAY
    kind, dropped = EXACT if "amount" in numbers else FACTOR, said.returns == "drop"
    values = [f"try_cast({number} AS {kind}) AS {key}_value" for key, number in numbers.items()]
    amount = f"try_cast({' * '.join(f'{key}_value' for key in numbers)} AS {EXACT})"
    return f"""CREATE OR REPLACE VIEW rows AS SELECT *,
        {bare if whole else part["customer"]} AS customer, {part["date"]} AS dated,
        {part.get("order", "'a row'")} AS bill, {day} AS day,
        {", ".join(f"{part[key]} AS {key}_cell" for key in numbers)}, {", ".join(values)},
        {f"regexp_full_match(bill, '{CANCELLED}')" if cancelled else "false"} AS cancelled,
        {f"IF(cancelled, -abs({amount}), {amount})" if cancelled else amount} AS amount,
        {"coalesce(amount < 0, false) OR cancelled" if dropped else "false"} AS aside,
        day <= getvariable('until') AS in_time, amount > 0 AND in_time AS bought,
        hash({", ".join(cells)}) AS whole FROM cells"""


def _find_stray(db: Any, said: Transactions) -> list[Wrong]:
    """Days beyond 2100, and less than 1 % of all rows more than a year behind all others: without
    the card's `as_of` everyone's days would be counted up to a slip of the pen."""
    if not db.execute(APART).fetchall()[0][0]:
        return []
    ((first, before),) = db.execute(STRAY).fetchall()
    if first is None:
        return []
    such = f", as `as_of: {before}`" if before else ""
    mend = f"correct them, or say in the card up to which day rows count{such}"
    where = f"day >= DATE '{first}' AND NOT aside"
    return [Wrong(said.date, where, "dated", "dates lie far behind all others", mend)]


def _check_cells(
    db: Any, counts: columns.Counts, wrong: list[Wrong], said: Transactions, notes: Notes
) -> None:
    """Note what is wrong, with the first rows, and too few customers."""
    if not counts["rows"]:
        notes.refuse("", "the table has no rows", "give one a purchase")
        return
    kept = f" AND NOT aside{f' AND NOT {NOBODY}' if said.missing == 'drop' else ''}"
    for column, where, cell, what, mend in wrong:
        sql = f"""SELECT place, {cell} AS cell, count(*) OVER () AS rows FROM placed
            WHERE ({where}){kept} ORDER BY place LIMIT 4"""
        found = db.execute(sql).df().set_index("place")
        name = "cell" if (found["cell"] != "").any() else ROW  # ids, and empty cells, are not shown
        for rows in found["rows"].head(1):
            notes.refuse(column, f"{rows:,} {what}", mend, found["cell"].rename(name))
    found = counts["customers" if notes.problems else "buyers"]
    if found < columns.FEWEST_ROWS:
        who = "customers" if notes.problems else "customers with a purchase"
        notes.refuse("", f"{found} {who} are too few", f"give at least {columns.FEWEST_ROWS}")


def _tell_findings(counts: columns.Counts, as_of: date, notes: Notes, *, later: str) -> None:
    dated = f"dated from {counts['first']} to {counts['last']}; days are counted up to {as_of}"
    idle = f"left out: {counts['idle']} customers"
    findings = [
        ("rows", "rows read", dated),
        ("repeated", "exact duplicate rows", "kept, as purchases may be alike; remove what is not"),
        ("nobody", "rows without a customer", "left out"),
        ("returned", "returns: amounts below zero or cancelled orders", "left out"),
        ("later", f"dates after {as_of}", later),
        (
            "cancelled",
            "rows of cancelled orders: C before the number",
            "their amounts are negative",
        ),
        ("refunds", "refunds: amounts below zero", "subtracted from the total; no purchase"),
        ("zeros", "amounts of zero", "left aside: no purchase, nothing to add"),
        ("left_out", "customers without a purchase", idle),
    ]
    for figure, rule, done in findings:
        if counts[figure]:
            notes.tell("", rule, int(counts[figure]), done)
