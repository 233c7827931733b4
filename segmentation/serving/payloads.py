"""Customers as JSON: one description of a row, made from the card, reads, checks and documents it.

The names of a row are found as in a file; what is wrong is told row by row.
"""

from __future__ import annotations

import codecs
from collections import Counter
from functools import partial
from typing import Annotated, Any, NotRequired

import numpy as np
import pandas as pd
from pydantic import ConfigDict, Field, PlainValidator, TypeAdapter, ValidationError, WithJsonSchema
from pydantic_core import ErrorDetails, PydanticCustomError, from_json, to_json
from typing_extensions import TypedDict

from segmentation import InputError
from segmentation.customers import cards, columns
from segmentation.segments import campaigns, scorer
from segmentation.serving.model import (
    MOST_TOLD,
    Codes,
    Floats,
    Model,
    Problem,
    Refusal,
    describe_allowed,
    find_problems,
)

MOST_ROWS, MOST_NAMES, LONGEST_NAME = 10_000, 1_000, 60
"""Customers in a request, names in a row, characters of a name that an error repeats."""

AT_ONCE, MOST_MATCHED, MATCHING = 50, 10_000, 10
"""Rows that are checked in one call, during which nobody else is answered; names in a request that
are matched with the card's, and how many names' time it takes to begin."""

REF = "#/components/schemas/{model}"
GROUP = "Of the campaign that is asked about; null for whom it does not mean"
GROUPS = [campaigns.SEND, campaigns.HOLD, None]
KINDS = {
    "finite_number": "is not a finite number",
    "greater_than_equal": "is out of range",
    "less_than_equal": "is out of range",
}
"""What pydantic's errors of a number are called; all others are "is not a number"."""


class Reason(TypedDict):
    """What speaks for a segment: a column and the customer's value in it, null where missing."""

    feature: str
    value: float | str | None


class Answer(TypedDict):
    """Where a customer belongs; all is null for a row that the card's policies drop."""

    cluster: Annotated[int | None, Field(description="The segment's id")]
    segment: Annotated[str | None, Field(description="The segment's name")]
    distance: Annotated[float | None, Field(description="To the centroid, scaled as in the model")]
    second: Annotated[str | None, Field(description="The next segment")]
    confidence: Annotated[
        float | None, Field(ge=0, le=1, description="How often such customers kept their segment")
    ]
    status: Annotated[str, Field(json_schema_extra={"enum": [*scorer.STATUSES]})]
    why: Annotated[
        list[Reason] | None, Field(description="What speaks most against the second segment")
    ]
    group: NotRequired[
        Annotated[str | None, Field(description=GROUP, json_schema_extra={"enum": GROUPS})]
    ]


