"""The customer table: its card, how it is read, checked and described."""

from __future__ import annotations

import hashlib
import io
import re
import unicodedata
from collections import Counter
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import pandas as pd
import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from segmentation import ROOT, InputError, words

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})
LARGEST = 1e15  # beyond this, squared distances lose their last digits
OURS = {"cluster", "segment", "distance", "second", "confidence", "status"}
FEWEST_ROWS = 10
ROWS_PER_FEATURE = 70
"""Rows a feature that a study should have (Dolnicar et al. 2014, J. Travel Research)."""


TURNS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that turn the direction of the text behind them."""


def clean_text(text: str) -> str:
    """One line of text as it may stand inside a sentence: composed (NFC), without turns."""
    return " ".join(TURNS.sub("", unicodedata.normalize("NFC", text)).split())


Line = Annotated[str, AfterValidator(clean_text)]
Grade = Literal["very low", "low", "not low", "average", "not high", "high", "very high"]
Kind = Literal["age", "income", "spending", "recency", "frequency", "tenure", ""]


class Column(BaseModel):
    """What a card says about any column."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)
    label: Line = ""
    aliases: list[str] = []


class Feature(Column):
    """A numeric column that the distance is computed on."""

    unit: Line = ""
    kind: Kind | None = None
    range: tuple[float, float] = (-LARGEST, LARGEST)
    missing: Literal["median", "refuse", "drop"] = "median"
    outliers: Literal["keep", "clip", "drop"] = "keep"

    @property
    def title(self) -> str:
        """The label with its unit, as an axis shows it."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


class Descriptor(Column):
    """A categorical column that describes segments and stays out of the distance."""

    levels: dict[str, list[str]] = {}


class GivenSegment(BaseModel):
    """A name for segments that are like `when`: grades by the labels of features."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)
    name: Annotated[Line, Field(min_length=1)]
    when: Annotated[dict[str, Grade], Field(min_length=1)]
    role: Line = ""
    action: Line = ""


