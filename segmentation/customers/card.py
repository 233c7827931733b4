"""The dataset card: where the table is, what its columns mean, what is done to them."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pandas as pd
import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from segmentation import InputError, words
from segmentation.customers.expressions import Expression, parse_expression

LARGEST = 1e15  # beyond this, squared distances lose their last digits
OURS = {"cluster", "segment", "distance", "second", "confidence", "status"}  # added by a run
ROW = "row"  # the id of a table that has none: the number of the row
TURNS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # of the text's direction


def clean_text(text: str) -> str:
    """One line of text as it may stand inside a sentence: composed (NFC), without turns."""
    return " ".join(TURNS.sub("", unicodedata.normalize("NFC", text)).split())


Line = Annotated[str, AfterValidator(clean_text)]
Grade = Literal["very low", "low", "not low", "average", "not high", "high", "very high"]
Kind = Literal["age", "income", "spending", "recency", "frequency", "tenure", ""]
Name = Annotated[str, Field(min_length=1)]
Weight = Annotated[float, Field(ge=0, le=100)]
MADE: dict[str, dict[str, str]] = {  # the features that transactions are made into
    "recency": {"label": "Days since last purchase", "unit": "days", "kind": "recency"},
    "frequency": {"label": "Purchases", "kind": "frequency"},
    "monetary": {"label": "Total spent", "kind": "spending"},
    "tenure": {"label": "Days since first purchase", "unit": "days", "kind": "tenure"},
    "basket": {"label": "Average basket", "kind": ""},
}


AFTER: dict[str, dict[str, str]] = {
    "bought_after": {"label": "Bought afterwards", "kind": "yes/no"},
    "spent_after": {"label": "Spent afterwards"},
}
"""The outcomes that transactions dated after `as_of` are made into."""


class Part(BaseModel):
    """A part of a card: frozen, and what it does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class Transactions(Part):
    """Which columns of a table of purchases hold what; without `order`, each row is a purchase.

    What was paid stands in `amount`, or is `quantity` × `price`.
    """

    customer: Name
    date: Name
    amount: str = ""
    quantity: str = ""
    price: str = ""
    order: str = ""
    date_format: str = ""
    missing: Literal["refuse", "drop"] = "refuse"
    returns: Literal["subtract", "drop"] = "subtract"

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuse amounts that are said in no way, by half or in two ways."""
        said = [key for key in ("amount", "quantity", "price") if getattr(self, key)]
        if said not in (["amount"], ["quantity", "price"]):
            way = "say what was paid by `amount:` alone, or by `quantity:` and `price:` together"
            raise ValueError(f"{way}; got {words.join(said) or 'none of them'}")
        return self

    @property
    def columns(self) -> dict[str, str]:
        """The column of each part that is said: {"customer": "CustomerID", …}."""
        keys = ("customer", "date", "amount", "quantity", "price", "order")
        return {key: name for key in keys if (name := getattr(self, key))}


class Column(Part):
    """What a card says about any column."""

    label: Line = ""
    aliases: list[str] = []


class Number(Column):
    """A column of numbers; `missing_values` are cells in it that mean that there is nothing."""

    unit: Line = ""
    missing_values: list[str] = []


class Feature(Number):
    """A number that the distance is computed on: a column, or an expression of columns."""

    expression: Line = ""
    kind: Kind | None = None
    range: tuple[float, float] = (-LARGEST, LARGEST)
    transform: Literal["none", "log"] = "none"
    missing: Literal["median", "refuse", "drop"] = "median"
    outliers: Literal["keep", "clip", "drop"] = "keep"
    weight: Annotated[Weight, Field(gt=0)] = 1.0

    @property
    def title(self) -> str:
        """The label with its unit, as an axis shows it."""
        return words.write_title(self.label, self.unit)


class Outcome(Number):
    """What is known about customers and never in the distance: a number, or yes or no (1 or 0)."""

    kind: Literal["number", "yes/no"] = "number"
    wanted: Literal["more", "less"] = "more"


class Descriptor(Column):
    """A categorical column that describes segments; in the distance only by a weight above 0."""

    levels: dict[str, list[str]] = {}
    weight: Weight = 0.0


class GivenSegment(Part):
    """A name for segments that are like `when`: grades by the labels of features."""

    name: Annotated[Line, Field(min_length=1)]
    when: Annotated[dict[str, Grade], Field(min_length=1)]
    role: Line = ""
    action: Line = ""


def _spell(said: Any) -> Any:
    """A word that YAML takes for a truth value, as it was written."""
    return {True: "yes", False: "no"}.get(said, said) if isinstance(said, bool) else said


Answer = Annotated[str, BeforeValidator(_spell)]


class Card(Part):
    """A dataset card."""

    title: Line
    table: str
    backend: str = ""
    id: str = ROW
    features: Annotated[dict[str, Feature], Field(min_length=2)]
    inputs: dict[str, Number] = {}
    descriptors: dict[str, Descriptor] = {}
    outcomes: dict[str, Outcome] = {}
    map: tuple[str, str] | None = None
    value: str = ""
    contact: dict[str, list[Answer]] = {}
    campaigns: dict[str, str] = {}
    transactions: Transactions | None = None
    repeats: Literal["refuse", "first", "last"] = "refuse"
    newest: str = ""
    segments: list[GivenSegment] = []
    owner: Line = ""
    as_of: date | None = None
    currency: Line = ""
    sheet: Line = ""
    encoding: str = ""
    delimiter: Annotated[str, Field(max_length=1)] = ""
    decimal: Literal["", ".", ","] = ""
    path: Path = Field(default=Path(), exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _label_columns(cls, values: Any) -> Any:
        """Give every column without a label its own name as label."""
        if not isinstance(values, dict):
            return values
        values, made = dict(values), dict[str, dict[str, str]]()
        if values.get("transactions"):
            unit = {"unit": str(values.get("currency") or "")}
            made = MADE | {name: MADE[name] | unit for name in ("monetary", "basket")}
            made |= AFTER | {"spent_after": AFTER["spent_after"] | unit}
            values = {"id": "customer", "features": {n: made[n] for n in MADE}} | values
        for kind in ("features", "inputs", "descriptors", "outcomes"):
            if isinstance(values.get(kind), dict):
                known = made if kind in ("features", "outcomes") else {}
                said = {str(name): {} if c is None else c for name, c in values[kind].items()}
                own = {n: c for n, c in said.items() if isinstance(c, dict)}
                values[kind] = said | {n: {"label": n} | known.get(n, {}) | own[n] for n in own}
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuse what contradicts itself, and expressions that cannot be read."""
        for problem in self._find_problems():
            raise ValueError(problem)
        return self

    def _find_problems(self) -> Iterator[str]:
        sources = {*self.sources}  # read, so that an expression that is none is refused here
        foreign = sources - {*MADE} or self.descriptors or self.outcomes.keys() - AFTER.keys()
        if self.transactions and foreign:
            told = f"features {', '.join(MADE)} and the outcomes {', '.join(AFTER)}"
            yield f"`transactions:` make the {told}, no others"
        if self.transactions and self.outcomes and not self.as_of:
            yield "outcomes of purchases are those after `as_of:`; say it"
        if self.transactions and self.backend:
            yield "`transactions:` are read from a file; leave `backend:` out"
        for name in sources & self.outcomes.keys():
            yield f"{name} is an outcome, which no feature is made of; leave one of the two out"
        for name, feature in self.features.items():
            if feature.expression and feature.missing_values:
                yield f"{name}: say `missing_values:` of its expression's columns, in `inputs:`"
        if (self.newest or self.repeats != "refuse") and (self.backend or self.id == ROW):
            yield "`newest:` and `repeats:` need an `id:` and a file; leave them out"
        columns = [self.id, *self.features, *self.inputs, *self.descriptors, *self.outcomes]
        shown = {**self.measured, **self.descriptors, **self.outcomes}
        labels = [column.label for column in shown.values()]
        names = {"column": columns, "label": labels, "segment": [g.name for g in self.segments]}
        for what, texts in names.items():
            if twice := find_twice(texts):
                yield f"the {what} {twice!r} stands twice; give each its own"
        for name in [*self.columns, *map(str.casefold, labels)]:
            if name in OURS:
                yield f"a column or label {name!r} is a word of ours; name yours anew"
        for name in self.columns:
            if coded := [other for other in self.coded if name.startswith(f"{other} is ")]:
                yield f"column {name} looks like a code of {coded[0]}; name it anew"
        features = [feature.label for feature in self.features.values()]
        numbers = [*self.features, *(self.inputs.keys() & sources)]
        numbers += [name for name, outcome in self.outcomes.items() if outcome.kind == "number"]
        if self.value in self.inputs.keys() - sources:
            yield f"value: no feature is made of {self.value}; move it from inputs to `outcomes:`"
        said = [("map", [*(self.map or ())], "no column of a feature", [*self.features])]
        said += [("value", [self.value] if self.value else [], "no column of numbers", numbers)]
        said += [("contact", [*self.contact], "no descriptor", [*self.descriptors])]
        judged_by = [*self.campaigns.values()]
        said += [("campaigns", judged_by, "no outcome", [*self.outcomes])]
        said += [(f"segment {g.name}", [*g.when], "no feature", features) for g in self.segments]
        for where, used, what, known in said:
            if unknown := [name for name in used if name not in known]:
                yield f"{where}: {unknown[0]} is {what}; {suggest(unknown[0], known)}"

    @property
    def described(self) -> dict[str, Column]:
        """What the card says about each column of the table but the id."""
        stored = {n: f for n, f in self.features.items() if not f.expression}
        return {**stored, **self.inputs, **self.descriptors, **self.outcomes}

    @property
    def gaps(self) -> dict[str, list[str]]:
        """What means that there is nothing, by column, where the card says it."""
        said = {n: c.missing_values for n, c in self.described.items() if isinstance(c, Number)}
        return {name: cells for name, cells in said.items() if cells}

    @property
    def expressions(self) -> dict[str, Expression]:
        """The features that are computed, with their expressions."""
        said = self.described.items()
        names = [(name, name) for name, _ in said]
        names += [(word, name) for name, column in said for word in (column.label, *column.aliases)]
        made = {}
        for name, feature in self.features.items():
            if feature.expression:
                made[name] = parse_expression(feature.expression, tuple(names))
                names += [(column, column) for column in made[name].columns]
        return made

    @property
    def sources(self) -> list[str]:
        """The columns of the table that the features come from, each once."""
        made = self.expressions
        parts = [made[name].columns if name in made else (name,) for name in self.features]
        return list(dict.fromkeys(name for part in parts for name in part))

    @property
    def headers(self) -> list[str]:
        """The columns that the card needs of its file."""
        if said := self.transactions:
            return [*said.columns.values()]
        stored = [self.id, *self.sources, *self.descriptors, *self.outcomes]
        return [*stored, *filter(None, [self.newest])]

    @property
    def labels(self) -> dict[str, str]:
        """The label of each feature and descriptor, by its column."""
        return {n: column.label for n, column in {**self.features, **self.descriptors}.items()}

    @property
    def titles(self) -> dict[str, str]:
        """The same with the units, as an axis shows them: "Annual income (k$)"."""
        return self.labels | {name: feature.title for name, feature in self.features.items()}

    @property
    def kinds(self) -> dict[str, str]:
        """What each feature means, by label: as the card says, else as its label tells."""
        features = self.features.values()
        return {f.label: words.find_kind(f.label) if f.kind is None else f.kind for f in features}

    @property
    def measured(self) -> dict[str, Number]:
        """What segments are measured in: the features, and the value where it is none of them."""
        others: dict[str, Number] = {**self.inputs, **self.outcomes}
        return {**self.features, **{n: column for n, column in others.items() if n == self.value}}

    @property
    def columns(self) -> list[str]:
        """The columns of the customer table: id, features, descriptors, outcomes, the value."""
        known = [self.id, *self.features, *self.descriptors, *self.outcomes]
        return [*dict.fromkeys([*known, *self.measured])]

    @property
    def coded(self) -> dict[str, Descriptor]:
        """The descriptors that are in the distance, by the choice of a weight."""
        return {name: d for name, d in self.descriptors.items() if d.weight > 0}

    @property
    def distance(self) -> list[str]:
        """The columns that the distance is computed on."""
        return [*self.features, *self.coded]

    @property
    def source(self) -> Path:
        """The table's path, resolved against the folder of the card (or of the table itself)."""
        return Path(os.path.normpath(self.path.parent / self.table))

    @property
    def name(self) -> str:
        """What the table is called: its file, or its name in the database of `backend`."""
        return self.table if self.backend else self.source.name


