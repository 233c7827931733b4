"""Numbers as people write them: read back the same, refused where two readings are possible."""

import sys
import unicodedata

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.customers import numbers


def group(digits, mark, *, lakhs=False):
    """Digits in groups of three, or of two before the last three."""
    head, tail = digits[:-3], digits[-3:]
    size = 2 if lakhs else 3
    groups = []
    while head:
        groups, head = [head[-size:], *groups], head[:-size]
    return mark.join([*groups, tail])


STYLES = {
    "plain": ("", ".", "{}"),
    "lakhs": (",", ".", "₹{}"),
    "Brazilian": (".", ",", "R$ {}"),
    "Swiss": ("'", ".", "CHF {}"),
    "rupees": (",", ".", "Rs. {}"),
    "Polish": ("\xa0", ",", "{} zł"),
    "Czech": (" ", ",", "{} Kč"),
    "Swedish": (" ", ",", "{} kr"),
    "code": (".", ",", "EUR {}"),
    "code behind": (",", ".", "{} USD"),
    "lira": (".", ",", "₺{}"),
    "percent": ("", ".", "{} %"),
    "unit": ("", ",", "{} km"),
    "thousands": ("", ".", "{}k"),
    "millions": ("", ",", "{} Mio"),
}
TIMES = {"thousands": 1000, "millions": 1_000_000}
MINUS = ["-{}", "({})", "{}-", "−{}"]


def write(value, style, minus):
    mark, point, around = STYLES[style]
    whole, cents = f"{abs(value) // 100}", f"{abs(value) % 100:02}"
    written = around.format(group(whole, mark, lakhs=style == "lakhs") + point + cents)
    return minus.format(written) if value < 0 else written


@given(
    cents=st.lists(st.integers(-(10**11), 10**11), min_size=1, max_size=8),
    style=st.sampled_from([*STYLES]),
    minus=st.sampled_from(MINUS),
)
def test_what_is_written_is_read_back(cents, style, minus):
    minus = "-{}" if style in ("percent", "unit", "thousands", "millions") else minus
    cells = pd.Series([write(value, style, minus) for value in cents], dtype="str")
    values, rule, _ = numbers.parse_numbers(cells, "")
    expected = [value * TIMES.get(style, 1) / 100 for value in cents]
    assert values.tolist() == pytest.approx(expected, rel=1e-15)
    assert bool(rule) == (style != "plain" or (min(cents) < 0 and minus in ("({})", "{}-")))


@pytest.mark.parametrize(
    ("cells", "values", "told"),
    [
        (["₹1,68,360", "₹99,410"], [168360, 99410], "currency, percent or thousands signs"),
        (["(120.50)", "7.25"], [-120.5, 7.25], "minus signs in brackets or behind"),
        (["($1,234.50)", "$(3.00)", "-$2.00"], [-1234.5, -3, -2], "currency"),
        (["19k", "950", "1.2M"], [19000, 950, 1.2e6], "words for thousands or millions"),
        (["£1.2m", "£900k"], [1.2e6, 9e5], "words for thousands"),
        (["1.1bn", "2bn"], [1.1e9, 2e9], "words for thousands"),
        (["3 Mio. €", "2,5 Mio. €"], [3e6, 2.5e6], "words for thousands"),
        (["50 lakh", "2 crore"], [5e6, 2e7], "words for thousands"),
        (["1.2m", "3.4m"], [1.2, 3.4], "the unit m"),
        (["12 yrs", "1 yr", "0"], [12, 1, 0], "the unit yrs"),
        (["35km", "1.200,5km"], [35, 1200.5], "the unit km"),
        (["20 °C", "-3 °C"], [20, -3], "the unit °C"),
        (["35 %", "0"], [35, 0], "currency, percent"),
        (["CHF 12.-", "CHF 1'234.50"], [12, 1234.5], "currency"),
        (["0.123", "1.234"], [0.123, 1.234], ""),
        (["0,123 €", "1,234 €"], [0.123, 1.234], "currency"),
    ],
)
def test_signs_and_words_are_understood_and_told(cells, values, told):
    found, rule, _ = numbers.parse_numbers(pd.Series(cells, dtype="str"), "")
    assert found.tolist() == pytest.approx(values)
    assert told in rule
    assert bool(told) == bool(rule)


@pytest.mark.parametrize(
    ("cells", "rule"),
    [
        (["C123", "C124"], numbers.ODD),
        (["12A", "14A"], numbers.ODD),
        (["12B", "14B"], numbers.ODD),
        (["14b", "12"], numbers.ODD),
        (["P5", "P6"], numbers.ODD),
        (["SKU123", "SKU124"], numbers.ODD),
        (["+49 170 123 456", "+49 171 123 456"], numbers.ODD),
        (["030 123 456", "040 123 456"], numbers.ODD),
        (["555-123-4567"], numbers.ODD),
        (["2026-01-31", "31.12.2026"], numbers.ODD),
        (["12/31", "12:30"], numbers.ODD),
        (["10-20", "20-30"], numbers.ODD),
        (["12-pack", "24-pack"], numbers.ODD),
        (["12,34,56"], numbers.ODD),
        (["12", "13", "5 o"], numbers.ODD),
        (["35 %", "1"], numbers.MIXED),
        (["12 GB", "500 MB"], numbers.MIXED),
        (["12 km", "13"], numbers.MIXED),
        (["R$ 12", "US$ 13"], numbers.MIXED),
        (["1.234 €", "2.345 €"], numbers.TWO_READINGS),
        (["1.234k"], numbers.TWO_READINGS),
        (["₹99,410"], numbers.TWO_READINGS),
    ],
)
def test_codes_dates_and_mixtures_are_no_numbers(cells, rule):
    found = numbers.parse_numbers(pd.Series(cells, dtype="str"), "")
    assert found.values.isna().any()
    assert found[1:] == rule


def test_every_currency_sign_is_known():
    signs = [sign for sign in map(chr, range(0x10000)) if unicodedata.category(sign) == "Sc"]
    assert len(signs) > 50 or sys.version_info < (3, 11)
    cells = pd.Series([f"{sign}{i}.50" for i, sign in enumerate(signs)], dtype="str")
    for cell in cells:
        assert numbers.parse_numbers(pd.Series([cell], dtype="str"), ".").values.notna().all(), cell


def test_a_zero_settles_the_point():
    cells = pd.DataFrame({"rate": ["0.123", "0.25"], "spend": ["1.234", "2.345"]}, dtype="str")
    assert numbers.find_decimal(cells) == "."
    assert numbers.find_decimal(cells[["spend"]]) == ""
