"""Customers as JSON: decoded, checked, answered.

A body of plain rows is decoded straight into typed rows (msgspec, four to eight times as fast as
pydantic, see benchmarks/service.py). Whatever that refuses is read a second time without types, by
all the names that a column has, to be understood or to be told what is wrong with it, row by row.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import lru_cache
from operator import attrgetter
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np

from segmentation import InputError
from segmentation.clustering.kmeans import Floats, Labels
from segmentation.customers import columns as fields
from segmentation.customers.card import OURS, clean_text, suggest
from segmentation.segments.scorer import STATUSES, Scorer, Scores, find_limits
from segmentation.serving.batch import (
    MOST_TOLD,
    Model,
    Problem,
    Refusal,
    describe_allowed,
)

MOST_ROWS = 10_000
LONGEST_NAME, LONGEST_ROW = 60, 2_000
"""Characters of a name that an error repeats, and of all names of a row that are remembered."""

OTHERS = "accepted and ignored"

Cell = float | str | None


class Reason(msgspec.Struct, gc=False):
    """What speaks for a segment: a column and the customer's value in it."""

    feature: str
    value: Cell


class Answer(msgspec.Struct, gc=False):
    """Where a customer belongs; `why` names what speaks most against the second segment."""

    cluster: int | None
    segment: str | None
    distance: float | None
    second: str | None
    confidence: float | None
    status: str
    why: list[Reason] | None


class Inquiry(NamedTuple):
    """Customers to score: raw values (n, p), codes (n, c), and whether they came as a list."""

    values: Floats
    codes: Labels | None
    many: bool