class Reader:
    """Reads and answers bodies for one model: an object or a list of objects, a key a column."""

    def __init__(self, model: Model) -> None:
        self.model, self.card = model, model.scorer.card
        self.levels = [*model.scorer.levels]
        self.columns = [*model.sources, *self.levels]
        listed = [self.card.id, *self.card.descriptors, *sorted(cards.OURS)]
        self.others = [name for name in listed if name not in self.columns]
        self.known = {*self.columns, *self.others}
        features = self.card.features  # a column that only an expression reads may be any number
        self.said = {n: features.get(n) or cards.Feature(label=n) for n in model.sources}
        row = self._define_row()
        self.schema = TypeAdapter(row).json_schema(ref_template=REF)
        self._rows: TypeAdapter[Any] = TypeAdapter(list[row])  # type: ignore[valid-type]

    def _define_row(self) -> Any:
        """The type of a row: the columns by their raw names, all else that may stand there."""
        parts: dict[str, Any] = {name: _define_number(name, f) for name, f in self.said.items()}
        parts |= {name: _define_level(self.card.descriptors[name]) for name in self.levels}
        other = Annotated[Any, Field(description="accepted and ignored")]
        define: Any = TypedDict
        row = define("Customer", parts | dict.fromkeys(self.others, NotRequired[other]))
        some = [{"required": [name]} for name in self.columns]
        extra: Any = {"anyOf": some, "example": self.model.describe_typical()}
        row.__pydantic_config__ = ConfigDict(extra="forbid", strict=True, json_schema_extra=extra)
        return row

    def read(self, body: bytes) -> tuple[Floats, Codes | None, list[dict[str, Any]], bool]:
        """Raw values (n, p) of the features, codes (n, c) of the levels, the rows by raw names,
        and whether a list came.

        Raises
        ------
        Refusal
            It is no JSON, has no or too many rows, or rows with problems: the first are told.
        """
        many, rows = self._read_rows(body)
        refusal, needed = Refusal(), ", ".join(self.columns)
        values = self.model.compute(
            {n: np.array([row.get(n) for row in rows], np.float64) for n in self.model.sources}
        )
        for place in np.flatnonzero(np.isnan(values).all(axis=1)).tolist():
            if not any(name in rows[place] for name in self.columns):
                refusal.add([Problem(place, None, "has none of the features", needed)])
        if self.model.sources != self.model.scorer.columns:
            find_problems(values, self.model.scorer, refusal)
        refusal.check()
        codes = [self.model.scorer.encode(n, [row.get(n) for row in rows]) for n in self.levels]
        return values, np.stack(codes, axis=1) if codes else None, rows, many

    def _read_rows(self, body: bytes) -> tuple[bool, list[dict[str, Any]]]:
        try:
            content = from_json(body.removeprefix(codecs.BOM_UTF8))
        except ValueError as error:
            told, allowed = f"the body is not JSON: {error}", "one object, or a list of them"
            raise Refusal(Problem(None, None, told, allowed)) from None
        listed = content if isinstance(content, list) else [content]
        if not 0 < len(listed) <= MOST_ROWS:
            allowed = f"1 to {MOST_ROWS:,} in a request, more as a file"
            raise Refusal(Problem(None, None, f"the list has {len(listed):,} rows", allowed))
        rows, refusal = self._rename(listed), Refusal()
        checked: list[dict[str, Any]] = []
        for first in range(0, len(rows), AT_ONCE):
            try:
                checked += self._rows.validate_python(rows[first : first + AT_ONCE])
            except ValidationError as error:
                whole = len(refusal.problems) == MOST_TOLD
                found = [] if whole else error.errors(include_url=False)[:MOST_TOLD]
                refusal.add([self._explain(one, first) for one in found], error.error_count())
        refusal.check()
        return listed is content, checked

    def _rename(self, rows: list[Any]) -> list[Any]:
        """Rows by the raw names; rows of the same names are matched once."""
        renamed, known, matched = [], dict[tuple[str, ...], dict[str, str]](), 0
        for place, row in enumerate(rows):
            if not isinstance(row, dict) or row.keys() <= self.known:
                renamed.append(row)
                continue
            if len(row) > MOST_NAMES:
                told, allowed = f"has {len(row):,} names", f"at most {MOST_NAMES:,}"
                raise Refusal(Problem(place, None, told, allowed))
            names = tuple(row)
            if names not in known:
                matched += len(names) + MATCHING
                if matched > MOST_MATCHED:
                    told = "the rows have very many different names"
                    raise Refusal(Problem(place, None, told, "the same names in every row"))
                found = columns.match_columns(names, self.card)
                twice = len({*found.values()}) < len(found)
                known[names] = {} if twice else {name: column for column, name in found.items()}
            own = known[names]
            renamed.append({own.get(name, name): cell for name, cell in row.items()})
        return renamed

    def _explain(self, error: ErrorDetails, first: int) -> Problem:
        """One of pydantic's errors as people are told of it; `first` is the first row checked."""
        place = first + int(error["loc"][0])
        if len(error["loc"]) == 1:
            needed = f"an object with {', '.join(self.columns)}"
            return Problem(place, None, "is not an object", needed)
        name = str(error["loc"][1])
        if name in self.levels:
            levels = ", ".join(self.card.descriptors[name].levels)
            return Problem(place, name, error["msg"], levels or "a text")
        if name in self.columns:
            told = KINDS.get(error["type"], "is not a number")
            told = "is missing" if error["input"] is None or error["type"] == "missing" else told
            return Problem(place, name, told, describe_allowed(self.said[name]))
        known, shown = [*self.columns, *self.others], cards.clean_text(name)[:LONGEST_NAME]
        near = cards.suggest(shown, known)
        hint = f"; {near}" if near.startswith("did") else ""
        return Problem(place, shown, f"is not a known name{hint}", ", ".join(known))

    def answer(
        self, body: bytes, campaign: campaigns.Campaign | None = None
    ) -> tuple[bytes, Counter[str]]:
        """The answer to a body as JSON, and how many customers have which status."""
        values, codes, rows, many = self.read(body)
        scores = self.model.scorer.score(values, codes)
        answers = self._list_answers(values, codes, scores)
        if campaign:
            self._add_groups(answers, rows, campaign)
        content = to_json(answers if many else answers[0], inf_nan_mode="null")
        return content, Counter(answer["status"] for answer in answers)

    def _list_answers(
        self, values: Floats, codes: Codes | None, scores: scorer.Scores
    ) -> list[Answer]:
        """An answer for each customer; what a dropped row or a single segment lacks is null."""
        model, segments = self.model.scorer, self.model.segments
        ids = [*(segment["id"] for segment in segments), None]
        names = [*(segment["name"] for segment in segments), None]
        features, cells = [*model.columns, *model.levels], self._list_cells(values, codes)
        reasons = model.explain(values, codes, scores).tolist()
        answers: list[Answer] = []
        told = zip(*(figures.tolist() for figures in scores), reasons, cells, strict=True)
        for position, second, distance, _, confidence, status, places, row in told:
            why: list[Reason] = [
                {"feature": features[i], "value": row[i]} for i in places if i >= 0
            ]
            answers.append(
                {
                    "cluster": ids[position],
                    "segment": names[position],
                    "distance": distance,
                    "second": names[second],
                    "confidence": confidence,
                    "status": scorer.STATUSES[status],
                    "why": None if second < 0 else why,
                }
            )
        return answers

    def _add_groups(
        self, answers: list[Answer], rows: list[dict[str, Any]], campaign: campaigns.Campaign
    ) -> None:
        """Say of each customer in which group of a campaign he is; None where in neither."""
        ids = [_read_id(row.get(self.card.id)) for row in rows]
        kept, told = self.model.kept_card, pd.DataFrame(answers)[["cluster", "status"]]
        levels = [{name: self._read_level(name, row) for name in kept.contact} for row in rows]
        customers = told.join(pd.DataFrame(levels, told.index)).assign(**{kept.id: ids})
        groups = campaigns.find_groups(customers, kept, campaign)
        for answer, own, group in zip(answers, ids, groups, strict=True):
            answer["group"] = group if own else None

    def _read_level(self, name: str, row: dict[str, Any]) -> str:
        """The level of a descriptor in a row; empty where it is missing or not known."""
        cell = "" if row.get(name) is None else str(row[name])
        try:
            return columns.read_level(cell, self.card.descriptors[name]) or ""
        except InputError:
            return ""

    def _list_cells(self, values: Floats, codes: Codes | None) -> list[list[Any]]:
        """The customers' values: numbers, then levels; None where missing or never seen."""
        if codes is None:
            return values.tolist()
        known = [np.array([*levels, None], object) for levels in self.model.scorer.levels.values()]
        levels = np.column_stack([each[codes[:, i]] for i, each in enumerate(known)])
        return [a + b for a, b in zip(values.tolist(), levels.tolist(), strict=True)]


