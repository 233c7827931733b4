"""Transactions become customers: the figures, what is reported, what is refused and how."""

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from segmentation import InputError
from segmentation.customers import Card, purchases

duckdb = pytest.importorskip("duckdb")

COLUMNS = {"customer": "id", "date": "day", "amount": "paid"}
DAYS = [(date(2024, 1, 1) + timedelta(days=n)).isoformat() for n in range(400)]
GOOD = "id,order,day,paid\n" + "".join(f"{i:03d},{i},{DAYS[i]},{i}.50\n" for i in range(1, 13))


def draw_rows(rows=4000, customers=300, seed=0):
    """Random purchases as text: refunds, zeros, repeated rows, orders of several rows."""
    rng = np.random.default_rng(seed)
    cents = rng.integers(-3000, 20000, rows) * rng.integers(0, 12, rows).astype(bool)
    table = pd.DataFrame(
        {
            "id": [f"{i:04d}" for i in rng.integers(0, customers, rows) ** 2 // customers],
            "order": rng.integers(0, rows // 3, rows).astype(str),
            "day": rng.choice(DAYS, rows),
            "paid": [f"{c / 100:.2f}" for c in cents],
        }
    )
    return pd.concat([table, table.sample(50, random_state=seed)], ignore_index=True)


def compute_in_pandas(table, as_of=None, order=None):
    """The same figures by pandas, in whole cents and without a shared line."""
    table = table.assign(
        day=pd.to_datetime(table["day"]),
        cents=(table["paid"].astype(float) * 100).round().astype(int),
    )
    as_of = pd.Timestamp(as_of or table["day"].max())
    table = table[table["day"] <= as_of]
    bought = table[table["cents"] > 0]
    by = bought.groupby("id")
    frequency = by[order].nunique() if order else by.size()
    return pd.DataFrame(
        {
            "recency": (as_of - by["day"].max()).dt.days,
            "frequency": frequency,
            "monetary": table.groupby("id")["cents"].sum().reindex(frequency.index) / 100,
            "tenure": (as_of - by["day"].min()).dt.days,
            "basket": by["cents"].sum() / 100 / frequency,
        }
    ).reset_index(names="customer")


def write_text(folder, text, name="sales.csv", encoding="utf-8"):
    path = folder / name
    path.write_text(text, encoding=encoding, newline="")
    return path


def write_parquet(folder, path, types="c.*"):
    """The same table in Parquet, by DuckDB, every column text unless `types` says more."""
    target = folder / "sales.parquet"
    duckdb.execute(
        f"COPY (SELECT {types} FROM read_csv('{path}', all_varchar=true) c) TO '{target}'"
    )
    return target


def read(path, options=None, **columns):
    """The customers and the findings of a file; all five features kept."""
    fields = {"title": "Sales", "table": path.name, "transactions": COLUMNS | columns}
    card = Card.model_validate(fields | (options or {}))
    return purchases.gather_customers(card.model_copy(update={"path": path.with_name("card.yaml")}))


def refuse(path, options=None, **columns):
    with pytest.raises(InputError) as error:
        read(path, options, **columns)
    return str(error.value)


@pytest.fixture(params=["read", "scanned"])
def way(request, monkeypatch):
    """Each CSV is read as text, and as if it were too large for that."""
    if request.param == "scanned":
        monkeypatch.setattr(purchases, "SCANNED", 0)
    return request.param


def check_same(table, expected):
    pd.testing.assert_frame_equal(table, expected, check_dtype=False, rtol=1e-13)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("order", ["", "order"])
@pytest.mark.parametrize("as_of", [None, date(2024, 8, 1)])
def test_the_figures_are_those_of_pandas(tmp_path, seed, order, as_of):
    rows = draw_rows(seed=seed)
    rows.to_csv(tmp_path / "sales.csv", index=False)
    table, report = read(tmp_path / "sales.csv", {"as_of": as_of}, order=order)
    check_same(table, compute_in_pandas(rows, as_of, order))
    kept = rows[rows["day"] <= str(as_of or max(rows["day"]))]
    paid = kept["paid"].astype(float)
    counts = report["rows"].set_axis(report["finding"].str.split().str[0]).to_dict()
    assert counts["rows"] == len(rows)
    assert counts["exact"] == rows.duplicated().sum()
    assert counts["refunds:"] == (paid < 0).sum()
    assert counts["amounts"] == (paid == 0).sum()
    assert counts.get("dates", 0) == len(rows) - len(kept)


def test_types_and_columns(tmp_path):
    table, report = read(write_text(tmp_path, GOOD))
    assert list(table) == ["customer", "recency", "frequency", "monetary", "tenure", "basket"]
    assert [dtype.kind for dtype in table.dtypes[1:]] == list("fffff")
    assert list(table["customer"][:2]) == ["001", "002"]
    assert list(report) == ["column", "finding", "rows", "done"]
    assert list(report["rows"]) == [12]


def test_neither_the_order_of_rows_nor_the_format_matters(tmp_path):
    rows = draw_rows()
    rows.to_csv(tmp_path / "sales.csv", index=False)
    table, report = read(tmp_path / "sales.csv", order="order")
    mixed = tmp_path / "mixed.csv"
    rows.sample(frac=1, random_state=1).to_csv(mixed, index=False)
    text = write_parquet(tmp_path, mixed)
    typed = "id, c.order::INT AS order, day::TIMESTAMP AS day, paid::DOUBLE AS paid"
    for other in (mixed, text, write_parquet(tmp_path, mixed, typed)):
        again, same = read(other, order="order")
        pd.testing.assert_frame_equal(again, table)
        pd.testing.assert_frame_equal(same, report)


@pytest.mark.usefixtures("way")
def test_what_a_purchase_is(tmp_path):
    """Two rows of one order, a refund, a zero, a repeated row, a row of the future."""
    text = GOOD + (
        "A,1,2024-02-01,10.10\nA,1,2024-02-01,20.20\nA,2,2024-02-05,30\nA,2,2024-02-05,30\n"
        "A,3,2024-02-07,-0.30\nA,4,2024-02-09,0\nA,5,2024-03-01,99\nB,6,2024-02-01,-5\n"
    )
    path, until = write_text(tmp_path, text), {"as_of": date(2024, 2, 10)}
    orders, report = read(path, until, order="order")
    assert orders.set_index("customer").loc["A"].to_list() == [5, 2, 90.0, 9, 45.15]
    assert "B" not in set(orders["customer"])
    rows, _ = read(path, until)
    assert rows.set_index("customer").loc["A"].to_list() == [5, 4, 90.0, 9, 22.575]
    assert report.drop(columns="column").to_numpy().tolist() == [
        ["rows read", 20, "dated from 2024-01-02 to 2024-03-01; days are counted up to 2024-02-10"],
        ["exact duplicate rows", 1, "kept, as purchases may be alike; remove what is not"],
        ["dates after 2024-02-10", 1, "left out"],
        ["refunds: amounts below zero", 2, "subtracted from the total; no purchase"],
        ["amounts of zero", 1, "left aside: no purchase, nothing to add"],
        ["customers without a purchase", 1, "left out: 1 customers"],
    ]


@pytest.mark.usefixtures("way")
def test_cents_add_up_exactly(tmp_path):
    text = GOOD + "".join(f"A,{i},2024-02-01,{paid}\n" for i, paid in enumerate([0.1, 0.2, -0.3]))
    table, _ = read(write_text(tmp_path, text))
    assert table.set_index("customer").loc["A", "monetary"] == 0


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("written", "day"),
    [
        ("2024-05-06", "2024-05-06"),
        ("2024-05-06T23:59:59.9", "2024-05-06"),
        ("2024-05-06 23:59", "2024-05-06"),
        ("2024-05-06T23:30:00Z", "2024-05-06"),
        ("2024-05-06T23:30:00-05:00", "2024-05-07"),
    ],
)
def test_days_are_calendar_days(tmp_path, written, day):
    table, _ = read(write_text(tmp_path, f"{GOOD}A,99,{written},1\n"))
    assert table["recency"].iloc[-1] == 0
    assert table["recency"].iloc[0] == (date.fromisoformat(day) - date(2024, 1, 2)).days


def test_formats_of_dates_and_decimals(tmp_path):
    rows = draw_rows()
    day = pd.to_datetime(rows["day"]).dt.strftime("%d.%m.%Y %H:%M")
    text = rows.assign(day=day, paid=rows["paid"].str.replace(".", ","))
    path = tmp_path / "umsätze.csv"
    text.to_csv(path, index=False, sep=";", encoding="cp1252")
    dialect = {"delimiter": ";", "decimal": ",", "encoding": "cp1252"}
    table, _ = read(path, dialect, date_format="%d.%m.%Y %H:%M")
    check_same(table, compute_in_pandas(rows))


@pytest.mark.parametrize(("offset", "days"), [("+0000", 126), ("-0500", 127)])
def test_a_format_with_offsets_counts_days_of_utc(tmp_path, offset, days):
    dates = [date.fromisoformat(day).strftime("%d/%b/%Y:00:00:00 +0000") for day in DAYS]
    rows = "".join(f"{i:02d},{i},{dates[i]},1\n" for i in range(12))
    late = f"A,99,06/May/2024:23:30:00 {offset},1\n"
    path = write_text(tmp_path, f"id,order,day,paid\n{rows}{late}")
    table, _ = read(path, date_format="%d/%b/%Y:%H:%M:%S %z")
    assert table["recency"].iloc[0] == days


def test_a_typed_parquet_needs_no_formats(tmp_path):
    path = write_text(tmp_path, GOOD)
    typed = write_parquet(tmp_path, path, "id, day::DATE AS day, paid::DECIMAL(9, 2) AS paid")
    table, _ = read(typed, {"decimal": ","}, date_format="%d.%m.%Y")
    pd.testing.assert_frame_equal(table, read(path)[0])


@pytest.mark.usefixtures("way")
def test_hostile_headers_and_file_names(tmp_path):
    names = ['i"d', "da y'); DROP TABLE customers; --", "pa;id\n$path {0}"]
    header = ",".join('"' + name.replace('"', '""') + '"' for name in names)
    rows = pd.read_csv(write_text(tmp_path, GOOD), dtype=str)[["id", "day", "paid"]]
    text = f"\ufeff\n{header},o\n" + rows.to_csv(index=False, header=False).replace("\n", ",1\n")
    expected, _ = read(tmp_path / "sales.csv")
    hostile = dict(zip(COLUMNS, names, strict=True))
    table, _ = read(write_text(tmp_path, text, "sales [*]'; --.csv"), **hostile)
    pd.testing.assert_frame_equal(table, expected)
    assert "(line 16)" in refuse(write_text(tmp_path, text + ",2024-01-01,1,1\n"), **hostile)
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    aliases = ", ".join(f"{old} AS {new}" for old, new in zip(rows, quoted, strict=True))
    write_text(tmp_path, GOOD)
    table, _ = read(write_parquet(tmp_path, tmp_path / "sales.csv", aliases), **hostile)
    pd.testing.assert_frame_equal(table, expected)


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff"])
def test_an_empty_file_is_refused(tmp_path, text):
    assert "sales.csv is empty" in refuse(write_text(tmp_path, text))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (",1,2024-01-01,1\n", "column id: 1 customer ids are empty (line 14); fill them."),
        (" ,1,2024-01-01,1\n" * 5, "5 customer ids are empty (lines 14, 15, 16…)"),
        (
            "A,1,31/12/2024,1\n",
            "column day: 1 dates are not ISO (2024-12-31) ('31/12/2024' in line 14); "
            "correct them or say `date_format:`.",
        ),
        ("A,1,2024-1-5,1\n", "column day: 1 dates"),
        ("A,1,20240105,1\n", "column day: 1 dates"),
        ("A,1,2024-02-30,1\n", "column day: 1 dates"),
        ("A,1,2024-01-01T25:00,1\n", "column day: 1 dates"),
        ("A,1,infinity,1\n", "column day: 1 dates"),
        ("A,1,,1\n", "column day: 1 dates are not ISO (2024-12-31) (line 14)"),
        (
            'A,1,2024-01-01,"1,234.5"\nA,1,2024-01-01,5 o\nA,1,2024-01-01,6 o\n',
            "column paid: 2 amounts are not numbers ('5 o' in lines 15, 16); correct them.",
        ),
        ("A,1,2024-01-01,inf\n", "column paid: 1 amounts"),
        ("A,1,2024-01-01,1_000\n", "column paid: 1 amounts"),
        ("A,1,2024-01-01,1e15\n", "column paid: 1 amounts"),
        ("A,1,2024-01-01,\n", "column paid: 1 amounts"),
        ("A,,2024-01-01,1\n", "column order: 1 purchases have no order id (line 14); fill them."),
    ],
)
def test_cells_are_refused_with_place_and_mend(tmp_path, rows, message):
    said = refuse(write_text(tmp_path, GOOD + rows), order="order")
    assert message in said
    assert len(said.splitlines()) == 1


