"""The dataset card: where the table is, what its columns mean, what is done to them."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from segmentation import InputError, words
from segmentation.customers.purchases import Transactions

LARGEST = 1e15  # beyond this, squared distances lose their last digits
OURS = {"cluster", "segment", "distance", "second", "confidence", "status"}
"""Columns that a run adds to the table."""

COUNT = "customers"
"""The column of a compressed or sampled table: how many customers a row stands for."""

ROW = "row"
"""The id of a table that has none: the number of the row."""

TURNS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that turn the direction of the text behind them."""


def clean_text(text: str) -> str:
    """One line of text as it may stand inside a sentence: composed (NFC), without turns."""
    return " ".join(TURNS.sub("", unicodedata.normalize("NFC", text)).split())


Line = Annotated[str, AfterValidator(clean_text)]
Grade = Literal["very low", "low", "not low", "average", "not high", "high", "very high"]
Kind = Literal["age", "income", "spending", "recency", "frequency", "tenure", ""]
Weight = Annotated[float, Field(ge=0, le=100)]


class Part(BaseModel):
    """A part of a card: frozen, and what it does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class Column(Part):
    """What a card says about any column."""

    label: Line = ""
    aliases: list[str] = []


class Feature(Column):
    """A numeric column that the distance is computed on."""

    unit: Line = ""
    kind: Kind | None = None
    range: tuple[float, float] = (-LARGEST, LARGEST)
    transform: Literal["none", "log"] = "none"
    missing: Literal["median", "refuse", "drop"] = "median"
    outliers: Literal["keep", "clip", "drop"] = "keep"
    weight: Annotated[Weight, Field(gt=0)] = 1.0

    @property
    def title(self) -> str:
        """The label with its unit, as an axis shows it."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


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


class Card(Part):
    """A dataset card."""

    title: Line
    table: str
    backend: str = ""
    id: str = ROW
    features: Annotated[dict[str, Feature], Field(min_length=2)]
    descriptors: dict[str, Descriptor] = {}
    map: tuple[str, str] | None = None
    transactions: Transactions | None = None
    segments: list[GivenSegment] = []
    owner: Line = ""
    as_of: date | None = None
    currency: Line = ""
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
        values = dict(values)
        if values.get("transactions"):
            made = list_made_features(str(values.get("currency") or ""))
            values = {"id": "customer", "features": made} | values
        for kind in ("features", "descriptors"):
            if isinstance(values.get(kind), dict):
                values[kind] = {str(n): _labelled(n, c) for n, c in values[kind].items()}
        return values

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        """Refuse columns called like ours, names that stand twice, and names for no feature."""
        made = list_made_features("")
        if self.transactions and (self.descriptors or not {*self.features} <= {*made}):
            raise ValueError(f"`transactions:` make the features {', '.join(made)}, no others")
        if self.transactions and self.backend:
            raise ValueError("`transactions:` are read from a file; leave `backend:` out")
        twice = [name for name, n in Counter(self.columns).items() if n > 1]
        if twice:
            raise ValueError(f"column {twice[0]} stands twice; say once what it is")
        for name in self.columns:
            if coded := [other for other in self.coded if name.startswith(f"{other} is ")]:
                raise ValueError(f"column {name} looks like a code of {coded[0]}; name it anew")
        for name in {self.id, *self.features, *self.descriptors} & {*OURS, COUNT}:
            raise ValueError(
                f"a column {name} is written by us; give yours another name and {name!r} as alias"
            )
        labels = [c.label for c in (*self.features.values(), *self.descriptors.values())]
        if ours := [label for label in labels if label.casefold() in OURS]:
            raise ValueError(f"the label {ours[0]} is a word of ours; give that column another")
        for kind, texts in (("label", labels), ("segment", [g.name for g in self.segments])):
            if twice := [text for text, n in Counter(texts).items() if n > 1]:
                raise ValueError(f"the {kind} {twice[0]!r} stands twice; give each its own")
        known = [feature.label for feature in self.features.values()]
        for given in self.segments:
            if unknown := [label for label in given.when if label not in known]:
                near = suggest(unknown[0], known)
                raise ValueError(f"segment {given.name}: {unknown[0]} is no feature; {near}")
        return self

    @property
    def kinds(self) -> dict[str, str]:
        """What each feature means, by label: as the card says, else as its label tells."""
        features = self.features.values()
        told = {f.label: f.kind for f in features if f.kind is not None}
        return {f.label: told.get(f.label, words.find_kind(f.label)) for f in features}

    @property
    def columns(self) -> list[str]:
        """The columns that the card names."""
        return [self.id, *self.features, *self.descriptors]

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
        return self.path.parent / self.table

    @property
    def name(self) -> str:
        """What the table is called: its file, or its name in the database of `backend`."""
        return self.table if self.backend else self.source.name

    def label(self, column: str) -> str:
        """The label of a feature or descriptor."""
        return (self.features.get(column) or self.descriptors[column]).label


