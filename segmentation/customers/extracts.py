"""What is pulled out of a table that stays where it is: checks, and customers compressed or drawn.

Every value is checked where the rows are. Equal rows come as one with their count, exactly, where
that makes few enough of them; else a seeded sample comes, each of its customers standing for as
many others.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import pandas as pd

from segmentation import InputError
from segmentation.customers import columns as fields
from segmentation.customers import database as warehouse
from segmentation.customers import text as tables
from segmentation.customers.card import COUNT, ROW, Card
from segmentation.customers.text import Notes

if TYPE_CHECKING:
    import ibis

MOST_DISTINCT = 1_000_000
"""Rows that differ in a feature or descriptor: up to so many come with their counts."""

SAMPLED = 200_000
"""Customers of the sample that comes where more rows differ."""

QUARTILES = (0.25, 0.5, 0.75)
FIGURES = ("customers", "mean", "sd", "min", "q25", "median", "q75", "max")

MOST_LEVELS = 10_000
"""Distinct cells of a descriptor that are fetched to be read by the card."""

IDS_AT_ONCE = 10_000_000


def is_large(card: Card) -> bool:
    """Whether the card's table stays where it is: in a database, or a large Parquet file."""
    if card.backend:
        return True
    source = card.source
    parquet = source.suffix.lower() == ".parquet" and source.is_file() and not card.transactions
    return parquet and tables.count_rows(source) > tables.LARGE


def hash_table(card: Card) -> str:
    """What tells the card's table from another: its file's SHA-256, or one of its figures.

    In a database: of the number of rows and, column by column, the sum of hashes of the values,
    whatever the order of the rows.
    """
    if not card.backend:
        return tables.hash_file(card.source)
    table = open_customers(card, Notes())
    sums = {name: (table[name].hash() % (1 << 20)).sum() for name in table.columns}
    facts = table.aggregate(rows=table.count(), **sums).to_pandas().iloc[0]
    return hashlib.sha256(repr([int(fact) for fact in facts.fillna(0)]).encode()).hexdigest()


def open_customers(card: Card, notes: Notes) -> ibis.Table:
    """The card's columns where they are: id and descriptors as text, features as numbers.

    Whole numbers keep their type, which groups and copies faster; others are float64.

    Raises
    ------
    InputError
        The table cannot be opened, a column is missing, or a feature holds no numbers.
    """
    table = _open(card)
    found = fields.find_columns(table.columns, 0, card, notes)
    for name in card.features:
        kind = table[found[name]].type() if name in found else None
        if kind is not None and not kind.is_numeric():
            mend = "store it as numbers, or make it a descriptor"
            notes.refuse(name, f"its values are {kind}, not numbers", mend)
    notes.check(card.name)
    taken = {
        name: (_keep_number if name in card.features else take_text)(table[header])
        for name, header in found.items()
    }
    return table.select(**taken)


def _open(card: Card) -> ibis.Table:
    if not card.backend:
        return warehouse.open_file(card.source)
    url, scheme = os.path.expandvars(card.backend), "duckdb://"
    if url.startswith(scheme) and (path := url.removeprefix(scheme).partition("?")[0]):
        place = (card.path.parent / path).resolve()
        url = f"{scheme}{place}?read_only=True"
    return warehouse.open_table(url, card.table)


def _keep_number(cells: ibis.Column) -> ibis.Column:
    """A numeric column: whole numbers as they are stored, others as `take_number`."""
    return cells if cells.type().is_integer() else take_number(cells)


def take_number(cells: ibis.Column) -> ibis.Column:
    """A numeric column as float64, NULL where missing or NaN."""
    values = cells.cast("float64")
    return values.isnan().ifelse(None, values) if cells.type().is_floating() else values


def take_text(cells: ibis.Column) -> ibis.Column:
    """Cells as text; whole numbers without a fraction."""
    text = cells.cast("string")
    return text.re_replace(r"\.0+$", "") if cells.type().is_floating() else text


def extract_customers(card: Card, notes: Notes, *, seed: int = 0) -> pd.DataFrame:
    """The card's customers, compressed or drawn, checked as a table that is read whole.

    Columns: in a sample the id; features (float), descriptors (their levels), and how many
    customers a row stands for (`cards.COUNT`).

    Raises
    ------
    InputError
        As `open_customers`; or a sample is to be drawn from a table without ids.
    """
    table = open_customers(card, notes)
    found = _check_features(table, card, notes)
    levels = {name: _read_levels(table, name, card, notes) for name in card.descriptors}
    notes.check(card.name)
    rows, few = int(found["rows"]), _are_few(table, card, found, levels)
    pulled = _compress(table, card) if few else _draw(table, card, rows, seed)
    how = "counted as {:,} different ones" if few else "seen in a seeded sample of {:,}"
    notes.tell("", "customers in the table", rows, how.format(len(pulled)))
    for name, known in levels.items():
        pulled[name] = pulled[name].map(known.get).astype(object)
    kept = pulled.astype(dict.fromkeys(card.features, float) | {COUNT: float})
    return kept if all(map(_is_plain, levels.values())) else _merge(kept)