@pytest.mark.usefixtures("way")
def test_a_refund_needs_no_order(tmp_path):
    read(write_text(tmp_path, GOOD + "001,,2024-01-01,-1\n"), order="order")


def test_all_problems_come_at_once_without_ids(tmp_path):
    said = refuse(write_text(tmp_path, "id,day,paid\nJane Doe,x,y\n,2024-01-01,1\n"))
    assert said.splitlines() == [
        "sales.csv: column id: 1 customer ids are empty (line 3); fill them.",
        "sales.csv: column day: 1 dates are not ISO (2024-12-31) ('x' in line 2); "
        "correct them or say `date_format:`.",
        "sales.csv: column paid: 1 amounts are not numbers ('y' in line 2); correct them.",
        "sales.csv: 1 customers are too few; give at least 10.",
    ]


@pytest.mark.parametrize(
    ("header", "messages"),
    [
        ("id,order,days,payd", ["day is missing; did you mean days?", "paid is missing; did you"]),
        ("id,order,when,paid", ["column day is missing; known are id, order, when, paid."]),
        ("id,day,day,paid", ["column day: stands 2 times in the header"]),
        ("id;order;day;paid", ["sales.csv"]),
        ("Jane Doe,1,2024-01-01,5", ["the first line looks like data; give the table a header."]),
    ],
)
def test_missing_columns_are_refused(tmp_path, header, messages):
    said = refuse(write_text(tmp_path, GOOD.replace("id,order,day,paid", header)))
    assert all(message in said for message in messages)
    assert "Jane" not in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,order,day,paid\n", "sales.csv is empty"),
        (GOOD[: GOOD.index("010,")], "9 customers with a purchase are too few; give at least 10."),
        (GOOD + "SECRET,1,2\n", "sales.csv is not a regular table at line 14; give each row 4"),
        (GOOD + "SECRET,1,2024-01-01,1,5\n", "sales.csv is not a regular table at line 14"),
        (GOOD + 'SECRET,"1,2024-01-01,1\n', "sales.csv is not a regular CSV"),
        ('id,"order,day,paid\n', "sales.csv is not a regular CSV"),
    ],
)
def test_tables_are_refused(tmp_path, monkeypatch, text, message):
    monkeypatch.setattr(purchases, "SCANNED", 0)
    said = refuse(write_text(tmp_path, text))
    assert message in said
    assert "SECRET" not in said


