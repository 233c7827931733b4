"""Many rows: a file of any size, a database's table; scored by a published model, or not at all."""

from __future__ import annotations

import codecs
import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tabulate import tabulate

from segmentation import InputError
from segmentation.clustering.kmeans import Floats, Labels
from segmentation.customers import columns as fields
from segmentation.customers import database as warehouse
from segmentation.customers import text as tables
from segmentation.customers.card import OURS, Feature, suggest
from segmentation.runs import folder as runs
from segmentation.segments import queries as expressions
from segmentation.segments.scorer import STATUSES, Scorer, Scores, find_limits
from segmentation.words import FEWEST

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

MEND = "run the series again."
FIGURES = ("artifacts/segmenter.json", "segments.json")
BLOCK = 2 << 20
"""Bytes of a CSV, or about as many of a Parquet file, that are in memory at a time."""

ROWS = 1 << 16
MOST_TOLD = 20
"""Problems that are told one by one; the others are counted."""

FORMULA = r"^[=+\-@\t\r]"
"""What text begins with that a spreadsheet may run as a formula: then `runs.disarm` decides."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with a value: in which row (from 0), what it is, what is allowed."""

    row: int | None
    field: str | None
    message: str
    allowed: str


class Refusal(InputError):
    """Rows that are refused: the first problems, how many there are, and how rows are called."""

    def __init__(self, problems: list[Problem], count: int, *, source: str = "", unit: str = "row"):
        self.count = count
        self.details = [{unit: p.row, **_strip_row(p)} for p in problems]
        lines = [f"{_join(source, unit, p)}: {p.message}; allowed: {p.allowed}." for p in problems]
        more = [f"… and {count - len(problems):,} more."] if count > len(problems) else []
        super().__init__("\n".join([*lines, *more]))


def _strip_row(problem: Problem) -> dict[str, Any]:
    return {"field": problem.field, "message": problem.message, "allowed": problem.allowed}


def _join(source: str, unit: str, problem: Problem) -> str:
    where = f"{unit} {problem.row}" if problem.row is not None else ""
    return ", ".join(filter(None, (source, where, problem.field))) or "request"


# The model ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Model:
    """A published model: its run's manifest, its scorer, its segments by position."""

    folder: Path
    manifest: dict[str, Any]
    scorer: Scorer
    segments: list[dict[str, Any]]

    @property
    def run_id(self) -> str:
        """The run that made it."""
        return self.manifest["run_id"]

    def list_ids(self) -> list[int]:
        """The ids of the segments, by position."""
        return [segment["id"] for segment in self.segments]

    def find_segment(self, wanted: str) -> int:
        """The position of a segment by its name or id."""
        named = {str(s[key]).casefold(): i for i, s in enumerate(self.segments) for key in KEYS}
        if wanted.casefold() not in named:
            names = [segment["name"] for segment in self.segments]
            raise InputError(f"segment {wanted} is not known; {suggest(wanted, names)}")
        return named[wanted.casefold()]

    def describe(self) -> dict[str, Any]:
        """What the model is: its run, its choice, its features in raw units."""
        told = {key: self.manifest[key] for key in ("run_id", "title", "k", "rule", "verdict")}
        return told | {
            "trained_at": self.manifest["started"],
            "as_of": self.manifest.get("as_of"),
            "customers": self.manifest["input"]["rows_used"],
            "features": [self._describe_feature(i) for i in range(len(self.scorer.columns))],
            "descriptors": [
                {"column": name, "label": d.label, "levels": [*self.scorer.levels.get(name, [])]}
                for name, d in self.scorer.card.descriptors.items()
            ],
            "versions": self.manifest["versions"],
        }

    def _describe_feature(self, place: int) -> dict[str, Any]:
        name = self.scorer.columns[place]
        feature = self.scorer.card.features[name]
        return {
            **{"column": name, "label": feature.label, "unit": feature.unit},
            "range": self.scorer.spans[place].tolist(),
            "limits": find_limits(feature),
            "missing": feature.missing,
            "typical": float(self.scorer.typical[place]),
        }

    def describe_segments(self) -> list[dict[str, Any]]:
        """The segments as people may see them: figures of fewer than five are withheld."""
        withheld = {"centre": None, "profile": None}
        return [s | withheld if s["size"] < FEWEST else s for s in self.segments]


