"""The columns of a table: found by their names, read as ids, numbers and levels, and checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from segmentation import InputError
from segmentation.customers.card import ROW, Card, Descriptor, Feature, clean_text, suggest
from segmentation.customers.dates import AMBIGUOUS, find_date_format
from segmentation.customers.headers import OF_ROWS, read_header
from segmentation.customers.numbers import (
    NOTHING,
    WHOLE_ID,
    find_decimal,
    find_missing,
    parse_numbers,
)
from segmentation.customers.text import Notes, find_key

FEWEST_ROWS, MANY_LEVELS = 10, 20
SPARSE, EMPTY = 0.05, 0.5  # shares of missing values from which a column is warned of, and refused
NEARLY = 0.9  # share of different values from which on what is named like an id is one
STANDING_FOR_NOTHING = [-1, *(sign * (10**n - 1) for n in range(1, 10) for sign in (-1, 1))]
ANSWERS = dict.fromkeys(("yes", "y", "true", "1", "1.0", "ja", "j", "oui", "si", "sí"), 1.0)
ANSWERS |= dict.fromkeys(("no", "n", "false", "0", "0.0", "nein", "non"), 0.0)
Counts = Mapping[str, Any]
ALIKE = "", "all customers are alike in every feature", "there is nothing to segment"


def find_columns(headers: Iterable[str], rows: int, card: Card, notes: Notes) -> dict[str, str]:
    """Which header holds each column that the card needs; what is missing or twice is noted."""
    known, names = list(headers), list_names(card)
    names |= {card.newest: []} if card.newest else {}
    found, taken = match_names(known, names), dict[str, str]()
    for name in names:
        hit = found.get(name)
        if hit is None:
            mend = f"{suggest(name, known)} Name it in the card's `aliases:`"
            notes.refuse("", f"column {name} is missing", mend)
        elif hit in taken:
            rule = f"{name} and {taken[hit]} are both read from {hit}"
            notes.refuse("", rule, "name each in the card's `aliases:`")
        elif hit.casefold() != name.casefold():
            notes.tell(name, "found under another header", rows, f"read from {hit}")
        taken |= {hit: name} if hit is not None else {}
    if extra := len(known) - len(taken):
        notes.tell("", f"{extra} further columns", rows, "ignored")
    return found


def match_columns(headers: Iterable[str], card: Card) -> dict[str, str]:
    """The header of each column that the card needs and has: by name, else alias, else label;
    spelled alike first, then but for case, then by letters and digits alone."""
    return match_names(headers, list_names(card))


def match_names(headers: Iterable[str], names: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """The header of each name that is there, under it or one of its other names."""
    known = list(headers)
    ways = [(key, _find_unique(known, key)) for key in (str.casefold, find_key)]
    found: dict[str, str] = {}
    for name, others in names.items():
        hits = [name] if name in known else []
        hits += [by[key(each)] for key, by in ways for each in (name, *others) if key(each) in by]
        found |= {name: hits[0]} if hits else {}
    return found


def _find_unique(headers: list[str], find: Callable[[str], str]) -> dict[str, str]:
    """The columns that can be told by a key: it is not empty and no other column has it."""
    counts = Counter(map(find, headers))
    return {key: each for each in headers if (key := find(each)) and counts[key] == 1}


def list_names(card: Card) -> dict[str, list[str]]:
    """The columns that the card needs of its table, each with its other names."""
    said = card.described
    names: dict[str, list[str]] = {} if card.id == ROW else {card.id: []}
    for name in (*card.sources, *card.descriptors, *card.outcomes):
        names[name] = [*said[name].aliases, said[name].label] if name in said else []
    return names


def parse_columns(text: pd.DataFrame, card: Card, notes: Notes) -> pd.DataFrame:
    """The card's columns of a text table: ids (text), numbers, levels; what is wrong is noted."""
    found = find_columns(text.columns, len(text), card, notes)
    notes.check(card.name)
    cells = pd.DataFrame({name: text[header].str.strip() for name, header in found.items()})
    if card.id != ROW:
        cells[card.id] = clean_ids(cells[card.id])
    cells = _keep_one_row(cells, card, notes)
    check_named_ids({n: cells[n].nunique() for n in cells}, len(cells), card, notes)
    numbers = pd.Series(range(1, len(cells) + 1), index=cells.index).astype(str)
    table = pd.DataFrame({card.id: numbers if card.id == ROW else cells[card.id]})
    _check_ids(table[card.id], notes)
    if check_rows(len(cells), notes):
        return table
    sources = read_sources(cells, card, notes)
    values = _parse_features(cells, sources, card, notes)
    levels = {name: parse_levels(cells[name], d, notes) for name, d in card.descriptors.items()}
    if not notes.problems and len(values.drop_duplicates()) < 2:
        notes.refuse(*ALIKE)
    known = {name: read_outcome(cells[name], card, notes) for name in card.outcomes}
    known |= {name: sources[name] for name in card.measured if name in card.inputs}
    return table.assign(**values, **levels, **known)


