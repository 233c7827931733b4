"""Tables as text: files, delimiters, headers, what was found, numbers as people write them."""

from __future__ import annotations

import codecs
import csv
import glob
import hashlib
import io
import re
from collections import Counter
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from segmentation import InputError
from segmentation.customers.card import COUNT, ROW, Card, clean_text

LARGE = 500_000
"""Rows of a Parquet file from which on it stays where it is; see `extracts`."""

MISSING = frozenset({"", "-", "–", "?", "na", "n/a", "#n/a", "nan", "null", "none"})
LARGEST_FILE = 300_000_000
"""Bytes of a file that is read into memory; a larger one is refused, not met by a dead kernel."""

DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
TOTALS = frozenset({"total", "totals", "grand total", "sum", "summe", "gesamt"})
KINDS = {
    b"PK\x03\x04": "an Excel or zip file; save it as CSV",
    b"PAR1": "Parquet; let its name end in .parquet",
    b"%PDF": "a PDF; export the table as CSV",
    b"\x1f\x8b": "compressed; unpack it first",
    b"<": "a web page or XML, perhaps an error page; export the table as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel file; save it as CSV",
    b"{": "JSON; export the table as CSV",
    b"[{": "JSON; export the table as CSV",
    b"[[": "JSON; export the table as CSV",
}
"""What files begin with that are no CSV, and the mend."""

BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclass(frozen=True)
class Finding:
    """What was found in a table: where, what, in how many rows, and what to do or was done."""

    column: str
    rule: str
    rows: int
    done: str
    examples: str = ""

    def __str__(self) -> str:
        where = f"column {self.column}: " if self.column else ""
        shown = f" ({self.examples})" if self.examples else ""
        return f"{where}{self.rule}{shown}; {self.done}".rstrip(".") + "."


class Notes:
    """What is found while a table is read: problems to refuse it for, and mends to tell of."""

    def __init__(self) -> None:
        self.problems: list[Finding] = []
        self.mends: list[Finding] = []
        self.point = False  # whether a plain 1.234 has a decimal point: commas part the columns

    def refuse(self, column: str, rule: str, mend: str, cells: pd.Series | None = None) -> None:
        """Note a problem, with the lines of some cells as examples."""
        rows = 0 if cells is None else len(cells)
        self.problems.append(Finding(column, rule, rows, mend, _show_cells(cells)))

    def tell(self, column: str, rule: str, rows: int, done: str) -> None:
        """Note what was mended or should be known."""
        self.mends.append(Finding(column, rule, rows, done))

    def check(self, name: str) -> None:
        """Refuse the table where there is a problem, all of them at once."""
        if self.problems:
            raise InputError("\n".join(f"{name}: {problem}" for problem in self.problems))

    def tabulate(self) -> pd.DataFrame:
        """One row a finding: column, finding, rows, done."""
        rows = [(note.column, note.rule, note.rows, note.done) for note in self.mends]
        return pd.DataFrame(rows, columns=["column", "finding", "rows", "done"])


def _show_cells(cells: pd.Series | None) -> str:
    """The first cell and the lines of the first three; of ids only the lines."""
    if cells is None or cells.empty:
        return ""
    if cells.index.name == COUNT:  # levels, each with its customers
        return f"{clean_text(str(cells.iloc[0]))[:40]!r} of {cells.index[0]:,} customers"
    lines = [f"{line}" for line in cells.index[:3]]
    more = "…" if len(cells) > 3 else ""
    where = f"line{'s' if len(lines) > 1 else ''} {', '.join(lines)}{more}"
    return where if cells.name == ROW else f"{clean_text(str(cells.iloc[0]))[:40]!r} in {where}"