class Card(BaseModel):
    """A dataset card: where the table is and what its columns mean."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)
    title: Line
    table: str
    id: str
    features: Annotated[dict[str, Feature], Field(min_length=2)]
    descriptors: dict[str, Descriptor] = {}
    map: tuple[str, str] | None = None
    segments: list[GivenSegment] = []
    owner: Line = ""
    as_of: date | None = None
    encoding: str = "utf-8-sig"
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    decimal: Literal[".", ","] = "."
    path: Path = Field(default=Path(), exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _label_columns(cls, values: Any) -> Any:
        """Give every column without a label its own name as label."""
        if not isinstance(values, dict):
            return values
        values = dict(values)
        for kind in ("features", "descriptors"):
            if isinstance(values.get(kind), dict):
                values[kind] = {str(n): _labelled(n, c) for n, c in values[kind].items()}
        return values

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        """Refuse columns called like ours, names that stand twice, and names for no feature."""
        for name in {self.id, *self.features, *self.descriptors} & OURS:
            raise ValueError(
                f"a column {name} is written by us; give yours another name and {name!r} as alias"
            )
        labels = [c.label for c in (*self.features.values(), *self.descriptors.values())]
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
    def source(self) -> Path:
        """The table's path, resolved against the card's folder."""
        return self.path.parent / self.table

    def label(self, column: str) -> str:
        """The label of a feature or descriptor."""
        return (self.features.get(column) or self.descriptors[column]).label


def _labelled(name: str, column: Any) -> Any:
    return column if isinstance(column, BaseModel) else {"label": str(name), **(column or {})}


def read_card(path: str | Path, *, features: str = "") -> Card:
    """Read a dataset card; a relative path starts at the project's folder.

    Parameters
    ----------
    path : path of the YAML card.
    features : comma-separated column names or labels to keep as features; empty keeps all.

    Raises
    ------
    InputError
        The card is missing, is not YAML, or says something that the schema does not know.
    """
    path = ROOT / path
    if not path.is_file():
        raise InputError(f"{path}: no such card; give the path of a dataset card (YAML).")
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise InputError(
            f"{path.name} is not a dataset card; describe the table in a card like "
            "data/mall_customers.yaml and give that."
        )
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
        card = Card.model_validate(values).model_copy(update={"path": path})
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where else ""
        raise InputError(
            f"{path.name} is not valid YAML{line}; check indents and quotes."
        ) from None
    except ValidationError as error:
        raise InputError(f"{path.name}: {explain_error(error, Card)}") from None
    return _keep_features(card, features) if features.strip() else card


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


def _keep_features(card: Card, wanted: str) -> Card:
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


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_customers(card: Card) -> pd.DataFrame:
    """Read and check the card's table: id (text), features (float), descriptors (their levels).

    Raises
    ------
    InputError
        The file cannot be read, or breaks what the card says; the message lists each problem.
    """
    text = _read_text(card)
    table, problems = _name_columns(text, card)
    if not problems:
        table, problems = _parse_columns(table, card)
    if problems:
        raise InputError("\n".join(f"{card.source.name}: {problem}" for problem in problems))
    return table


def _read_text(card: Card) -> pd.DataFrame:
    """Read every cell as text; nothing is guessed."""
    source = card.source
    if not source.is_file():
        raise InputError(f"{source}: no such table; correct `table:` in {card.path.name}.")
    try:
        text = source.read_bytes().decode(card.encoding)
        return pd.read_csv(
            io.StringIO(text), sep=card.delimiter, dtype=str, keep_default_na=False, index_col=False
        )
    except (UnicodeDecodeError, LookupError) as error:
        raise InputError(
            f"{source.name} is not {card.encoding}: {error}; set `encoding:` in {card.path.name}."
        ) from None
    except pd.errors.EmptyDataError:
        raise InputError(f"{source.name} is empty; give a table with a header.") from None
    except pd.errors.ParserError as error:
        raise InputError(f"{source.name} is not a regular CSV: {error}") from None


def _name_columns(text: pd.DataFrame, card: Card) -> tuple[pd.DataFrame, list[str]]:
    """The card's columns under the card's names, and which are missing."""
    found = {str(column).strip().casefold(): column for column in text.columns}
    columns, problems = {}, []
    for name, aliases in _wanted_columns(card).items():
        hit = next((found[a.casefold()] for a in (name, *aliases) if a.casefold() in found), None)
        if hit is None:
            near = suggest(name, text.columns)
            problems.append(f"column {name} is missing; {near} Name it in `aliases:` of the card.")
        else:
            columns[name] = text[hit].str.strip()
    return pd.DataFrame(columns), problems


def _wanted_columns(card: Card) -> dict[str, list[str]]:
    described = {**card.features, **card.descriptors}
    return {card.id: [], **{name: column.aliases for name, column in described.items()}}


def _parse_columns(text: pd.DataFrame, card: Card) -> tuple[pd.DataFrame, list[str]]:
    table = text.copy()
    problems = _check_ids(text[card.id])
    if len(text) < FEWEST_ROWS:
        problems.append(f"{len(text)} customers are too few; give at least {FEWEST_ROWS}.")
    for name, feature in card.features.items():
        table[name], wrong = _parse_feature(text[name], feature, card.decimal)
        problems += [f"column {name}: {problem}" for problem in wrong]
    for name, descriptor in card.descriptors.items():
        table[name], wrong = _parse_descriptor(text[name], descriptor)
        problems += [f"column {name}: {problem}" for problem in wrong]
    return table, problems


def _check_ids(ids: pd.Series) -> list[str]:
    problems = []
    if (ids == "").any():
        problems.append(f"column {ids.name}: {(ids == '').sum()} ids are empty; fill them.")
    twice = ids[(ids != "") & ids.duplicated()]
    if len(twice):
        problems.append(
            f"column {ids.name}: {len(twice)} ids stand twice ({_rows(twice)}); "
            "keep one row a customer."
        )
    return problems


def _rows(cells: pd.Series) -> str:
    """The first places of some cells, as line numbers of the file."""
    lines = [str(position + 2) for position in cells.index[:3]]
    return f"line{'s' if len(lines) > 1 else ''} {', '.join(lines)}{'…' if len(cells) > 3 else ''}"


def _parse_feature(text: pd.Series, feature: Feature, decimal: str) -> tuple[pd.Series, list[str]]:
    missing = text.str.casefold().isin(MISSING)
    numbers = pd.to_numeric(text.str.replace(decimal, ".", regex=False), errors="coerce")
    numbers = numbers.astype(float)
    low, high = feature.range
    odd = text[~missing & ~np.isfinite(numbers)]
    beyond = numbers[~missing & np.isfinite(numbers) & ~numbers.between(low, high)]
    problems = []
    if len(odd):
        problems.append(f"{len(odd)} values are not numbers ({odd.iloc[0]!r}, {_rows(odd)}).")
    if len(beyond):
        problems.append(
            f"{len(beyond)} values lie outside {low:g}…{high:g} {feature.unit} "
            f"({beyond.iloc[0]:g}, {_rows(beyond)}); correct them or `range:` in the card."
        )
    if missing.any() and feature.missing == "refuse":
        problems.append(f"{missing.sum()} values are missing and `missing: refuse` forbids that.")
    if missing.all():
        problems.append("all values are missing; leave the column out of `features:`.")
    return numbers, problems


def _parse_descriptor(text: pd.Series, descriptor: Descriptor) -> tuple[pd.Series, list[str]]:
    text = text.mask(text.str.casefold().isin(MISSING)).map(clean_text, na_action="ignore")
    if not descriptor.levels:
        return text, []
    codes = {level.casefold(): level for level in descriptor.levels}
    for level, spellings in descriptor.levels.items():
        codes |= {spelling.casefold(): level for spelling in spellings}
    levels = text.str.casefold().map(codes)
    odd = text[levels.isna() & text.notna()]
    if len(odd):
        return levels, [
            f"{odd.nunique()} codings are unknown ({odd.iloc[0]!r}, {_rows(odd)}); "
            f"say in the card's `levels:` which of {', '.join(descriptor.levels)} they mean."
        ]
    return levels, []


def describe_features(table: pd.DataFrame, card: Card) -> pd.DataFrame:
    """One row a feature, in raw units: type, missing and distinct values, mean, sd, quartiles."""
    numbers = table[list(card.features)]
    summary = numbers.describe().T.drop(columns="count")
    summary.insert(0, "unit", [feature.unit for feature in card.features.values()])
    summary.insert(1, "type", [str(dtype) for dtype in numbers.dtypes])
    summary.insert(2, "missing", numbers.isna().sum())
    summary.insert(3, "distinct", numbers.nunique())
    summary.index = pd.Index([card.label(name) for name in numbers], name="feature")
    return summary.rename(columns={"std": "sd", "50%": "median"}).reset_index()


def count_levels(table: pd.DataFrame, card: Card) -> pd.DataFrame:
    """One row a level of each descriptor, missing ones too: customers and their share."""
    rows = []
    for name, descriptor in card.descriptors.items():
        counts = table[name].fillna("missing").value_counts()
        rows += [(descriptor.label, level, int(n), n / len(table)) for level, n in counts.items()]
    return pd.DataFrame(rows, columns=["descriptor", "level", "customers", "share"])


def summarize_customers(table: pd.DataFrame, card: Card) -> str:
    """The median of each feature and the commonest level of each descriptor, in a sentence."""
    medians = ", ".join(
        f"{feature.label} {table[name].median():.4g} {feature.unit}".rstrip()
        for name, feature in card.features.items()
    )
    commonest = "".join(
        f"; {share:.0%} are {level}"
        for name in card.descriptors
        for level, share in table[name].value_counts(normalize=True).head(1).items()
    )
    return f"{len(table)} customers; the medians: {medians}{commonest}."


def summarize_shapes(table: pd.DataFrame, card: Card) -> str:
    """The most skewed feature, in a sentence."""
    skew = table[list(card.features)].skew()
    most = str(skew.abs().idxmax())
    word = (
        "strongly" if abs(skew[most]) > 1 else "moderately" if abs(skew[most]) > 0.5 else "hardly"
    )
    return (
        f"The most skewed feature is {card.label(most)}, {word} so (skewness {skew[most]:.2f}); a "
        "long tail pulls centroids, and two humps hint at groups."
    )


def summarize_groups(table: pd.DataFrame, card: Card) -> str:
    """Where the levels of the first descriptor differ most, in a sentence."""
    if not card.descriptors:
        return "The card names no descriptor to colour by."
    by, values = next(iter(card.descriptors)), table[list(card.features)]
    means = values.groupby(table[by]).mean()
    gaps = (means.max() - means.min()) / values.std(ddof=0)
    widest = str(gaps.idxmax())
    feature, means = card.features[widest], means[widest].sort_values()
    return (
        f"By {card.label(by)} the means differ most in {feature.label}: {means.index[0]} "
        f"{means.iloc[0]:.1f}, {means.index[-1]} {means.iloc[-1]:.1f} {feature.unit}".rstrip()
        + f" ({gaps[widest]:.2f} standard deviations)."
    )


def summarize_quality(table: pd.DataFrame, card: Card) -> str:
    """What is missing or repeated, in a sentence."""
    columns = [*card.features, *card.descriptors]
    missing = int(table[columns].isna().sum().sum())
    same = int(table[columns].duplicated().sum())
    return (
        f"{len(table)} customers, each with an id of their own; {missing or 'no'} missing values; "
        f"{same or 'no'} customers repeat another's figures exactly."
    )


def summarize_support(table: pd.DataFrame, card: Card) -> str:
    """How many rows stand behind each feature, and what that supports."""
    rows, features = len(table), len(card.features)
    ratio = rows / features
    verdict = (
        "enough for segments that repeat, if there are any"
        if ratio >= ROWS_PER_FEATURE
        else "little: prefer few, large segments and read small ones as a hint"
    )
    return (
        f"{rows} customers for {features} features are {ratio:.0f} a feature, against the "
        f"{ROWS_PER_FEATURE} that Dolnicar and colleagues (2014) recommend: {verdict}."
    )


def summarize_correlations(table: pd.DataFrame, card: Card) -> str:
    """The strongest linear relation among the features, in a sentence."""
    matrix = table[list(card.features)].corr().to_numpy()
    strengths = np.abs(np.triu(matrix, k=1))
    if not np.nanmax(strengths) > 0:
        return "No feature varies together with another."
    first, second = np.unravel_index(np.nanargmax(strengths), matrix.shape)
    labels = [feature.label for feature in card.features.values()]
    value = matrix[first, second]
    word = "strong" if abs(value) >= 0.7 else "moderate" if abs(value) >= 0.3 else "weak"
    return (
        f"The largest correlation is {word}: {labels[first]} and {labels[second]}, r = {value:.2f}."
    )
