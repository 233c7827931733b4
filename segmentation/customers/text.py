"""Tables as text: the lines of a file, its sheets, header and footer; what was found."""

from __future__ import annotations

import codecs
import csv
import glob
import io
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import pandas as pd

from segmentation import InputError
from segmentation.customers.card import ROW, Card, clean_text, suggest
from segmentation.customers.numbers import ERRORS, MISSING, is_number, parse_numbers

SAMPLED = 500_000  # rows of a Parquet file from which on a draft looks at some ten thousand of them
LARGEST_FILE = 300_000_000  # bytes of a file that is read into memory; a larger one is refused
HEAD = 1_000_000  # bytes of a large CSV that are read to find its header and its delimiter
EXCEL = (".xlsx", ".xlsm")
DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
MOST_COLUMNS = 2_000  # of a file that is read as text
MOST_CELLS = 30_000_000  # of an Excel sheet, as its dimensions say
LARGEST_BOOK = 200_000_000  # bytes of a workbook's parts when unpacked
WORDS_OF_TOTALS = """total|totals|grand total|subtotal|sum|summe|gesamt|gesamtsumme|insgesamt|somme
totale|totaal|suma|soma|summa|razem|celkem|итого|合計|总计|average|mean|mittelwert|durchschnitt
moyenne|promedio|media|média"""
TOTALS = frozenset(WORDS_OF_TOTALS.replace("\n", "|").split("|"))
TOTAL = re.compile(rf"(?:{'|'.join(TOTALS)})\s*(?:[:(].*)?")
RUNNING = re.compile(r"(?:Unnamed: ?\d+(?:_level_\d+)?|__index_level_\d+__)?")  # or no name
NO_ENCODINGS = {"punycode", "idna", "undefined", "unicode-escape", "raw-unicode-escape"}
KINDS = {
    (b"PK\x03\x04",): "an Excel or zip file; save it as CSV",
    (b"PAR1",): "Parquet; let its name end in .parquet",
    (b"%PDF",): "a PDF; export the table as CSV",
    (b"\x1f\x8b",): "compressed; unpack it first",
    (b"<",): "a web page or XML, perhaps an error page; export the table as CSV",
    (b"\xd0\xcf\x11\xe0",): "an old Excel file; save it as CSV",
    (b"{", b"[{", b"[["): "JSON; export the table as CSV",
}  # what files begin with that are no CSV, and the mend
BOMS = {
    (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE): "utf-32",
    (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE): "utf-16",
}
Records = list[tuple[int, list[str]]]  # lines that are not blank: where they begin, their cells