class Reader:
    """Reads bodies for one model: an object or a list of objects, a key a column."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer, self.card = scorer, scorer.card
        self.columns = [*scorer.columns, *scorer.levels]
        row: Any = _define_row(scorer)
        self._decode = msgspec.json.Decoder(row | list[row]).decode
        self._take: Callable[[Any], tuple[Cell, ...]] = attrgetter(
            *(f"x{i}" for i in range(len(self.columns)))
        )
        self._remember = lru_cache(256)(self._match)

    def read(self, body: bytes) -> Inquiry:
        """Decode and check a body.

        Raises
        ------
        Refusal
            It is no JSON, has no or too many rows, or rows with problems: each is told.
        """
        try:
            rows = self._decode(body)
        except (ValueError, RecursionError, msgspec.MsgspecError):
            return self._read_untyped(body)
        many = isinstance(rows, list)
        cells = [self._take(row) for row in (rows if many else [rows])]
        if not 0 < len(cells) <= MOST_ROWS:
            return self._read_untyped(body)
        inquiry = self._collect(cells, many=many)
        empty = np.isnan(inquiry.values).all(axis=1).any()
        return self._read_untyped(body) if empty else inquiry

    def _collect(self, cells: list[tuple[Cell, ...]], *, many: bool) -> Inquiry:
        """Checked cells (n, p + c) as arrays."""
        p = len(self.scorer.columns)
        if not self.scorer.levels:
            return Inquiry(np.array(cells, dtype=np.float64), None, many)
        columns = list(zip(*cells, strict=True))
        values = np.array(columns[:p], dtype=np.float64).T
        codes = [self._encode(i, columns[p + i]) for i in range(len(self.scorer.levels))]
        return Inquiry(values, np.stack(codes, axis=1), many)

    def _encode(self, place: int, cells: tuple[Cell, ...]) -> Labels:
        name = [*self.scorer.levels][place]
        descriptor = self.card.descriptors[name]
        levels, problems = [], []
        for row, cell in enumerate(cells):
            try:
                text = "" if cell is None else str(cell)
                levels.append(fields.read_level(text, descriptor))
            except InputError:
                known = ", ".join(descriptor.levels)
                problems.append(Problem(row, name, "is not a known level", known))
        _refuse(problems)
        return self.scorer.encode(name, levels)

    # What went wrong, or came under other names ------------------------------------------------

    def _read_untyped(self, body: bytes) -> Inquiry:
        try:
            rows = json.loads(body.decode("utf-8-sig"))  # with NaN and 1e999, to be told of them
        except (ValueError, RecursionError) as error:
            place = getattr(error, "pos", getattr(error, "start", None))
            where = "" if place is None else f" at character {place + 1}"
            allowed = "one object, or a list of them"
            raise Refusal(
                [Problem(None, None, f"the body is not JSON{where}", allowed)], 1
            ) from None
        many = isinstance(rows, list)
        listed = rows if many else [rows]
        if not 0 < len(listed) <= MOST_ROWS:
            allowed = f"1 to {MOST_ROWS:,} in a request, more as a file"
            raise Refusal([Problem(None, None, f"the list has {len(listed):,} rows", allowed)], 1)
        problems: list[Problem] = []
        cells = [self._read_row(row, place, problems) for place, row in enumerate(listed)]
        _refuse(problems)
        return self._collect(cells, many=many)

    def _read_row(self, row: Any, place: int, problems: list[Problem]) -> tuple[Cell, ...]:
        """The cells of a row in the model's order; what is wrong with them is noted."""
        needed = ", ".join(self.columns)
        if not isinstance(row, dict):
            problems.append(Problem(place, None, "is not an object", f"an object with {needed}"))
            return ()
        names = tuple(row)
        short = sum(map(len, names)) < LONGEST_ROW
        found, unknown = self._remember(names) if short else self._match(names)
        for name in unknown:
            problems.append(Problem(place, *self._describe_unknown(name)))
        if not any(name in found for name in self.columns):
            problems.append(Problem(place, None, "has none of the features", needed))
        cells = []
        for name in self.columns:
            cell = row[found[name]] if name in found else None
            if problem := self._check(name, cell):
                problems.append(Problem(place, name, *problem))
            cells.append(cell)
        return tuple(cells)

    def _describe_unknown(self, name: str) -> tuple[str, str, str]:
        """A name that nobody knows, as it may be repeated, with the nearest that is known."""
        known = [*self.columns, *_list_others(self.scorer)]
        shown = clean_text(name)[:LONGEST_NAME]
        near = suggest(shown, known)
        hint = f"; {near}" if near.startswith("did") else ""
        return shown, f"is not a known name{hint}", ", ".join(known)

    def _match(self, names: tuple[str, ...]) -> tuple[dict[str, str], list[str]]:
        """Which of a row's names holds each column, and the names that nobody knows."""
        found = fields.match_columns(names, self.card)
        if len(set(found.values())) < len(found):
            found = {name: name for name in names if name in self.card.columns}
        taken = {*found.values(), *OURS}
        return found, [name for name in names if name not in taken]

    def _check(self, name: str, cell: Any) -> tuple[str, str] | None:
        """What is wrong with a cell, and what is allowed."""
        if name not in self.card.features:
            levels = [*self.card.descriptors[name].levels]
            plain = isinstance(cell, str | int | None) and not isinstance(cell, bool)
            return None if plain else ("is not a text", ", ".join(levels) or "a text")
        feature = self.card.features[name]
        allowed = describe_allowed(feature)
        if cell is None:
            return ("is missing", allowed) if feature.missing == "refuse" else None
        if isinstance(cell, bool) or not isinstance(cell, int | float):
            return "is not a number", allowed
        if isinstance(cell, float) and not math.isfinite(cell):
            return "is not a finite number", allowed
        low, high = find_limits(feature)
        return None if low <= cell <= high else ("is out of range", allowed)