def _is_plain(levels: dict[Any, Any]) -> bool:
    """Whether no two cells mean the same level, and none nothing."""
    return None not in levels.values() and len({*levels.values()}) == len(levels)


def _merge(table: pd.DataFrame) -> pd.DataFrame:
    """Rows that have become equal as one."""
    keys = [name for name in table if name != COUNT]
    return table.groupby(keys, dropna=False, sort=False)[COUNT].sum().reset_index()


def _are_few(
    table: ibis.Table, card: Card, found: pd.Series, levels: Mapping[str, Mapping[Any, Any]]
) -> bool:
    """Whether few enough rows differ to come with counts: so by their ranges, or as estimated."""
    import ibis

    if all(table[name].type().is_integer() for name in card.features):
        spans = [found[f"high{i}"] - found[f"low{i}"] + 2 for i in range(len(card.features))]
        if prod(spans) * prod(len(each) + 1 for each in levels.values()) <= MOST_DISTINCT:
            return True
    known = {name: table[name] for name in (*card.features, *card.descriptors)}
    return int(ibis.struct(known).hash().approx_nunique().to_pandas()) <= MOST_DISTINCT


def _compress(table: ibis.Table, card: Card) -> pd.DataFrame:
    keys = [*card.features, *card.descriptors]
    counted = table.group_by(keys).aggregate(**{COUNT: table.count()})
    return counted.order_by(keys).to_pandas()


def _draw(table: ibis.Table, card: Card, rows: int, seed: int) -> pd.DataFrame:
    """The customers with the lowest hashes of id and seed: with the same ids, the same people."""
    if card.id == ROW:
        raise InputError(
            f"{card.name} has too many different rows to count; name a column by `id:` in the "
            "card, so that a sample can be drawn by it."
        )
    order = (table[card.id] + f"/{seed}").hash()
    pulled = table.order_by([order, table[card.id]]).limit(SAMPLED).to_pandas()
    return pulled.assign(**{COUNT: rows / len(pulled)})


# Measures ----------------------------------------------------------------------------------


def measure_columns(
    table: ibis.Table, numbers: Mapping[str, ibis.Column], *, by: str = ""
) -> pd.DataFrame:
    """One row a column of numbers of everyone, and after them one per cluster and column.

    Rows with an empty `by` are left out. Columns: cluster (of `by`; empty for everyone), size,
    variable, customers (of them those with a value), mean, sd (divisor n), min, q25, median, q75,
    max. Exact, but for quantiles where a database has only approximate ones; DuckDB, PostgreSQL
    and Spark interpolate as numpy does.
    """
    import ibis

    cluster = table[by] if by else ibis.literal(0, "int64")
    plain = {  # no filter: planners would write all that `by` takes into it
        f"x{i}": cluster.notnull().ifelse(values, None) for i, values in enumerate(numbers.values())
    }
    used = table.select(cluster=cluster, **plain).view()
    means = used.aggregate(**{name: used[name].mean() for name in plain}).to_pandas().iloc[0]
    shifts = means.fillna(0.0).to_dict()
    figures = _list_figures(used, shifts)
    wide = [used.aggregate(**figures).to_pandas().assign(cluster=pd.NA)]
    if by:
        each = used.group_by("cluster").aggregate(**figures)
        wide.append(each.order_by("cluster").to_pandas().dropna(subset="cluster"))
    return _lengthen(pd.concat(wide, ignore_index=True), list(numbers), shifts)


def _list_figures(used: ibis.Table, shifts: dict[Any, float]) -> dict[str, Any]:
    """The aggregates of each column, about its mean where digits would be lost."""
    figures: dict[str, Any] = {"size": used.cluster.count()}
    for name, shift in shifts.items():
        values = used[name] - warehouse.write_number(shift)
        each = [values.count(), values.mean(), values.std(how="pop"), used[name].min()]
        each += [used[name].quantile(share) for share in QUARTILES]
        each += [used[name].max()]
        figures |= {f"{name}_{figure}": e for figure, e in zip(FIGURES, each, strict=True)}
    return figures


def _lengthen(wide: pd.DataFrame, names: list[str], shifts: dict[Any, float]) -> pd.DataFrame:
    """One row per cluster and column instead of one per cluster."""
    parts = []
    for name, (own, shift) in zip(names, shifts.items(), strict=True):
        part = wide[["cluster", "size"]].assign(variable=name)
        for figure in FIGURES:
            part[figure] = wide[f"{own}_{figure}"]
        part["mean"] += shift
        parts.append(part.astype({"cluster": "Int64", "size": int, "customers": int}))
    return pd.concat(parts).sort_values("cluster", kind="stable", ignore_index=True)