class Notes:
    """What is found while a table is read: problems to refuse it for, and mends to tell of."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.mends: list[tuple[str, str, int, str]] = []
        self.questions: list[str] = []
        self.point = False  # whether a plain 1.234 has a decimal point: commas part the columns

    def refuse(self, column: str, rule: str, mend: str, cells: pd.Series | None = None) -> None:
        """Note a problem, with the lines of some cells as examples."""
        where, shown = f"column {column}: " if column else "", ""
        if cells is not None and len(cells):  # of ids only the lines
            first = "" if cells.name == ROW else f"{clean_text(str(cells.iloc[0]))[:40]!r} in "
            shown = f" ({first}{_list_lines(cells.index)})"
        self.problems.append(f"{where}{rule}{shown}; {mend}".rstrip(".") + ".")

    def tell(self, column: str, rule: str, rows: int, done: str) -> None:
        """Note what was mended or should be known."""
        self.mends.append((column, rule, rows, done))

    def ask(self, column: str, rule: str, rows: int, done: str) -> None:
        """Note, as a warning, what only its owner can know: what was done, and the mend."""
        self.tell(column, rule, rows, done)
        self.questions.append(f"{column}: {rule}; {done}.")

    def check(self, name: str) -> None:
        """Refuse the table where there is a problem, all of them at once."""
        if self.problems:
            raise InputError("\n".join(f"{name}: {problem}" for problem in self.problems))

    def tabulate(self) -> pd.DataFrame:
        """One row a finding: column, finding, rows, done."""
        return pd.DataFrame(self.mends, columns=["column", "finding", "rows", "done"])


def _list_lines(lines: Sequence[Any]) -> str:
    """Lines as they are told: the first three."""
    shown = ", ".join(map(str, lines[:3])) + ("…" if len(lines) > 3 else "")
    return f"line{'s' if len(lines) > 1 else ''} {shown}"


def load_extra(name: str, what: str) -> Any:
    """A library of the extra `tables`, or a refusal that says how to get it."""
    try:
        return import_module(name)
    except ImportError:
        raise InputError(f"{what} needs {name}; pip install 'customer-segments[tables]'.") from None


def read_text(
    source: Path,
    notes: Notes,
    *,
    card: Card | None = None,
    sample: bool = False,
    encoding: str = "",
    sheet: str = "",
) -> pd.DataFrame:
    """Every cell as text, nothing guessed; the index is the line (or row) of the file.

    CSV as the card says or as found, Excel, Parquet (a `sample` where it has very many rows).
    `encoding` and `sheet` win over the card's.
    """
    kind = source.suffix.lower()
    check_file(source, card, limit=None if kind == ".parquet" else LARGEST_FILE)
    notes.point = kind in (".parquet", *EXCEL)
    wanted, sheet = (card.headers, sheet or card.sheet) if card else ([], sheet)
    if sheet and kind not in EXCEL:
        raise InputError(f"{source.name} has no sheets; leave `sheet:` (or `--sheet`) out.")
    if kind == ".parquet":
        frame = _read_parquet(source, sample=sample)
    elif kind in EXCEL:
        frame = _tabulate(_read_excel(source, sheet, notes), source, notes)
    else:
        records, _ = _read_records(source.read_bytes(), source, notes, card, encoding)
        frame = _tabulate(records, source, notes)
        alone = frame.columns[0] if frame.shape[1] == 1 else None
        if alone is not None and alone.casefold() not in map(str.casefold, wanted):
            told = f"{source.name} has one column alone"  # what it says may be a secret of its own
            raise InputError(f"{told}; give a table whose columns a comma, semicolon or tab parts.")
    return _drop_nameless(frame, notes, wanted)


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
    try:
        source.open("rb").close()
    except OSError as error:
        raise InputError(
            f"{source.name} cannot be read: {error.strerror}; see whether you may."
        ) from None


def is_utf8(card: Card) -> bool:
    """Whether a CSV of the card may be UTF-8, as it names no other encoding."""
    return card.encoding.casefold().replace("-", "") in ("", "utf8", "utf8sig")


def check_width(width: int, source: Path) -> None:
    """Refuse very many columns before they are parsed: each takes time and memory."""
    if width > MOST_COLUMNS:
        told = f"{source.name} has {width:,} columns, the limit is {MOST_COLUMNS:,}"
        raise InputError(f"{told}; keep only those that you need.")


def _read_parquet(source: Path, *, sample: bool) -> pd.DataFrame:
    rows = count_rows(source)
    part = 1 + rows // SAMPLED if sample else 1
    drawn = f"WHERE hash(file_row_number) % {20 * part} = 0" if part > 1 else ""
    query = f"SELECT * EXCLUDE file_row_number FROM read_parquet(?, file_row_number = true) {drawn}"
    frame = _ask_parquet(query, source)
    whole = [c for c in frame.select_dtypes("floating") if (frame[c].dropna() % 1 == 0).all()]
    typed = frame.astype(dict.fromkeys(whole, "Int64")).astype(object)
    text = typed.where(frame.notna(), "").astype(str)
    text.columns = [clean_text(str(column)) for column in text.columns]
    return text.set_axis(pd.RangeIndex(2, len(text) + 2))


def count_rows(source: Path) -> int:
    """How many rows a Parquet file has, as its footer says; refused where columns share a name."""
    names = "SELECT lower(path_in_schema) AS name FROM parquet_metadata(?) WHERE row_group_id = 0"
    twice = _ask_parquet(f"{names} GROUP BY ALL HAVING count(*) > 1", source)["name"]
    if len(twice):
        raise InputError(
            f"{source.name}: column {clean_text(twice[0])} stands twice (small letters or capitals "
            "do not tell columns of Parquet apart); give each its own name."
        )
    query = "SELECT coalesce(sum(num_rows), 0) AS rows FROM parquet_file_metadata(?)"
    return int(_ask_parquet(query, source)["rows"].iloc[0])


def _ask_parquet(query: str, source: Path) -> pd.DataFrame:
    duckdb = load_extra("duckdb", "Parquet")
    try:
        with duckdb.connect() as db:
            return db.execute(query, [glob.escape(str(source))]).df()
    except duckdb.Error as error:
        raise InputError(explain_parquet(source, str(error))) from None


def explain_parquet(source: Path, error: str) -> str:
    """Why a Parquet file cannot be read: whether it is none, or what its reader says."""
    check_file(source, limit=None)
    with source.open("rb") as file:
        begins = file.read(4)
        file.seek(max(0, source.stat().st_size - 4))
        marks = {begins, file.read()}
    if b"PARE" in marks:
        return f"{source.name} is encrypted Parquet; write it without a key."
    if marks != {b"PAR1"}:
        cut = begins == b"PAR1"
        what = "begins like Parquet and is cut short" if cut else "is not a Parquet file"
        return f"{source.name} {what}; write it anew."
    told = error.partition("\n")[0].replace(str(source), source.name).rstrip(" .")
    return f"{source.name} is Parquet that cannot be read: {told}; write it anew."


def _read_excel(source: Path, sheet: str, notes: Notes) -> Records:
    """The rows of a workbook's table, weighed before they are unpacked."""
    openpyxl = load_extra("openpyxl", "Excel")
    try:
        with zipfile.ZipFile(source) as parts:
            size = sum(part.file_size for part in parts.infolist() if part.filename[-4:] == ".xml")
            _check_book(size <= LARGEST_BOOK, source, f"{size / 1e6:,.0f} MB unpacked")
            book = openpyxl.load_workbook(source, read_only=True, data_only=True)
            try:
                return _read_sheet(_find_sheet(book, sheet, source), parts, source, notes)
            finally:
                book.close()
    except (InputError, MemoryError):
        raise
    except Exception:
        raise InputError(f"{source.name} is no readable Excel file; save it as CSV.") from None