ALIGNED = ("right", "right", "left")
KEYS = ("id", "name")


def load_model(folder: Path) -> Model:
    """The model of a published run, once its files are what the run wrote; nothing is unpickled.

    Raises
    ------
    InputError
        There is no published run, or a file is missing, altered, or of another version.
    """
    if not (folder / "run.json").is_file():
        raise InputError(f"{folder}: no published run there; run `python run_all.py` first.")
    folder = folder.resolve()
    manifest = runs.read_manifest(folder) or {}
    status = manifest.get("status")
    if status is None or "files" not in manifest:
        raise InputError(f"run {folder.name} has no sound run.json; {MEND}")
    if status != "published":
        raise InputError(f"run {folder.name} is {status}, not published; {MEND}")
    for name in (*FIGURES, "artifacts/segmenter.joblib"):
        runs.check_file(folder, manifest, name, mend=MEND)
    figures, segments = (json.loads((folder / name).read_text("utf-8")) for name in FIGURES)
    return Model(folder, manifest, Scorer.from_figures(figures), segments)


# What a value may be -----------------------------------------------------------------------


def describe_allowed(feature: Feature) -> str:
    """What a feature's value may be, in words."""
    low, high = find_limits(feature)
    unit = f" {feature.unit}" if feature.unit else ""
    missing = ", never missing" if feature.missing == "refuse" else ""
    return f"a number from {low:g} to {high:g}{unit}{missing}"


def find_problems(
    values: Floats, scorer: Scorer, *, first: int = 0, most: int = MOST_TOLD
) -> tuple[list[Problem], int]:
    """What is wrong with raw values (n, p), NaN where missing: the first problems, and how many."""
    parts = [scorer.card.features[name] for name in scorer.columns]
    low, high = np.array([find_limits(feature) for feature in parts]).T
    needed = np.array([feature.missing == "refuse" for feature in parts])
    missing, below, above = np.isnan(values) & needed, values < low, values > high
    wrong = missing | below | above
    if not wrong.any():
        return [], 0
    told = []
    for row, column in np.argwhere(wrong)[:most]:
        kind = "is missing" if missing[row, column] else "is out of range"
        allowed = describe_allowed(parts[column])
        told.append(Problem(first + int(row), scorer.columns[column], kind, allowed))
    return told, int(wrong.sum())


# Files -------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What was scored: customers by segment (position) and by status, how far in the file."""

    rows: int = 0
    share: float = 0.0
    segments: Counter[int] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)

    def add(self, scores: Scores) -> None:
        """Count the customers of a batch."""
        self.rows += len(scores.position)
        kept = scores.position[scores.position >= 0]
        self.segments.update(dict(enumerate(np.bincount(kept).tolist())))
        counts = np.bincount(scores.status, minlength=len(STATUSES)).tolist()
        self.statuses.update(dict(zip(STATUSES, counts, strict=True)))

    def describe(self, model: Model) -> str:
        """How many customers went where, in lines."""
        named = [(segment["name"], self.segments[i]) for i, segment in enumerate(model.segments)]
        rows = [(f"{n:,}", f"{n / self.rows:.1%}", name) for name, n in named]
        odd = [f"{self.statuses[s]:,} {s}" for s in STATUSES[1:] if self.statuses[s]]
        told = f"{self.rows:,} customers by the model of {model.run_id}"
        table = tabulate(rows, tablefmt="plain", disable_numparse=True, colalign=ALIGNED)
        return "\n".join([f"{told}: {', '.join(odd)}" if odd else told, table])


@dataclass(frozen=True)
class Batch:
    """Some customers of a file: their columns, and of these what the model reads."""

    columns: pa.RecordBatch
    values: Floats
    codes: Labels | None
    share: float
    lines: list[int] | None = None


class _NotPlain(Exception):
    """The file is not as plain as a stream needs it: the series' own reader may understand it."""