# Checks ------------------------------------------------------------------------------------


def _check_features(table: ibis.Table, card: Card, notes: Notes) -> pd.Series:
    """Note what the card refuses of all rows' numbers, counted in one pass.

    Gives the number of `rows`, and what each feature i goes from and to: `low{i}`, `high{i}`.
    """
    asked: dict[str, Any] = {"rows": table.count()}
    for i, (name, feature) in enumerate(card.features.items()):
        low, high = feature.range
        values = take_number(table[name])
        asked[f"known{i}"] = values.count()
        asked[f"beyond{i}"] = ((values < low) | (values > high)).sum()
        asked[f"negative{i}"] = (values < 0).sum()
        asked |= {f"low{i}": values.min(), f"high{i}": values.max()}
    found = table.aggregate(**asked).to_pandas().fillna(0).iloc[0]
    rows = int(found["rows"])
    if rows < fields.FEWEST_ROWS:
        notes.refuse("", f"{rows} customers are too few", f"give at least {fields.FEWEST_ROWS}")
        return found
    for i, (name, feature) in enumerate(card.features.items()):
        known, beyond, negative = (int(found[f"{f}{i}"]) for f in ("known", "beyond", "negative"))
        fields.check_missing(rows - known, rows, name, feature, notes)
        low, high = found[f"low{i}"], found[f"high{i}"]
        if beyond:
            told = f"{beyond:,} values lie outside {feature.range[0]:g}…{feature.range[1]:g}"
            mend = f"they go from {low:g} to {high:g}; correct them or the card's `range:`"
            notes.refuse(name, f"{told} {feature.unit}".rstrip(), mend)
        if feature.transform == "log" and negative:
            mend = "shift them, or leave `transform: log` out of the card"
            notes.refuse(name, f"{negative:,} negative values have no logarithm", mend)
        if known and low == high:
            notes.tell(name, "the same value in every row", rows, "has no part in the distance")
    if all(found[f"low{i}"] == found[f"high{i}"] for i in range(len(card.features))):
        notes.refuse("", "all customers are alike in every feature", "there is nothing to segment")
    return found


def _read_levels(table: ibis.Table, name: str, card: Card, notes: Notes) -> dict[Any, Any]:
    """The level that each cell of a descriptor means, None where it is missing."""
    counted = table.group_by(name).aggregate(**{COUNT: table.count()})
    counted = counted.filter(counted[name].notnull())
    cells = counted.order_by([counted[COUNT].desc(), name]).limit(MOST_LEVELS + 1).to_pandas()
    if len(cells) > MOST_LEVELS:
        mend = "leave it out of `descriptors:`"
        notes.refuse(name, f"it has more than {MOST_LEVELS:,} different values", mend)
    text = cells.set_index(COUNT)[name].str.strip()
    counts = pd.Series(text.index, index=text.index)
    levels = fields.parse_descriptor(text, card.descriptors[name], notes, counts=counts)
    return dict(zip(cells[name], levels.where(levels.notna(), None), strict=True))


def check_ids(card: Card, notes: Notes) -> None:
    """Note ids that are missing or stand twice; they are counted a few millions at a time."""
    if card.id == ROW:
        return
    ids = _open_ids(card)
    whole = ids.own.type().is_integer()
    clean = ids.own if whole else ids.own.strip()
    empty = clean.isnull() if whole else clean.isnull() | (clean == "")
    facts = ids.aggregate(rows=ids.count(), empty=empty.sum(), padded=(ids.own != clean).sum())
    rows, none, padded = (int(fact) for fact in facts.to_pandas().fillna(0).iloc[0])
    if none:
        notes.refuse(card.id, f"{none:,} ids are empty", "fill them")
        return
    ids = ids.select(own=clean) if padded else ids
    parts = -(-rows // IDS_AT_ONCE)
    if repeated := sum(_count_repeated(ids, part, parts) for part in range(parts)):
        notes.refuse(card.id, f"{repeated:,} ids stand twice", "keep one row a customer")


def _open_ids(card: Card) -> ibis.Table:
    """The card's ids in a column `own`: whole numbers as they are, quickly compared, else text."""
    table, notes = _open(card), Notes()
    found = fields.find_columns(table.columns, 0, card, notes)
    notes.check(card.name)
    cells = table[found[card.id]]
    return table.select(own=cells if cells.type().is_integer() else take_text(cells))


def _count_repeated(ids: ibis.Table, part: int, parts: int) -> int:
    """Rows beyond the first of each id, among the ids of one part."""
    own = ids.filter(ids.own.hash().abs() % parts == part) if parts > 1 else ids
    found = own.aggregate(rows=own.count(), distinct=own.own.nunique()).to_pandas().iloc[0]
    return int(found["rows"] - found["distinct"])