def _check_book(holds: bool, source: Path, weight: str) -> None:
    if not holds:
        mend = "delete empty rows and columns beyond the table, or save it as CSV or Parquet"
        raise InputError(f"{source.name} is too large for Excel's reader: {weight}; {mend}.")


def _find_sheet(book: Any, wanted: str, source: Path) -> Any:
    """The sheet of that name, or the only one that holds a table: two columns in ten rows."""
    sheets = {sheet.title: sheet for sheet in book.worksheets}
    if wanted:
        names = {name.casefold(): name for name in sheets}
        if wanted.casefold() not in names:
            told = f"{source.name} has no sheet {wanted!r}"
            raise InputError(f"{told}; {suggest(wanted, sheets)} Correct `sheet:` (or `--sheet`).")
        return sheets[names[wanted.casefold()]]
    filled = {}
    for name, sheet in sheets.items():
        if sheet.sheet_state == "visible":
            rows = sheet.iter_rows(values_only=True, max_col=99, max_row=100)
            filled[name] = sum(sum(cell is not None for cell in row) > 1 for row in rows)
    tables = [name for name, rows in filled.items() if rows >= 10]
    if len(tables) > 1:
        told = ", ".join(map(repr, tables))
        mend = f"name one by `sheet: {tables[0]!r}` in a card, or by `--sheet {tables[0]!r}`"
        raise InputError(f"{source.name} holds tables in {len(tables)} sheets: {told}; {mend}.")
    best = tables[0] if tables else max(filled or sheets, key=lambda name: filled.get(name, 0))
    return sheets[best]