def score_file(
    source: Path,
    target: Path,
    model: Model,
    *,
    segment: str = "",
    tell: Callable[[Tally], None] = lambda _: None,
) -> Tally:
    """Score the customers of a CSV, Parquet or Excel file; the target is written whole or not.

    The target has the source's columns, then cluster, segment, distance, second, confidence and
    status; it is Parquet if its name ends so, else CSV. A plain CSV (commas, UTF-8, a header in
    the first line) and Parquet are streamed in constant memory; whatever else the series reads is
    read whole. `segment` keeps the customers of one segment, by its name or id.

    Raises
    ------
    InputError
        The file cannot be read, a column is missing, or values are refused, each with its line.
    """
    if target.resolve() == source.resolve():
        raise InputError(f"{target.name} would overwrite its own source; name another file.")
    kept = model.find_segment(segment) if segment else None
    try:
        return _write(_stream(source, model.scorer), source, target, model, kept, tell)
    except _NotPlain:
        return _write(_read_whole(source, model.scorer), source, target, model, kept, tell)


def _write(
    batches: Iterator[Batch],
    source: Path,
    target: Path,
    model: Model,
    kept: int | None,
    tell: Callable[[Tally], None],
) -> Tally:
    """Score batch by batch into a file beside the target, then put it in the target's place."""
    tally, count = Tally(), 0
    problems: list[Problem] = []
    partial = target.with_name(f".{target.name}.partial")
    try:
        with _open_writer(partial, target) as write:
            for batch in batches:
                first = tally.rows
                some, more = find_problems(batch.values, model.scorer, first=first)
                problems, count = [*problems, *some][:MOST_TOLD], count + more
                scores = model.scorer.score(batch.values, batch.codes)
                tally.add(scores)
                tally.share = batch.share
                tell(tally)
                if not count:
                    write(_keep(_add_scores(batch.columns, scores, model.segments), scores, kept))
        if count:
            told = _find_lines(problems, source, batch.lines)
            raise Refusal(told, count, source=source.name, unit="line")
        if not tally.rows:
            raise InputError(f"{source.name} has no customers; give a table with rows.")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return tally


def _add_scores(
    columns: pa.RecordBatch, scores: Scores, segments: list[dict[str, Any]]
) -> pa.RecordBatch:
    """The columns of a batch with ours behind them."""
    import pyarrow as pa

    def look_up(places: Labels, key: str) -> pa.Array:
        values = pa.array([segment[key] for segment in segments])
        return values.take(pa.array(places, mask=places < 0))

    added = {
        "cluster": look_up(scores.position, "id"),
        "segment": look_up(scores.position, "name"),
        "distance": pa.array(scores.distance, from_pandas=True),
        "second": look_up(scores.second, "name"),
        "confidence": pa.array(scores.confidence, from_pandas=True),
        "status": pa.array(STATUSES).take(pa.array(scores.status)),
    }
    ours = [name for name in columns.schema.names if name in OURS]
    rest = columns.drop_columns(ours) if ours else columns
    names = [*rest.schema.names, *added]
    return pa.RecordBatch.from_arrays([*rest.columns, *added.values()], names=names)


def _keep(batch: pa.RecordBatch, scores: Scores, kept: int | None) -> pa.RecordBatch:
    import pyarrow as pa

    return batch if kept is None else batch.filter(pa.array(scores.position == kept))


# Databases ---------------------------------------------------------------------------------


def score_into(url: str, name: str, into: str, model: Model, *, segment: str = "") -> Tally:
    """Score a table inside its database or cluster, into a new table there, written whole or not.

    No row leaves the database. The new table has the columns of the old one, then cluster,
    segment, distance, second, confidence and status; texts stay as they are, also those that a
    spreadsheet would run. `segment` keeps the customers of one segment, by its name or id.

    Raises
    ------
    InputError
        There is no connection, no such table, or one `into`; a column is missing or values are
        refused, counted by column.
    """
    kept = model.find_segment(segment) if segment else None
    table = warehouse.open_table(url, name)
    warehouse.check_free(table.get_backend(), into)
    try:
        _check_table(table, name, model.scorer)
        scored = expressions.score_table(table, model.scorer, model.segments)
        chosen = scored
        if kept is not None:
            chosen = expressions.keep_segment(scored, model.list_ids()[kept])
        written = warehouse.save_table(chosen, into, url=url)
        counts = expressions.count_statuses(written if kept is None else scored)
    except InputError:
        raise
    except Exception as error:  # a database's own, of many kinds
        told = warehouse.hide_secrets(str(error), url)
        raise InputError(f"table {name} cannot be scored: {told}.") from None
    return _tally(counts, model)