class _Loader(yaml.SafeLoader):
    """YAML in which no key stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := find_twice([key.value for key in keys]):
            line = [key.start_mark.line for key in keys if key.value == twice][-1] + 1
            raise InputError(f"{twice} stands a second time in line {line}; say once what it is.")
        return super().construct_mapping(node, deep=deep)


def find_twice(texts: list[str]) -> str:
    """The first text that stands more than once; empty where none does."""
    return next((text for text, times in Counter(texts).items() if times > 1), "")


def load_card(path: Path) -> Card:
    """Read a dataset card; an InputError where it is no YAML or says what the schema refuses."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)
        return Card.model_validate(values).model_copy(update={"path": path})
    except ValidationError as error:
        told = f": {explain_error(error, Card)}"
    except InputError as error:
        told = f": {error}"
    except OSError as error:
        told = f" cannot be read: {error.strerror}; see whether you may."
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # also a date that is none
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        told = f" is not valid YAML{line}; check indents, quotes and dates."
    raise InputError(path.name + told)


def write_card(card: Card) -> str:
    """A card as YAML: read again, it is the same; paths in it start where they started.

    >>> parts = {"features": {"Age": {}, "Income": {"unit": "k$"}}}
    >>> card = Card.model_validate({"title": "Shop", "table": "shop.csv"} | parts)
    >>> Card.model_validate(yaml.safe_load(write_card(card))) == card
    True
    """
    values = card.model_dump(exclude_defaults=True) | {"id": card.id}
    return yaml.safe_dump(values, allow_unicode=True, sort_keys=False, width=100)


