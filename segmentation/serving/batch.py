"""Many customers: a file of any size, a database's table; scored by a model, or not at all."""

from __future__ import annotations

import csv
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow
from pyarrow import parquet
from tabulate import tabulate

from segmentation import InputError
from segmentation.customers import cards, columns, database, text
from segmentation.runs import disarm
from segmentation.segments import Scorer, queries, scorer
from segmentation.serving.model import (
    Codes,
    Floats,
    Model,
    Problem,
    Refusal,
    describe_allowed,
    find_problems,
    load_model,
)

BLOCK = 2 << 20  # bytes of a CSV, or about as many of a Parquet file, in memory at a time
ROWS = 1 << 16
PAIR = ["cluster", "status"]
ALIGNED = ("right", "right", "left")
FORMULA = r"^[=+\-@\t\r]"  # what a spreadsheet may run as a formula: then `disarm` decides

__all__ = ["Tally", "Unwritable", "load_model", "score_file", "score_into"]


class Unwritable(InputError):
    """A file that cannot be written where it should be."""


class _NotPlain(Exception):
    """The file is not as plain as a stream needs it: the series' own reader may understand it."""


@dataclass
class Tally:
    """What was scored: customers by the id of their segment, and by status."""

    rows: int = 0
    segments: Counter[int] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)

    def add(self, cluster: int, status: str, customers: int) -> None:
        """Count customers of a segment and a status."""
        self.rows += customers
        self.statuses[status] += customers
        if status != "dropped":
            self.segments[cluster] += customers

    def describe(self, model: Model) -> str:
        """How many customers went where, in lines."""
        counts = [(self.segments[s["id"]], s["name"]) for s in model.segments]
        rows = [(f"{n:,}", f"{n / self.rows:.1%}", name) for n, name in counts]
        odd = [f"{self.statuses[s]:,} {s}" for s in scorer.STATUSES[1:] if self.statuses[s]]
        told = f"{self.rows:,} customers by the model of {model.about['run_id']}"
        told += f": {', '.join(odd)}" if odd else ""
        shown = tabulate(rows, tablefmt="plain", disable_numparse=True, colalign=ALIGNED)
        return f"{told}\n{shown}"


# Files -------------------------------------------------------------------------------------


def score_file(
    source: Path,
    target: Path,
    model: Model,
    *,
    segment: str = "",
    encoding: str = "",
    sheet: str = "",
) -> Tally:
    """Score the customers of a CSV, Parquet or Excel file; the target is written whole or not.

    The target has the source's columns, then cluster, segment, distance, second, confidence and
    status; it is Parquet if its name ends so, else CSV. A plain CSV (commas, UTF-8, a header in
    the first line) and Parquet are streamed in constant memory; whatever else the series reads is
    read whole. `segment` keeps the customers of one segment, by its name or id; `encoding` and
    `sheet` say how the file is to be read, instead of the card.

    Raises
    ------
    InputError
        The file cannot be read, a column is missing, or values are refused, each with its line.
    """
    if os.path.realpath(target) == os.path.realpath(source):
        raise InputError(f"{target.name} would overwrite its own source; name another file.")
    kept = model.find_segment(segment)
    try:
        if encoding or sheet:
            raise _NotPlain
        return _score(_stream(source, model), source, target, model, kept)
    except _NotPlain:
        return _score(_read_whole(source, model, encoding, sheet), source, target, model, kept)


class Batch(NamedTuple):
    """Some customers of a file: their columns, the model's as numbers, and the lines of all its
    rows where they are known."""

    table: pa.RecordBatch
    numbers: dict[str, Floats]
    lines: Sequence[int] | None = None