def _check_table(table: Any, name: str, scorer: Scorer) -> None:
    """Refuse a table without rows, or with values that are refused: one line a column and kind."""
    told = []
    counts = expressions.count_problems(table, scorer)
    for row in counts.itertuples():
        feature = scorer.card.features[row.column]
        gaps = row.missing if feature.missing == "refuse" else 0
        for count, what in ((gaps, "missing"), (row.below + row.above, "out of range")):
            if count:
                verb = "value is" if count == 1 else "values are"
                allowed = describe_allowed(feature)
                told.append(f"{name}, {row.column}: {count:,} {verb} {what}; allowed: {allowed}.")
    if not counts["customers"].iloc[0]:
        told = [f"{name} has no customers; name a table with rows."]
    if told:
        raise InputError("\n".join(told))


def _tally(counts: pd.DataFrame, model: Model) -> Tally:
    """The counts of clusters and statuses as the command tells them."""
    tally, places = Tally(share=1.0), {id_: i for i, id_ in enumerate(model.list_ids())}
    for cluster, status, count in counts.itertuples(index=False):
        tally.rows += int(count)
        tally.statuses[status] += int(count)
        if status != "dropped":
            tally.segments[places[int(cluster)]] += int(count)
    return tally


# Reading -----------------------------------------------------------------------------------


def _stream(source: Path, scorer: Scorer) -> Iterator[Batch]:
    tables.check_file(source, limit=None)
    if source.suffix.lower() == ".parquet":
        return _stream_parquet(source, scorer)
    return _stream_csv(source, scorer)


def _stream_parquet(source: Path, scorer: Scorer) -> Iterator[Batch]:
    pa, parquet = _load("pyarrow"), _load("pyarrow.parquet")
    try:
        file = parquet.ParquetFile(source)
    except pa.ArrowInvalid:
        raise InputError(f"{source.name} is not a Parquet file; write it anew.") from None
    found = _find_columns(file.schema_arrow.names, source, scorer)
    rows = 0
    for columns in file.iter_batches(batch_size=ROWS):
        rows += len(columns)
        values = [_to_numbers(columns[found[name]]) for name in scorer.columns]
        codes = _read_codes(columns, found, scorer)
        yield Batch(columns, np.stack(values, axis=1), codes, rows / file.metadata.num_rows)


def _stream_csv(source: Path, scorer: Scorer) -> Iterator[Batch]:
    pa, arrow = _load("pyarrow"), _load("pyarrow.csv")
    header = _read_header(source, scorer)
    found = _find_columns(header, source, scorer)
    texts = dict.fromkeys(header, pa.string())
    with pa.OSFile(str(source)) as file:
        try:
            reader = arrow.open_csv(
                file,
                arrow.ReadOptions(block_size=BLOCK),
                arrow.ParseOptions(newlines_in_values=True),
                arrow.ConvertOptions(
                    column_types=texts, null_values=[""], strings_can_be_null=True
                ),
            )
            for columns in reader:
                numbers = {name: _to_numbers(columns[found[name]]) for name in scorer.columns}
                shown = _replace(columns, {found[name]: n for name, n in numbers.items()})
                codes = _read_codes(columns, found, scorer)
                values = np.stack(list(numbers.values()), axis=1)
                if np.isnan(values).all(axis=1).any():  # perhaps a blank line
                    raise _NotPlain
                yield Batch(shown, values, codes, file.tell() / max(1, file.size()))
        except pa.ArrowInvalid:
            raise _NotPlain from None


