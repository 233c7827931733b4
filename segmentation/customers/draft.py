"""A card drafted from a table: what each column seems to be, and why."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pydantic import ValidationError

from segmentation import InputError, words
from segmentation.customers import text as tables
from segmentation.customers.card import OURS, ROW, Card, clean_text, explain_error
from segmentation.customers.columns import NEARLY, find_sentinels
from segmentation.customers.dates import AMBIGUOUS, find_date_format
from segmentation.customers.headers import OF_ROWS, Header, read_header, write_label
from segmentation.customers.numbers import (
    TWO_READINGS,
    Numbers,
    find_decimal,
    find_missing,
    parse_numbers,
)
from segmentation.customers.purchases import gather_customers
from segmentation.customers.text import Notes, find_key

EMPTY = 0.5  # share of missing cells from which on a column is mostly missing
FEW_LEVELS, FEW_CODES, MOST_CODES = 12, 5, 20  # levels of texts, and of whole numbers
FEWEST_IDS = 10  # different ids that repeat, from which on a table holds more than customers
SKEWED = 1.5  # skewness from which a logarithm is drafted
SNAPSHOTS = 60  # different dates at most of a table of snapshots, each of many customers
ADDRESS = re.compile(r"\S+@\S+\.\S+")
DAY = re.compile(
    r"\d{4}[-/]\d\d?(?:[-/]\d\d?)?(?:[T ].*)?|\d\d?[-./]\d\d?[-./]\d{2,4}(?: .*)?"
    r"|(?:19|20)\d\d[01]\d[0-3]\d|[01]?\d[./](?:19|20)\d\d"
)
UNITS = re.compile(r"[€$£¥%]|\b(?:EUR|USD|GBP|CHF)\b")
CALENDAR = {(1900, 2100), (1, 12), (1, 31), (0, 23), (0, 7), (1, 53), (1, 4)}


class Draft(NamedTuple):
    """What a column seems to be, why, what a card says of it, and what one may change."""

    role: str
    reason: str
    says: Mapping[str, Any] = MappingProxyType({})
    change: str = ""


def draft_card(
    source: Path, *, features: str = "", encoding: str = "", sheet: str = "", ask: bool = True
) -> tuple[Card, pd.DataFrame]:
    """A card for a table without one, and a row a column: column, role, reason, example, change.

    Numbers become features, small categories descriptors; what only names or numbers things,
    dates, personal data, free text and columns of an earlier run are left out, unless `features`
    names them.
    Rows of purchases become a card with `transactions:`. Where a customer has several rows and they
    are no purchases, the table is refused; `ask=False` drafts that the newest is kept.

    Raises
    ------
    InputError
        The file cannot be read, ids repeat, or there are fewer than two columns of numbers.
    """
    notes = Notes()
    text = tables.read_text(source, notes, sample=True, encoding=encoding, sheet=sheet)
    notes.check(source.name)
    text = text.apply(lambda cells: cells.str.strip())
    decimal = find_decimal(text)
    drafts = {name: draft_column(text[name], decimal, point=notes.point) for name in text}
    drafts |= _bring_back(text, drafts, features, decimal, notes.point)
    values: dict[str, Any] = {
        "title": clean_text(source.stem.replace("_", " ").replace("-", " ")).capitalize(),
        "table": source.name,
        "decimal": decimal,
        "encoding": encoding,
        "sheet": sheet,
    }
    command = f"segmentation card {source.name}"
    command += "".join(f" --{key} {values[key]!r}" for key in ("encoding", "sheet") if values[key])
    repeating = _choose_id(text, drafts)
    if repeating and (said := _find_purchases(text, drafts, repeating)):
        return _draft_purchases(source, text, drafts, values, said)
    if repeating:
        values["newest"] = _find_newest(source, text, repeating, command if ask else "")
        drafts[repeating] = Draft("id", "a customer has several rows, of which the newest is kept")
    parts = {role: {n: d.says for n, d in drafts.items() if d.role == role} for role in ROLES}
    if len(parts["feature"]) < 2:
        why = "; ".join(f"{name}: {draft.reason}" for name, draft in drafts.items())
        raise InputError(
            f"{source.name}: at least two columns of numbers are needed ({clean_text(why)[:600]}); "
            "write a card, or give the table such columns."
        )
    values |= {"id": next(iter(parts["id"]), ROW), "descriptors": parts["descriptor"]}
    values |= {"features": parts["feature"]}
    if ask:
        _check_customers(source, text, values["id"], command)
    if values["id"] == ROW:
        drafts[ROW] = Draft("id", "no column looks like an id, so the number of the row is it")
    return _make_card(source, values), _tabulate(text, drafts)


ROLES = ("id", "feature", "descriptor")


def _make_card(source: Path, values: dict[str, Any]) -> Card:
    """The card of a draft, labels as people say them where each has its own."""
    said = [values.get(kind, {}) for kind in ("features", "descriptors")]
    labels = [find_key(c["label"]) for part in said for c in part.values() if "label" in c]
    for part in said:
        for name, column in part.items():
            label = find_key(column.get("label", ""))
            if labels.count(label) > 1 or str(column.get("label", "")).casefold() in OURS:
                part[name] = {key: own for key, own in column.items() if key != "label"}
    try:
        return Card.model_validate(values).model_copy(update={"path": source})
    except ValidationError as error:
        raise InputError(f"{source.name}: {explain_error(error, Card)}") from None


def _tabulate(text: pd.DataFrame, drafts: dict[str, Draft]) -> pd.DataFrame:
    """One row a column; an example where it is nobody's id and nothing personal."""
    rows = []
    for name, draft in drafts.items():
        shown = draft.role in ("feature", "descriptor") or draft.change
        cells = text[name][text[name] != ""].head(1) if shown and name in text else pd.Series()
        plain = draft.role != "left out" or cells.astype(str).str.fullmatch(r"[-+.,0-9]+").all()
        example = clean_text("".join(cells))[:20] if plain else ""
        rows.append((name, draft.role, draft.reason, example, draft.change))
    return pd.DataFrame(rows, columns=["column", "role", "reason", "example", "change"])


