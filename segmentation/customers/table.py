"""The customer table: its card, how it is read, checked and described."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from segmentation import ROOT, InputError
from segmentation.customers import columns as fields
from segmentation.customers import extracts, moments
from segmentation.customers.card import COUNT, Card, keep_features, load_card
from segmentation.customers.draft import draft_card
from segmentation.customers.moments import Floats
from segmentation.customers.purchases import Transactions, read_transactions
from segmentation.customers.text import Notes, read_text

SHOWN = 20_000
"""Customers that a picture shows at most."""

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


def read_customers(card: Card, *, seed: int = 0) -> pd.DataFrame:
    """Read and check the card's table: id (text), features (float), descriptors (their levels).

    Of a table that stays where it is come equal rows as one, without ids, or a sample by `seed`;
    a column `customers` says how many each row stands for. See `extracts`.

    Raises
    ------
    InputError
        The file cannot be read, or breaks what the card says; the message lists each problem.
    """
    return _read(card, Notes(), seed)[0]


def inspect_customers(card: Card, *, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The same table, and what was found and mended on the way: column, finding, rows, done.

    In a table that stays where it is, ids that stand twice are looked for here alone.
    """
    notes = Notes()
    if extracts.is_large(card):
        extracts.check_ids(card, notes)
        notes.check(card.name)
    return _read(card, notes, seed)


