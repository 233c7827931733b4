"""The fields of a table: found by their names, read as ids, numbers and levels, and checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pandas as pd

from segmentation import InputError
from segmentation.customers.card import ROW, Card, Descriptor, Feature, clean_text, suggest
from segmentation.customers.text import MISSING, Notes, find_decimal, find_key, parse_numbers

FEWEST_ROWS, MANY_LEVELS = 10, 20
SPARSE, EMPTY = 0.05, 0.5
"""Shares of missing values from which a column is warned of, and refused."""


def name_columns(text: pd.DataFrame, card: Card, notes: Notes) -> pd.DataFrame:
    """The card's columns under the card's names; without an id, the rows are numbered."""
    found = find_columns(text.columns, len(text), card, notes)
    numbers = pd.Series(range(1, len(text) + 1), index=text.index).astype(str)
    columns = {ROW: numbers} if card.id == ROW else {}
    columns |= {name: text[header].str.strip() for name, header in found.items()}
    return pd.DataFrame(columns, index=text.index)


def find_columns(headers: Iterable[str], rows: int, card: Card, notes: Notes) -> dict[str, str]:
    """Which header holds each of the card's columns; what is missing or twice is noted."""
    known = list(headers)
    found, taken = match_columns(known, card), dict[str, str]()
    for name in card.columns:
        hit = found.get(name)
        if name == ROW == card.id:
            found.pop(name, None)
        elif hit is None:
            mend = f"{suggest(name, known)} Name it in the card's `aliases:`"
            notes.refuse("", f"column {name} is missing", mend)
        elif hit in taken:
            mend = "name each in the card's `aliases:`"
            notes.refuse("", f"{name} and {taken[hit]} are both read from {hit}", mend)
        else:
            taken[hit] = name
            if hit.casefold() != name.casefold():
                notes.tell(name, "found under another header", rows, f"read from {hit}")
    if extra := len(known) - len(taken):
        notes.tell("", f"{extra} further columns", rows, "ignored")
    return found


def match_columns(headers: Iterable[str], card: Card) -> dict[str, str]:
    """The header of each of the card's columns that is there: by name, else alias, else label.

    Spelled alike first, then but for case, then by letters and digits alone.
    """
    known = list(headers)
    exact = _find_unique({header: header.casefold() for header in known})
    loose = _find_unique({header: find_key(header) for header in known})
    found = {}
    for name, others in _list_names(card).items():
        hits = [name if name in known else None]
        hits += [exact.get(other.casefold()) for other in (name, *others)]
        hits += [loose.get(find_key(other)) for other in (name, *others)]
        found[name] = next((header for header in hits if header is not None), None)
    return {name: header for name, header in found.items() if header is not None}


def _find_unique(keys: dict[str, str]) -> dict[str, str]:
    """The columns that can be told by a key: it is not empty and no other column has it."""
    counts = Counter(keys.values())
    return {key: column for column, key in keys.items() if key and counts[key] == 1}


def _list_names(card: Card) -> dict[str, list[str]]:
    described = {**card.features, **card.descriptors}
    return {card.id: [], **{n: [*c.aliases, c.label] for n, c in described.items()}}


def parse_columns(text: pd.DataFrame, card: Card, notes: Notes) -> pd.DataFrame:
    """Those columns as ids (text), numbers and levels; what the card refuses is noted."""
    table = text.copy()
    _check_ids(text[card.id], notes)
    if len(text) < FEWEST_ROWS:
        rule = f"{len(text)} customers are too few"
        notes.refuse("", rule, f"give at least {FEWEST_ROWS}")
        return table
    decimal = card.decimal or find_decimal(text[list(card.features)])
    for name, feature in card.features.items():
        table[name] = _parse_feature(text[name], feature, decimal, notes)
    for name, descriptor in card.descriptors.items():
        table[name] = parse_descriptor(text[name], descriptor, notes)
    if not notes.problems and len(table[list(card.features)].drop_duplicates()) < 2:
        notes.refuse("", "all customers are alike in every feature", "there is nothing to segment")
    return table


def _check_ids(ids: pd.Series, notes: Notes) -> None:
    """Refuse ids that are missing or stand twice; they are never shown."""
    empty = ids[ids.str.casefold().isin(MISSING - {"-", "–", "?", "na"})]
    if len(empty):
        notes.refuse(str(ids.name), f"{len(empty)} ids are empty", "fill them", empty.rename(ROW))
    twice = ids[(ids != "") & ids.duplicated()].rename(ROW)
    if len(twice):
        rule = f"{len(twice)} ids stand twice"
        mend = "keep one row a customer, or read them as `transactions:`"
        notes.refuse(str(ids.name), rule, mend, twice)