def _bring_back(
    text: pd.DataFrame, drafts: dict[str, Draft], wanted: str, decimal: str, point: bool
) -> dict[str, Draft]:
    """The columns that are asked for as features by name or label, whatever they seem to be."""
    keys = {find_key(said): name for name in text for said in (write_label(name)["label"], name)}
    back = {}
    asked = [keys[key] for key in map(find_key, wanted.split(",")) if key in keys]
    for name in [name for name in asked if drafts[name].role != "feature"]:
        named = read_header(name).meaning in OF_ROWS
        if drafts[name].role in ("id", "repeats") or named:
            raise InputError(f"features: {name} is an id, which is no measure; leave it out.")
        known = text[name][~find_missing(text[name])]
        reading = parse_numbers(known, decimal, point=point)
        if reading.values.isna().any() or known.empty:
            raise InputError(f"features: {name} does not hold numbers ({drafts[name].reason}).")
        back[name] = _draft_feature(name, known, reading)
    return back


# Columns ------------------------------------------------------------------------------------


def draft_column(cells: pd.Series, decimal: str, *, point: bool = True) -> Draft:
    """What a column seems to be: id, repeats (an id that does), feature, descriptor, left out."""
    name, known = str(cells.name), cells[~find_missing(cells)]
    distinct, meaning = known.nunique(), read_header(name).meaning
    if name.casefold() in OURS:
        return Draft("left out", "written by an earlier run")
    if distinct < 2:
        return Draft("left out", "the same in every row" if distinct else "empty")
    reading = parse_numbers(known, decimal, point=point)
    numbers = reading.values
    whole = bool((numbers % 1 == 0).all())
    if draft := _draft_id(known, read_header(name), numbers if whole else None, len(cells)):
        return draft
    if len(known) < EMPTY * len(cells):
        return Draft("left out", "mostly missing", change="`--features` brings it back")
    if _is_private(known, meaning, numbers, distinct):
        return Draft("left out", "seems to name a person or an account")
    texts = bool(numbers.isna().any())
    if known.str.fullmatch(DAY).mean() > 0.9 or (texts and find_date_format(known) is not None):
        return Draft("left out", "dates")
    if reading[1:] == TWO_READINGS:
        return Draft("left out", "a decimal point or comma? say `decimal:` in a card")
    if numbers.notna().all():
        return _draft_numbers(name, known, reading, meaning, whole=whole)
    return _draft_texts(name, known, reading, decimal, point=point)


