"""Dates as people write them: the format that a column of text is written in."""

from __future__ import annotations

import re

import pandas as pd

from segmentation.customers.numbers import find_missing

AMBIGUOUS = "ambiguous"  # no row tells days from months
FITTING = 0.97  # share of the known cells that a format must read
MOST = 20_000  # distinct cells that are looked at; of more, evenly spaced ones
STAMP = r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d(:?\d\d)?)?)?"  # ISO
WRITTEN = (
    r"^(?P<date>(?P<first>\d{4}|\d\d?|[A-Za-z]{3,9})(?P<sign>[-/. ]|\. )"
    r"(?P<second>\d\d?|[A-Za-z]{3,9})(?P<next>[-/. ]|, )(?P<third>\d{4}|\d\d?))"
    r"(?P<time>(?:T|,? +)(?:[01]?\d|2[0-3]):\d\d(?::\d\d)?(?:\.\d{1,6})?(?: ?[AaPp][Mm])?)?$"
)


def find_date_format(cells: pd.Series) -> str | None:
    """What `date_format:` of a card says of a column of text; None where it holds no dates.

    Empty for ISO dates, else the form that reads at least 97 % of the known cells: day, month or
    year first, years of two digits, months as English words, with or without the time of day.
    "ambiguous" where day and month cannot be told apart in any row.

    >>> find_date_format(pd.Series(["12/1/2010 8:26", "12/13/2010 17:01"]))
    '%m/%d/%Y %H:%M'
    """
    rows = cells.str.strip().value_counts()
    rows = rows[~find_missing(rows.index.to_series())]
    rows = rows.iloc[:: 1 + len(rows) // MOST]
    known, least = rows.index.to_series(), FITTING * rows.sum()
    for shape, form, said in ((STAMP, "%Y-%m-%d", ""), (r"(?:19|20)\d{6}", "%Y%m%d", "%Y%m%d")):
        days = known[known.str.fullmatch(shape)].str[:10]
        if len(days) and rows[days.index].where(_fits(days, form)).sum() >= least:
            return said
    parts = known.str.extract(WRITTEN).assign(rows=rows).dropna(subset="first").fillna("")
    if parts.empty or parts["rows"].sum() < least:
        return None
    parts["clock"] = parts["time"].map({time: _write_clock(time) for time in {*parts["time"]}})
    parts["year"] = parts["third"].str.len().map({4: "%Y"}).fillna("%y")
    shape = parts[["sign", "next", "clock", "year"]]
    usual = parts["rows"].groupby([shape[name] for name in shape]).sum().idxmax()
    parts = parts[(shape == list(usual)).all(axis=1)]
    sign, then, clock, year = usual
    read = {}
    for first, second, third in _list_orders(parts, year):
        form = first + sign + second + then + third
        read[form + clock] = parts["rows"].where(_fits(parts["date"], form)).sum()
    best = [form for form, fitting in read.items() if fitting == max(read.values()) >= least]
    return AMBIGUOUS if len(best) > 1 else next(iter(best), None)


def _fits(dates: pd.Series, form: str) -> pd.Series:
    """Whether each is a date of the form; every distinct one is read once."""
    known = pd.Series(dates.unique())
    read = pd.to_datetime(known, format=form, errors="coerce")
    return dates.isin(known[read.notna()])


def _write_clock(time: str) -> str:
    """The form of a time of day: " 8:26 PM" → " %I:%M %p"; empty for none."""
    hour, half = ("%I", "%p") if time[-1:].lower() == "m" else ("%H", "")
    form = re.sub(r"\d?\d:\d\d", f"{hour}:%M", time.rstrip("aApPmM"), count=1)
    return re.sub(r":\d\d", ":%S", re.sub(r"\.\d+", ".%f", form)) + half


def _list_orders(parts: pd.DataFrame, year: str) -> list[tuple[str, str, str]]:
    """The orders of day, month and year that come into question."""
    first, second, third = parts["first"], parts["second"], parts["third"]
    words = first if first.iloc[0].isalpha() else second
    month = "%B" if (words.str.len() > 3).any() else "%b"
    if words.iloc[0].isalpha():
        return [(month, "%d", year) if words is first else ("%d", month, year)]
    if len(first.iloc[0]) == 4:
        return [("%Y", "%m", "%d")]
    orders = [("%d", "%m", year), ("%m", "%d", year)]
    leads = year == "%y" and first.nunique() < third.nunique()  # few years, many days
    return [*orders, ("%y", "%m", "%d")] if leads else orders
