"""The customer table, read through its card: whole, or a sample of one that stays where it is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from segmentation import BUNDLE, ROOT, InputError
from segmentation.customers import columns, database, text
from segmentation.customers.card import ROW, Card, keep_features, load_card
from segmentation.customers.draft import draft_card
from segmentation.customers.purchases import gather_customers
from segmentation.customers.text import Notes
from segmentation.runs import hash_file

if TYPE_CHECKING:
    import ibis

LARGE_CELLS = 2_000_000  # rows × columns of the card up to which a Parquet file is used whole
SAMPLED = 50_000  # customers of the sample of a larger table
STORED = "file_row_number"  # what DuckDB calls the number of a row in a Parquet file, from 0


def read_card(
    path: str | Path, *, features: str = "", as_of: str = "", encoding: str = "", sheet: str = ""
) -> Card:
    """Read a dataset card, or draft one from a table; a relative path starts at the project's.

    Parameters
    ----------
    path : path of the card (YAML), or of a table without one.
    features : comma-separated column names or labels to keep as features; empty keeps all.
    as_of : the date of the data (ISO), instead of the card's; empty keeps that.
    encoding, sheet : of a CSV and of a workbook, instead of the card's; empty keeps those.

    Raises
    ------
    InputError
        There is nothing there, or the card is refused, or no card can be drafted; a feature is
        not known, or the date is none.

    Examples
    --------
    >>> read_card("data/mall_customers.yaml", features="Age, Annual income").titles["Age"]
    'Age (years)'
    """
    return explain_card(path, features=features, as_of=as_of, encoding=encoding, sheet=sheet)[0]


def explain_card(
    path: str | Path,
    *,
    features: str = "",
    as_of: str = "",
    encoding: str = "",
    sheet: str = "",
    ask: bool = True,
) -> tuple[Card, pd.DataFrame | None]:
    """The same card; where it was drafted, why each column became what: see `draft_card`."""
    bundled = BUNDLE / path
    path = bundled if bundled.is_file() and not (ROOT / path).is_file() else ROOT / path
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of a dataset card or a table.")
    is_card = path.suffix.lower() in (".yaml", ".yml")
    told = {name: said for name, said in (("encoding", encoding), ("sheet", sheet)) if said}
    if is_card:
        card, reasons = load_card(path).model_copy(update=told), None
    else:
        card, reasons = draft_card(path, features=features, ask=ask, **told)
    card = keep_features(card, features) if features.strip() else card
    try:
        day = date.fromisoformat(as_of) if as_of else card.as_of
    except ValueError:
        raise InputError(f"as-of must be a date like 2026-10-31, got {as_of!r}.") from None
    return card.model_copy(update={"as_of": day}), reasons


@dataclass(frozen=True)
class Customers:
    """A table of customers, one a row.

    table : the card's id (text), features (float64) and descriptors (their levels, None missing).
    quality : what was found and mended: column, finding, rows, done.
    total : how many customers there are; `table` holds all of them or a sample.
    questions : what only the table's owner can know, a sentence each.
    """

    table: pd.DataFrame
    quality: pd.DataFrame
    total: int
    questions: tuple[str, ...] = ()

    @property
    def sampled(self) -> bool:
        """Whether there are more customers than the table holds."""
        return len(self.table) < self.total

    @property
    def view(self) -> str:
        """What the table holds, in a sentence."""
        if not self.sampled:
            return f"Seen here: all {self.total:,} customers."
        drawn = f"Seen here: a seeded sample of {len(self.table):,} of the {self.total:,} customers"
        return f"{drawn}; the cut, its sizes and its profiles are of all of them."


def read_customers(card: Card, *, seed: int = 0, check_ids: bool = False) -> Customers:
    """Read the card's table and check it.

    A table that stays where it is (`is_large`) is checked there by queries, and gives the same
    50 000 customers for the same `seed`: those with the lowest hashes of id and seed. That ids
    stand once is looked for there only where `check_ids` says so, as it takes a while.

    Raises
    ------
    InputError
        The file cannot be read, or breaks what the card says; the message lists each problem.

    Examples
    --------
    >>> customers = read_customers(read_card("data/mall_customers.yaml"))
    >>> customers.total, customers.sampled, [*customers.table.columns[:2]]
    (200, False, ['CustomerID', 'Age'])
    """
    notes = Notes()
    if card.transactions:
        table, quality = gather_customers(card)
        return Customers(table, quality, len(table))
    if is_large(card):
        return _sample_customers(card, notes, seed=seed, check_ids=check_ids)
    cells = text.read_text(card.source, notes, card=card)
    notes.check(card.name)
    table = columns.parse_columns(cells, card, notes)
    notes.check(card.name)
    known = table.reset_index(drop=True)
    return Customers(known, notes.tabulate(), len(table), tuple(notes.questions))


def is_large(card: Card) -> bool:
    """Whether the card's table stays where it is: in a database, or a large Parquet file."""
    if card.backend or card.transactions:
        return bool(card.backend)
    stored = card.source.suffix.lower() == ".parquet" and card.source.is_file()
    return stored and len(card.headers) * text.count_rows(card.source) > LARGE_CELLS