def _score(
    batches: Iterator[Batch], source: Path, target: Path, model: Model, kept: int | None
) -> Tally:
    """Score batch by batch into the target; nothing is written behind the first problem."""
    tally, refusal, rows, writer = Tally(), Refusal(source=source.name), 0, None
    stored = target.suffix.lower() == ".parquet"
    with _replace(target) as file, ExitStack() as stack:
        for batch in batches:
            values = model.compute(batch.numbers)
            find_problems(values, model.scorer, refusal, first=rows)
            rows += len(values)
            if refusal.count:
                continue
            scored = _add_scores(batch.table, values, model)
            counts = pa.table(scored.select(PAIR)).group_by(PAIR).aggregate([([], "count_all")])
            for pair in counts.to_pylist():
                tally.add(pair["cluster"], pair["status"], pair["count_all"])
            if kept is not None:
                scored = scored.filter(pc.equal(scored["cluster"], kept))
            table = scored if stored else _disarm(scored)
            writer = writer or stack.enter_context(_open_writer(file, table.schema, stored))
            writer.write_batch(table)
        if refusal.count:
            raise _name_lines(refusal, source, batch.lines)
        if not rows:
            raise InputError(f"{source.name} has no customers; give a table with rows.")
    return tally


def _name_lines(refusal: Refusal, source: Path, lines: Sequence[int] | None) -> Refusal:
    """Name problems by the lines of the file instead of by the numbers of the rows."""
    rows = [problem.row or 0 for problem in refusal.problems]
    begins = _find_lines(source, max(rows)) if lines is None else lines
    found = [begins[row] if row < len(begins) else row + 2 for row in rows]
    pairs = zip(refusal.problems, found, strict=True)
    refusal.problems = [problem._replace(row=line) for problem, line in pairs]
    return refusal


def _find_lines(source: Path, last: int) -> list[int]:
    """The line of a CSV on which each row (from 0 below the header) begins, down to the last."""
    csv.field_size_limit(1 << 30)  # else a long cell is an error
    with source.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        records = text.split_records(file, ",", strict=False)
        return [line for line, _ in islice(records, 1, last + 2)]


def _add_scores(table: pa.RecordBatch, values: Floats, model: Model) -> pa.RecordBatch:
    """The columns of a batch with ours behind them."""
    scores = model.scorer.score(values, _read_codes(table, model))

    def look_up(places: Codes, key: str) -> pa.Array:
        known = pa.array([segment[key] for segment in model.segments])
        return known.take(pa.array(places, mask=places < 0))

    added = {
        "cluster": look_up(scores.position, "id"),
        "segment": look_up(scores.position, "name"),
        "distance": pa.array(scores.distance, from_pandas=True),
        "second": look_up(scores.second, "name"),
        "confidence": pa.array(scores.confidence, from_pandas=True),
        "status": pa.array(scorer.STATUSES).take(pa.array(scores.status)),
    }
    pairs = zip(table.schema.names, table.columns, strict=True)
    rest = {name: cells for name, cells in pairs if name not in cards.OURS}
    return pa.RecordBatch.from_pydict(rest | added)


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
    kept = model.find_segment(segment)
    url = database.expand_url(url)
    table = database.open_table(url, name)
    try:
        database.check_free(table.get_backend(), into)
        _check_table(table, name, model.scorer)
        scored = queries.score_table(table, model.scorer, model.segments)
        chosen = scored if kept is None else queries.keep_segment(scored, kept)
        written = database.save_table(chosen, into, url=url)
        told = written if kept is None else scored
        counts = told.group_by(*PAIR).aggregate(customers=told.count()).execute()
        tally = Tally()
        for cluster, status, customers in counts.itertuples(index=False):
            tally.add(cluster, status, customers)
        return tally
    except InputError:
        raise
    except Exception as error:  # a database's own, of many kinds
        told = database.hide_secrets(str(error), url)
        raise InputError(f"table {name} cannot be scored: {told}.") from None
    finally:
        database.close(table)


def _check_table(table: Any, name: str, model: Scorer) -> None:
    """Refuse a table without rows, or with values that are refused: one line a column and kind."""
    numbers, refusal = queries.take_features(table, model.card, model.columns), Refusal(source=name)
    features = {column: model.card.features[column] for column in numbers}
    limits = {column: scorer.find_limits(feature) for column, feature in features.items()}
    for row in database.count_values(table, numbers, limits).itertuples():
        if not row.rows:
            raise InputError(f"{name} has no customers; name a table with rows.")
        feature = features[row.Index]
        gaps = row.missing if feature.missing == "refuse" else 0
        for count, what in ((gaps, "missing"), (row.beyond, "out of range")):
            if count:
                told = f"{count:,} {'value is' if count == 1 else 'values are'} {what}"
                refusal.add([Problem(None, row.Index, told, describe_allowed(feature))])
    refusal.check()


