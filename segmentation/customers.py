"""The customer table: its card, how it is read, checked and described."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segmentation import ROOT, InputError
from segmentation.cards import (
    COUNT,
    ROW,
    Card,
    Descriptor,
    Feature,
    clean_text,
    keep_features,
    load_card,
    suggest,
)
from segmentation.drafts import draft_card
from segmentation.tables import MISSING, Notes, find_decimal, find_key, parse_numbers, read_text
from segmentation.transactions import Transactions, read_transactions

FEWEST_ROWS, MANY_LEVELS = 10, 20
SPARSE, EMPTY = 0.05, 0.5
"""Shares of missing values from which a column is warned of, and refused."""

ROWS_PER_FEATURE = 70
"""Rows a feature that a study should have (Dolnicar et al. 2014, J. Travel Research)."""


def read_card(path: str | Path, *, features: str = "", as_of: str = "") -> Card:
    """Read a dataset card, or draft one from a table; a relative path starts at the project's.

    Parameters
    ----------
    path : path of the card (YAML), or of a table without one.
    features : comma-separated column names or labels to keep as features; empty keeps all.
    as_of : the date of the data (ISO), instead of the card's; empty keeps that.

    Raises
    ------
    InputError
        There is nothing there, or the card is refused, or no card can be drafted; a feature is
        not known, or the date is none.
    """
    return explain_card(path, features=features, as_of=as_of)[0]


def explain_card(
    path: str | Path, *, features: str = "", as_of: str = ""
) -> tuple[Card, pd.DataFrame | None]:
    """The same card; where it was drafted, why each column became what: column, role, reason."""
    path = ROOT / path
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of a dataset card or a table.")
    is_card = path.suffix.lower() in (".yaml", ".yml")
    card, reasons = (load_card(path), None) if is_card else draft_card(path)
    card = keep_features(card, features) if features.strip() else card
    return (card.model_copy(update={"as_of": _read_day(as_of)}) if as_of else card), reasons


def _read_day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InputError(f"as-of must be a date like 2026-10-31, got {text!r}.") from None


def read_customers(card: Card) -> pd.DataFrame:
    """Read and check the card's table: id (text), features (float), descriptors (their levels).

    Raises
    ------
    InputError
        The file cannot be read, or breaks what the card says; the message lists each problem.
    """
    return inspect_customers(card)[0]


def inspect_customers(card: Card) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The same table, and what was found and mended on the way: column, finding, rows, done."""
    if card.transactions:
        return _gather_customers(card, card.transactions)
    notes = Notes()
    name = card.source.name
    text = read_text(card.source, notes, card=card)
    notes.check(name)
    named = _name_columns(text, card, notes)
    notes.check(name)
    table = _parse_columns(named, card, notes)
    notes.check(name)
    return table.reset_index(drop=True), notes.tabulate()


def count_customers(table: pd.DataFrame) -> NDArray[np.float64]:
    """How many customers each of n rows stands for: (n,), one each in a table of customers."""
    return table[COUNT].to_numpy(float) if COUNT in table else np.ones(len(table))


