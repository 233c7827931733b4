"""Lines that are no rows, sheets, limits: left out and told, or refused with the place."""

import time
import zipfile

import duckdb
import openpyxl
import pandas as pd
import pytest

from segmentation import InputError
from segmentation.customers import columns, text

HEADER = "id,age,spend,visits"
ROWS = [f"c{i},{20 + i},{i * 1.5},{i % 7}" for i in range(20)]
LEFT = "lines of totals or remarks at the end"


def read(folder, content, name="table.csv", **options):
    path, notes = folder / name, text.Notes()
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    frame = text.read_text(path, notes, **options)
    notes.check(name)
    return frame, notes.mends


def lines(*each, header=HEADER, rows=ROWS):
    return "\n".join([header, *rows, *each]) + "\n"


FOOTERS = {
    "a total": (["Total,590,285,57"], "a line of totals at the end", "line 22"),
    "a total with a count": (["Total (20 customers),590,285,57"], "a line of totals", "line 22"),
    "a total in any language": (["Ukupno,590,285,57"], LEFT, "line 22"),
    "a total without a word": ([",590,285,57"], LEFT, "line 22"),
    "means": (["Durchschnitt,29.5,14.25,2.85"], "a line of totals at the end", "line 22"),
    "a remark": (["Exported by CRM on 2026-10-01"], LEFT, "line 22"),
    "both, padded": (["Total,590,285,57", "Exported by CRM on 2026-10-01,,,"], LEFT, "22, 23"),
    "filters": (["", "Applied filters:,,,", "Land = PT,,,"], LEFT, "lines 23, 24"),
    "unpadded filters": ([",,,", "Filtros aplicados:", "País = PT"], LEFT, "lines 23, 24"),
    "a filter in two cells": (["Filter:,Land = PT,,"], LEFT, "line 22"),
    "a count in two cells": (["Rows:,20,,"], LEFT, "line 22"),
}


@pytest.mark.parametrize("case", FOOTERS)
def test_a_footer_is_left_out_and_told(case, tmp_path):
    footer, rule, place = FOOTERS[case]
    frame, mends = read(tmp_path, lines(*footer))
    assert frame["id"].tolist() == [f"c{i}" for i in range(20)]
    told = [(found, done) for _, found, _, done in mends if rule in found]
    assert len(told) == 1
    assert place in told[0][1]


@pytest.mark.parametrize(
    ("last", "names"),
    [
        ("c20,,,", None),
        ("c20,Unknown,,", None),
        ("c20,9000,9000,9000", None),
        ("c20", None),
        ("Zoe,31,,", "names"),
        ("Zoe,,,", "names"),
        ("Total Energies,31,7,2", "names"),
    ],
)
def test_a_last_customer_is_no_footer(last, names, tmp_path):
    rows = [f"Anna Maria,{row.split(',', 1)[1]}" for row in ROWS] if names else ROWS
    frame, mends = read(tmp_path, lines(last, rows=rows))
    assert len(frame) == 21
    assert "end" not in str(mends)


HEADS = {
    "units": ("id,age,spend,visits\n,years,€,", ["id", "age", "spend", "visits"], "units"),
    "descriptions": (
        "id,age,spend,visits\nkey,age in years,spend in EUR,number of visits",
        ["id", "age", "spend", "visits"],
        "units",
    ),
    "groups": ("id,Person,Shop,\n,age,spend,visits", ["id", "age", "spend", "visits"], "groups"),
    "few groups": (
        "Customer,,Shop,\nid,age,spend,visits",
        ["id", "age", "spend", "visits"],
        "groups",
    ),
    "repeated groups": (
        ",age,spend,spend\n,mean,sum,mean\nid,,,",
        ["id", "age mean", "spend sum", "spend mean"],
        "groups",
    ),
    "a title, groups and units": (
        "Report of today\n\nid,Person,Shop,\n,age,spend,visits\n,years,€,",
        ["id", "age", "spend", "visits"],
        "groups",
    ),
}


@pytest.mark.parametrize("case", HEADS)
def test_a_header_of_several_lines_is_understood(case, tmp_path):
    head, names, rule = HEADS[case]
    frame, mends = read(tmp_path, lines(header=head))
    assert [*frame.columns] == names
    assert frame["id"].tolist() == [f"c{i}" for i in range(20)]
    assert any(rule in found and "line " in done for _, found, _, done in mends)


def test_a_padded_title_is_no_group(tmp_path):
    frame, mends = read(tmp_path, lines(header=f"Report,,,\n{HEADER}"))
    assert ",".join(frame) == HEADER
    assert mends == [("", "title lines above the header", 1, "skipped")]


@pytest.mark.parametrize("first", ["c99,Unknown,,", "c99,,,", "c99,Unknown,n/a,k.A."])
def test_a_first_customer_with_gaps_is_no_line_of_units(first, tmp_path):
    frame, mends = read(tmp_path, lines(rows=[first, *ROWS]))
    assert (len(frame), mends) == (21, [])


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("name", ["", "Unnamed: 0", "__index_level_0__"])
@pytest.mark.parametrize("kind", ["csv", "xlsx", "parquet"])
def test_a_nameless_running_number_is_left_out(kind, name, start, tmp_path):
    frame = pd.DataFrame({name: range(start, 20 + start), "age": range(20, 40), "spend": 1.5})
    path, notes = tmp_path / f"table.{kind}", text.Notes()
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "xlsx":
        frame.rename(columns={"": None}).to_excel(path, index=False)
    else:
        duckdb.from_df(frame.rename(columns={"": "Unnamed: 0"})).write_parquet(str(path))
    assert [*text.read_text(path, notes)] == ["age", "spend"]
    notes.check("table")
    assert notes.mends == [("", "column 1 has no name and numbers the rows", 20, "left out")]