def _read_header(source: Path, scorer: Scorer) -> list[str]:
    """The first line of a plain CSV; `_NotPlain` for any other file."""
    card = scorer.card
    with source.open("rb") as file:
        head = file.read(BLOCK).removeprefix(codecs.BOM_UTF8)
        file.seek(max(0, source.stat().st_size - ROWS))
        last = file.read().rstrip().rsplit(b"\n", 1)[-1]
    try:
        header = next(csv.reader([head.split(b"\n", 1)[0].decode("utf-8")], strict=True), [])
    except (csv.Error, UnicodeDecodeError):
        raise _NotPlain from None
    plain = card.delimiter in ("", ",") and card.decimal in ("", ".")
    plain &= card.encoding.casefold().replace("-", "") in ("", "utf8", "utf8sig")
    plain &= len(header) == len(set(header)) and all(header) and b"\0" not in head
    plain &= {*scorer.columns, *scorer.levels} <= {*fields.match_columns(header, card)}
    total = last.split(b",", 1)[0].strip(b' :"').decode("utf-8", "replace").casefold()
    if not plain or total in tables.TOTALS:
        raise _NotPlain
    return header


def _read_whole(source: Path, scorer: Scorer) -> Iterator[Batch]:
    """A file as the series reads it, all at once: its encodings, delimiters, signs and mends."""
    pa = _load("pyarrow")
    notes, card = tables.Notes(), scorer.card
    text = tables.read_text(source, notes, card=card)
    notes.check(source.name)
    found = _find_columns(list(text.columns), source, scorer)
    cells = text[[found[name] for name in scorer.columns]].map(str.strip)
    decimal = card.decimal or tables.find_decimal(cells)
    numbers = {
        name: fields.read_numbers(cells[found[name]].rename(name), decimal, notes)
        for name in scorer.columns
    }
    notes.check(source.name)
    columns = pa.RecordBatch.from_pandas(text.mask(text == ""), preserve_index=False)
    shown = _replace(columns, {found[name]: n.to_numpy() for name, n in numbers.items()})
    values = np.stack([n.to_numpy() for n in numbers.values()], axis=1)
    yield Batch(shown, values, _read_codes(columns, found, scorer), 1.0, list(text.index))


def _find_columns(header: list[str], source: Path, scorer: Scorer) -> dict[str, str]:
    """Which header holds each of the model's columns."""
    found = fields.match_columns(header, scorer.card)
    for name in [*scorer.columns, *scorer.levels]:
        if name not in found:
            raise InputError(f"{source.name}: column {name} is missing; {suggest(name, header)}")
    return found