def _keep_one_row(cells: pd.DataFrame, card: Card, notes: Notes) -> pd.DataFrame:
    """The rows of which the card keeps one a customer: the first, or the newest by a date."""
    if not (card.newest or card.repeats != "refuse"):
        return cells
    if card.newest:
        days = read_dates(cells[card.newest], notes)
        cells = cells.loc[days.sort_values(ascending=False, kind="stable").index]
    last = card.repeats == "last"
    kept = cells[(cells[card.id] == "") | ~cells[card.id].duplicated("last" if last else "first")]
    if fewer := len(cells) - len(kept):
        which = f"newest by {card.newest}" if card.newest else "last" if last else "first"
        notes.tell(card.id, "further rows of a customer", fewer, f"left out; the {which} is kept")
    return kept.sort_index()


def read_dates(cells: pd.Series, notes: Notes) -> pd.Series:
    """A column as days; what is no date, or has two readings, is noted."""
    known = cells[~find_missing(cells)]
    form = find_date_format(known)
    if form in (None, AMBIGUOUS):
        rule = "its values are not dates that can be read in one way"
        notes.refuse(str(cells.name), rule, "write them as 2026-12-31")
        return pd.Series(pd.NaT, index=cells.index)
    days = pd.to_datetime(known, format=form or "ISO8601", errors="coerce", utc=True)
    return days.reindex(cells.index)


def check_named_ids(distinct: Mapping[str, int], rows: int, card: Card, notes: Notes) -> None:
    """Refuse what is an id by its name and its values, but is to be measured or shown."""
    mend = "leave it out, or name it by `id:`; if it measures something, give the card another name"
    mend += " for it, with this one among its `aliases:`"
    for name in (*card.sources, *card.descriptors):
        named = read_header(name).meaning in OF_ROWS
        if named and rows >= FEWEST_ROWS and distinct.get(name, 0) >= NEARLY * rows:
            notes.refuse(name, "its name and values are those of an id", mend)


def find_sentinels(values: pd.Series) -> list[float]:
    """Values such as -1, 999 or 999999 that stand alone, farther away than all others span.

    >>> find_sentinels(pd.Series([18.0, 44, 999, 61, 999]))
    [999.0]
    """
    known = np.sort(values.dropna().unique())
    found: list[float] = []
    while len(known) > 2 and known[-1] in STANDING_FOR_NOTHING:
        if known[-1] - known[-2] <= known[-2] - known[0]:
            break
        found.append(float(known[-1]))
        known = known[:-1]
    if len(known) > 2 and known[0] in STANDING_FOR_NOTHING and known[0] < 0 <= known[1]:
        found.append(float(known[0]))
    return found


def check_rows(rows: int, notes: Notes) -> bool:
    """Refuse too few rows; whether they are."""
    if rows < FEWEST_ROWS:
        notes.refuse("", f"{rows} customers are too few", f"give at least {FEWEST_ROWS}")
    return rows < FEWEST_ROWS


def clean_ids(ids: pd.Series) -> pd.Series:
    """Ids as text; where all are whole numbers, `17850.0` is `17850`."""
    filled = ids[ids != ""]
    whole = filled.str.fullmatch(WHOLE_ID).all()
    return ids.str.replace(r"(?:\.0+|,00?)$", "", regex=True) if whole else ids


def _check_ids(ids: pd.Series, notes: Notes) -> None:
    """Refuse ids that are missing or stand twice; they are never shown."""
    empty = ids[ids.str.casefold().isin(NOTHING - {"-", "–", "?", "na"})]
    if len(empty):
        notes.refuse(str(ids.name), f"{len(empty)} ids are empty", "fill them", empty.rename(ROW))
    twice = ids[(ids != "") & ids.duplicated()].rename(ROW)
    if len(twice):
        mend = "keep one row a customer, or read them as `transactions:`"
        notes.refuse(str(ids.name), f"{len(twice)} ids stand twice", mend, twice)