def _read_sheet(sheet: Any, parts: zipfile.ZipFile, source: Path, notes: Notes) -> Records:
    width, rows = sheet.max_column or 1, sheet.max_row or 1
    _check_book(width * rows <= MOST_CELLS, source, f"{rows:,} rows × {width:,} columns")
    check_width(width, source)
    content = parts.read(sheet._worksheet_path.lstrip("/"))
    if re.search(rb"<(?:\w+:)?f[ />]", content):
        _check_formulas(content, source, sheet.title)
    sheet.reset_dimensions()  # as they may be wrong
    records, errors, weight = list[tuple[int, list[str]]](), list[int](), 0
    for line, row in enumerate(sheet.iter_rows(values_only=True), 1):
        told = [_show_value(value) for value in row]
        cells = ["" if c[:1] == "#" and c.casefold() in ERRORS else c for c in told]
        errors += [line] * (cells != told)
        if any(cells):
            records.append((line, cells))
            weight += sum(map(len, cells))
            check_width(len(cells), source)
            _check_book(weight <= LARGEST_FILE, source, "its texts are beyond 300 MB")
    if errors:
        rule = "rows with errors of Excel such as #DIV/0!"
        notes.tell("", rule, len(errors), f"read as missing: {_list_lines(errors)}")
    width = max((len(cells) for _, cells in records), default=0)
    return [(line, cells + [""] * (width - len(cells))) for line, cells in records]


def _show_value(value: Any) -> str:
    """A cell of Excel as text: whole numbers without a fraction."""
    if value is None:
        return ""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def _check_formulas(content: bytes, source: Path, sheet: str) -> None:
    """Refuse formulas whose values were never stored: they would be read as nothing."""
    bare = re.findall(
        rb'<(?:\w+:)?c(?![^>]*\bt="str")[^>]*\br="([A-Z]+[0-9]+)"[^>]*>\s*<(?:\w+:)?f\b[^>]*?'
        rb"(?:/>|>[^<]*</(?:\w+:)?f>)\s*(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v></(?:\w+:)?v>)?\s*</(?:\w+:)?c>",
        content,
    )
    if bare:
        places = ", ".join(cell.decode() for cell in bare[:3]) + ("…" if len(bare) > 3 else "")
        told = f"{len(bare)} formulas of sheet {sheet!r} have no stored value ({places})"
        raise InputError(f"{source.name}: {told}; open it in Excel or LibreOffice and save it.")


def _read_records(
    content: bytes, source: Path, notes: Notes, card: Card | None, encoding: str = ""
) -> tuple[Records, str]:
    """The records of a CSV and its delimiter, by the card or as found."""
    text = _decode(content, source, encoding or (card.encoding if card else ""))
    for line in islice(io.StringIO(text[: 10 * HEAD], newline=None), 100):
        check_width(1 + max(map(line.count, DELIMITERS)), source)
    wanted = card.headers if card else []
    delimiter = (card.delimiter if card else "") or _find_delimiter(text, source, wanted)
    notes.point = delimiter == ","
    try:
        records = list(split_records(io.StringIO(text, newline=""), delimiter))
    except csv.Error as error:
        mend = "close the quotes" if "end of data" in str(error) else "mend its quotes"
        raise InputError(f"{source.name} is not a regular CSV: {error}; {mend}.") from None
    check_width(max((len(cells) for _, cells in records), default=0), source)
    return records, delimiter


def read_header(source: Path, notes: Notes, card: Card) -> tuple[list[str], int, int, str]:
    """Of a large CSV: header, line of the first row, records above it, and delimiter."""
    with source.open("rb") as file:
        head = file.read(HEAD)
    last = head.rfind(b"\n") + 1 if len(head) == HEAD else len(head)
    records, delimiter = _read_records(head[:last], source, notes, card)
    if len(records) < 2:
        raise InputError(f"{source.name} is empty; give a table with a header and rows.")
    header, first = _find_header(records, notes)
    line = records[first][0]
    broken = sum(cell.count("\n") for _, cells in records[:first] for cell in cells)
    return header, line, line - 1 - broken, delimiter


