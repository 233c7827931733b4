"""Bad inputs, one by one: each is refused by the command with the mend, or mended and told.

Labels that look like formulas or markup, and what must never be shown, are in `test_hostile.py`;
mixed dates in `test_transactions.py`; a table that changes while it is read in `test_series.py`.
"""

import gzip
import os

import numpy as np
import pytest
import yaml
from modelling import build_preprocessor

from segmentation import InputError
from segmentation.__main__ import main
from segmentation.clustering.rows import describe_quality
from segmentation.customers import columns, explain_card, numbers, read_card, read_customers

RNG = np.random.default_rng(11)
ROWS = [
    (f"c{i:03}", *np.round(RNG.normal([40, 60], 9), 1).tolist(), "xyz"[i % 3]) for i in range(30)
]
HEADER = "id,a,b,kind"


def make_table(rows=ROWS, header=HEADER, delimiter=",", end=""):
    lines = [header.replace(",", delimiter), *(delimiter.join(map(str, row)) for row in rows)]
    return "\n".join(lines) + "\n" + end


def change(row, column, value, rows=ROWS):
    """The rows with one cell changed."""
    changed = [list(each) for each in rows]
    changed[row][column] = value
    return changed


def german(row):
    return (row[0], str(row[1]).replace(".", ","), str(row[2]).replace(".", ","), row[3])


TABLE = make_table()
GERMAN = make_table([german(row) for row in ROWS], delimiter=";")
REFUSED = {
    "3 bytes that are no UTF-8": (
        make_table(change(4, 3, "é")).encode("cp1252"),
        "is not utf-8 in line 6; it may be cp1252: run again with `--encoding cp1252`",
    ),
    "6 empty": (b"", "is empty; give a table with a header."),
    "6 blank lines": (b"\n\n\n", "is empty; give a table with a header."),
    "7 header only": (HEADER, "0 customers are too few; give at least 10."),
    "8 one row": (make_table(ROWS[:1]), "1 customers are too few; give at least 10."),
    "9 no header": (
        make_table(ROWS[1:], ",".join(map(str, ROWS[0]))),
        "the first line looks like data; give the table a header.",
    ),
    "10 a name twice": (make_table(header="id,a,a,kind"), "column a: stands 2 times in the header"),
    "11 a nameless column with content": (
        make_table([(*row, 1) for row in ROWS], HEADER + ","),
        "column 5 has no name (lines 2, 3, 4…); name it in the header, or delete it.",
    ),
    "13 an extra cell in every row": (
        make_table([(*row, "x") for row in ROWS]),
        "30 rows have more cells than the header's 4 (lines 2, 3, 4…)",
    ),
    "14 an extra cell in one row": (
        make_table([*ROWS[:5], (*ROWS[5], "x"), *ROWS[6:]]),
        "1 rows have more cells than the header's 4 (line 7)",
    ),
    "16 an unclosed quote": (make_table(end='c999,"1,2,x\n'), "close the quotes."),
    "17 a NUL": (make_table(change(2, 3, "x\0y")), "has a NUL character in line 4"),
    "18 point or comma": (
        make_table(
            [(r[0], f"1.{i + 100}", f"2.{i + 300}", r[3]) for i, r in enumerate(ROWS)],
            delimiter=";",
        ),
        "can be read with a decimal point or a decimal comma ('1.100' in lines 2, 3, 4…); "
        "say which by `decimal:` in the card.",
    ),
    "19 a word among numbers": (
        make_table(change(7, 1, "forty")),
        "column a: 1 values are not numbers ('forty' in line 9); correct them",
    ),
    "20 infinity": (make_table(change(7, 1, "inf")), "1 values are not numbers ('inf' in line 9)"),
    "20 too large for a float": (make_table(change(7, 1, "1e400")), "1 values are not numbers"),
    "22 nothing in a column": (
        make_table([(r[0], "", *r[2:]) for r in ROWS]),
        "column a: all values are missing; leave the column out of `features:`.",
    ),
    "22 mostly missing": (
        make_table([(r[0], "" if i % 5 else r[1], *r[2:]) for i, r in enumerate(ROWS)]),
        "column a: 80% of the values are missing; leave the column out of `features:`.",
    ),
    "23 an id twice": (
        make_table(change(9, 0, "c003")),
        "column id: 1 ids stand twice (line 11); keep one row a customer",
    ),
    "24 a missing id": (make_table(change(9, 0, "")), "1 ids are empty (line 11); fill them."),
    "25 a renamed column": (
        make_table(header="id,aa,b,kind"),
        "column a is missing; did you mean aa? Name it in the card's `aliases:`.",
    ),
    "28 all alike": (
        make_table([(r[0], 1, 2, r[3]) for r in ROWS]),
        "all customers are alike in every feature; there is nothing to segment.",
    ),
    "29 beyond reason": (make_table(change(3, 1, "1e200")), "1 values lie outside"),
    "31 out of range": (
        make_table(change(3, 2, "-5")),
        "column b: 1 values lie outside 0…1000 € ('-5' in line 5); correct them",
    ),
    "33 dates as a feature": (
        make_table([(r[0], "2026-01-31", *r[2:]) for r in ROWS]),
        "column a: 30 values are not numbers ('2026-01-31' in lines 2, 3, 4…)",
    ),
    "33 true and false as a feature": (
        make_table([(r[0], "True", *r[2:]) for r in ROWS]),
        "correct them, or make it a descriptor.",
    ),
    "37 a zip": (b"PK\x03\x04rest", "is no CSV but an Excel or zip file; save it as CSV."),
    "37 a web page": ("<!DOCTYPE html><p>Sorry</p>", "is no CSV but a web page or XML"),
    "37 JSON": ('[{"id": 1}]', "is no CSV but JSON; export the table as CSV."),
    "37 a PDF": (b"%PDF-1.7", "is no CSV but a PDF; export the table as CSV."),
    "37 compressed": (gzip.compress(TABLE.encode()), "is no CSV but compressed; unpack it first."),
    "3 an unknown coding": (
        make_table(change(1, 3, "9")),
        "column kind: 1 codings are unknown ('9' in line 3); say in the card's `levels:`",
    ),
}