def _parse_feature(text: pd.Series, feature: Feature, decimal: str, notes: Notes) -> pd.Series:
    """The column as numbers; what is no number, ambiguous, missing or out of range is noted."""
    name, missing = str(text.name), text.str.casefold().isin(MISSING)
    values = read_numbers(text, decimal, notes)
    low, high = feature.range
    beyond = values[values.notna() & ~values.between(low, high)]
    if len(beyond):
        rule = f"{len(beyond)} values lie outside {low:g}…{high:g} {feature.unit}".rstrip()
        notes.refuse(name, rule, "correct them or the card's `range:`", text[beyond.index])
    if feature.transform == "log" and (values < 0).any():
        mend = "shift them, or leave `transform: log` out of the card"
        notes.refuse(name, "negative values have no logarithm", mend, text[values < 0])
    check_missing(int(missing.sum()), len(text), name, feature, notes)
    if len(values) == values.nunique() == values.max() - values.min() + 1:
        notes.tell(name, "running numbers, as of an id", len(text), "kept; leave ids out")
    if values.nunique() == 1 and (missing | values.notna()).all():
        notes.tell(name, "the same value in every row", len(text), "has no part in the distance")
    return values


def read_numbers(text: pd.Series, decimal: str, notes: Notes) -> pd.Series:
    """A column as numbers, NaN where missing; what is no number or ambiguous is noted."""
    missing = text.str.casefold().isin(MISSING)
    numbers, rule, mend = parse_numbers(text[~missing], decimal, point=notes.point)
    values = numbers.reindex(text.index)
    odd = text[~missing & values.isna()]
    if len(odd):
        notes.refuse(str(text.name), rule.format(len(odd)), mend, odd)
    elif mend:
        notes.tell(str(text.name), rule, int((~missing).sum()), mend)
    return values


def check_missing(missing: int, rows: int, name: str, feature: Feature, notes: Notes) -> None:
    """Note how many of a feature's values are missing, by the card's policy."""
    share = missing / rows
    if missing == rows:
        notes.refuse(name, "all values are missing", "leave the column out of `features:`")
    elif share > EMPTY:
        rule = f"{share:.0%} of the values are missing"
        notes.refuse(name, rule, "leave the column out of `features:`")
    elif missing and feature.missing == "refuse":
        rule = f"{missing} values are missing"
        notes.refuse(name, rule, "fill them; `missing: refuse` forbids gaps")
    elif missing:
        done = {"median": "filled with the median", "drop": "left out"}[feature.missing]
        much = f" ({share:.0%})" if share > SPARSE else ""
        notes.tell(name, f"values are missing{much}", missing, done)


def parse_descriptor(
    text: pd.Series, descriptor: Descriptor, notes: Notes, *, counts: pd.Series | None = None
) -> pd.Series:
    """The column's levels, by the card's codings; the rare ones of very many are pooled.

    `counts` says how many customers each cell stands for, one if it is not given.
    """
    rows = pd.Series(1, index=text.index) if counts is None else counts
    if descriptor.levels:
        codes = list_codes(descriptor)
        found = text.map(lambda cell: codes.get(clean_text(cell).casefold()))
        odd = text[found.isna() & ~text.str.casefold().isin(MISSING)]
        if len(odd):
            known = ", ".join(descriptor.levels)
            mend = f"say in the card's `levels:` which of {known} they mean"
            notes.refuse(str(text.name), f"{odd.nunique()} codings are unknown", mend, odd)
        return found
    levels = text.map(_clean_level)
    if levels.isna().all():
        notes.tell(str(text.name), "all values are missing", int(rows.sum()), "tells nothing")
        return levels.astype(object)
    if (many := levels.nunique()) > MANY_LEVELS:
        commonest = (
            rows.groupby(levels, sort=False).sum().sort_values(ascending=False, kind="stable")
        )
        kept = commonest.index[: MANY_LEVELS - 1]
        done = "all but the commonest are “Other”"
        notes.tell(str(text.name), f"{many} levels", int(rows.sum()), done)
        return levels.where(levels.isna() | levels.isin(kept), "Other")
    return levels


def list_codes(descriptor: Descriptor) -> dict[str, str]:
    """The level that each coding of the card means, by the coding in small letters."""
    codes = {level.casefold(): level for level in descriptor.levels}
    for level, spellings in descriptor.levels.items():
        codes |= {spelling.casefold(): level for spelling in spellings}
    return codes


def read_level(cell: str, descriptor: Descriptor) -> str | None:
    """The level that a cell holds, None where it is missing.

    Raises
    ------
    InputError
        The card lists levels, and this is none of them.
    """
    if not descriptor.levels:
        return _clean_level(cell)
    level = list_codes(descriptor).get(clean_text(cell).casefold())
    if level is None and cell.strip().casefold() not in MISSING:
        raise InputError(f"must be one of {', '.join(descriptor.levels)}.")
    return level


def _clean_level(cell: str) -> str | None:
    """A level as the card has none: as it is spelled; our own word for a gap is set apart."""
    return {"": None, "missing": "“missing”"}.get(level := clean_text(cell), level)
