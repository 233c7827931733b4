"""A card drafted from a table: what each column seems to be, and why."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pydantic import ValidationError

from segmentation import InputError
from segmentation.customers.card import OURS, Card, Column, clean_text, explain_error
from segmentation.customers.text import MISSING, Notes, find_decimal, parse_numbers, read_text

EMPTY = 0.5
FEW_LEVELS, FEW_CODES = 12, 5
"""Levels of a descriptor, and distinct whole numbers that are rather codes than amounts."""

SKEWED = 1.5
"""Skewness from which a log transform is proposed."""

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
    free text and columns of an earlier run are left out.

    Raises
    ------
    InputError
        The file cannot be read, or has fewer than two columns of numbers.
    """
    notes = Notes()
    text = read_text(source, notes, sample=True)
    notes.check(source.name)
    decimal = find_decimal(text)
    drafts = {
        name: draft_column(text[name].str.strip(), decimal, point=notes.point) for name in text
    }
    drafts = _keep_one_id(drafts)
    card = _collect(source, drafts, decimal)
    rows = [(name, role, reason) for name, (role, reason, _) in drafts.items()]
    return card, pd.DataFrame(rows, columns=["column", "role", "reason"])


def draft_column(cells: pd.Series, decimal: str, *, point: bool = True) -> Draft:
    """What a column seems to be: id, feature, descriptor or left out; why; what a card says."""
    name, known = str(cells.name), cells[~cells.str.casefold().isin(MISSING)]
    distinct, whole = known.nunique(), len(known) == len(cells)
    if name.casefold() in OURS:
        return "left out", "written by an earlier run", {}
    if distinct < 2:
        return "left out", "empty" if distinct == 0 else "the same in every row", {}
    own = whole and distinct == len(cells) and not PERSONAL.search(name)
    if own and (NAMED.search(name) or _looks_like_ids(known)):
        return "id", "different in every row", {}
    if len(known) < EMPTY * len(cells):
        return "left out", "mostly missing", {}
    if NAMED.search(name) or PERSONAL.search(name) or known.str.fullmatch(ADDRESS).mean() > EMPTY:
        return "left out", "seems to name a person or an account", {}
    if known.str.fullmatch(DAY).mean() > 0.9:
        return "left out", "dates", {}
    return _draft_values(name, known, decimal, point)


def _draft_values(name: str, known: pd.Series, decimal: str, point: bool) -> Draft:
    numbers, _, mend = parse_numbers(known, decimal, point=point)
    if "decimal:" in mend:
        return "left out", "a decimal point or comma? say `decimal:` in a card", {}
    distinct = known.nunique()
    if numbers.notna().all():
        codes = bool((numbers % 1 == 0).all()) and distinct <= FEW_CODES
        if distinct == 2 or (codes and (CODED.search(name) or distinct <= 3)):
            return "descriptor", f"{distinct} codes; say what they mean by `levels:`", {}
        return _draft_feature(name, known, numbers, mend)
    wordy = known.str.len().mean() > 25
    if not wordy and (distinct <= FEW_LEVELS or (distinct <= 60 and distinct < 0.2 * len(known))):
        return "descriptor", f"{distinct} levels", {}
    if numbers.notna().mean() > 0.9:
        odd = clean_text(str(known[numbers.isna()].iloc[0]))[:20]
        return "left out", f"nearly all numbers, but not {odd!r}", {}
    return "left out", "free text" if wordy else "too many levels", {}


def _draft_feature(name: str, known: pd.Series, numbers: pd.Series, mend: str) -> Draft:
    says: dict[str, Any] = {}
    if found := IN_HEADER.match(name):
        says = {"label": found["label"], "unit": found["unit"]}
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
    numbers = known.astype(float)
    running = numbers.max() - numbers.min() == len(numbers) - 1
    return running or bool(known.str.len().nunique() == 1 and known.str.len().iloc[0] >= 5)


def _keep_one_id(drafts: dict[str, Draft]) -> dict[str, Draft]:
    """The first id is the table's; further ones are left out."""
    ids = [name for name, (role, *_) in drafts.items() if role == "id"]
    further: Draft = ("left out", "a second id", {})
    return drafts | dict.fromkeys(ids[1:], further)


def _collect(source: Path, drafts: dict[str, Draft], decimal: str) -> Card:
    def find(wanted: str) -> dict[str, dict[str, Any]]:
        return {name: says for name, (role, _, says) in drafts.items() if role == wanted}

    values: dict[str, Any] = {
        "title": clean_text(source.stem.replace("_", " ").replace("-", " ")).capitalize(),
        "table": source.name,
        "features": find("feature"),
        "descriptors": find("descriptor"),
        "decimal": decimal,
    }
    values |= {"id": next(iter(ids))} if (ids := find("id")) else {}
    if len(values["features"]) < 2:
        why = "; ".join(f"{name}: {reason}" for name, (_, reason, _) in drafts.items())
        raise InputError(
            f"{source.name}: at least two columns of numbers are needed ({why[:600]}); "
            "write a card, or give the table such columns."
        )
    try:
        return Card.model_validate(values).model_copy(update={"path": source})
    except ValidationError as error:
        raise InputError(f"{source.name}: {explain_error(error, Card)}") from None


def write_card(card: Card, reasons: pd.DataFrame) -> str:
    """A drafted card as YAML to edit, each column with its reason, those left out at the end."""
    why = reasons.set_index("column")["reason"]
    lines = ["# Drafted from the table; edit it, and give it in the table's place."]
    lines += [f"title: {_quote(card.title)}", f"table: {_quote(card.table)}"]
    lines.append(f"id: {_quote(card.id)}")
    if card.decimal:
        lines.append(f"decimal: {_quote(card.decimal)}")
    parts: dict[str, Mapping[str, Column]] = {}
    parts |= {"features": card.features, "descriptors": card.descriptors}
    for kind, columns in parts.items():
        lines += [f"{kind}:"] if columns else []
        for name, column in columns.items():
            unit = getattr(column, "unit", "")
            says = {"label": column.label} | ({"unit": unit} if unit else {})
            lines.append(f"  {_quote(name)}: {_quote(says)}  # {clean_text(str(why[name]))}")
    lines += ["# left out:"] if (reasons["role"] == "left out").any() else []
    for row in reasons[reasons["role"] == "left out"].itertuples():
        lines.append(f"#   {clean_text(row.column)}: {clean_text(row.reason)}")
    return "\n".join(lines) + "\n"


def _quote(value: Any) -> str:
    text = yaml.safe_dump(value, allow_unicode=True, default_flow_style=True, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")