CARD = {
    "title": "Test",
    "table": "table.csv",
    "id": "id",
    "features": {"a": {}, "b": {"unit": "€", "range": [0, 1000]}},
    "descriptors": {"kind": {"levels": {"x": [], "y": [], "z": []}}},
}


def write(folder, content, **fields):
    data = content if isinstance(content, bytes) else content.encode()
    (folder / "table.csv").write_bytes(data)
    path = folder / "card.yaml"
    path.write_text(yaml.safe_dump(CARD | fields, allow_unicode=True), encoding="utf-8")
    return path


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_any_kernel_starts(case, tmp_path, capsys):
    content, message = REFUSED[case]
    code = main(["run", str(write(tmp_path, content)), "--output-dir", str(tmp_path / "out")])
    printed = capsys.readouterr()
    assert code == 2
    assert message in printed.err
    assert len(printed.err.splitlines()) <= 4
    assert printed.out == ""
    assert not (tmp_path / "out").exists()


FEW = "rows with fewer cells than the header"
MENDED = {
    "1 a BOM": (b"\xef\xbb\xbf" + TABLE.encode(), None),
    "2 UTF-16 with a BOM": (TABLE.encode("utf-16"), None),
    "4 semicolons": (make_table(delimiter=";"), None),
    "4 tabs": (make_table(delimiter="\t"), None),
    "5 decimal commas": (GERMAN, None),
    "11 an empty column at the end": (
        make_table([(*row, "") for row in ROWS], HEADER + ","),
        ("", "an empty column without a name", 0, "left out"),
    ),
    "12 spaces and case in names": (make_table(header=" ID , A ,b,Kind"), None),
    "15 short rows": (
        make_table([*ROWS[:29], ROWS[29][:3]]),
        ("", FEW, 1, "read as missing"),
    ),
    "18 currency": (
        make_table([(r[0], r[1], f"€{r[2]}", r[3]) for r in ROWS]),
        ("b", "currency, percent or thousands signs", 30, "read as plain numbers"),
    ),
    "21 NA and n/a": (
        make_table(change(3, 1, "n/a")),
        ("a", "values are missing", 1, "filled with the median"),
    ),
    "26 a further column": (
        make_table([(*row, "secret@mail.example") for row in ROWS], HEADER + ",mail"),
        ("", "1 further columns", 30, "ignored"),
    ),
    "30 one far away": (
        make_table(change(3, 1, "100000")),
        ("a", "values beyond the outer fences", 1, "kept"),
    ),
    "titles above": (
        "Report of today\n\n" + TABLE,
        ("", "title lines above the header", 1, "skipped"),
    ),
    "a total below": (
        make_table(end="Total,1200,1800,\n"),
        ("", "a line of totals at the end", 1, "left out: line 32"),
    ),
}


@pytest.mark.parametrize("case", MENDED)
def test_mended_and_told(case, tmp_path):
    content, told = MENDED[case]
    path = write(tmp_path, content)
    card = read_card(path)
    customers = read_customers(card)
    quality = describe_quality(customers.table, customers.quality, card)
    if told:
        assert told in [*quality.itertuples(index=False, name=None)]
    assert quality.iloc[-1].tolist() == ["", "customers used", 30, "of 30 in the table"]
    assert list(customers.table) == ["id", "a", "b", "kind"]
    assert len(customers.table) == 30
    expected = [row[2] for row in ROWS]
    assert customers.table["b"].tolist() == pytest.approx(expected)
    scaled = build_preprocessor(card).fit_transform(customers.table[card.distance])
    assert np.isfinite(scaled.to_numpy()).all()