def _decode(content: bytes, source: Path, encoding: str) -> str:
    """The file's text by the encoding, its byte-order mark, or UTF-8; never by a guess."""
    begins = content.lstrip()[:8]
    for starts, kind in KINDS.items():
        if begins.startswith(starts):
            raise InputError(f"{source.name} is no CSV but {kind}.")
    marked = (name for marks, name in BOMS.items() if content.startswith(marks))
    encoding = encoding or next(marked, "utf-8-sig")
    try:
        if codecs.lookup(encoding).name in NO_ENCODINGS:
            raise LookupError
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line, name = content[: error.start].count(b"\n") + 1, encoding.removesuffix("-sig")
        mend = "run again with `--encoding cp1252` (or `encoding: cp1252` in a card)"
        mend = f"it may be cp1252: {mend}" if "1252" not in name else "name its encoding"
        raise InputError(f"{source.name} is not {name} in line {line}; {mend}.") from None
    except (LookupError, ValueError):
        told = clean_text(encoding)[:40]
        raise InputError(f"encoding {told} is not known; try utf-8 or cp1252.") from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise InputError(f"{source.name} has a NUL character in line {line}; export it anew.")
    return text


def split_records(
    file: Iterable[str], delimiter: str, *, strict: bool = True
) -> Iterator[tuple[int, list[str]]]:
    """The records that are not blank, each with its first line: (line, cells)."""
    reader, line = csv.reader(file, delimiter=delimiter, strict=strict), 1
    for cells in reader:
        if any(cell.strip() for cell in cells):
            yield line, cells
        line = reader.line_num + 1


def _find_delimiter(text: str, source: Path, wanted: list[str]) -> str:
    """The delimiter under which most wanted columns are found, else the most even one."""
    scores = {}
    for delimiter in DELIMITERS:
        with suppress(csv.Error):
            records = split_records(io.StringIO(text, newline=""), delimiter, strict=False)
            rows = [cells for _, cells in islice(records, 100)]
            header = {find_key(cell) for cells in rows[:5] for cell in cells}
            width, count = Counter(map(len, rows)).most_common(1)[0] if rows else (1, 0)
            found = sum(find_key(name) in header for name in wanted)
            scores[delimiter] = (found, count / len(rows) if width > 1 else 0.0, width)
    best = max(scores, key=scores.__getitem__, default=",")
    rivals = [d for d in scores if scores[d][:2] == scores[best][:2]]
    if len(rivals) > 1 and scores[best][0] == 0 and scores[best][1] > 0:
        told = " or ".join(DELIMITERS[d] for d in rivals)
        mend = "say which by `delimiter:` in a card"
        raise InputError(f"{source.name}: {told} may separate the columns; {mend}.")
    return best