def _draft_id(
    known: pd.Series, header: Header, numbers: pd.Series | None, rows: int
) -> Draft | None:
    """Whether a column is the customers' id, numbers its rows, or is an id that repeats.

    numbers : the cells as whole numbers, None where they are not.
    """
    meaning, distinct = header.meaning, known.nunique()
    codes = numbers is not None or bool(known.str.fullmatch(r"\S+( \d+)?").mean() > NEARLY)
    near = distinct >= NEARLY * len(known) and len(known) > EMPTY * rows and codes
    named = meaning in ("customer id", "customer", "id")
    running = numbers is not None and len(known) == distinct == rows >= FEWEST_IDS
    if numbers is not None and running:
        running = numbers.max() - numbers.min() == rows - 1 and numbers.min() in (0, 1)
    if meaning == "customer" and numbers is None and not known.str.contains(r"\d").mean() > EMPTY:
        named = False  # names of people
    if named and near:
        return Draft("id", f"an id by its name, different in {distinct:,} of {len(known):,} rows")
    if (meaning == "row number" and near and numbers is not None) or (running and not named):
        return Draft("left out", "a row number")
    unnamed = meaning in ("", "row number", "code") and near and distinct == rows
    if unnamed and _looks_like_ids(known):
        return Draft("id", "different in every row, as ids are")
    if named and codes and distinct >= FEWEST_IDS and (meaning != "id" or len(header.words) == 1):
        return Draft("repeats", f"an id by its name, {distinct:,} different in {len(known):,} rows")
    if named and codes and distinct > FEW_LEVELS:
        return Draft("left out", f"numbers or names something else ({distinct:,} different)")
    return None


def _looks_like_ids(known: pd.Series) -> bool:
    """Whether different cells are codes: one word each with a letter, or long whole numbers.

    Numbers of five or six digits may be an income: they are ids only in a narrow range.
    """
    if not known.str.fullmatch(r"[0-9]+").all():
        return bool(known.str.fullmatch(r"\S*[A-Za-z]\S*").all())
    numbers, widths = known.astype(float), known.str.len()
    same = widths.nunique() == 1 and widths.iloc[0] >= 5
    rising = (numbers.diff().dropna() > 0).all()
    return bool(same and (widths.iloc[0] >= 7 or rising or numbers.max() < 1.2 * numbers.min()))


def _is_private(known: pd.Series, meaning: str, numbers: pd.Series, distinct: int) -> bool:
    """Whether cells name or reach a person; small numbers count something, two levels answer."""
    if known.str.fullmatch(ADDRESS).mean() > EMPTY:
        return True
    small = numbers.notna().all() and numbers.abs().max() < 1e6
    return meaning == "personal" and not small and distinct > 2


def _draft_numbers(
    name: str, known: pd.Series, reading: Numbers, meaning: str, *, whole: bool
) -> Draft:
    """The role of numbers: what only names, numbers or dates things is no measure."""
    numbers, distinct = reading.values, known.nunique()
    low, high = numbers.min(), numbers.max()
    back = "`--features` brings it back"
    if meaning in ("calendar", "personal") and whole and low >= 1900 and high <= 2100:
        years = f"years; `expression: {high:.0f} - {name}` would be a duration"
        return Draft("left out", years, change=back)
    if meaning == "calendar" and whole and any(a <= low and high <= b for a, b in CALENDAR):
        return Draft("left out", "a part of the date, which starts again", change=back)
    if meaning == "place" and low >= -180 and high <= 180:
        return Draft("left out", "a place on the map", change=back)
    few = whole and distinct <= FEW_CODES
    coded = distinct == 2 or (few and distinct <= 3) or (meaning == "code" and whole)
    if coded and distinct <= MOST_CODES:
        change = "say what they mean by `levels:`; " + back
        return Draft("descriptor", f"{distinct} codes", _label(name), change)
    if coded:
        return Draft("left out", f"{distinct:,} codes, which are names", change=back)
    return _draft_feature(name, known, reading)