def test_files_are_refused(tmp_path, monkeypatch):
    assert "is not a file" in refuse(tmp_path)
    latin = write_text(tmp_path, GOOD + "é,1,2024-01-01,1\n", encoding="latin-1")
    assert "is not utf-8" in refuse(latin)
    assert "encoding ebc is not known" in refuse(latin, {"encoding": "ebc"})
    late = write_text(tmp_path, GOOD + "é,1,2024-01-01,1\n" * 400_000, encoding="latin-1")
    monkeypatch.setattr(purchases, "SCANNED", 0)
    assert "is not utf-8" in refuse(late)
    late = write_text(tmp_path, GOOD + "e,1,2024-01-01,1\n" * 60_000 + "é,", encoding="latin-1")
    assert "save it as UTF-8" in refuse(late)
    assert "is not a Parquet file" in refuse(write_text(tmp_path, GOOD, "sales.parquet"))
    assert "`date_format:` '%Q' is unknown" in refuse(write_text(tmp_path, GOOD), date_format="%Q")


def test_purchases_are_read_as_customers_are(tmp_path):
    """Titles, semicolons, an old encoding, currency and thousands, a line of totals, Excel."""
    plain = [row.split(",") for row in GOOD.splitlines()]
    money = [
        [who, order, day, paid.replace(".", ",") + " €"] for who, order, day, paid in plain[1:]
    ]
    money[0][3] = "1.234,50 €"
    text = "Verkäufe;;;\n" + "\n".join(map(";".join, [plain[0], *money, ["Summe", "", "", "9 €"]]))
    old = write_text(tmp_path, text, encoding="cp1252")
    table, report = read(old, {"encoding": "cp1252"})
    assert table["monetary"].tolist() == [1234.5, *(i + 0.5 for i in range(2, 13))]
    assert {"title lines above the header", "a line of totals at the end"} <= {*report["finding"]}
    excel = tmp_path / "sales.xlsx"
    pd.DataFrame(money, columns=plain[0]).to_excel(excel, index=False)
    pd.testing.assert_frame_equal(read(excel)[0], table)


def test_features_by_expression_of_purchases(tmp_path):
    features = {"recency": {}, "rate": {"expression": "frequency / (tenure + 1)"}}
    table, _ = read(write_text(tmp_path, GOOD), {"features": features})
    assert table["rate"].tolist() == [1 / (days + 1) for days in range(11, -1, -1)]


@pytest.mark.usefixtures("way")
def test_an_early_day_leaves_nobody(tmp_path):
    said = refuse(write_text(tmp_path, GOOD), {"as_of": date(2023, 1, 1)})
    assert said == "sales.csv: 0 customers with a purchase are too few; give at least 10."


def test_lines_are_counted_in_large_files(tmp_path):
    rows = "".join(f"{i % 50},1,2024-01-01,{i}\n" for i in range(400_000))
    said = refuse(write_text(tmp_path, f"id,order,day,paid\n{rows}A,1,2024-01-01,x\n"))
    assert "('x' in line 400002)" in said


@pytest.mark.usefixtures("way")
def test_nothing_stays_behind(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "folder"))
    read(write_text(tmp_path, GOOD))
    refuse(write_text(tmp_path, "id\n"))
    assert not list((tmp_path / "folder").iterdir())