def _read_id(cell: Any) -> str:
    """An id as the table has it; empty for what is neither a text nor a whole number."""
    return str(cell).strip() if isinstance(cell, str | int) and not isinstance(cell, bool) else ""


def _define_number(name: str, feature: cards.Feature) -> Any:
    low, high = scorer.find_limits(feature)
    told = f"{feature.title or name}; missing: {feature.missing}"
    limits = Field(ge=low, le=high, allow_inf_nan=False, description=told)
    if feature.missing == "refuse":
        return Annotated[float, limits]
    return NotRequired[Annotated[float | None, limits]]


def _define_level(descriptor: cards.Descriptor) -> Any:
    """The type of a level: a text or a whole number, read by the card's codings."""
    levels = [*descriptor.levels]
    shown = {"enum": [*levels, None]} if levels else {"type": ["string", "integer", "null"]}
    read = PlainValidator(partial(_read_level, descriptor))
    return NotRequired[Annotated[Any, read, WithJsonSchema(shown)]]


def _read_level(descriptor: cards.Descriptor, cell: Any) -> str | None:
    if isinstance(cell, bool) or not isinstance(cell, str | int | None):
        raise PydanticCustomError("level", "is not a text")
    try:
        return columns.read_level("" if cell is None else str(cell), descriptor)
    except InputError:
        raise PydanticCustomError("level", "is not a known level") from None
