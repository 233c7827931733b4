"""What things are called: `words.yaml` as predicates and sentences, and how figures are written."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from functools import cache
from math import floor, inf, log10
from pathlib import Path
from string import Formatter
from typing import Any

import yaml

Facts = Mapping[str, Any]
Entry = Mapping[str, Any]

SLIGHT, MARKER, STRONG, EXTREME = 0.2, 0.5, 0.8, 1.5
"""Distances from everyone's mean, in everyone's standard deviations, where a grade begins."""

FEWEST = 5
"""Figures about fewer customers than these are withheld from whoever gets the report."""

SHARES = {"share", "level_share", "overall_share", "smallest_share", "previous_share"}
SHARES |= {"explained", "precision", "coverage", "fidelity", "value_share", "moved"}
RATIOS = {"jaccard", "jaccard_min", "ari_mean", "prediction_strength", "psi", "agreement"}
RATIOS |= {"compared_valley", "ari", "ari_own_k", "ari_same_k"}
MEASURES = {"mean", "overall_mean", "median", "overall_median", "q25", "q75", "sd", "margin"}
MEASURES |= {"mean_low", "mean_high"}
SHIFTS = {"shift", "shift_low", "shift_high"}  # told as sizes: the words say which way
AMOUNTS = {"total", "worth", "detectable", "band_from", "base"}  # two digits say enough
RATES, GAPS = {"sent_mean", "held_mean"}, {"difference", "low", "high", "detectable"}
"""Of an outcome: shares of customers or means, and differences of two of them."""

MONEY = {"€", "$", "£", "¥", "₹"}  # units that stand before the figure
LONGEST = 32  # characters of a label inside a name


@cache
def read_words() -> dict[str, Any]:
    """The tables of `words.yaml`."""
    return yaml.safe_load(Path(__file__).with_name("words.yaml").read_text("utf-8"))


def grade(effect: float) -> int:
    """An effect's grade, −4…4: 0 average, ±1 slight, ±2 marked, ±3 strong, ±4 extreme."""
    level = bisect_right((SLIGHT, MARKER, STRONG, EXTREME), abs(effect))
    return level if effect > 0 else -level


def holds(when: Mapping[str, Any], facts: Facts, least: Facts | None = None) -> bool:
    """Whether each figure that a predicate names is known and lies in its range or grade.

    With `least`, whether what lies from these figures up to `facts` reaches into it.
    """
    least = facts if least is None else least
    grades = read_words()["grades"]
    ends = {name: grades[own] if isinstance(own, str) else own for name, own in when.items()}
    return all(
        n in facts and low <= facts[n] and least[n] <= high for n, (low, high) in ends.items()
    )


def pick(entries: Iterable[Entry], facts: Facts) -> Entry:
    """The first entry whose predicate holds; each table ends with one that always does."""
    return next(entry for entry in entries if holds(entry["when"], facts))


def say(kind: str, facts: Facts) -> str:
    """The sentence of a kind that is true of some figures, with these figures in it."""
    return write(pick(read_words()["sentences"][kind], facts)["say"], facts)


def find_verdict(selection: Facts) -> dict[str, Any]:
    """The words for the verdict of selection.json: word, strength 0…3, plain and say."""
    entry = read_words()["verdicts"][selection.get("reading", selection["verdict"])]
    return entry | {"word": entry["word"] + ", a close call" * selection.get("close", False)}


def write(template: str, facts: Facts) -> str:
    """A template with each figure in its own unit and rounding."""
    parts = Formatter().parse(template)
    return "".join(text + (write_figure(name, facts) if name else "") for text, name, *_ in parts)


def write_figure(name: str, facts: Facts) -> str:
    """A figure as people read it: 32.5%, 1,234, 86.1 k$, 0.97; a text as it is."""
    value = facts[name]
    if isinstance(value, str):
        return value
    if name == "points":
        text = f"{value:+.1f} points".replace("-", "−")
        return "unchanged" if text[1:4] == "0.0" else text
    rate = facts.get("kind") == "yes/no"
    if name in RATES and rate:
        return f"{value:.1%}"
    if name in GAPS and rate:
        sign = "" if name == "detectable" else "+"
        text = f"{100 * value:{sign}.1f}".replace("-", "−")
        return text if name in ("low", "high") else f"{text} points"
    if name in RATES | GAPS - AMOUNTS:
        text = write_measure(value, 25 * (facts["high"] - facts["low"]))
        return add_unit(text, facts["unit"])
    if name in SHARES or (name == "base" and rate):
        return f"{value:.0%}" if 0.1 <= value <= 0.99 or value in (0, 1) else f"{value:.1%}"
    if name in SHIFTS:
        text = write_measure(abs(value), 25 * (facts["shift_high"] - facts["shift_low"]))
        return add_unit(text, facts["unit"]) if name == "shift" else text
    if name in AMOUNTS:
        digits = 1 - floor(log10(abs(value))) if value else 0
        return add_unit(f"{round(value, digits):z,.{max(digits, 0)}f}", facts["unit"])
    if name in MEASURES:  # to a fifth of the standard deviation: 20 orders, not 19.88
        return add_unit(write_measure(value, facts["overall_sd"] * 20), facts["unit"])
    return f"{value:,.0f}" if float(value).is_integer() and name not in RATIOS else f"{value:.2f}"


