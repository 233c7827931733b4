"""What a header says of its column, in any spelling: `CustomerID`, `N° client`, `顧客番号`."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import NamedTuple

from segmentation import words

STEP = re.compile(r"(?<=[a-zà-ÿ0-9])(?=[A-ZÀ-Þ])|(?<=[A-Z])(?=[A-Z][a-z])")
IN_BRACKETS = re.compile(r"^(?P<label>.*\S)\s*[(\[](?P<unit>[^()\[\]\d]{1,12})[)\]]$")

OF_ROWS = ("customer id", "customer", "id", "row number")  # meanings of what measures nothing


class Header(NamedTuple):
    """A header's words in small letters without accents, and what they say together.

    meaning : `customer id`, `customer` (the word alone), `id` (of anything), `row number`,
        `personal`, `code`, `calendar`, `place`, `amount`; empty where the words say none of these.
    """

    words: tuple[str, ...]
    meaning: str


@cache
def _list_words(kind: str) -> frozenset[str]:
    return frozenset(str(words.read_words()["headers"][kind]).split())


@cache
def read_header(name: str) -> Header:
    """Read a header: at `_`, spaces, signs and capitals, and where two known words are glued.

    >>> read_header("LYLTY_CARD_NBR").meaning, read_header("number_of_purchases").meaning
    ('customer id', 'amount')
    """
    text = unicodedata.normalize("NFKC", name.replace("°", "o").replace("º", "o"))
    text = unicodedata.normalize("NFKD", STEP.sub(" ", text)).casefold()
    text = unicodedata.normalize("NFC", "".join(s for s in text if not unicodedata.combining(s)))
    found = [part for word in re.findall(r"[^\W\d_]+|\d+", text) for part in _split(word)]
    return Header(tuple(found), _find_meaning(found))


def _split(word: str) -> list[str]:
    """The two known words that one is glued of (`kundennr`, `zipcode`), or the word itself."""
    known = ["ids", "numbers", "people", "rows", "codes", "personal"]
    ends, heads = [_list_words(kind) for kind in known[:2]], [_list_words(kind) for kind in known]
    if not any(word in own for own in heads):
        for cut in range(1, len(word)):
            head, tail = word[:cut], word[cut:]
            joined = head.removesuffix("s") if len(head) > 3 else head
            if any(tail in own for own in ends) and any({head, joined} & own for own in heads):
                return [head if any(head in own for own in heads) else joined, tail]
    if end := re.search(r"(?<=...)(?:nummer|number|kennung|nbr|nr)$", word):
        return [word[: end.start()].removesuffix("s"), end[0]]
    return [word]


def _find_meaning(found: list[str]) -> str:
    plain = [word for word in found if not word.isdigit()]
    ids, numbers, people = (_list_words(kind) for kind in ("ids", "numbers", "people"))
    rows, links = _list_words("rows"), _list_words("links")
    if not plain or plain == ["s", "no"] or (rows & {*plain} and {*plain} <= rows | ids | numbers):
        return "row number"
    rest = [word for word in plain if word not in ids | links]
    if plain[0] in numbers and len(rest) > 1:  # "number of purchases", but "N° client"
        named = [word for word in rest if word not in numbers]
        if {*named} <= people and not any(map(_is_plural, named)):
            return "customer id"
        kinds = ("personal", "codes")
        told = [kind for kind in kinds if named and {*named} <= _list_words(kind)]
        return {"personal": "personal", "codes": "code"}[told[0]] if told else "amount"
    if {*plain} & _list_words("leads") or (plain[0] == "nombre" and _is_plural(plain[-1])):
        return "amount"
    if plain[-1] in ids | numbers or ids & {*plain}:
        return _find_thing([word for word in rest if word not in numbers], plain)
    if {*plain} <= people | links:
        return "customer"
    return _find_head(plain)


def _is_plural(word: str) -> bool:
    """Whether a word counts something, as far as its ending tells."""
    return bool(re.search(r"[a-z]{3,}[^s]s$", word)) and word not in _list_words("codes")


def _find_thing(named: list[str], plain: list[str]) -> str:
    """What the words beside *id* or *number* name: whose number it is."""
    people, before = _list_words("people"), plain[-2:-1]
    if not named:
        return "id"
    if {*named} & people and named[-1] not in _list_words("personal") | _list_words("codes"):
        return "customer id"
    if plain[-1] in _list_words("numbers") and any(map(_is_plural, before)):
        return "amount"
    if named[-1] in _list_words("personal"):
        return "personal"
    return "code" if named[-1] in _list_words("codes") or plain[-1] == "code" else "id"


def _find_head(plain: list[str]) -> str:
    """What the last word is, as that is what a header is about: `store_visits` are visits."""
    links = _list_words("links")
    before = [word for word in plain if word not in links]
    link = next((i for i, word in enumerate(plain) if i and word in links), 0)  # "age of account"
    head = plain[link - 1] if link else before[-1] if before else plain[-1]
    rest = {*before} - {head}
    amounts = _list_words("amounts")
    counted = rest & amounts or any(map(_is_plural, rest - _list_words("people")))
    things = _list_words("codes") | _list_words("calendar")
    if head == "name" and rest & things:  # of a product, a month
        return "code"
    if head in _list_words("personal") or {*plain} & {"birth", "dob", "geburt", "naissance"}:
        return "personal"
    if {*plain} <= _list_words("places") | {"x", "y"} and len(head) > 1:
        return "place"
    if head in _list_words("calendar") and not counted:
        return "calendar"
    if head in _list_words("codes") and not counted:
        return "code"
    tails = tuple(word for word in amounts if len(word) > 4)
    return "amount" if {*plain} & amounts or head.endswith(tails) else ""


def write_label(header: str) -> dict[str, str]:
    """A header as people say it: `annual_income (k$)` → label *Annual income*, unit k$.

    >>> write_label("TotalSpend_eur"), write_label("days_since_last_purchase")["label"]
    ({'label': 'Total spend', 'unit': '€'}, 'Days since last purchase')
    """
    found = IN_BRACKETS.match(header)
    label, unit = (found["label"], found["unit"].strip()) if found else (header, "")
    parts = re.sub(r"[_\W]+", " ", STEP.sub(" ", label)).split() if " " not in label else []
    units = {str(k): str(v) for k, v in words.read_words()["headers"]["units"].items()}
    if len(parts) > 1 and not unit and (last := units.get(parts[-1].casefold())):
        parts, unit = parts[:-1], last
    ends = [word.casefold() for word in (parts or label.split())]
    for end in [end for end in (ends[0], ends[-1]) if ends and not unit and len(ends) > 1]:
        unit = end if end in _list_words("durations") else unit
    if parts:
        shout = label.isupper()
        said = [w if w.isupper() and not shout and len(w) > 1 else w.casefold() for w in parts]
        label = words.upper_first(" ".join(said))
    elif label.islower():
        label = words.upper_first(label)
    return {"label": label} | ({"unit": unit} if unit else {})