def hash_table(card: Card) -> str:
    """What tells the card's table from another: the SHA-256 of its file; in a database, of the
    number of rows and each column's sum of hashes, whatever the order of the rows."""
    if not card.backend:
        return hash_file(card.source)
    table = open_customers(card)
    sums = {name: (database.hash_cells(table[name]) % (1 << 20)).sum() for name in table.columns}
    facts = table.aggregate(rows=table.count(), **sums).to_pandas().iloc[0]
    return hashlib.sha256(repr([int(fact) for fact in facts.fillna(0)]).encode()).hexdigest()


def open_customers(card: Card, notes: Notes | None = None) -> ibis.Table:
    """The card's columns where they lie: features as numbers, the others as text.

    Whole numbers keep their type, which groups and copies faster; others are float64. Without an
    id, the rows of a file are numbered, those of a database have none.

    Raises
    ------
    InputError
        The table cannot be opened, a column is missing, or a feature holds no numbers.
    """
    table, notes = _open(card), notes or Notes()
    plain = [*dict.fromkeys([*card.sources, *(card.measured.keys() - card.features.keys())])]
    headers = [name for name in table.columns if name != STORED]
    found = columns.find_columns(headers, 0, card, notes)
    notes.check(card.name)
    cells = {name: table[header] for name, header in found.items()}
    for name in plain:
        if not cells[name].type().is_numeric():
            rule = f"its values are {cells[name].type()}, not numbers"
            notes.refuse(name, rule, "store it as numbers, or make it a descriptor")
    notes.check(card.name)
    for name, rows in database.count_texts(table, {n: found[n] for n in plain}).items():
        notes.refuse(name, f"{rows:,} values are text", "store them as numbers, NULL for a gap")
    notes.check(card.name)
    texts = {
        name: (database.take_ids if name == card.id else database.take_text)(cells[name])
        for name in found
        if name not in plain
    }
    if card.id == ROW and STORED in table.columns:
        texts = {ROW: (table[STORED] + 1).cast("string")} | texts
    gaps = {name: columns.list_numbers(card.gaps.get(name, ())) for name in plain}
    numbers = {name: database.take_number(cells[name], gaps[name]) for name in plain}
    exact = table.get_backend().name != "sqlite"  # a whole number's column holds any there
    kept = [name for name in card.sources if exact and not gaps[name]]
    whole = {name: cells[name] for name in kept if cells[name].type().is_integer()}
    made = {
        name: each.compute(numbers, divide=database.divide_columns, number=database.write_number)
        for name, each in card.expressions.items()
    }
    known = numbers | whole | made | texts
    return table.select(**{name: known[name] for name in card.columns if name in known})


def _open(card: Card) -> ibis.Table:
    if not card.backend:
        return database.open_file(card.source, **({STORED: True} if card.id == ROW else {}))
    url = database.expand_url(card.backend)
    scheme, _, rest = url.partition("://")
    if scheme in database.FILES and (path := rest.partition("?")[0]):
        url = f"{scheme}://{(card.path.parent / path).resolve()}"
        url += "?read_only=True" if scheme == "duckdb" else ""
    return database.open_table(url, card.table)