def write_measure(value: float, spread: float) -> str:
    """A measured value to two or three digits of its standard deviation: 54.0 for a sd of 14."""
    return f"{value:z,.{count_decimals(spread)}f}"


def add_unit(text: str, unit: str) -> str:
    """A figure with its unit, a currency's sign before it: 86.1 k$, €1,392, 12%.

    >>> add_unit("1,392", "€"), add_unit("-3", "$"), add_unit("12", "%"), add_unit("20", "")
    ('€1,392', '-$3', '12%', '20')
    """
    if unit in MONEY:
        return f"{'-' * text.startswith('-')}{unit}{text.removeprefix('-')}"
    return text + unit if unit == "%" else f"{text} {unit}".rstrip()


def count_decimals(spread: float) -> int:
    """How many decimals a feature's figures have: 0 for a sd of 100 and more, 1 from 10 on …"""
    return min(max(2 - floor(log10(spread)), 0), 6) if 0 < spread < inf else 1


def find_kind(label: str) -> str:
    """What a feature means by its label ("Annual income" → income); empty where none fits."""
    kinds = read_words()["kinds"]
    return next((k for k, own in kinds.items() if re.search(own["label"], label, re.I)), "")


FRACTIONS = {1 / 10: "a tenth", 1 / 5: "a fifth", 1 / 4: "a quarter", 1 / 3: "a third"}
FRACTIONS |= {2 / 5: "two fifths", 1 / 2: "half", 3 / 5: "three fifths", 2 / 3: "two thirds"}
FRACTIONS |= {3 / 4: "three quarters", 4 / 5: "four fifths", 9 / 10: "nine tenths"}


def write_fraction(share: float) -> str:
    """A share in words where one fits within two points, else in percent.

    >>> write_fraction(0.35), write_fraction(0.65), write_fraction(0.29)
    ('a third', 'two thirds', '29%')
    """
    near = min(FRACTIONS, key=lambda each: abs(each - share))
    return FRACTIONS[near] if abs(near - share) <= 0.02 else f"{share:.0%}"


def find_event(label: str) -> str:
    """What a feature counts, one of it ("Orders per year" → order); empty where unknown."""
    found = re.search(read_words()["events"], label, re.I)
    return found[1].lower() if found else ""


def find_period(label: str) -> str:
    """The time that a figure is of ("Yearly spend" → year); empty where the label has none."""
    found = re.search(read_words()["periods"], label, re.I)
    return found[1].lower().replace("annual", "year") if found else ""


def describe_grade(label: str, kind: str, level: int, *, fine: bool = False) -> str:
    """A feature's grade in a word or two: "younger", "slightly high income"; `fine` says very."""
    word = {**read_words()["other kinds"], **read_words()["kinds"].get(kind, {})}
    side = "average" if level == 0 else "high" if level > 0 else "low"
    plain = word[side].format(label=shorten(lower_first(label)))
    slight = "slightly " if abs(level) == 1 else ""
    return f"{word['very']} {plain}" if fine and abs(level) == 4 else slight + plain


def write_title(label: str, unit: str) -> str:
    """A label with its unit, as an axis shows it; told once, where the label is of that unit.

    >>> write_title("Income", "k$"), write_title("Days since last visit", "days")
    ('Income (k$)', 'Days since last visit')
    """
    held = re.search(rf"(?<!\w){re.escape(unit)}(?!\w)", label, re.I)
    return f"{label} ({unit})" if unit and not held else label


def lower_first(label: str) -> str:
    """A label inside a sentence: 'Annual income' → 'annual income', but 'BMI' stays."""
    return label if label[1:2].isupper() else label[:1].lower() + label[1:]


def upper_first(text: str) -> str:
    """A text at the head of a sentence."""
    return text[:1].upper() + text[1:]


def shorten(label: str) -> str:
    """A label short enough for a name, cut at a word where it can be."""
    if len(label) <= LONGEST:
        return label
    cut = label[:LONGEST].rsplit(" ", 1)[0] if " " in label[:LONGEST] else label[: LONGEST - 1]
    return f"{cut.rstrip(' ,.;:-')}…"


def join(texts: Iterable[str]) -> str:
    """'a', 'a and b', 'a, b and c'; nothing for nothing."""
    *first, last = list(texts) or [""]
    return f"{', '.join(first)} and {last}" if first else last