def write_draft(card: Card, reasons: pd.DataFrame) -> str:
    """A drafted card as YAML to edit; behind it, what each column of the table became, and why."""
    lines = ["# Drafted from the table; edit it, and give it in the table's place."]
    lines += [write_card(card)]
    for row in reasons.itertuples():
        change = f"; {row.change}" if row.change else ""
        lines += [f"# {clean_text(f'{row.column}: {row.role}, {row.reason}{change}')}"]
    return "\n".join(lines) + "\n"


PARTS: dict[str, type[BaseModel]] = {"features": Feature, "inputs": Number, "outcomes": Outcome}
PARTS |= {"descriptors": Descriptor, "segments": GivenSegment, "transactions": Transactions}
KINDS = {"tuple_type": "write a list, like [A, B]", "list_type": "write a list, like [A, B]"}
KINDS |= {"model_type": "write keys with their values", "dict_type": "write keys with their values"}


def explain_error(error: ValidationError, model: type[BaseModel]) -> str:
    """One line a problem of a refused pydantic model, the nearest allowed name where one is off."""
    lines = []
    for problem in error.errors():
        place = [str(step) for step in problem["loc"]]
        where, told = ".".join(place) or "the card", problem["msg"].removeprefix("Value error, ")
        told = KINDS.get(problem["type"], told)
        if problem["type"] == "extra_forbidden":
            owner = PARTS.get(place[0], model) if len(place) > 1 else model
            lines.append(f"{where} is not known; {suggest(place[-1], owner.model_fields)}")
        else:
            lines.append(f"{where}: {told}{'' if told[-1] in '.?' else '.'}")
    return "\n".join(lines)