def test_names_of_rows_as_r_writes_them(tmp_path):
    rows = [f'"{i}" "c{i}" {20 + i} {i}'.replace(" ", "\t") for i in range(1, 21)]
    frame, _ = read(tmp_path, lines(header="id\tage\tspend", rows=rows))
    assert [*frame] == ["id", "age", "spend"]
    with pytest.raises(InputError, match="column 1 has no name"):
        read(tmp_path, lines(header=",age,spend,visits"))


def save_book(path, **sheets):
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


TABLE = [["id", "age"], *([f"c{i}", 20 + i] for i in range(20))]
OTHER = [["shop", "size"], *([f"s{i}", i] for i in range(15))]


def test_sheets_with_tables_are_named_and_chosen(tmp_path):
    path = save_book(tmp_path / "b.xlsx", Shops=OTHER, Leute=TABLE, About=[["Export of today"]])
    with pytest.raises(InputError) as error:
        text.read_text(path, text.Notes())
    assert "holds tables in 2 sheets: 'Shops', 'Leute'" in str(error.value)
    assert "`sheet: 'Shops'` in a card, or by `--sheet 'Shops'`" in str(error.value)
    for name in ("Leute", "leute"):
        assert [*text.read_text(path, text.Notes(), sheet=name)] == ["id", "age"]
    with pytest.raises(InputError, match="no sheet 'Leude'; did you mean Leute"):
        text.read_text(path, text.Notes(), sheet="Leude")
    path = save_book(tmp_path / "b.xlsx", Notes=[["by CRM"], ["on", "Monday"]], P=TABLE, Empty=[])
    assert [*text.read_text(path, text.Notes())] == ["id", "age"]


def test_errors_and_formulas_without_values(tmp_path):
    rows = [[*row] for row in TABLE]
    rows[3][1] = "#DIV/0!"
    notes = text.Notes()
    frame = text.read_text(save_book(tmp_path / "b.xlsx", A=rows), notes)
    assert frame["age"].tolist().count("") == 1
    told = "rows with errors of Excel such as #DIV/0!"
    assert notes.mends == [("", told, 1, "read as missing: line 4")]
    rows[5][1] = "=20+4"
    with pytest.raises(InputError, match=r"1 formulas of sheet 'A' have no stored value \(B6\)"):
        text.read_text(save_book(tmp_path / "b.xlsx", A=rows), text.Notes())


def test_large_books_are_refused_before_they_are_unpacked(tmp_path):
    path = tmp_path / "b.xlsx"
    book = openpyxl.Workbook()
    book.active["XFD1048576"] = 1
    book.save(path)
    bomb = tmp_path / "bomb.xlsx"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as parts:
        parts.writestr("xl/worksheets/sheet1.xml", b" " * (text.LARGEST_BOOK + 1))
    for each, told in ((path, "16,384 columns"), (bomb, "200 MB unpacked")):
        started = time.process_time()
        with pytest.raises(InputError, match=f"{told}; delete empty rows"):
            text.read_text(each, text.Notes())
        assert time.process_time() - started < 1


def test_very_many_columns_are_refused_unread(tmp_path):
    wide = ",".join(map(str, range(30_000)))
    started = time.process_time()
    with pytest.raises(InputError, match="has 30,000 columns, the limit is 2,000"):
        read(tmp_path, f"{wide}\n" * 9)
    assert time.process_time() - started < 1
    with pytest.raises(InputError, match="has 30,000 columns"):
        read(tmp_path, lines(*[""] * 200, wide, rows=ROWS * 9))


@pytest.mark.parametrize("name", ["punycode", "rot13", "zip", "idna", "nope", "unicode_escape"])
def test_a_named_encoding_that_is_none_is_refused(name, tmp_path):
    with pytest.raises(InputError, match=f"encoding {name} is not known; try utf-8 or cp1252"):
        read(tmp_path, lines(), encoding=name)


def test_the_mend_for_an_encoding_works(tmp_path):
    content = lines(header="id,âge,spend,visits").encode("cp1252")
    with pytest.raises(InputError, match=r"run again with `--encoding cp1252` \(or `encoding:"):
        read(tmp_path, content)
    assert "âge" in read(tmp_path, content, encoding="cp1252")[0]


def test_what_is_wrong_with_a_parquet_file_is_told(tmp_path, monkeypatch):
    import pyarrow as pa
    from pyarrow import parquet

    twice = pa.Table.from_arrays([pa.array(range(9))] * 3, names=["id", "Age", "Age"])
    parquet.write_table(twice, tmp_path / "twice.parquet")
    whole = (tmp_path / "twice.parquet").read_bytes()
    (tmp_path / "none.parquet").write_text("id,age\n1,2\n")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1" + b"\xff" * 40 + b"PAR1")
    assert whole.startswith(b"PAR1")
    for name, told in {
        "twice": "column age stands twice",
        "none": "is not a Parquet file; write it anew",
        "cut": "is Parquet that cannot be read: ",
    }.items():
        with pytest.raises(InputError, match=told):
            text.read_text(tmp_path / f"{name}.parquet", text.Notes())

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "open", refuse)
    with pytest.raises(InputError, match="cannot be read: Permission denied; see whether you may"):
        text.read_text(tmp_path / "twice.parquet", text.Notes())


def test_numbers_are_read_from_what_is_left(tmp_path):
    frame, mends = read(tmp_path, lines("Total,590,285,57", header=f"{HEADER}\n,years,€,"))
    notes = text.Notes()
    numbers = columns.read_numbers(frame["age"], ".", notes)
    assert numbers.tolist() == [20 + i for i in range(20)]
    assert len(mends) == 2