# Reading -----------------------------------------------------------------------------------


def _stream(source: Path, model: Model) -> Iterator[Batch]:
    """A Parquet file or a plain CSV, batch by batch; `_NotPlain` where it is something else."""
    text.check_file(source, limit=None)
    stored = source.suffix.lower() == ".parquet"
    lines = () if stored else None  # a row of Parquet has no line but its number
    for table in _open_parquet(source) if stored else _open_csv(source, model):
        found = _find_columns(table.schema.names, source, model)
        numbers = {name: _to_numbers(table[header]) for name, header in found.items()}
        if not stored and np.isnan([*numbers.values()]).all(axis=0).any():  # perhaps a blank line
            raise _NotPlain
        yield Batch(_show_numbers(table, found, numbers), numbers, lines)


def _open_parquet(source: Path) -> Iterator[pa.RecordBatch]:
    try:
        file = parquet.ParquetFile(source)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(text.explain_parquet(source, str(error))) from None
    text.check_width(len(file.schema_arrow), source)
    return file.iter_batches(batch_size=ROWS)


def _open_csv(source: Path, model: Model) -> Iterator[pa.RecordBatch]:
    texts = dict.fromkeys(_read_header(source, model), pa.string())
    read = arrow.ReadOptions(block_size=BLOCK)
    parse = arrow.ParseOptions(newlines_in_values=True)
    convert = arrow.ConvertOptions(column_types=texts, null_values=[""], strings_can_be_null=True)
    try:
        yield from arrow.open_csv(source, read, parse, convert)
    except pa.ArrowInvalid:
        raise _NotPlain from None


def _read_header(source: Path, model: Model) -> list[str]:
    """The first line of a plain CSV; `_NotPlain` for any other file."""
    card = model.scorer.card
    with source.open("rb") as file:
        head = file.read(BLOCK)
        file.seek(max(0, source.stat().st_size - ROWS))
        last = file.read().decode("utf-8", "replace").rstrip().splitlines()[-5:]
    for line in head.split(b"\n", 20)[:20]:
        text.check_width(1 + max(map(line.count, (b",", b";", b"\t", b"|"))), source)
    try:
        header = next(csv.reader([head.split(b"\n", 1)[0].decode("utf-8-sig")], strict=True), [])
    except (csv.Error, UnicodeDecodeError):
        raise _NotPlain from None
    firsts = [line.strip(' ,"').split(",", 1)[0].strip(' "').casefold() for line in last]
    plain = card.delimiter in ("", ",") and card.decimal in ("", ".") and text.is_utf8(card)
    plain &= len(header) == len(set(header)) and all(header) and b"\0" not in head
    plain &= {*model.sources, *model.scorer.levels} <= {*columns.match_columns(header, card)}
    if not plain or any(map(text.TOTAL.fullmatch, firsts)):
        raise _NotPlain
    return header


def _read_whole(source: Path, model: Model, encoding: str = "", sheet: str = "") -> Iterator[Batch]:
    """A file as the series reads it, all at once: its encodings, delimiters, signs and mends."""
    notes, card = text.Notes(), model.scorer.card
    table = text.read_text(source, notes, card=card, encoding=encoding, sheet=sheet)
    notes.check(source.name)
    found = _find_columns([*table.columns], source, model)
    cells = pd.DataFrame({name: table[header].str.strip() for name, header in found.items()})
    read = columns.read_sources(cells, card, notes)
    numbers = {name: values.to_numpy() for name, values in read.items()}
    notes.check(source.name)
    shown = pa.RecordBatch.from_pandas(table.mask(table == ""), preserve_index=False)
    yield Batch(_show_numbers(shown, found, numbers), numbers, [*table.index])