def _define_row(scorer: Scorer) -> type[msgspec.Struct]:
    """The type of a plain row: the columns by their raw names, all else that may stand there."""
    fields: list[tuple[str, Any, Any]] = []
    for name in scorer.columns:
        feature = scorer.card.features[name]
        low, high = find_limits(feature)
        number = Annotated[float, msgspec.Meta(ge=low, le=high)]
        kind, default = (number, ...) if feature.missing == "refuse" else (number | None, None)
        fields.append((name, kind, default))
    fields += [(name, str | int | None, None) for name in scorer.levels]
    fields += [(name, msgspec.Raw, msgspec.Raw(b"null")) for name in _list_others(scorer)]
    return msgspec.defstruct(
        "Row",
        [
            (
                f"x{i}",
                kind,
                msgspec.field(name=name, **({} if default is ... else {"default": default})),
            )
            for i, (name, kind, default) in enumerate(fields)
        ],
        forbid_unknown_fields=True,
        kw_only=True,
    )


def _list_others(scorer: Scorer) -> list[str]:
    """What may stand in a row besides, and is ignored: the id, descriptors, columns of ours."""
    return [
        n
        for n in (scorer.card.id, *scorer.card.descriptors, *sorted(OURS))
        if n not in scorer.levels
    ]


def _refuse(problems: list[Problem]) -> None:
    if problems:
        raise Refusal(problems[:MOST_TOLD], len(problems))


# Answering ---------------------------------------------------------------------------------


def answer(inquiry: Inquiry, scores: Scores, model: Model) -> list[Answer]:
    """An answer for each customer; what a dropped row or a single segment lacks is null."""
    scorer = model.scorer
    ids = [*(segment["id"] for segment in model.segments), None]
    names = [*(segment["name"] for segment in model.segments), None]
    columns, cells = [*scorer.columns, *scorer.levels], _list_cells(inquiry, scorer)
    reasons = scorer.explain(inquiry.values, inquiry.codes, scores)
    told = zip(*(field.tolist() for field in scores), reasons.tolist(), cells, strict=True)
    return [
        Answer(
            ids[position],
            names[position],
            distance,
            names[second],
            confidence,
            STATUSES[status],
            None if second < 0 else [Reason(columns[i], row[i]) for i in why if i >= 0],
        )
        for position, second, distance, _, confidence, status, why, row in told
    ]


def _list_cells(inquiry: Inquiry, scorer: Scorer) -> list[list[Any]]:
    """The customers' values as lists: numbers, then levels; None for a level never seen."""
    cells = inquiry.values.tolist()
    if inquiry.codes is None:
        return cells
    levels = [[*known, None] for known in scorer.levels.values()]
    return [
        [*row, *(known[code] for known, code in zip(levels, codes, strict=True))]
        for row, codes in zip(cells, inquiry.codes.tolist(), strict=True)
    ]


def describe_row(scorer: Scorer) -> dict[str, Any]:
    """The JSON schema of a row: what `Reader` takes by the raw names."""
    rows: dict[str, Any] = {name: {"description": OTHERS} for name in _list_others(scorer)}
    for name in scorer.columns:
        feature = scorer.card.features[name]
        low, high = find_limits(feature)
        kind = ["number"] if feature.missing == "refuse" else ["number", "null"]
        rows[name] = {
            "type": kind,
            "minimum": low,
            "maximum": high,
            "description": f"{feature.title}; missing: {feature.missing}",
        }
    for name in scorer.levels:
        levels = [*scorer.card.descriptors[name].levels]
        rows[name] = {"enum": [*levels, None]} if levels else {"type": ["string", "null"]}
    columns = [*scorer.columns, *scorer.levels]
    features = scorer.card.features
    return {
        "type": "object",
        "properties": {name: rows[name] for name in [*columns, *_list_others(scorer)]},
        "required": [n for n in scorer.columns if features[n].missing == "refuse"],
        "anyOf": [{"required": [name]} for name in columns],
        "additionalProperties": False,
        "example": describe_typical(scorer),
    }


def describe_typical(scorer: Scorer) -> dict[str, Any]:
    """A row of medians and first levels."""
    medians = dict(zip(scorer.columns, scorer.typical.tolist(), strict=True))
    return medians | {name: next(iter(levels)) for name, levels in scorer.levels.items()}