def _sample_customers(card: Card, notes: Notes, *, seed: int, check_ids: bool) -> Customers:
    """A sample of a table, checked where it lies as one that is read whole."""
    table = open_customers(card, notes)
    if card.id not in table.columns:
        mend = "name a column by `id:` in the card, so that a sample can be drawn by it"
        raise InputError(f"{card.name} has no ids; {mend}.")
    if check_ids and card.id != ROW:
        _check_ids(table[card.id], notes)
    _tell_gaps(card, notes)
    rows = _check_features(table, card, notes)
    levels = {name: _read_levels(table, name, card, notes) for name in card.descriptors}
    if check_ids:
        named = {n: table[n].nunique() for n in (*card.sources, *card.descriptors) if n in table}
        told = table.aggregate(**named).to_pandas().iloc[0].to_dict() if named else {}
        columns.check_named_ids(told, rows, card, notes)
    notes.check(card.name)
    order = (table[card.id] + f"/{seed}").hash()  # with the same ids, the same people
    drawn = table.order_by([order, table[card.id]]).limit(SAMPLED).to_pandas()
    if len(drawn) < rows:
        seen = f"seen in a seeded sample of {len(drawn):,}"
        notes.tell("", "customers in the table", rows, seen)
    for name, known in levels.items():
        drawn[name] = pd.Series([known.get(cell) for cell in drawn[name]], dtype=object)
    plain = card.model_copy(update={"decimal": "."})
    for name in [name for name in card.outcomes if name not in card.measured]:
        drawn[name] = columns.read_outcome(drawn[name].fillna("").astype("str"), plain, notes)
    notes.check(card.name)
    return Customers(drawn.astype(dict.fromkeys(card.measured, float)), notes.tabulate(), rows)


def _tell_gaps(card: Card, notes: Notes) -> None:
    """Tell how many cells the card's `missing_values:` mean, counted in one pass."""
    said = {name: columns.list_numbers(card.gaps.get(name, ())) for name in card.sources}
    if gaps := {name: own for name, own in said.items() if own}:
        table = _open(card)
        found = columns.match_columns(table.columns, card)
        counts = [table[found[name]].cast("float64").isin(own).sum() for name, own in gaps.items()]
        told = table.aggregate(**{f"n{i}": count for i, count in enumerate(counts)}).to_pandas()
        for name, rows in zip(gaps, told.fillna(0).iloc[0], strict=True):
            columns.tell_gaps(name, int(rows), notes)


def _check_features(table: ibis.Table, card: Card, notes: Notes) -> int:
    """Note what the card refuses of all rows' numbers, counted in one pass; how many rows."""
    numbers = {name: database.take_number(table[name]) for name in card.features}
    limits = {name: feature.range for name, feature in card.features.items()}
    found = database.count_values(table, numbers, limits)
    rows = int(found["rows"].iloc[0])
    if columns.check_rows(rows, notes):
        return 0
    for counts in found.reset_index(names="name").to_dict("records"):
        name = counts["name"]
        columns.check_feature(name, card.features[name], counts, notes)
    if (found["low"] == found["high"]).all():
        notes.refuse(*columns.ALIKE)
    return rows


def _read_levels(table: ibis.Table, name: str, card: Card, notes: Notes) -> Mapping[Any, Any]:
    """The level that each cell of a descriptor means, None where it is missing."""
    most = database.MOST_LEVELS
    counted = table.group_by(name).aggregate(rows=table.count())
    counted = counted.filter(counted[name].notnull())
    cells = counted.order_by([counted["rows"].desc(), name]).limit(most + 1).to_pandas()
    if len(cells) > most:
        rule = f"it has more than {most:,} different values"
        notes.refuse(name, rule, "leave it out of `descriptors:`")
    stripped = cells[name].astype("str").str.strip()
    levels = columns.parse_levels(stripped, card.descriptors[name], notes, counts=cells["rows"])
    return dict(zip(cells[name], levels, strict=True))


def _check_ids(ids: ibis.Column, notes: Notes) -> None:
    """Note ids that are missing or stand twice, grouped where the table lies."""
    own = ids.strip().nullif("").name("own")
    each = own.as_table().group_by("own").aggregate(rows=own.as_table().count())
    empty = each.rows.sum(where=each.own.isnull())
    found = each.aggregate(empty=empty, twice=(each.rows - 1).sum()).to_pandas().fillna(0)
    if none := int(found["empty"].iloc[0]):
        notes.refuse(ids.get_name(), f"{none:,} ids are empty", "fill them")
    elif twice := int(found["twice"].iloc[0]):
        notes.refuse(ids.get_name(), f"{twice:,} ids stand twice", "keep one row a customer")