def _find_columns(header: list[str], source: Path, model: Model) -> dict[str, str]:
    """Which header holds each of the columns that are read as numbers; levels are there too."""
    found = columns.match_columns(header, model.scorer.card)
    for name in [*model.sources, *model.scorer.levels]:
        if name not in found:
            near = cards.suggest(name, header)
            raise InputError(f"{source.name}: column {name} is missing; {near}")
    return {name: found[name] for name in model.sources}


def _show_numbers(
    table: pa.RecordBatch, found: dict[str, str], numbers: dict[str, Floats]
) -> pa.RecordBatch:
    """The table with numbers where they stand as text."""
    for name, header in found.items():
        if _is_text(table[header].type):
            place, shown = table.schema.get_field_index(header), numbers[name]
            table = table.set_column(place, header, pa.array(shown, from_pandas=True))
    return table


def _to_numbers(cells: pa.Array) -> Floats:
    """A column as float64, NaN where missing; `_NotPlain` where a cell is no plain number."""
    if pa.types.is_boolean(cells.type):
        raise _NotPlain
    try:
        try:
            values = _cast(cells)
        except pa.ArrowInvalid:  # spaces, words for a gap
            bare = pc.utf8_trim_whitespace(cells)
            missing = pc.is_in(pc.utf8_lower(bare), pa.array(sorted(text.MISSING)))
            values = _cast(pc.if_else(missing, None, bare))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise _NotPlain from None
    if np.isinf(values).any():
        raise _NotPlain
    return values


def _cast(cells: pa.Array) -> Floats:
    return pc.cast(cells, pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def _read_codes(table: pa.RecordBatch, model: Model) -> Codes | None:
    """The codes (n, c) of the levels in the distance; each distinct cell is read once."""
    found, codes = columns.match_columns(table.schema.names, model.scorer.card), []
    for name in model.scorer.levels:
        words = pc.cast(table[found[name]], pa.string()).dictionary_encode("encode")
        known, cells = model.scorer.card.descriptors[name], words.dictionary.to_pylist()
        try:
            levels = [columns.read_level(cell or "", known) for cell in cells]
        except InputError as error:
            raise InputError(f"column {name}: every value {error}") from None
        codes.append(model.scorer.encode(name, levels)[words.indices.to_numpy()])
    return np.stack(codes, axis=1) if codes else None


# Writing -----------------------------------------------------------------------------------


@contextmanager
def _replace(target: Path) -> Iterator[BinaryIO]:
    """A file that takes the target's place and mode when it is whole; `Unwritable` if it cannot.

    What goes to a device or a pipe is written through to it then.
    """
    place = Path(os.path.realpath(target))  # where a link leads
    whole = place.with_name(f".{place.name}.partial")
    try:
        if target.is_dir():
            raise OSError("it is a folder")
        if target.exists() and not target.is_file():
            with TemporaryFile() as file:
                yield file
                file.seek(0)
                with target.open("wb") as through:
                    shutil.copyfileobj(file, through)
            return
        with whole.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if place.exists():
            shutil.copymode(place, whole)
        whole.replace(place)
    except OSError as error:
        told = f"{target}: {error.strerror or error}; name another place."
        raise Unwritable(told) from None
    finally:
        with suppress(OSError):
            whole.unlink()


def _open_writer(file: BinaryIO, schema: pa.Schema, stored: bool) -> Any:
    if not stored:
        return arrow.CSVWriter(file, schema)
    texts = [field.name for field in schema if _is_text(field.type)]
    return parquet.ParquetWriter(file, schema, use_dictionary=texts)


def _disarm(table: pa.RecordBatch) -> pa.RecordBatch:
    """The table with texts disarmed that a spreadsheet would run."""
    columns = table.columns
    for place, cells in enumerate(columns):
        if _is_text(cells.type):
            columns[place] = texts = cells.cast(pa.string())
            if pc.any(pc.match_substring_regex(texts, FORMULA)).as_py():
                columns[place] = pa.array(map(disarm, texts.to_pylist()), pa.string())
    names = [disarm(name) for name in table.schema.names]
    return pa.RecordBatch.from_arrays(columns, names=names)


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)