def _read(card: Card, notes: Notes, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    if card.transactions:
        return _gather_customers(card, card.transactions)
    if extracts.is_large(card):
        table = extracts.extract_customers(card, notes, seed=seed)
        return table, notes.tabulate()
    text = read_text(card.source, notes, card=card)
    notes.check(card.name)
    named = fields.name_columns(text, card, notes)
    notes.check(card.name)
    table = fields.parse_columns(named, card, notes)
    notes.check(card.name)
    return table.reset_index(drop=True), notes.tabulate()


def count_customers(table: pd.DataFrame) -> Floats:
    """How many customers each of n rows stands for: (n,), one each in a table of customers."""
    return table[COUNT].to_numpy(float) if COUNT in table else np.ones(len(table))


def is_sample(table: pd.DataFrame, card: Card) -> bool:
    """Whether a table holds customers drawn from many more; of counted rows no ids are known."""
    return COUNT in table and card.id in table


def draw_customers(table: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Customers to look at, one a row: all of them up to 20 000, else a seeded sample of these."""
    counts = count_customers(table)
    if COUNT not in table and len(table) <= SHOWN:
        return table
    rng = np.random.default_rng(seed)
    if counts.sum() <= SHOWN:
        drawn = np.repeat(np.arange(len(table)), counts.round().astype(int))
    elif COUNT in table:
        drawn = rng.choice(len(table), SHOWN, p=counts / counts.sum())
    else:
        drawn = rng.choice(len(table), SHOWN, replace=False)
    return table.iloc[np.sort(drawn)].drop(columns=COUNT, errors="ignore").reset_index(drop=True)


def hide_ids(table: pd.DataFrame, card: Card) -> pd.DataFrame:
    """A table without the columns that name a customer or count them."""
    return table.drop(columns=[card.id, COUNT], errors="ignore")


def summarize_view(table: pd.DataFrame, card: Card) -> str:
    """What of the data a table holds and what pictures of it show, in a sentence or two."""
    counts = count_customers(table)
    told = f"Seen here: all {counts.sum():,.0f} customers"
    if is_sample(table, card):
        told = f"Seen here: a seeded sample of {len(table):,} of the {counts.sum():,.0f} customers"
    elif COUNT in table:
        told += f", as {len(table):,} different rows, each with the number of its customers"
    if counts.sum() <= SHOWN:
        return f"{told}."
    return f"{told}. Pictures show {SHOWN:,} of them, drawn at random."


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
            f"{card.name}: {', '.join(negative)} is negative for some customers and has no "
            "logarithm; leave `transform: log` out of the card."
        )
    gathered = table.rename(columns={"customer": card.id})[[card.id, *card.features]]
    report = report.set_axis(["finding", "rows", "done"], axis=1)
    report.insert(0, "column", "")
    return gathered.astype(dict.fromkeys(card.features, float)), report


# Describing ------------------------------------------------------------------------------


def describe_features(table: pd.DataFrame, card: Card) -> pd.DataFrame:
    """One row a feature, in raw units: type, missing and distinct values, mean, sd, quartiles.

    Of a sample the same, but for the distinct values, of the table that it was drawn from.
    """
    if is_sample(table, card):
        return _describe_where_it_lies(card)
    counts = count_customers(table)
    rows = [
        {
            "feature": feature.label,
            "unit": feature.unit,
            "type": str(table[name].dtype),
            "missing": round(counts[table[name].isna()].sum()),
            "distinct": table[name].nunique(),
            **_describe(table[name], counts),
        }
        for name, feature in card.features.items()
    ]
    return pd.DataFrame(rows)


def _describe_where_it_lies(card: Card) -> pd.DataFrame:
    table = extracts.open_customers(card, Notes())
    numbers = {name: extracts.take_number(table[name]) for name in card.features}
    measures = extracts.measure_columns(table, numbers)
    known, features = measures["customers"], card.features.values()
    told = measures[["mean", "sd", "min", "q25", "median", "q75", "max"]]
    told = told.assign(sd=told["sd"] * np.sqrt(known / (known - 1).clip(lower=1)))
    told.insert(0, "feature", [feature.label for feature in features])
    told.insert(1, "unit", [feature.unit for feature in features])
    told.insert(2, "missing", measures["size"] - known)
    return told.rename(columns={"q25": "25%", "q75": "75%"})


def _describe(values: pd.Series, counts: Floats) -> dict[str, float]:
    low, q25, median, q75, high = moments.quantile(values, [0, 0.25, 0.5, 0.75, 1], counts)
    spread = {"mean": moments.mean(values, counts), "sd": moments.sd(values, counts, ddof=1)}
    return spread | {"min": low, "25%": q25, "median": median, "75%": q75, "max": high}


def count_levels(table: pd.DataFrame, card: Card) -> pd.DataFrame:
    """One row a level of each descriptor, missing ones too: customers and their share."""
    counts = count_customers(table)
    rows = []
    for name, descriptor in card.descriptors.items():
        levels = _count(table[name].fillna("missing"), counts)
        told = [(level, round(n), n / counts.sum()) for level, n in levels.items()]
        rows += [(descriptor.label, *row) for row in told]
    return pd.DataFrame(rows, columns=["descriptor", "level", "customers", "share"])


def _count(levels: pd.Series, counts: Floats) -> pd.Series:
    """Customers by level, the commonest first; where they are as many, the first met."""
    grouped = pd.Series(counts, index=levels.index).groupby(levels, sort=False)
    return grouped.sum().sort_values(ascending=False, kind="stable")


def summarize_customers(table: pd.DataFrame, card: Card) -> str:
    """The median of each feature and the commonest level of each descriptor, in a sentence."""
    counts = count_customers(table)
    medians = ", ".join(
        f"{feature.label} {moments.quantile(table[name], 0.5, counts):.4g} {feature.unit}".rstrip()
        for name, feature in card.features.items()
    )
    known = {name: table[name].notna() for name in card.descriptors}
    shares = {n: _count(table.loc[k, n], counts[k]) / counts[k].sum() for n, k in known.items()}
    commonest = "".join(
        f"; {share:.0%} are {level}"
        for levels in shares.values()
        for level, share in levels.head(1).items()
    )
    return f"{counts.sum():,.0f} customers; the medians: {medians}{commonest}."


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
    columns, counts = [*card.features, *card.descriptors], count_customers(table)
    missing = round(counts @ table[columns].isna().sum(axis=1).to_numpy(float))
    same = round(counts[table[columns].duplicated()].sum() + (counts - 1).sum())
    repeated = f"{same:,}" if same else "no"
    ids = ", each with an id of their own" if card.id in table else ""
    told = (
        f"{counts.sum():,.0f} customers{ids}; {f'{missing:,}' if missing else 'no'} missing values"
    )
    drawn = is_sample(table, card)
    return (
        f"{told}." if drawn else f"{told}; {repeated} customers repeat another's figures exactly."
    )


def summarize_support(table: pd.DataFrame, card: Card) -> str:
    """How many rows stand behind each feature, and what that supports, in a sentence."""
    rows, features = float(count_customers(table).sum()), len(card.features)
    ratio = rows / features
    verdict = (
        "enough for segments that repeat, if there are any"
        if ratio >= ROWS_PER_FEATURE
        else "little: prefer few, large segments and read small ones as a hint"
    )
    return (
        f"{rows:,.0f} customers for {features} features are {ratio:,.0f} a feature, against the "
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