def _gather_customers(card: Card, columns: Transactions) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row a customer from a table of transactions, and what was found in it."""
    table, report = read_transactions(
        card.source,
        columns,
        as_of=card.as_of,
        delimiter=card.delimiter or ",",
        decimal="," if card.decimal == "," else ".",
        encoding=card.encoding or "utf-8",
    )
    negative = [n for n, f in card.features.items() if f.transform == "log" and table[n].min() < 0]
    if negative:
        raise InputError(
            f"{card.source.name}: {', '.join(negative)} is negative for some customers and has no "
            "logarithm; leave `transform: log` out of the card."
        )
    gathered = table.rename(columns={"customer": card.id})[[card.id, *card.features]]
    report = report.set_axis(["finding", "rows", "done"], axis=1)
    report.insert(0, "column", "")
    return gathered.astype(dict.fromkeys(card.features, float)), report


# Columns -----------------------------------------------------------------------------------


def _name_columns(text: pd.DataFrame, card: Card, notes: Notes) -> pd.DataFrame:
    """The card's columns under the card's names: by name, alias or label."""
    found = match_columns(text.columns, card)
    columns: dict[str, pd.Series] = {}
    taken: dict[str, str] = {}
    for name in card.columns:
        hit = found.get(name)
        if name == ROW == card.id:
            columns[name] = pd.Series(range(1, len(text) + 1), index=text.index).astype(str)
        elif hit is None:
            near = suggest(name, text.columns)
            notes.refuse(
                "", f"column {name} is missing", f"{near} Name it in the card's `aliases:`"
            )
        elif hit in taken:
            mend = "name each in the card's `aliases:`"
            notes.refuse("", f"{name} and {taken[hit]} are both read from {hit}", mend)
        else:
            taken[hit] = name
            columns[name] = text[hit].str.strip()
            if hit.casefold() != name.casefold():
                notes.tell(name, "found under another header", len(text), f"read from {hit}")
    if extra := len(text.columns) - len(taken):
        notes.tell("", f"{extra} further columns", len(text), "ignored")
    return pd.DataFrame(columns, index=text.index)


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


def _parse_columns(text: pd.DataFrame, card: Card, notes: Notes) -> pd.DataFrame:
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
        table[name] = _parse_descriptor(text[name], descriptor, notes)
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
    _check_missing(missing, feature, notes, name)
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


def _check_missing(missing: pd.Series, feature: Feature, notes: Notes, name: str) -> None:
    share = float(missing.mean())
    if missing.all():
        notes.refuse(name, "all values are missing", "leave the column out of `features:`")
    elif share > EMPTY:
        rule = f"{share:.0%} of the values are missing"
        notes.refuse(name, rule, "leave the column out of `features:`")
    elif missing.any() and feature.missing == "refuse":
        rule = f"{missing.sum()} values are missing"
        notes.refuse(name, rule, "fill them; `missing: refuse` forbids gaps")
    elif missing.any():
        done = {"median": "filled with the median", "drop": "left out"}[feature.missing]
        much = f" ({share:.0%})" if share > SPARSE else ""
        notes.tell(name, f"values are missing{much}", int(missing.sum()), done)


def _parse_descriptor(text: pd.Series, descriptor: Descriptor, notes: Notes) -> pd.Series:
    """The column's levels, by the card's codings; the rare ones of very many are pooled."""
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
        notes.tell(str(text.name), "all values are missing", len(text), "tells nothing")
        return levels.astype(object)
    if (many := levels.nunique()) > MANY_LEVELS:
        kept = levels.value_counts().index[: MANY_LEVELS - 1]
        notes.tell(str(text.name), f"{many} levels", len(text), "all but the commonest are “Other”")
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


# Describing ------------------------------------------------------------------------------


def describe_features(table: pd.DataFrame, card: Card) -> pd.DataFrame:
    """One row a feature, in raw units: type, missing and distinct values, mean, sd, quartiles."""
    numbers = table[list(card.features)]
    summary = numbers.describe().T.drop(columns="count")
    summary.insert(0, "unit", [feature.unit for feature in card.features.values()])
    summary.insert(1, "type", [str(dtype) for dtype in numbers.dtypes])
    summary.insert(2, "missing", numbers.isna().sum())
    summary.insert(3, "distinct", numbers.nunique())
    summary.index = pd.Index([card.label(name) for name in numbers], name="feature")
    return summary.rename(columns={"std": "sd", "50%": "median"}).reset_index()


def count_levels(table: pd.DataFrame, card: Card) -> pd.DataFrame:
    """One row a level of each descriptor, missing ones too: customers and their share."""
    rows = []
    for name, descriptor in card.descriptors.items():
        counts = table[name].fillna("missing").value_counts()
        rows += [(descriptor.label, level, int(n), n / len(table)) for level, n in counts.items()]
    return pd.DataFrame(rows, columns=["descriptor", "level", "customers", "share"])


def summarize_customers(table: pd.DataFrame, card: Card) -> str:
    """The median of each feature and the commonest level of each descriptor, in a sentence."""
    medians = ", ".join(
        f"{feature.label} {table[name].median():.4g} {feature.unit}".rstrip()
        for name, feature in card.features.items()
    )
    commonest = "".join(
        f"; {share:.0%} are {level}"
        for name in card.descriptors
        for level, share in table[name].value_counts(normalize=True).head(1).items()
    )
    return f"{len(table)} customers; the medians: {medians}{commonest}."


def summarize_shapes(table: pd.DataFrame, card: Card) -> str:
    """The most skewed feature, in a sentence."""
    skew = table[list(card.features)].skew()
    most = str(skew.abs().idxmax())
    word = (
        "strongly" if abs(skew[most]) > 1 else "moderately" if abs(skew[most]) > 0.5 else "hardly"
    )
    return (
        f"The most skewed feature is {card.label(most)}, {word} so (skewness {skew[most]:.2f}); a "
        "long tail pulls centroids, and two humps hint at groups."
    )


def summarize_groups(table: pd.DataFrame, card: Card) -> str:
    """Where the levels of the first descriptor differ most, in a sentence."""
    if not card.descriptors:
        return "The card names no descriptor to colour by."
    by, values = next(iter(card.descriptors)), table[list(card.features)]
    means = values.groupby(table[by]).mean()
    if means.empty:
        return f"{card.label(by)} is missing for everybody."
    gaps = (means.max() - means.min()) / values.std(ddof=0)
    widest = str(gaps.idxmax())
    feature, means = card.features[widest], means[widest].sort_values()
    return (
        f"By {card.label(by)} the means differ most in {feature.label}: {means.index[0]} "
        f"{means.iloc[0]:.1f}, {means.index[-1]} {means.iloc[-1]:.1f} {feature.unit}".rstrip()
        + f" ({gaps[widest]:.2f} standard deviations)."
    )


def summarize_quality(table: pd.DataFrame, card: Card) -> str:
    """What is missing or repeated, in a sentence."""
    columns = [*card.features, *card.descriptors]
    missing = int(table[columns].isna().sum().sum())
    same = int(table[columns].duplicated().sum())
    return (
        f"{len(table)} customers, each with an id of their own; {missing or 'no'} missing values; "
        f"{same or 'no'} customers repeat another's figures exactly."
    )


def summarize_support(table: pd.DataFrame, card: Card) -> str:
    """How many rows stand behind each feature, and what that supports."""
    rows, features = len(table), len(card.features)
    ratio = rows / features
    verdict = (
        "enough for segments that repeat, if there are any"
        if ratio >= ROWS_PER_FEATURE
        else "little: prefer few, large segments and read small ones as a hint"
    )
    return (
        f"{rows} customers for {features} features are {ratio:.0f} a feature, against the "
        f"{ROWS_PER_FEATURE} that Dolnicar and colleagues (2014) recommend: {verdict}."
    )


def summarize_correlations(table: pd.DataFrame, card: Card) -> str:
    """The strongest linear relation among the features, in a sentence."""
    matrix = table[list(card.features)].corr().to_numpy()
    strengths = np.abs(np.triu(matrix, k=1))
    if not np.nanmax(strengths) > 0:
        return "No feature varies together with another."
    first, second = np.unravel_index(np.nanargmax(strengths), matrix.shape)
    labels = [feature.label for feature in card.features.values()]
    value = matrix[first, second]
    word = "strong" if abs(value) >= 0.7 else "moderate" if abs(value) >= 0.3 else "weak"
    return (
        f"The largest correlation is {word}: {labels[first]} and {labels[second]}, r = {value:.2f}."
    )
