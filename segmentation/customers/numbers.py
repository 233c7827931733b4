"""Cells as numbers, as people write them, and as gaps."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import pandas as pd

NOTHING = frozenset({"", "-", "–", "?", "na", "n/a", "#n/a", "nan", "null", "none"})
ERRORS = {"#n/a", "#nv", "#div/0!", "#ref!", "#bezug!", "#name?", "#num!", "#zahl!", "#null!"}
ERRORS |= {"#value!", "#wert!", "#valeur!", "#¡valor!", "#calc!", "#spill!"}
WORDS_OF_NOTHING = r"""--|---|—|??|.|..|...|…|/|\n|nil|nat|<na>|<null>|(null)|[null]|(blank)|(empty)
n.a.|n.a|n/d|n.d.|s/d|n.v.|missing|unknown|undefined|unspecified|no data|not available|not given
not applicable|not specified|not known|not provided|not stated|unbekannt|fehlend|k.a.|k. a.|k.a
keine angabe|keine angaben|nicht angegeben|nicht bekannt|nicht verfügbar|(leer)|(vide)|inconnu
inconnue|non renseigné|non disponible|non spécifié|desconocido|desconocida|no disponible
no especificado|sin datos|sconosciuto|sconosciuta|non specificato|non disponibile|desconhecido
desconhecida|não informado|não disponível|onbekend|okänd|ukendt|ukjent|tuntematon|nieznany|nieznane
brak|brak danych|neznámé|neznámý|ismeretlen|bilinmiyor|неизвестно|нет данных|不明|未知|なし"""
MISSING = NOTHING | ERRORS | {*WORDS_OF_NOTHING.replace("\n", "|").split("|")}
# what says in a column of numbers or dates that there is nothing; `NOTHING` also among levels
ZEROS = {
    3: "k tsd tausend thousand тыс",
    4: "万",
    5: "lakh lakhs lac",
    6: "m mn mln mio mill million millions millionen млн",
    7: "crore crores",
    8: "億 亿",
    9: "b bn mrd mlrd billion billions milliarden млрд",
}
SCALES = {word: f"e{zeros}" for zeros, words in ZEROS.items() for word in words.split()}
# words behind a number, and what they stand for
CURRENCY_SIGNS = "$¢-¥֏؋߾߿৲৳৻૱௹฿៛₠-⃀꠸﷼﹩＄￠￡￥￦"
ISO = (
    "AED|ARS|AUD|AZN|BAM|BBD|BDT|BGN|BHD|BOB|BRL|BWP|BYN|CAD|CHF|CLP|CNH|CNY|COP|CRC|CZK|DKK|DOP"
    "|DZD|EGP|ETB|EUR|GBP|GEL|GHS|GTQ|HKD|HNL|HRK|HUF|IDR|ILS|INR|IQD|IRR|ISK|JMD|JOD|JPY|KES|KRW"
    "|KWD|KZT|LBP|LKR|MAD|MDL|MKD|MMK|MUR|MXN|MYR|NGN|NIO|NOK|NPR|NZD|OMR|PEN|PHP|PKR|PLN|PYG|QAR"
    "|RON|RSD|RUB|SAR|SEK|SGD|THB|TND|TRY|TTD|TWD|TZS|UAH|UGX|USD|UYU|UZS|VND|XAF|XOF|ZAR|ZMW"
)
LETTER = r"[^\W\d_]"
CURRENCY = (
    rf"(?:[A-Z]{{0,3}}[{CURRENCY_SIGNS}]|S/\.?|(?:{ISO})(?!{LETTER})"
    rf"|(?i:kr|zł|zl|kč|kc|rs|rp|rm|fr|sfr|tl|dhs?|ksh|lei|лв|руб|грн)(?!{LETTER})\.?)"
)
UNIT = rf"(?:[%‰]|[dghlsy]|°{LETTER}?|{LETTER}(?:{LETTER}|[/.°])+(?: {LETTER}+\.?){{0,2}})"
NUMBER = re.compile(
    rf"(?:(?P<lead>[-+])\s?)?(?P<before>{CURRENCY})?\s?(?P<sign>(?(lead)|[-+]?))"
    r"(?P<core>[0-9](?:[0-9.,'’\s]*[0-9.,])?(?:[eE][-+]?[0-9]+)?|[.,][0-9]+)"
    rf"(?:\s?(?P<scale>(?i:{'|'.join(SCALES)})(?!{LETTER})\.?))?"
    rf"(?:\s?(?P<money>{CURRENCY})|(?P<unit>\s?{UNIT}|\s{LETTER}))?"
)
MARK = rf"\s?(?:{CURRENCY}|%)?"
REWRITTEN = [
    (re.compile(r"^([^()\d]*)\(([^()]*\d[^()]*)\)([^()\d]*)$"), r"-\1\2\3"),  # (120.50)
    (re.compile(r"([0-9])[.,][-–—]{1,2}(?=[^0-9]*$)"), r"\1"),  # 12,-
    (re.compile(rf"^([^-]*[0-9.,]{MARK})\s?-({MARK})$"), r"-\1\2"),  # 120.50-
]
WRITTEN = {
    point: rf"(?:[1-9][0-9]{{0,2}}(?:([{thousands}'’\s])[0-9]{{3}})(?:\1[0-9]{{3}})*{lakhs}|[0-9]*)"
    rf"(?:[{point}][0-9]*)?"
    for point, thousands, lakhs in (
        (".", ",", "|[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}"),
        (",", ".", ""),
    )
}  # with a decimal point and with a decimal comma
WHOLE_ID = r"[0-9]+(?:\.0+|,00?)?"
WHOLE, PLAIN = r"[-+]?[0-9]+", r"[-+]?[0-9]+(?:\.[0-9]+)?"
GROUPED = r"[-+]?(?:[0-9]+|[1-9][0-9]{0,2}\.[0-9]{3})"  # perhaps with a point between thousands
# What was met, `{}` where the number of cells stands, and what is to be done.
ODD = "{} values are not numbers", "correct them, or make it a descriptor"
MIXED = "{} values have different currencies or units", "bring them to one"
TWO_READINGS = (
    "{} values can be read with a decimal point or a decimal comma",
    "say which by `decimal:` in the card",
)


class Numbers(NamedTuple):
    """Cells as numbers, NaN where they are none; what was met, and what was or is to be done."""

    values: pd.Series
    rule: str = ""
    mend: str = ""


def find_decimal(text: pd.DataFrame) -> str:
    """The decimal sign that some column settles for the whole table; empty where none does."""
    votes = set()
    for name in text:
        cells = text[name].str.strip().drop_duplicates()
        cells = cells[~find_missing(cells)]
        plain = cells.str.fullmatch(PLAIN).astype(bool)
        parts = _take_apart(cells[~plain]).dropna(subset="core")
        fits = ["."] + [","] * bool(cells[plain].str.fullmatch(GROUPED).all())
        fits = [sign for sign in fits if _convert(parts, sign).notna().all()]
        if len(fits) == 1 and (plain.any() or len(parts)):
            votes.add(fits[0])
    return votes.pop() if len(votes) == 1 else ""


def find_missing(cells: pd.Series) -> pd.Series:
    """Whether each cell of a column of numbers or dates is empty, or says that there is nothing."""
    return cells.str.casefold().isin(MISSING)


def is_number(cell: str) -> bool:
    """Whether a cell is written as a number, perhaps with its minus in brackets or behind."""
    return NUMBER.fullmatch(cell.strip("()- ")) is not None


def parse_numbers(cells: pd.Series, decimal: str, *, point: bool = False) -> Numbers:
    """Cells as numbers; every distinct cell is read once.

    Read are thousands in groups (also 1,68,360), currencies before or behind, `(120)` and `120-`,
    `19k` and `3 Mio`, and a percent sign or unit behind all of them, where only one reading is
    possible; 1.234 beside 1,234 is never guessed. `point` says that a plain 1.234 stands in a file
    with decimal points.
    """
    rows = cells.value_counts(sort=False)
    values, rule, mend = _read_distinct(rows.index.to_series(), rows, decimal, point)
    return Numbers(cells.map(values).astype(float), rule, mend)


def _read_distinct(cells: pd.Series, rows: pd.Series, decimal: str, point: bool) -> Numbers:
    """The same for distinct cells, by their text, and how many rows hold each."""
    usual = PLAIN if decimal == "." or (point and not decimal) else WHOLE
    if cells.str.fullmatch(usual).all():
        values = pd.to_numeric(cells, errors="coerce").astype(float)
        if np.isfinite(values).all():
            return Numbers(values)
    parts = _take_apart(cells)
    worded = ~parts["unit"].isin(["", "%", "‰"]) & parts["unit"].notna()
    if 2 * rows[worded].sum() < rows.sum():  # slips, no unit
        parts = parts.mask(worded)
    if _has_many_units(parts):
        return Numbers(pd.Series(np.nan, index=cells.index), *MIXED)
    readings = [_convert(parts, sign) for sign in decimal or ".,"]
    read = [int(rows[values.notna()].sum()) for values in readings]
    pointed = point and cells.str.fullmatch(PLAIN).all()
    if min(read) == rows.sum() and not pointed and not readings[0].equals(readings[-1]):
        return Numbers(pd.Series(np.nan, index=cells.index), *TWO_READINGS)
    best = int(np.argmax(read))
    if readings[best].isna().any():
        return Numbers(readings[best], *ODD)
    grouped = parts["core"].str.contains(rf"[^0-9eE{(decimal or '.,')[best]}+-]").any()
    units = [unit for unit in parts["unit"].unique() if unit]
    met = {
        "currency, percent or thousands signs": parts["money"].any() or "%" in units or grouped,
        "words for thousands or millions": parts["scale"].any(),
        f"the unit {''.join(units[:1])}": units not in ([], ["%"]),
        "minus signs in brackets or behind": cells.str.contains(r"\)|[^.,-]-[^0-9]*$").any(),
    }
    rule = "; ".join(what for what, holds in met.items() if holds)
    return Numbers(readings[best], rule, "read as plain numbers" if rule else "")


def _take_apart(cells: pd.Series) -> pd.DataFrame:
    """Sign, core, scale, money and unit of each cell, empty where it has none; NaN for no number.

    One letter for a million or a billion needs a currency or another such word beside it: else it
    is a code, or m a unit.
    """
    cells = cells.str.replace("−", "-", regex=False)
    for pattern, written in REWRITTEN:
        met = cells.str.contains(r"\(|[-–—][^0-9]*$")
        cells = cells.mask(met, cells[met].str.replace(pattern, written, regex=True))
    matches = [NUMBER.fullmatch(cell) for cell in cells]
    found = [each.groupdict() if each else {} for each in matches]
    parts = pd.DataFrame(found, columns=[*NUMBER.groupindex], index=cells.index, dtype=object)
    known = parts["core"].notna()
    parts = parts.fillna("").astype("str")
    parts["sign"] += parts["lead"]
    parts["money"] = (parts["before"] + parts["money"]).str.rstrip(".")
    parts["unit"] = parts["unit"].str.strip(" .")
    weak = parts["scale"].isin(["m", "b", "B"])
    scaled = parts["scale"].str.rstrip(".").str.casefold()
    if weak.any() and not (parts["money"].ne("") | (scaled.ne("") & ~weak)).any():
        metres = parts["scale"].eq("m")
        parts.loc[metres, "unit"], known = "m", known & (~weak | metres)
        scaled = scaled.mask(weak, "")
    phone = parts["sign"].eq("+") & parts["core"].str.contains(r"\s")
    parts["scale"] = scaled.map({"": ""} | SCALES)
    return parts[["sign", "core", "scale", "money", "unit"]].where(known & ~phone)


def _has_many_units(parts: pd.DataFrame) -> bool:
    """Whether the cells have more than one currency or unit, or a unit stands not behind all."""
    parts = parts.dropna(subset="core")
    bare = (parts["money"] + parts["unit"]).eq("") & parts["core"].str.contains("[1-9]")
    singular = re.compile(r"(?<=\D\D)(?:es|en|s|e)$")
    units = {singular.sub("", unit.casefold()) for unit in parts["unit"].unique() if unit}
    return len(units | ({*parts["money"]} - {""})) > 1 or bool(units and bare.any())


def _convert(parts: pd.DataFrame, decimal: str) -> pd.Series:
    """The parts of each cell as a number, by its decimal sign; NaN where it is written else."""
    mantissa = parts["core"].str.replace(r"[eE].*$", "", regex=True)
    fits = mantissa.str.fullmatch(WRITTEN[decimal]).fillna(False).astype(bool)
    plain = parts["core"].str.replace(rf"[^0-9eE{decimal}+-]", "", regex=True)
    plain = parts["sign"] + plain.str.replace(decimal, ".", regex=False) + parts["scale"]
    numbers = pd.to_numeric(plain.where(fits), errors="coerce").astype(float)
    return numbers.where(np.isfinite(numbers))
