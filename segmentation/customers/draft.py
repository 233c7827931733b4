"""A card drafted from a table: what each column seems to be, and why."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from segmentation import InputError
from segmentation.customers import text as tables
from segmentation.customers.card import OURS, ROW, Card, clean_text, explain_error
from segmentation.customers.text import Notes, Numbers

EMPTY = 0.5
FEW_LEVELS, FEW_CODES = 12, 5  # of a descriptor; whole numbers that are rather codes than amounts
SKEWED = 1.5  # skewness from which a log transform is proposed
NAMED = re.compile(r"(^|[\W_])(id|no|nr|key|uuid|guid|msisdn)([\W_]|$)|number|nummer|[a-z]I[dD]\b")
CODED = re.compile(r"\b(code|gender|sex|plan|type|class|flag|segment|group|region|zip)\b", re.I)
PERSONAL = re.compile(
    r"mail|phone|telefon|(^|[\W_])tel([\W_]|$)|mobil|handy|vorname|nachname|surname|pr[ée]nom|birth"
    r"|(^|[\W_])((first|last|full|middle|user|nick)[\W_]?)?name([\W_]|$)|address|adress|iban|account"
    r"|konto|compte|passport|(^|[\W_])ssn([\W_]|$)",
    re.I,
)
ADDRESS = re.compile(r"\S+@\S+\.\S+")
DAY = re.compile(
    r"\d{4}[-/]\d\d?(?:[-/]\d\d?)?(?:[T ].*)?|\d\d?[-./]\d\d?[-./]\d{2,4}(?: .*)?"
    r"|(?:19|20)\d\d[01]\d[0-3]\d|[01]?\d[./](?:19|20)\d\d"
)
UNITS = re.compile(r"[€$£¥%]|\b(?:EUR|USD|GBP|CHF)\b")
IN_HEADER = re.compile(r"^(?P<label>.*\S)\s*[(\[](?P<unit>[^()\[\]\d]{1,12})[)\]]$")

Draft = tuple[str, str, dict[str, Any]]  # role, reason, what the card says


def draft_card(source: Path) -> tuple[Card, pd.DataFrame]:
    """A card for a table without one, and a row a column: column, role, reason.

    Numbers become features, small categories descriptors; ids, constants, dates, personal data,
    free text and columns of an earlier run are left out. An InputError where the file cannot be
    read, or has fewer than two columns of numbers.
    """
    notes = Notes()
    text = tables.read_text(source, notes, sample=True)
    notes.check(source.name)
    decimal, parts = tables.find_decimal(text), dict[str, dict[str, dict[str, Any]]]()
    rows = []
    for name in text:
        role, reason, says = draft_column(text[name].str.strip(), decimal, point=notes.point)
        if role == "id" and role in parts:
            role, reason = "left out", "a second id"
        parts.setdefault(role, {})[name] = says
        rows.append((name, role, reason))
    if len(parts.get("feature", {})) < 2:
        why = "; ".join(f"{name}: {reason}" for name, _, reason in rows)
        raise InputError(
            f"{source.name}: at least two columns of numbers are needed ({why[:600]}); "
            "write a card, or give the table such columns."
        )
    values = {
        "title": clean_text(source.stem.replace("_", " ").replace("-", " ")).capitalize(),
        "table": source.name,
        "id": next(iter(parts.get("id", ())), ROW),
        "features": parts["feature"],
        "descriptors": parts.get("descriptor", {}),
        "decimal": decimal,
    }
    try:
        card = Card.model_validate(values).model_copy(update={"path": source})
    except ValidationError as error:
        raise InputError(f"{source.name}: {explain_error(error, Card)}") from None
    return card, pd.DataFrame(rows, columns=["column", "role", "reason"])


def draft_column(cells: pd.Series, decimal: str, *, point: bool = True) -> Draft:
    """What a column seems to be: id, feature, descriptor or left out; why; what a card says."""
    name, known = str(cells.name), cells[~tables.find_missing(cells)]
    distinct, personal = known.nunique(), PERSONAL.search(name)
    own = distinct == len(cells) and not personal
    private = NAMED.search(name) or personal or known.str.fullmatch(ADDRESS).mean() > EMPTY
    reading = tables.parse_numbers(known, decimal, point=point)
    numbers = reading.values
    numeric, odd = numbers.notna().all(), clean_text("".join(known[numbers.isna()].head(1)))[:20]
    few = (numbers % 1 == 0).all() and distinct <= FEW_CODES
    coded = distinct == 2 or (few and (CODED.search(name) or distinct <= 3))
    wordy = known.str.len().mean() > 25
    levels = distinct <= FEW_LEVELS or (distinct <= 60 and distinct < 0.2 * len(known))
    rules = [
        (name.casefold() in OURS, "left out", "written by an earlier run"),
        (distinct == 0, "left out", "empty"),
        (distinct == 1, "left out", "the same in every row"),
        (own and (NAMED.search(name) or _looks_like_ids(known)), "id", "different in every row"),
        (len(known) < EMPTY * len(cells), "left out", "mostly missing"),
        (private, "left out", "seems to name a person or an account"),
        (known.str.fullmatch(DAY).mean() > 0.9, "left out", "dates"),
        (
            reading[1:] == tables.AMBIGUOUS,
            "left out",
            "a decimal point or comma? say `decimal:` in a card",
        ),
        (numeric and coded, "descriptor", f"{distinct} codes; say what they mean by `levels:`"),
        (numeric, "feature", "numbers"),
        (levels and not wordy, "descriptor", f"{distinct} levels"),
        (numbers.notna().mean() > 0.9, "left out", f"nearly all numbers, but not {odd!r}"),
        (wordy, "left out", "free text"),
        (True, "left out", "too many levels"),
    ]
    role, reason = next((role, reason) for holds, role, reason in rules if holds)
    return _draft_feature(name, known, reading) if role == "feature" else (role, reason, {})


def _draft_feature(name: str, known: pd.Series, reading: Numbers) -> Draft:
    numbers, _, mend = reading
    says: dict[str, Any] = {}
    if found := IN_HEADER.match(name):
        says = found.groupdict()
    elif (unit := known.str.extract(f"({UNITS.pattern})")[0].dropna()).size:
        says = {"unit": str(unit.iloc[0])}
    reason = "numbers" + (f", {mend}" if mend else "")
    if (skew := float(numbers.skew())) > SKEWED and numbers.min() >= 0:
        reason += f"; skewness {skew:.1f}: consider `transform: log`"
    return "feature", reason, says


def _looks_like_ids(known: pd.Series) -> bool:
    """Whether different cells are codes: one word each, or whole numbers, running or as long."""
    if not known.str.fullmatch(r"[0-9]+").all():
        return bool(known.str.fullmatch(r"\S*[A-Za-z]\S*").all())
    numbers, widths = known.astype(float), known.str.len()
    running = numbers.max() - numbers.min() == len(numbers) - 1
    return running or bool(widths.nunique() == 1 and widths.iloc[0] >= 5)
