"""A published model as it is served: loaded by its hashes, described in raw units."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from segmentation import InputError
from segmentation.customers import cards, columns
from segmentation.runs import Manifest, check_file, read_manifest
from segmentation.segments import Scorer, scorer
from segmentation.words import FEWEST

Floats = scorer.Floats
Codes = scorer.Codes
MEND = "run the series again."
FIGURES, SEGMENTS = "artifacts/segmenter.json", "segments.json"
TOLD = ("run_id", "title", "k", "rule", "verdict", "versions", "as_of")
KEYS = ("id", "name")
"""What a segment may be asked for by."""

MOST_TOLD = 20
"""Problems that are told one by one; the others are counted."""


@dataclass(frozen=True, eq=False)
class Model:
    """A published model.

    Attributes
    ----------
    folder : the run's.
    about : what `/model` tells of it: the run, what it was trained on, its features and ranges.
    scorer : puts customers into segments.
    segments : what `segments.json` says of each, by position.
    """

    folder: Path
    about: dict[str, Any]
    scorer: Scorer
    segments: list[dict[str, Any]]
    manifest: Manifest | None = field(default=None, repr=False)

    @cached_property
    def sources(self) -> list[str]:
        """The raw columns that the features are made of."""
        return self.scorer.card.sources

    @cached_property
    def kept_card(self) -> cards.Card:
        """The card that the run keeps: that of the figures does not say whom one may write to."""
        self.check_file("card.yaml")
        return cards.load_card(self.folder / "card.yaml")

    def compute(self, numbers: Mapping[str, Floats]) -> Floats:
        """Those columns, each (n,), as the model's features (n, p), NaN where missing."""
        made = columns.compute_features(self.scorer.card, numbers)
        return np.stack([made[name] for name in self.scorer.columns], axis=1, dtype=np.float64)

    def find_segment(self, wanted: str) -> int | None:
        """The id of a segment by its name or id; None where none is wanted."""
        named = {str(s[key]).casefold(): s["id"] for s in self.segments for key in KEYS}
        if wanted and wanted.casefold() not in named:
            names = [segment["name"] for segment in self.segments]
            raise InputError(f"segment {wanted} is not known; {cards.suggest(wanted, names)}")
        return named.get(wanted.casefold())

    def describe_segments(self) -> list[dict[str, Any]]:
        """The segments as people may see them: figures of fewer than five are withheld."""
        withheld = {"centre": None, "profile": None}
        return [s | withheld if s["size"] < FEWEST else s for s in self.segments]

    def describe_typical(self) -> dict[str, Any]:
        """A customer of medians and first levels, by the raw columns."""
        medians = dict(zip(self.scorer.columns, self.scorer.typical.tolist(), strict=True))
        levels = {name: next(iter(known)) for name, known in self.scorer.levels.items()}
        return {name: medians.get(name, 1.0) for name in self.sources} | levels

    def check_file(self, name: str) -> None:
        """Refuse a file of the run that is not what the run wrote."""
        if self.manifest:
            check_file(self.folder, self.manifest, name, mend=MEND)


def load_model(folder: Path) -> Model:
    """The model of a published run, once its files are what the run wrote; nothing is unpickled.

    Raises
    ------
    InputError
        There is no published run, or a file is missing, altered, or of another version.
    """
    if not (folder / "run.json").is_file():
        raise InputError(f"{folder}: no published run there; run `segmentation run` first.")
    folder = folder.resolve()
    manifest = read_manifest(folder)
    if manifest and manifest.status != "published":
        raise InputError(f"run {folder.name} is {manifest.status}, not published; {MEND}")
    if not manifest or not manifest.verdict or "rows_used" not in manifest.input:
        raise InputError(f"run {folder.name} has no sound run.json; {MEND}")
    if FIGURES not in {entry.path for entry in manifest.files}:
        raise InputError(f"run {folder.name} has no centres to score by; choose K-means in 04.")
    for name in (FIGURES, SEGMENTS, "artifacts/segmenter.joblib"):
        check_file(folder, manifest, name, mend=MEND)
    read = Scorer(json.loads((folder / FIGURES).read_text("utf-8")))
    segments = json.loads((folder / SEGMENTS).read_text("utf-8"))
    ids = [segment["id"] for segment in segments]
    if len({*ids}) != len(read.centres) or ids != (read.figures.ids or ids):
        differs = f"{SEGMENTS} and {FIGURES} are not of the same segments"
        raise InputError(f"run {folder.name}: {differs}; {MEND}")
    told = manifest.model_dump(include={*TOLD}) | {"trained_at": manifest.started}
    told |= {"customers": manifest.input["rows_used"]} | _describe_columns(read)
    return Model(folder, told, read, segments, manifest)