def _draft_texts(
    name: str, known: pd.Series, reading: Numbers, decimal: str, *, point: bool
) -> Draft:
    """The role of cells that are not all numbers: numbers but for a word or two, levels, texts."""
    distinct, odd = known.nunique(), known[reading.values.isna()]
    wordless = odd.str.fullmatch(r"\D{1,20}").all() and odd.nunique() <= 3
    if len(odd) < (1 - NEARLY) * len(known) and wordless:
        rest = known.drop(odd.index)
        again = parse_numbers(rest, decimal, point=point)
        if again.values.notna().all() and rest.nunique() > FEW_CODES:
            gaps = sorted({clean_text(cell) for cell in odd})
            draft = _draft_feature(name, rest, again)
            told = f"; {', '.join(map(repr, gaps))} ({len(odd):,} rows) is read as missing"
            says = {**draft.says, "missing_values": gaps}
            return Draft("feature", draft.reason + told, says, draft.change)
    if reading.values.notna().mean() > NEARLY:
        cell = clean_text("".join(odd.head(1)))[:20]
        return Draft("left out", f"nearly all numbers, but not {cell!r}")
    if known.str.len().mean() > 25:
        return Draft("left out", "free text")
    if distinct <= FEW_LEVELS or (distinct <= 60 and distinct < 0.2 * len(known)):
        return Draft("descriptor", f"{distinct} levels", _label(name))
    return Draft("left out", f"{distinct:,} different texts, neither numbers nor dates")


def _label(name: str) -> dict[str, Any]:
    return {"label": write_label(name)["label"]}


def _draft_feature(name: str, known: pd.Series, reading: Numbers) -> Draft:
    """A feature: its label and unit, the logarithm of a long tail, values that stand alone."""
    numbers, rule, mend = reading
    says: dict[str, Any] = write_label(name)
    if "unit" not in says and (unit := known.str.extract(f"({UNITS.pattern})")[0].dropna()).size:
        says["unit"] = str(unit.iloc[0])
    reasons, change = ["numbers" + (f" with {rule}" if mend else "")], ""
    if alone := find_sentinels(numbers):
        values = ", ".join(f"{value:.0f}" for value in alone)
        reasons.append(f"{int(numbers.isin(alone).sum()):,} rows stand far apart at {values}")
        change = f"`missing_values: [{values}]` if that means that nothing is known"
        numbers = numbers[~numbers.isin(alone)]
    told, transform = judge_skew(numbers)
    return Draft("feature", "; ".join(reasons + told), says | transform, change)


def judge_skew(numbers: pd.Series) -> tuple[list[str], dict[str, str]]:
    """What is to be said of a skewed feature, and what a card says to take its logarithm."""
    skew = float(numbers.skew())
    if skew <= SKEWED:
        return [], {}
    if below := int((numbers < 0).sum()):
        return [f"skewness {skew:.1f}, but no logarithm: {below:,} values are below zero"], {}
    logged = float(np.log1p(numbers).skew())
    if abs(logged) > skew / 1.5:
        return [f"skewness {skew:.1f}, which a logarithm would not mend"], {}
    zeros = float((numbers == 0).mean())
    spike = f" ({zeros:.0%} zeros stay apart from the rest)" if zeros > 0.05 else ""
    return [f"skewness {skew:.1f}, so its logarithm is used{spike}"], {"transform": "log"}


# Rows ---------------------------------------------------------------------------------------


def _choose_id(text: pd.DataFrame, drafts: dict[str, Draft]) -> str:
    """Keep one id, the customers' before others; the name of one that repeats, if that is it."""
    ranks = {"customer id": 3, "customer": 3, "id": 2}

    def rank(name: str) -> tuple[float, int]:
        header = read_header(name)
        return ranks.get(header.meaning, 1) - (len(header.words) > 1) / 2, text[name].nunique()

    ids = [name for name, draft in drafts.items() if draft.role == "id"]
    again = [name for name, draft in drafts.items() if draft.role == "repeats"]
    best, most = max(ids, key=rank, default=""), max(again, key=rank, default="")
    for name in {*ids, *again} - {best, most}:
        drafts[name] = Draft("left out", "a second id")
    if best and most and rank(best)[0] < rank(most)[0] and rank(most)[0] > 2:
        drafts[best] = Draft("left out", "the id of a row, not of a customer")
        best = ""
    if most and best:
        drafts[most] = Draft("left out", "an id that several customers share")
        most = ""
    known = text[best][~find_missing(text[best])] if best else pd.Series(dtype=str)
    return best if known.duplicated().any() else most