def _find_header(records: Records, notes: Notes) -> tuple[list[str], int]:
    """The header, below title lines where there are some, and which record is the first row."""
    usual = Counter(len(cells) for _, cells in records[:100]).most_common(1)[0][0]
    filled = [sum(bool(cell.strip()) for cell in cells) for _, cells in records[:20]]
    place = next((i for i, n in enumerate(filled) if n > max(1, usual // 2)), 0)
    rows = [[clean_text(cell.lstrip("\ufeff")) for cell in cells] for _, cells in records[:60]]
    grouped = [i for i in (place - 1, place) if i >= 0 and _is_grouped(rows[i:])]
    titles = min([*grouped, place])
    header, first = rows[place], place + 1
    if titles:
        notes.tell("", "title lines above the header", titles, "skipped")
    if grouped:
        header, first = _join_names(rows[titles], rows[titles + 1]), titles + 2
        if not header[0] and first < len(rows) and not any(rows[first][1:]):  # as pandas has it
            header, first = [rows[first][0], *header[1:]], first + 1
        line = records[titles][0]
        notes.tell("", "a line of groups above the header", 1, f"joined to it: line {line}")
    if _describes(rows[first : first + 1], rows[first + 1 :]):
        line = records[first][0]
        notes.tell("", "a line of units below the header", 1, f"left out: line {line}")
        first += 1
    numbers = [name for name in header if re.fullmatch(r"[-+]?[0-9]+([.,][0-9]+)?", name)]
    years = [name for name in numbers if re.fullmatch("(19|20)[0-9]{2}", name)]
    addresses = [name for name in header if re.fullmatch(r"\S+@\S+\.\S+", name)]
    if addresses or len(numbers) - len(years) > 1:
        notes.refuse("", "the first line looks like data", "give the table a header")
    for name, times in Counter(filter(None, header)).items():
        if times > 1:
            notes.refuse(name, f"stands {times} times in the header", "give each its own name")
    return header, first


def _is_grouped(rows: list[list[str]]) -> bool:
    """Whether names of groups, with gaps or repeats where cells were merged, stand above names."""
    above = rows[0]
    start = next((i for i, name in enumerate(above) if name), len(above))
    merged = [i for i, name in enumerate(above) if i > start and (not name or name in above[:i])]
    named = [bool(i < len(row) and row[i]) for row in rows[1:2] for i in merged]
    many = sum(map(bool, above)) > 1  # one alone is a title
    return many and sum(named) > len(named) / 2 and _describes(rows[1:2], rows[2:])


def _join_names(groups: list[str], names: list[str]) -> list[str]:
    """The names, each behind its group where some stand twice; the group's where there is none."""
    above = pd.Series(groups, dtype="str").reindex(range(len(names)), fill_value="")
    joined = above.where(above != "").ffill().fillna("") + " " + pd.Series(names, dtype="str")
    own = [name or above[i] for i, name in enumerate(names)]
    twice = len({*filter(None, names)}) < len([*filter(None, names)])
    return [joined[i].strip() if twice and names[i] else own[i] for i in range(len(names))]


def _describes(line: list[list[str]], rows: list[list[str]]) -> bool:
    """Whether a line has words, and no number, above columns of numbers; a customer has not."""
    if not line or len(rows) < 3:
        return False
    kinds = [_find_kind([row[i] for row in rows if i < len(row)]) for i in range(len(line[0]))]
    above = [cell for cell, kind in zip(line[0], kinds, strict=True) if kind == "number"]
    words = [cell for cell in above if cell.casefold() not in MISSING]
    coded = [c for c, kind in zip(line[0], kinds, strict=True) if kind == "code"]
    known = any(map(is_number, above)) or any(re.search(r"\d", cell) for cell in coded)
    return len(words) >= max(1, len(above) / 2) and not known


def _find_kind(cells: list[str]) -> str:
    """Whether cells of a column are a number each, or a code: each with a digit."""
    known = [cell for cell in map(str.strip, cells) if cell.casefold() not in MISSING]
    if known and sum(map(is_number, known)) > 0.8 * len(known):
        return "number"
    return "code" if known and all(re.search(r"\d", cell) for cell in known) else "words"


def _part_footer(records: Records) -> tuple[Records, Records]:
    """The rows, and behind them the lines that are none but totals, remarks or filters."""
    most = min(1000, max(len(records) // 2, min(5, len(records) - 1)))
    half = [cells for _, cells in records[:most]]
    columns = [[*filter(None, map(str.strip, c))] for c in zip_longest(*half, fillvalue="")]
    kinds, end = [_find_kind(cells[:100]) for cells in columns], len(records)
    while end > len(half) and _is_footer([*map(str.strip, records[end - 1][1])], columns, kinds):
        end -= 1
    return records[:end], records[end:]


def _is_footer(cells: list[str], columns: list[list[str]], kinds: list[str]) -> bool:
    """Whether a line is a total, or holds little and nothing that looks like its column.

    A customer looks like those above: a number among numbers, a digit in a code, not more words.
    """
    filled = [i for i, cell in enumerate(cells) if cell]
    first = filled[0]
    cells = cells[: len(columns)] if first < len(columns) else []
    odd = [i for i in filled if i >= len(columns) or _is_unlike(cells[i], columns[i], kinds[i])]
    if cells and TOTAL.fullmatch(cells[first].casefold().rstrip(" .*")):
        return not any(TOTAL.fullmatch(cell.casefold()) for cell in columns[first])
    if len(filled) <= max(1, len(columns) // 2) and (odd == filled or cells[first].endswith(":")):
        return first in odd
    numbers = [i for i in filled if i < len(columns) and kinds[i] == "number" and i not in odd]
    unnamed = first in odd or (first > 0 and len(columns[0]) == max(map(len, columns)))
    return unnamed and len(numbers) > 1 and all(_is_sum(cells[i], columns[i]) for i in numbers)


def _is_unlike(cell: str, others: list[str], kind: str) -> bool:
    if kind == "number":
        return not is_number(cell) and cell.casefold() not in MISSING
    marks = [mark for mark in ":=" if mark in cell and not any(mark in each for each in others)]
    if marks or (kind == "code" and not re.search(r"\d", cell)):
        return True
    return len(cell.split()) > max((len(other.split()) for other in others), default=0)


def _is_sum(cell: str, others: list[str]) -> bool:
    """Whether a number is at least the sum of others that are not negative."""
    values = parse_numbers(pd.Series([cell, *others], dtype="str"), "", point=True).values
    return bool(values[1:].min() >= 0 and values[0] >= values[1:].sum() > values[1:].max())


def _tabulate(records: Records, source: Path, notes: Notes) -> pd.DataFrame:
    """Records as a table with their lines, without totals and blank columns; uneven ones noted."""
    if not records:
        raise InputError(f"{source.name} is empty; give a table with a header.")
    header, first = _find_header(records, notes)
    records, below = _part_footer(records[first:])
    if below:
        begins = next(filter(None, map(str.strip, below[0][1]))).casefold()
        total = len(below) == 1 and TOTAL.match(begins)
        rule = "a line of totals at the end" if total else "lines of totals or remarks at the end"
        notes.tell("", rule, len(below), f"left out: {_list_lines([line for line, _ in below])}")
    wider = bool(records) and all(len(cells) == len(header) + 1 for _, cells in records)
    if wider and _is_running(pd.Series([cells[0] for _, cells in records], dtype="str")):
        header = ["", *header]  # R's row names have none
    width = len(header)
    if long := [line for line, cells in records if any(c.strip() for c in cells[width:])]:
        rule = f"{len(long)} rows have more cells than the header's {width}"
        mend = "quote cells that hold the delimiter, or name each column"
        notes.refuse("", rule, mend, pd.Series(long, index=long, name=ROW))
    if short := sum(len(cells) < width for _, cells in records):
        notes.tell("", "rows with fewer cells than the header", short, "read as missing")
    rows = [cells[:width] + [""] * (width - len(cells)) for _, cells in records]
    lines = [line for line, _ in records]
    return pd.DataFrame(rows, columns=header, index=lines).astype(str)


def _drop_nameless(frame: pd.DataFrame, notes: Notes, wanted: Sequence[str]) -> pd.DataFrame:
    """Without running numbers and empty columns that have no name; other content is refused."""
    kept = [i for i, name in enumerate(frame) if name in wanted or not RUNNING.fullmatch(name)]
    for i in {*range(frame.shape[1])} - {*kept}:
        cells = frame.iloc[:, i].rename(ROW)
        filled = cells[cells.str.strip() != ""]
        if _is_running(filled):
            rule = f"column {i + 1} has no name and numbers the rows"
            notes.tell("", rule, len(frame), "left out")
        elif frame.columns[i]:
            kept.append(i)
        elif len(filled):
            mend = "name it in the header, or delete it"
            notes.refuse("", f"column {i + 1} has no name", mend, filled)
        else:
            notes.tell("", "an empty column without a name", 0, "left out")
    return frame.iloc[:, sorted(kept)]


def _is_running(cells: pd.Series) -> bool:
    """Whether cells are the numbers 0…n or 1…n, in any order."""
    if cells.empty or not cells.str.fullmatch(r"[0-9]{1,12}(?:\.0)?").all():
        return False
    values = cells.astype(float)
    low = values.min()
    return bool(low in (0, 1) and values.max() - low == len(values) - 1 == values.nunique() - 1)


def find_key(name: str) -> str:
    """What a header is recognised by: its letters and digits."""
    return re.sub(r"[\W_]+", "", clean_text(name).casefold())