def _describe_columns(model: Scorer) -> dict[str, Any]:
    """`range` is what the training rows spanned; beyond its `limits` a value is refused."""
    features = []
    for name, span, typical in zip(model.columns, model.spans, model.typical, strict=True):
        said = model.card.features[name]
        told = {"column": name, "label": said.label, "unit": said.unit, "missing": said.missing}
        ends = {"range": span.tolist(), "limits": scorer.find_limits(said)}
        features.append(told | ends | {"typical": float(typical)})
    descriptors = [
        {"column": name, "label": d.label, "levels": [*model.levels.get(name, [])]}
        for name, d in model.card.descriptors.items()
    ]
    return {"features": features, "descriptors": descriptors}


# What is wrong with customers --------------------------------------------------------------


class Problem(NamedTuple):
    """What is wrong with a value: in which row (from 0), what it is, what is allowed."""

    row: int | None
    field: str | None
    message: str
    allowed: str


class Refusal(InputError):
    """Customers that are refused: the first problems, and how many there are.

    It gathers them; `check` raises it where there are any. With a `source`, rows are its lines.
    """

    def __init__(self, *problems: Problem, source: str = "") -> None:
        self.source, self.unit = source, "line" if source else "row"
        self.problems, self.count = [*problems], len(problems)

    def add(self, problems: Sequence[Problem], count: int | None = None) -> None:
        """Note some more; `count` where not all of them are described."""
        self.problems = [*self.problems, *problems][:MOST_TOLD]
        self.count += len(problems) if count is None else count

    def check(self) -> None:
        """Refuse what has problems."""
        if self.count:
            raise self

    @property
    def details(self) -> list[dict[str, Any]]:
        """The problems as an answer tells them."""
        keys = (self.unit, "field", "message", "allowed")
        return [dict(zip(keys, problem, strict=True)) for problem in self.problems]

    def __str__(self) -> str:
        lines = []
        for row, name, message, allowed in self.problems:
            where = f"{self.unit} {row}" if row is not None else ""
            place = ", ".join(filter(None, (self.source, where, name))) or "request"
            lines.append(f"{place}: {message}; allowed: {allowed}.")
        more = self.count - len(lines)
        return "\n".join([*lines, f"… and {more:,} more."] if more else lines)


def describe_allowed(feature: cards.Feature) -> str:
    """What a feature's value may be, in words."""
    low, high = scorer.find_limits(feature)
    unit = f" {feature.unit}" if feature.unit else ""
    missing = ", never missing" if feature.missing == "refuse" else ""
    return f"a number from {low:g} to {high:g}{unit}{missing}"


def find_problems(values: Floats, model: Scorer, refusal: Refusal, *, first: int = 0) -> None:
    """Note what is wrong with raw values (n, p), NaN where missing; `first` is the first row."""
    parts = [model.card.features[name] for name in model.columns]
    low, high = np.array([scorer.find_limits(feature) for feature in parts]).T
    missing = np.isnan(values) & [feature.missing == "refuse" for feature in parts]
    wrong = missing | (values < low) | (values > high)
    told = []
    for row, column in np.argwhere(wrong)[:MOST_TOLD].tolist():
        message = "is missing" if missing[row, column] else "is out of range"
        allowed = describe_allowed(parts[column])
        told.append(Problem(first + row, model.columns[column], message, allowed))
    refusal.add(told, int(wrong.sum()))