def suggest(name: str, allowed: Any) -> str:
    """Name the nearest allowed word, or all of them where none is near."""
    names = [word for word in map(str, allowed) if word != "path"]
    words = {part.casefold(): word for word in names for part in (*word.split(), word)}
    near = get_close_matches(name.casefold(), words, n=1, cutoff=0.6)
    return f"did you mean {words[near[0]]}?" if near else f"known are {', '.join(names)}."


def keep_features(card: Card, wanted: str | Iterable[str]) -> Card:
    """The card with the features named (in a text: with commas), and inputs that they need."""
    labels = {feature.label: name for name, feature in card.features.items()}
    known = {word.casefold(): name for word, name in labels.items()}
    known |= {name.casefold(): name for name in card.features}
    wanted = wanted.split(",") if isinstance(wanted, str) else wanted
    words = [word.strip() for word in wanted if word.strip()]
    if unknown := [word for word in words if word.casefold() not in known]:
        raise InputError(f"features: {unknown[0]} is not known; {suggest(unknown[0], labels)}")
    keep = {known[word.casefold()] for word in words}
    if len(keep) < 2:
        raise InputError(f"features must name at least 2 of {len(card.features)}, got {len(keep)}.")
    kept = {name: feature for name, feature in card.features.items() if name in keep}
    needed = {name for n, made in card.expressions.items() if n in keep for name in made.columns}
    inputs = {
        name: Number(**feature.model_dump(include={*Number.model_fields}))
        for name, feature in card.features.items()
        if name in needed - keep
    }
    given = [each for each in card.segments if {labels[label] for label in each.when} <= keep]
    plane = card.map if {*(card.map or ())} <= keep else None
    parts = {"features": kept, "inputs": card.inputs | inputs, "map": plane, "segments": given}
    parts["value"] = card.value if card.value in {*keep, *needed, *card.outcomes} else ""
    return card.model_copy(update=parts)