def _to_numbers(cells: pa.Array) -> Floats:
    """A column as float64, NaN where missing; `_NotPlain` where a cell is no plain number."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type):
        cells = _cast_text(cells)
    elif not (
        pa.types.is_integer(cells.type)
        or pa.types.is_floating(cells.type)
        or pa.types.is_decimal(cells.type)
    ):
        raise _NotPlain
    values = pc.cast(cells, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    if np.isinf(values).any():
        raise _NotPlain
    return values


def _cast_text(cells: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        return pc.cast(cells, pa.float64())
    except pa.ArrowInvalid:
        bare = pc.utf8_trim_whitespace(cells)
        missing = pc.is_in(pc.utf8_lower(bare), pa.array(sorted(tables.MISSING)))
    try:
        return pc.cast(pc.if_else(missing, None, bare), pa.float64())
    except pa.ArrowInvalid:
        raise _NotPlain from None


def _read_codes(columns: pa.RecordBatch, found: dict[str, str], scorer: Scorer) -> Labels | None:
    """The codes (n, c) of the descriptors in the distance."""
    coded = [_read_code(columns[found[name]], name, scorer) for name in scorer.levels]
    return np.stack(coded, axis=1) if coded else None


def _read_code(cells: pa.Array, name: str, scorer: Scorer) -> Labels:
    import pyarrow as pa
    import pyarrow.compute as pc

    words = pc.cast(cells, pa.string()).dictionary_encode("encode")
    descriptor = scorer.card.descriptors[name]
    try:
        levels = [
            fields.read_level(word or "", descriptor) for word in words.dictionary.to_pylist()
        ]
    except InputError as error:
        raise InputError(f"column {name}: every value {error}") from None
    return scorer.encode(name, levels)[words.indices.to_numpy()]


def _replace(columns: pa.RecordBatch, numbers: dict[str, Floats]) -> pa.RecordBatch:
    """The columns with some as numbers."""
    import pyarrow as pa

    for name, values in numbers.items():
        place = columns.schema.get_field_index(name)
        columns = columns.set_column(place, name, pa.array(values, from_pandas=True))
    return columns


def _find_lines(problems: list[Problem], source: Path, lines: list[int] | None) -> list[Problem]:
    """The problems with the lines of the file instead of the numbers of the rows."""
    rows = [problem.row or 0 for problem in problems]
    if lines is not None:
        lines = [lines[row] for row in rows]
    elif source.suffix.lower() == ".parquet":
        lines = [row + 2 for row in rows]
    else:
        lines = tables.find_lines(source, rows)
    return [replace(p, row=line) for p, line in zip(problems, lines, strict=True)]


# Writing -----------------------------------------------------------------------------------


@contextmanager
def _open_writer(path: Path, target: Path) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """A function that has a batch written while the next is scored; all is on the disk at the end.

    Raises
    ------
    InputError
        The file cannot be written.
    """
    open_format = _open_parquet if target.suffix.lower() == ".parquet" else _open_csv
    waiting: list[Future[None]] = []
    try:
        with path.open("wb") as file, ThreadPoolExecutor(1) as thread:
            with open_format(file) as write:

                def submit(batch: pa.RecordBatch) -> None:
                    ready = batch if open_format is _open_parquet else _prepare_csv(batch)
                    if waiting:
                        waiting.pop().result()
                    waiting.append(thread.submit(write, ready))

                yield submit
                if waiting:
                    waiting.pop().result()
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(f"{target}: {error.strerror or error}; name another place.") from None


@contextmanager
def _open_parquet(file: Any) -> Iterator[Callable[[pa.RecordBatch], None]]:
    parquet = _load("pyarrow.parquet")
    with ExitStack() as stack:
        writers: list[Any] = []

        def write(batch: pa.RecordBatch) -> None:
            if not writers:
                texts = [field.name for field in batch.schema if _is_text(field.type)]
                opened = parquet.ParquetWriter(file, batch.schema, use_dictionary=texts)
                writers.append(stack.enter_context(opened))
            writers[0].write_batch(batch)

        yield write


@contextmanager
def _open_csv(file: Any) -> Iterator[Callable[[pa.RecordBatch], None]]:
    arrow, headed = _load("pyarrow.csv"), False

    def write(batch: pa.RecordBatch) -> None:
        nonlocal headed
        arrow.write_csv(batch, file, arrow.WriteOptions(include_header=not headed))
        headed = True

    yield write


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _prepare_csv(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with texts that a spreadsheet would run disarmed, and whole numbers as such."""
    import pyarrow as pa

    names = batch.schema.names
    columns = [_prepare_column(*pair) for pair in zip(names, batch.columns, strict=True)]
    return pa.RecordBatch.from_arrays(columns, names=[runs.disarm(name) for name in names])


def _prepare_column(name: str, cells: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(cells.type):
        try:
            return cells.cast(pa.int64())
        except pa.ArrowInvalid:  # a fraction
            return cells
    if name == "status" or not _is_text(cells.type):
        return cells
    if name in OURS:  # a few names, each in many rows
        cells = cells.dictionary_encode()
    if pa.types.is_dictionary(cells.type):
        safe = pa.DictionaryArray.from_arrays(cells.indices, _disarm_cells(cells.dictionary))
        return safe.cast(pa.string())
    risky = pc.any(pc.match_substring_regex(cells, FORMULA)).as_py()
    return _disarm_cells(cells) if risky else cells


def _disarm_cells(cells: pa.Array) -> pa.Array:
    import pyarrow as pa

    return pa.array([runs.disarm(cell) for cell in cells.to_pylist()], cells.type)


def _load(name: str) -> Any:
    return tables.load_extra(name, "scoring a file", extra="service")