def _parse_features(
    cells: pd.DataFrame, sources: Mapping[str, pd.Series], card: Card, notes: Notes
) -> pd.DataFrame:
    """The features as numbers, checked; those by expression from the columns that they name."""
    values = pd.DataFrame(compute_features(card, sources), index=cells.index)
    for name, feature in card.features.items():
        own, shown = values[name], values[name] if feature.expression else cells[name]
        gone = feature.expression or feature.missing_values
        missing = own.isna() if gone else find_missing(shown)
        beyond = shown[own.notna() & ~own.between(*feature.range)]
        counts = {"missing": missing.sum(), "beyond": len(beyond), "negative": (own < 0).sum()}
        counts |= {"rows": len(own), "low": own.min(), "high": own.max()}
        check_feature(name, feature, counts, notes, beyond, shown[own < 0])
        for value in find_sentinels(own):
            rule = f"{(own == value).sum():,} customers stand far apart at {value:.0f}"
            mend = f"kept; if that means that nothing is known, say `missing_values: [{value:.0f}]`"
            notes.ask(name, rule, int((own == value).sum()), mend)
        if len(own) == own.nunique() == own.max() - own.min() + 1:
            notes.tell(name, "running numbers, as of an id", len(own), "kept; leave ids out")
    return values


def compute_features(card: Card, columns: Mapping[str, Any]) -> dict[str, Any]:
    """The card's features, in its order, from the arrays of its `sources`.

    NaN for x / 0, and for the numbers that the card's `missing_values:` name.
    """
    given = {name: columns[name] for name in card.sources}
    for name, said in ((n, s) for n, s in card.gaps.items() if n in given):
        given[name] = np.where(np.isin(given[name], list_numbers(said)), np.nan, given[name])
    made = {name: expression.compute(given) for name, expression in card.expressions.items()}
    return {name: made[name] if name in made else given[name] for name in card.features}


def check_feature(
    name: str, feature: Feature, counts: Counts, notes: Notes, *shown: pd.Series
) -> None:
    """Note what the card refuses of a feature, by its counts.

    counts : rows, of them missing, beyond the range, negative; the lowest and the highest value.
    shown : the cells beyond the range and the negative ones, where the table is in memory.
    """
    rows, missing, low, high = (counts[each] for each in ("rows", "missing", "low", "high"))
    beyond, negative = shown or (None, None)
    if counts["beyond"]:
        least, most = feature.range
        rule = f"{counts['beyond']:,} values lie outside {least:g}…{most:g} {feature.unit}"
        ends = "" if shown else f"they go from {low:g} to {high:g}; "
        notes.refuse(name, rule.rstrip(), f"{ends}correct them or the card's `range:`", beyond)
    if feature.transform == "log" and counts["negative"]:
        rule = f"{counts['negative']:,} negative values have no logarithm"
        mend = "shift them, or leave `transform: log` out of the card"
        notes.refuse(name, rule, mend, negative)
    if missing > EMPTY * rows:
        share = "all" if missing == rows else f"{missing / rows:.0%} of the"
        notes.refuse(name, f"{share} values are missing", "leave the column out of `features:`")
    elif missing and feature.missing == "refuse":
        mend = "fill them; `missing: refuse` forbids gaps"
        notes.refuse(name, f"{missing} values are missing", mend)
    elif missing:
        done = {"median": "filled with the median", "drop": "left out"}[feature.missing]
        much = f" ({missing / rows:.0%})" if missing > SPARSE * rows else ""
        notes.tell(name, f"values are missing{much}", int(missing), done)
    if low == high:
        notes.tell(name, "the same value in every row", rows, "has no part in the distance")


def read_sources(cells: pd.DataFrame, card: Card, notes: Notes) -> dict[str, pd.Series]:
    """The card's `sources` as numbers, by the decimal sign of the card or of the table."""
    decimal = card.decimal or find_decimal(cells[card.sources])
    gaps = card.gaps
    return {n: read_numbers(cells[n], decimal, notes, gaps.get(n, ())) for n in card.sources}