def _find_purchases(
    text: pd.DataFrame, drafts: dict[str, Draft], customer: str
) -> dict[str, str] | None:
    """The parts of `transactions:`, where rows with an id that repeats are purchases."""
    known = words.read_words()["headers"]["purchases"]
    dates = _find_dates(text, customer, known["order"].split())
    named = {part: _find_part(drafts, known[part].split()) for part in known if part != "order"}
    parts = {part: name for part, name in named.items() if name not in ("", customer)}
    if "amount" not in parts and "price" in parts and "quantity" not in parts:
        parts["amount"] = parts["price"]
    if not dates or not ("amount" in parts or {"quantity", "price"} <= {*parts}):
        return None
    date, form = next(iter(dates.items()))
    orders = [n for n in text if n != customer and read_header(n).meaning == "id"]
    orders = [n for n in orders if _has_part(n, known["order"].split())]
    once = text.groupby([customer, date]).size().max() == 1
    if once and not orders and "quantity" not in parts and text[date].nunique() <= SNAPSHOTS:
        return None  # each customer once a day, on few days: snapshots
    if form == AMBIGUOUS:
        raise InputError(
            f"column {date}: day and month cannot be told apart; write a card with "
            "`transactions:` and its `date_format:`, such as '%d.%m.%Y' or '%m/%d/%Y'."
        )
    used = ("amount",) if "amount" in parts else ("quantity", "price")
    said = {"customer": customer, "date": date} | {part: parts[part] for part in used}
    said |= {"order": orders[0]} if orders else {}
    return said | ({"date_format": form} if form else {}) | {"missing": "drop"}


def _find_dates(text: pd.DataFrame, customer: str, first: list[str]) -> dict[str, str]:
    """The columns of dates with their formats, those of an order before others."""
    formats = {n: find_date_format(text[n]) for n in text if n != customer}
    found = {name: form for name, form in formats.items() if form is not None}
    return dict(sorted(found.items(), key=lambda each: not _has_part(each[0], first)))


def _has_part(header: str, known: list[str]) -> bool:
    return any(word.startswith(tuple(known)) for word in read_header(header).words)


def _find_part(drafts: dict[str, Draft], known: list[str]) -> str:
    """The column of numbers whose header has the first of some words; empty where none has."""
    numeric = [name for name, draft in drafts.items() if draft.role == "feature"]
    return next((n for word in known for n in numeric if word in read_header(n).words), "")


def _draft_purchases(
    source: Path,
    text: pd.DataFrame,
    drafts: dict[str, Draft],
    values: dict[str, Any],
    said: dict[str, str],
) -> tuple[Card, pd.DataFrame]:
    """A card with `transactions:`, logarithms where the customers are skewed."""
    values = values | {"transactions": said}
    card = _make_card(source, values)
    table, _ = gather_customers(card)
    parts = {name: part for part, name in said.items() if name in text}
    drafts = {
        name: Draft(f"purchases: {parts[name]}", "rows of a customer are purchases")
        if name in parts
        else Draft("left out", "not needed of purchases")
        for name in drafts
    }
    features = {}
    for name, feature in card.features.items():
        told, transform = judge_skew(table[name])
        features[name] = feature.model_dump(exclude_defaults=True) | transform
        drafts[feature.label] = Draft("feature", "; ".join(["made of the purchases", *told]))
    return _make_card(source, values | {"features": features}), _tabulate(text, drafts)


def _check_customers(source: Path, text: pd.DataFrame, own: str, command: str) -> None:
    """Refuse rows that are named by an order and dated: purchases of nobody knows whom."""
    known = words.read_words()["headers"]["purchases"]["order"].split()
    if read_header(own).meaning == "id" and _has_part(own, known) and _find_dates(text, own, []):
        raise InputError(
            f"{source.name}: each row is a purchase ({own}), and no column names the customer; add "
            f"one, or run the card that `{command}` writes: it takes each purchase for a customer."
        )


def _find_newest(source: Path, text: pd.DataFrame, customer: str, command: str) -> str:
    """The date by which a customer's newest row is found; refused with the command that keeps it,
    if there is one."""
    dates, own = _find_dates(text, customer, []), text[customer]
    again = own[own.duplicated() & ~find_missing(own)]
    if dates and not command:
        return next(iter(dates))
    lines = ", ".join(map(str, again.index[:3])) + ("…" if len(again) > 3 else "")
    mends = ["if rows are purchases, say so by `transactions:` in a card (customer, date, amount)"]
    mends += ["if they are copies, drop them, or say `repeats: first` in a card"]
    for date in [*dates][:1]:
        draft = f"`{command}` writes a card that keeps each customer's newest"
        mends.insert(0, f"if they are snapshots, {draft} row (`newest: {date}`)")
    raise InputError(
        f"{source.name}: column {customer}: {len(again):,} rows repeat the id of another "
        f"(lines {lines}); {'; '.join(mends)}."
    )