# Files -------------------------------------------------------------------------------------


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_text(
    source: Path, notes: Notes, *, card: Card | None = None, sample: bool = False
) -> pd.DataFrame:
    """Every cell as text, nothing guessed; the index is the line (or row) of the file.

    CSV with the card's encoding and delimiter or found ones, Parquet, Excel. Of a large Parquet
    file a `sample` of some ten thousand rows, drawn by their numbers.
    """
    parquet = source.suffix.lower() == ".parquet"
    check_file(source, card, limit=None if parquet else LARGEST_FILE)
    notes.point = source.suffix.lower() in (".parquet", ".xlsx", ".xlsm")
    if parquet:
        return _read_parquet(source, part=1 + count_rows(source) // LARGE if sample else 1)
    if source.suffix.lower() in (".xlsx", ".xlsm"):
        return _read_excel(source, notes)
    return _read_csv(source, notes, card)


def check_file(source: Path, card: Card | None = None, *, limit: int | None = LARGEST_FILE) -> None:
    """Refuse what is no file, or has more bytes than the limit."""
    mend = f"correct `table:` in {card.path.name}" if card else "give the path of a table"
    if not source.exists():
        raise InputError(f"{source}: no such table; {mend}.")
    if not source.is_file():
        raise InputError(f"{source} is not a file; {mend}.")
    if limit and (size := source.stat().st_size) > limit:
        raise InputError(
            f"{source.name} has {size / 1e6:,.0f} MB, the limit is {limit / 1e6:,.0f} MB; "
            "save it as Parquet, which is read at any size, or keep only the card's columns."
        )


def _read_parquet(source: Path, *, part: int) -> pd.DataFrame:
    drawn = f"WHERE hash(file_row_number) % {20 * part} = 0" if part > 1 else ""
    query = f"SELECT * EXCLUDE file_row_number FROM read_parquet(?, file_row_number = true) {drawn}"
    duckdb = load_extra("duckdb", "Parquet")
    try:
        with duckdb.connect() as db:
            return _as_text(db.execute(query, [glob.escape(str(source))]).df())
    except duckdb.Error:
        raise InputError(f"{source.name} is not a Parquet file; write it anew.") from None


def count_rows(source: Path) -> int:
    """How many rows a Parquet file has, as its footer says."""
    duckdb = load_extra("duckdb", "Parquet")
    query = "SELECT coalesce(sum(num_rows), 0) FROM parquet_file_metadata(?)"
    try:
        with duckdb.connect() as db:
            rows: tuple[int] = db.execute(query, [glob.escape(str(source))]).fetchone()
    except duckdb.Error:
        raise InputError(f"{source.name} is not a Parquet file; write it anew.") from None
    return int(rows[0])


def _read_excel(source: Path, notes: Notes) -> pd.DataFrame:
    load_extra("openpyxl", "Excel")
    try:
        frame = pd.read_excel(source, header=None, dtype=str, keep_default_na=False)
    except Exception:
        raise InputError(f"{source.name} is no readable Excel file; save it as CSV.") from None
    rows = enumerate(frame.fillna("").astype(str).to_numpy().tolist(), 1)
    records = [(line, cells) for line, cells in rows if "".join(cells).strip()]
    return _tabulate(records, source, notes)


def load_extra(name: str, what: str, *, extra: str = "tables") -> Any:
    """A library of an extra, or a refusal that says how to get it."""
    try:
        return import_module(name)
    except ImportError:
        raise InputError(f"{what} needs {name}; pip install 'segmentation[{extra}]'.") from None


def _as_text(frame: pd.DataFrame) -> pd.DataFrame:
    whole = [c for c in frame.select_dtypes("floating") if (frame[c].dropna() % 1 == 0).all()]
    typed = frame.astype(dict.fromkeys(whole, "Int64")).astype(object)
    text = typed.where(frame.notna(), "").astype(str)
    text.columns = [clean_text(str(column)) for column in text.columns]
    return text.set_axis(pd.RangeIndex(2, len(text) + 2))


def _read_csv(source: Path, notes: Notes, card: Card | None) -> pd.DataFrame:
    content = source.read_bytes()
    wanted = card.columns if card else []
    text = _decode(content, source, card)
    delimiter = (card.delimiter if card else "") or _find_delimiter(text, source, wanted)
    notes.point = delimiter == ","
    try:
        records = _split(text, delimiter)
    except csv.Error as error:
        mend = "close the quotes" if "end of data" in str(error) else "mend its quotes"
        raise InputError(f"{source.name} is not a regular CSV: {error}; {mend}.") from None
    return _tabulate(records, source, notes)


def _tabulate(records: list[tuple[int, list[str]]], source: Path, notes: Notes) -> pd.DataFrame:
    """Records with their lines as a table, its header found, totals and blank columns gone."""
    if not records:
        raise InputError(f"{source.name} is empty; give a table with a header.")
    header, first = _find_header(records, notes)
    _check_width(records[first:], len(header), notes)
    width = len(header)
    rows = [cells[:width] + [""] * (width - len(cells)) for _, cells in records[first:]]
    frame = pd.DataFrame(rows, columns=header, index=[line for line, _ in records[first:]])
    return _drop_blank(_drop_total(frame.astype(str), notes), notes)


def _decode(content: bytes, source: Path, card: Card | None) -> str:
    """The file's text by the card's encoding, its byte-order mark, or UTF-8; never by a guess."""
    begins = content.lstrip()[:8]
    for start, kind in KINDS.items():
        if begins.startswith(start):
            raise InputError(f"{source.name} is no CSV but {kind}.")
    marked = next((name for bom, name in BOMS.items() if content.startswith(bom)), "")
    encoding = (card.encoding if card else "") or marked or "utf-8"
    try:
        text = content.decode(encoding)
    except LookupError:
        raise InputError(f"encoding {encoding} is not known; try utf-8 or cp1252.") from None
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"{source.name} is not {encoding} in line {line}; it may be cp1252: say so by "
            "`encoding:` in the card."
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise InputError(f"{source.name} has a NUL character in line {line}; export it anew.")
    return text


def _split(
    text: str, delimiter: str, *, limit: int | None = None, strict: bool = True
) -> list[tuple[int, list[str]]]:
    """The records that are not blank, each with its first line: (line, cells)."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=strict)
    records, line = [], 1
    for cells in reader:
        if any(cell.strip() for cell in cells):
            records.append((line, cells))
        line = reader.line_num + 1
        if limit and len(records) == limit:
            break
    return records


def find_lines(source: Path, rows: list[int]) -> list[int]:
    """The line of a CSV on which each of some rows (ascending, from 0 below the header) begins."""
    lines, wanted = [], set(rows)
    with source.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader, row, line = csv.reader(file), -1, 1
        for cells in reader:
            if row in wanted and cells:
                lines.append(line)
            row, line = row + bool(cells), reader.line_num + 1
            if len(lines) == len(wanted):
                break
    return [dict(zip(sorted(wanted), lines, strict=False)).get(row, row + 2) for row in rows]


def _find_delimiter(text: str, source: Path, wanted: list[str]) -> str:
    """The delimiter under which most wanted columns are found, else the most even one."""
    scores = {}
    for delimiter in DELIMITERS:
        try:
            records = _split(text, delimiter, limit=100, strict=False)
        except csv.Error:
            continue
        widths = [len(cells) for _, cells in records]
        header = {find_key(cell) for _, cells in records[:5] for cell in cells}
        width, count = Counter(widths).most_common(1)[0] if widths else (1, 0)
        found = sum(find_key(name) in header for name in wanted)
        scores[delimiter] = (found, width > 1 and count / len(widths), width)
    best = max(scores, key=lambda d: scores[d], default=",")
    rivals = [d for d in scores if d != best and scores[d][:2] == scores[best][:2] != (0, False)]
    if rivals and scores[best][0] == 0 and scores[best][1] is not False:
        told = " or ".join(DELIMITERS[d] for d in (best, *rivals))
        raise InputError(
            f"{source.name}: {told} may separate the columns; say which by `delimiter:` in a card."
        )
    return best


def _find_header(records: list[tuple[int, list[str]]], notes: Notes) -> tuple[list[str], int]:
    """The header, below title lines where there are some, and where the rows begin."""
    usual = Counter(len(cells) for _, cells in records[:100]).most_common(1)[0][0]
    filled = [sum(bool(cell.strip()) for cell in cells) for _, cells in records[:20]]
    first = next((i for i, n in enumerate(filled) if n > max(1, usual // 2)), 0)
    if first:
        notes.tell("", "title lines above the header", first, "skipped")
    header = [clean_text(name.lstrip("\ufeff")) for name in records[first][1]]
    numbers = [name for name in header if re.fullmatch(r"[-+]?[0-9]+([.,][0-9]+)?", name)]
    years = [name for name in numbers if re.fullmatch("(19|20)[0-9]{2}", name)]
    if len(numbers) - len(years) > 1 or any(re.fullmatch(r"\S+@\S+\.\S+", name) for name in header):
        notes.refuse("", "the first line looks like data", "give the table a header")
    for name, times in Counter(name for name in header if name).items():
        if times > 1:
            notes.refuse(name, f"stands {times} times in the header", "give each its own name")
    return header, first + 1


def _check_width(records: list[tuple[int, list[str]]], width: int, notes: Notes) -> None:
    """Refuse rows with more cells than the header has; tell of rows with fewer."""
    long = [line for line, cells in records if any(c.strip() for c in cells[width:])]
    if long:
        lines = pd.Series(long, index=long, name=ROW)
        rule = f"{len(long)} rows have more cells than the header's {width}"
        notes.refuse("", rule, "quote cells that hold the delimiter, or name each column", lines)
    if short := sum(len(cells) < width for _, cells in records):
        notes.tell("", "rows with fewer cells than the header", short, "read as missing")


def _drop_total(frame: pd.DataFrame, notes: Notes) -> pd.DataFrame:
    """Without a last line of totals."""
    if len(frame) and str(frame.iloc[-1, 0]).strip(" :").casefold() in TOTALS:
        notes.tell("", "a line of totals at the end", 1, "left out")
        return frame.iloc[:-1]
    return frame


def _drop_blank(frame: pd.DataFrame, notes: Notes) -> pd.DataFrame:
    """Without columns that have no name and no content; with content they are refused."""
    nameless = [i for i, name in enumerate(frame.columns) if not name]
    for i in nameless:
        cells = frame.iloc[:, i]
        filled = cells[cells.str.strip() != ""]
        if len(filled):
            rule = f"column {i + 1} has no name"
            notes.refuse("", rule, "name it in the header, or delete it", filled.rename(ROW))
        else:
            notes.tell("", "an empty column without a name", 0, "left out")
    return frame.iloc[:, [i for i in range(frame.shape[1]) if i not in nameless]]


def find_key(name: str) -> str:
    """What a header is recognised by: its letters and digits."""
    return re.sub(r"[\W_]+", "", clean_text(name).casefold())


# Numbers -----------------------------------------------------------------------------------


SIGNS = re.compile(
    r"^(?:[A-Z]{3}\s?|[€$£¥]\s?)?(?P<sign>[-+]?)(?:[€$£¥]\s?)?"
    r"(?P<core>[0-9](?:[0-9.,'’\s]*[0-9.,])?(?:[eE][-+]?[0-9]+)?|[.,][0-9]+)(?:\s?(?:[€$£¥%]|[A-Z]{3}))?$"
)
WRITTEN = {
    ".": re.compile(r"(?:[0-9]{1,3}(?:([,'’\s])[0-9]{3})(?:\1[0-9]{3})*|[0-9]*)(?:\.[0-9]*)?"),
    ",": re.compile(r"(?:[0-9]{1,3}(?:([.'’\s])[0-9]{3})(?:\1[0-9]{3})*|[0-9]*)(?:,[0-9]*)?"),
}
"""How numbers are written with a decimal point and with a decimal comma."""

WHOLE, PLAIN = r"[-+]?[0-9]+", r"[-+]?[0-9]+(?:\.[0-9]+)?"
GROUPED = r"[-+]?(?:[0-9]+|[0-9]{1,3}\.[0-9]{3})"
"""How most numbers are written, and those of them that may have points between thousands."""


def _strip_signs(cells: pd.Series) -> pd.DataFrame:
    """Sign and digits of each cell without currency and percent; empty where it is no number."""
    return cells.str.extract(SIGNS)[["sign", "core"]]


def _fit(core: pd.Series, decimal: str) -> bool:
    mantissa = core.str.replace(r"[eE].*$", "", regex=True)
    return bool(mantissa.str.fullmatch(WRITTEN[decimal]).all())


def find_decimal(text: pd.DataFrame) -> str:
    """The decimal sign that some column settles for the whole table; empty where none does."""
    votes = set()
    for name in text:
        cells = text[name].drop_duplicates()
        fits = _find_fitting(cells[~cells.str.casefold().isin(MISSING)])
        if len(fits) == 1:
            votes |= fits
    return votes.pop() if len(votes) == 1 else ""


def _find_fitting(cells: pd.Series) -> set[str]:
    """The decimal signs with which all cells that look like numbers can be read."""
    plain = cells.str.fullmatch(PLAIN).astype(bool)
    core = _strip_signs(cells[~plain])["core"].dropna()
    if not plain.any() and core.empty:
        return set()
    grouped = cells[plain].str.fullmatch(GROUPED).all()
    return {decimal for decimal in WRITTEN if _fit(core, decimal) and (decimal == "." or grouped)}


def parse_numbers(
    cells: pd.Series, decimal: str, *, point: bool = False
) -> tuple[pd.Series, str, str]:
    """Cells as numbers, NaN where they are none; what was met and what to do, empty if nothing.

    Currency, percent and thousands signs are read where only one reading is possible; 1.234 beside
    1,234 is never guessed; `point` says that a plain 1.234 stands in a file with decimal points.
    Every distinct cell is read once.
    """
    rows = cells.value_counts(sort=False)
    values, told, mend = _read_distinct(rows.index.to_series(), rows, decimal, point)
    return cells.map(values).astype(float), told, mend


def _read_distinct(
    cells: pd.Series, rows: pd.Series, decimal: str, point: bool
) -> tuple[pd.Series, str, str]:
    """The same for distinct cells, by their text, and how many rows hold each."""
    usual = PLAIN if decimal == "." or (point and not decimal) else WHOLE
    if cells.str.fullmatch(usual).all() and np.isfinite(plain := _to_floats(cells)).all():
        return plain, "", ""
    cells = cells.str.replace("−", "-", regex=False)
    units = cells.str.extract(r"([€$£¥%]|[A-Z]{3})")[0]
    if units.nunique() > 1 or (units.eq("%").any() and units.isna().any()):
        told = "{} values have different currencies or units"
        return cells.map(lambda _: np.nan), told, "bring them to one"
    parts = _strip_signs(cells)
    readings = {d: _convert(parts, d) for d in ([decimal] if decimal else WRITTEN)}
    whole = {d: values for d, values in readings.items() if values.notna().all()}
    if len(whole) == 2 and not readings["."].equals(readings[","]):
        plain = cells.str.fullmatch(r"[-+]?[0-9]+(?:\.[0-9]+)?").all()
        if not (point and plain):
            told = "{} values can be read with a decimal point or a decimal comma"
            return cells.map(lambda _: np.nan), told, "say which by `decimal:` in the card"
    best = max(readings, key=lambda d: int(rows[readings[d].notna()].sum()))
    values = readings[best]
    if values.isna().any():
        return values, "{} values are not numbers", "correct them, or make it a descriptor"
    if (parts["core"] == cells.str.lstrip("+-")).all():
        return values, "", ""
    return values, "currency, percent or thousands signs", "read as plain numbers"


def _convert(parts: pd.DataFrame, decimal: str) -> pd.Series:
    mantissa = parts["core"].str.replace(r"[eE].*$", "", regex=True)
    fits = mantissa.str.fullmatch(WRITTEN[decimal]).fillna(False).astype(bool)
    plain = parts["core"].str.replace(rf"[^0-9eE{decimal}+-]", "", regex=True)
    text = parts["sign"] + plain.str.replace(decimal, ".", regex=False)
    numbers = _to_floats(text.where(fits))
    return numbers.where(np.isfinite(numbers))


def _to_floats(text: pd.Series) -> pd.Series:
    return pd.to_numeric(text, errors="coerce").astype(float)