def test_a_constant_feature_is_told_and_has_no_part(tmp_path):
    content = make_table([(r[0], 7, *r[2:]) for r in ROWS])
    card = read_card(write(tmp_path, content))
    customers = read_customers(card)
    assert ("a", "the same value in every row", 30, "has no part in the distance") in [
        *customers.quality.itertuples(index=False, name=None)
    ]
    scaled = build_preprocessor(card).fit_transform(customers.table[card.distance])
    assert (scaled["a"] == 0).all()


def test_ids_keep_their_zeros_and_digits(tmp_path):
    ids = ["007", "1E5", "12345678901234567890123", *(f"{i:03}" for i in range(100, 127))]
    content = make_table([(each, *row[1:]) for each, row in zip(ids, ROWS, strict=True)])
    table = read_customers(read_card(write(tmp_path, content))).table
    assert list(table["id"]) == ids


def test_a_country_called_na_is_no_missing_value(tmp_path):
    content = make_table([(*row[:3], "NA" if i < 9 else "DE") for i, row in enumerate(ROWS)])
    card = read_card(write(tmp_path, content, descriptors={"kind": {}}))
    assert read_customers(card).table["kind"].value_counts().to_dict() == {"DE": 21, "NA": 9}


def test_many_levels_are_pooled(tmp_path):
    content = make_table([(f"i{n}", n % 7, n % 5, f"level {n}") for n in range(300)])
    card = read_card(write(tmp_path, content, descriptors={"kind": {}}))
    customers = read_customers(card)
    table, quality = customers.table, customers.quality
    assert table["kind"].nunique() == columns.MANY_LEVELS
    assert (table["kind"] == "Other").sum() == 300 - columns.MANY_LEVELS + 1
    assert "300 levels" in list(quality["finding"])


def test_composed_and_decomposed_letters_are_one_level(tmp_path):
    kinds = ["Caf\u00e9", "Cafe\u0301"]
    content = make_table([(*row[:3], kinds[i % 2]) for i, row in enumerate(ROWS)])
    card = read_card(write(tmp_path, content, descriptors={"kind": {}}))
    assert read_customers(card).table["kind"].nunique() == 1


@pytest.mark.parametrize(
    ("cells", "decimal", "values"),
    [
        (["$1,234.50", "$99.00"], "", [1234.5, 99]),
        (["1.234,50 €", "99,00 €"], "", [1234.5, 99]),
        (["EUR 1.234,50", "EUR 3,10"], "", [1234.5, 3.1]),
        (["12 345.67", "1 000.00"], "", [12345.67, 1000]),
        (["3'164.29", "12.10"], "", [3164.29, 12.1]),
        (["5%", "12.5%"], "", [5, 12.5]),
        (["-$5.25", "-3.1"], "", [-5.25, -3.1]),
        (["1.234", "2.500"], ",", [1234, 2500]),
        (["1,234", "2,500"], ".", [1234, 2500]),
        (["1e3", "2.5E-1"], "", [1000, 0.25]),
        (["1,234", "2,500"], "", None),
        (["$1.234", "$2.500"], "", None),
        (["1.5", "1,5"], "", None),
        (["−5.5", "+3"], "", [-5.5, 3]),
        (["€798", "$958"], "", None),
        (["86.4%", "0.01"], "", None),
        (["(798.08", "7"], "", None),
        (["1,23,456", "7"], "", [123456, 7]),
        (["0x10", "7"], "", None),
        (["1_000", "7"], "", None),
        (["7", "$1,234.50", "7", "7"], "", [7, 1234.5, 7, 7]),
        (["9" * 400, "7"], "", None),
    ],
)
def test_numbers_are_read_only_one_way(cells, decimal, values):
    import pandas as pd

    found, _, _ = numbers.parse_numbers(pd.Series(cells), decimal, point=True)
    if values is None:
        assert found.isna().any()
    else:
        assert found.tolist() == pytest.approx(values)


@pytest.mark.parametrize(
    ("cells", "decimal"),
    [
        (["7", "7", "12"], ""),
        (["1.234", "7"], ""),
        (["1234.567", "7"], "."),
        (["1.5", "7", "n/a"], "."),
        (["1.234", "7,5"], ","),
        (["1.5", "7,5"], ""),
        (["1.234.567", "12.345"], ","),
        (["1.234,5", "1.23"], ""),
        (["-", ""], ""),
    ],
)
def test_a_column_settles_the_decimal_sign_if_it_can(cells, decimal):
    import pandas as pd

    assert numbers.find_decimal(pd.DataFrame({"x": cells}, dtype="str")) == decimal