def list_made_features(currency: str) -> dict[str, Any]:
    """The features that transactions are made into, as a card says them."""
    spent = {"unit": currency}
    return {
        "recency": {"label": "Days since last purchase", "unit": "days", "kind": "recency"},
        "frequency": {"label": "Purchases", "kind": "frequency"},
        "monetary": {"label": "Total spent", "kind": "spending", **spent},
        "tenure": {"label": "Days since first purchase", "unit": "days", "kind": "tenure"},
        "basket": {"label": "Average basket", "kind": "", **spent},
    }


def _labelled(name: str, column: Any) -> Any:
    known = column is None or isinstance(column, dict)
    return {"label": str(name), **(column or {})} if known else column


def load_card(path: Path) -> Card:
    """Read a dataset card (YAML).

    Raises
    ------
    InputError
        The card is not YAML, or says something that the schema does not know.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
        return Card.model_validate(values).model_copy(update={"path": path})
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where else ""
        raise InputError(
            f"{path.name} is not valid YAML{line}; check indents and quotes."
        ) from None
    except ValidationError as error:
        raise InputError(f"{path.name}: {explain_error(error, Card)}") from None
    except ValueError as error:  # a date that is none
        raise InputError(f"{path.name} is not valid YAML: {error}; correct it.") from None


def explain_error(error: ValidationError, model: type[BaseModel]) -> str:
    """One line a problem of a refused pydantic model, the nearest allowed name where one is off."""
    return "\n".join(_explain(dict(problem), model) for problem in error.errors())


def _explain(problem: dict[str, Any], model: type[BaseModel]) -> str:
    place = [str(step) for step in problem["loc"]]
    if problem["type"] != "extra_forbidden":
        message = problem["msg"].removeprefix("Value error, ")
        return f"{'.'.join(place) or 'the card'}: {message}{'' if message[-1] in '.?' else '.'}"
    columns: dict[str, type[BaseModel]] = {
        **{"features": Feature, "descriptors": Descriptor, "segments": GivenSegment}
    }
    owner = columns.get(place[0], model) if len(place) > 1 else model
    return f"{'.'.join(place)} is not known; {suggest(place[-1], owner.model_fields)}"


def suggest(name: str, allowed: Any) -> str:
    """Name the nearest allowed word, or all of them where none is near."""
    names = [word for word in map(str, allowed) if word != "path"]
    words = {part.casefold(): word for word in names for part in (*word.split(), word)}
    near = get_close_matches(name.casefold(), words, n=1, cutoff=0.6)
    return f"did you mean {words[near[0]]}?" if near else f"known are {', '.join(names)}."


def keep_features(card: Card, wanted: str) -> Card:
    """The card with only the features named, by column or label, separated by commas."""
    by_name = {name.casefold(): name for name in card.features}
    by_label = {feature.label.casefold(): name for name, feature in card.features.items()}
    known = by_label | by_name
    names = [word.strip() for word in wanted.split(",") if word.strip()]
    unknown = [word for word in names if word.casefold() not in known]
    if unknown:
        labels = [feature.label for feature in card.features.values()]
        raise InputError(f"features: {unknown[0]} is not known; {suggest(unknown[0], labels)}")
    keep = {known[word.casefold()] for word in names}
    if len(keep) < 2:
        raise InputError(f"features must name at least 2 of {len(card.features)}, got {len(keep)}.")
    return card.model_copy(
        update={"features": {n: f for n, f in card.features.items() if n in keep}}
    )