def read_numbers(
    text: pd.Series, decimal: str, notes: Notes, gaps: Sequence[str] = ()
) -> pd.Series:
    """A column as numbers, NaN where missing; what is no number or ambiguous is noted.

    gaps : texts or numbers that the card's `missing_values:` name.
    """
    said = text.str.casefold().isin([gap.casefold() for gap in gaps])
    missing = find_missing(text) | said
    reading = parse_numbers(text[~missing], decimal, point=notes.point)
    values = reading.values.reindex(text.index)
    odd = text[~missing & values.isna()]
    if len(odd):
        notes.refuse(str(text.name), reading.rule.format(len(odd)), reading.mend, odd)
    elif reading.mend:
        notes.tell(str(text.name), reading.rule, int((~missing).sum()), reading.mend)
    said |= values.isin(list_numbers(gaps))
    tell_gaps(str(text.name), int(said.sum()), notes)
    return values.mask(said)


def read_outcome(cells: pd.Series, card: Card, notes: Notes) -> pd.Series:
    """An outcome as numbers, 1 for yes and 0 for no; NaN where nothing is known."""
    name = str(cells.name)
    outcome = card.outcomes[name]
    if outcome.kind == "number":
        decimal = card.decimal or find_decimal(cells.to_frame())
        return read_numbers(cells, decimal, notes, outcome.missing_values)
    values = cells.str.casefold().map(ANSWERS)
    gaps = find_missing(cells) | cells.isin(outcome.missing_values)
    if len(odd := cells[values.isna() & ~gaps]):
        notes.refuse(name, f"{len(odd)} values are neither yes nor no", "write yes or no", odd)
    return values.mask(gaps)


def list_numbers(gaps: Iterable[str]) -> list[float]:
    """Those of the card's `missing_values:` that are numbers."""
    return pd.to_numeric(pd.Series([*gaps], dtype="str"), errors="coerce").dropna().tolist()


def tell_gaps(name: str, rows: int, notes: Notes) -> None:
    """Tell how many cells the card's `missing_values:` mean."""
    if rows:
        notes.tell(name, "values that the card says mean nothing", rows, "read as missing")


def parse_levels(
    text: pd.Series, descriptor: Descriptor, notes: Notes, *, counts: pd.Series | None = None
) -> pd.Series:
    """A column's levels, rare ones of many pooled; distinct cells have `counts` of customers."""
    name, rows = str(text.name), pd.Series(1, index=text.index) if counts is None else counts
    if descriptor.levels:
        codes = list_codes(descriptor)
        found = text.map(lambda cell: codes.get(clean_text(cell).casefold())).astype(object)
        odd = text[found.isna() & ~text.str.casefold().isin(NOTHING)]
        if len(odd):
            mend = f"say in the card's `levels:` which of {', '.join(descriptor.levels)} they mean"
            rule = f"{odd.nunique()} codings are unknown"
            if counts is not None:
                rule += f" ({clean_text(odd.iloc[0])[:40]!r} of {rows[odd.index[0]]:,} customers)"
            notes.refuse(name, rule, mend, odd if counts is None else None)
        return found.where(found.notna(), None)
    levels = text.map(_clean_level).astype(object)
    if levels.isna().all():
        notes.tell(name, "all values are missing", int(rows.sum()), "tells nothing")
    elif (many := levels.nunique()) > MANY_LEVELS:
        notes.tell(name, f"{many} levels", int(rows.sum()), "all but the commonest are “Other”")
        kept = rows.groupby(levels, sort=False).sum().sort_values(ascending=False, kind="stable")
        levels = levels.where(levels.isna() | levels.isin(kept.index[: MANY_LEVELS - 1]), "Other")
    return levels.where(levels.notna(), None)


def list_codes(descriptor: Descriptor) -> dict[str, str]:
    """The level that each coding of the card means, by the coding in small letters."""
    names = {level.casefold(): level for level in descriptor.levels}
    return names | {s.casefold(): level for level, said in descriptor.levels.items() for s in said}


def read_level(cell: str, descriptor: Descriptor) -> str | None:
    """The level that a cell holds, None where missing; an InputError where the card knows none."""
    if not descriptor.levels:
        return _clean_level(cell)
    level = list_codes(descriptor).get(clean_text(cell).casefold())
    if level is None and cell.strip().casefold() not in NOTHING:
        raise InputError(f"must be one of {', '.join(descriptor.levels)}.")
    return level


def _clean_level(cell: str) -> str | None:
    """A level as the card has none: as it is spelled; our own word for a gap is set apart."""
    return {"": None, "missing": "“missing”"}.get(level := clean_text(cell), level)