def test_all_problems_are_told_at_once(tmp_path):
    rows = change(3, 1, "forty", change(5, 2, "-1", change(7, 3, "9")))
    with pytest.raises(InputError) as error:
        read_customers(read_card(write(tmp_path, make_table(rows))))
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert all(line.startswith("table.csv: column ") and line.endswith(".") for line in lines)


@pytest.mark.parametrize("kind", ["folder", "pipe", "nothing", "address"])
def test_only_regular_files_are_read(kind, tmp_path):
    path = write(tmp_path, TABLE)
    (tmp_path / "table.csv").unlink()
    if kind == "folder":
        (tmp_path / "table.csv").mkdir()
    if kind == "pipe":
        os.mkfifo(tmp_path / "table.csv")
    if kind == "address":
        path = write(tmp_path, TABLE, table="https://example.org/table.csv")
    with pytest.raises(InputError, match=r"is not a file|no such table"):
        read_customers(read_card(path))


def test_a_file_beyond_the_limit_is_refused_unread(tmp_path, capfd):
    path = write(tmp_path, TABLE)
    with (tmp_path / "table.csv").open("r+b") as file:
        file.truncate(1_000_000_000)  # sparse: it takes no room
    assert main(["run", str(path), "--output-dir", str(tmp_path / "out")]) == 2
    assert "table.csv has 1,000 MB, the limit is 300 MB" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_ambiguous_delimiter_is_refused(tmp_path):
    lines = [f"{i},{i};{i},{i}" for i in range(20)]
    (tmp_path / "odd.csv").write_text("a,b;c,d\n" + "\n".join(lines))
    with pytest.raises(InputError, match=r"delimiter|two columns"):
        explain_card(tmp_path / "odd.csv")


def test_parquet_and_excel_are_read_like_csv(tmp_path):
    import duckdb
    import pandas as pd

    card = read_card(write(tmp_path, TABLE))
    expected = read_customers(card).table
    frame = pd.DataFrame(ROWS, columns=HEADER.split(","))
    frame.to_excel(tmp_path / "table.xlsx", index=False)
    duckdb.sql("SELECT * FROM frame").write_parquet(str(tmp_path / "table.parquet"))
    for name in ("table.xlsx", "table.parquet"):
        same = read_customers(read_card(write(tmp_path, TABLE, table=name))).table
        pd.testing.assert_frame_equal(same, expected)


@pytest.fixture
def refuse(capsys):
    """Run the command in this process; what it says on refusing."""

    def run(*words):
        assert main(["run", "--dry-run", *map(str, words)]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        return said.err

    return run


def test_a_loop_of_links_is_no_such_file(refuse, tmp_path):
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / f"{name}.csv").symlink_to(f"{other}.csv")
    assert "a.csv: no such file; give the path" in refuse(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("title: " + "[" * 3000, "is not valid YAML"),
        ("features: {Age: {}, Age: {}}", "Age stands a second time in line 1; say once"),
        ("title: a\ntitle: b", "title stands a second time in line 2"),
        ("map: {x: Age}", "map: write a list, like [A, B]."),
        ("features: [Age]", "features: write keys with their values."),
    ],
)
def test_an_odd_card_is_refused_in_lines(text, told, refuse, tmp_path):
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    said = refuse(path)
    assert told in said
    assert "Traceback" not in said


def test_a_card_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    (tmp_path / "card.yaml").touch()

    def deny(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "read_text", deny)
    with pytest.raises(InputError, match=r"card.yaml cannot be read: Permission denied; see"):
        read_card(tmp_path / "card.yaml")


@pytest.mark.parametrize("drafted", [True, False])
def test_what_is_no_table_is_not_repeated(drafted, refuse, tmp_path):
    (tmp_path / "secret").write_text("root:hunter2:20228:0:99999\nme:hunter3:1:2\n" * 20)
    card = tmp_path / "card.yaml"
    card.write_text("title: X\ntable: secret\nid: a\nfeatures: {b: {}, c: {}}\n")
    said = refuse(tmp_path / "secret" if drafted else card)
    assert "secret has one column alone; give a table whose columns a comma" in said
    assert "hunter" not in said


def test_no_word_of_a_table_steers_the_terminal(refuse, tmp_path):
    said = refuse(write(tmp_path, make_table(header="id,\x1b[2Ja,b,kind")))
    assert "\x1b" not in said
    assert "column a is missing" in said
