"""Transactions become customers: the figures, what is reported, what is refused and how."""

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from segmentation import InputError
from segmentation.customers import Card, purchases
from segmentation.customers.card import Feature, load_card
from segmentation.customers.dates import find_date_format

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
        scan_all(monkeypatch)
    return request.param


def scan_all(monkeypatch):
    """As if every file were too large to be read as text, also where the scan refuses it."""
    monkeypatch.setattr(purchases, "SCANNED", 0)
    monkeypatch.setattr(purchases.tables, "LARGEST_FILE", 0)


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
        (
            ",1,2024-01-01,1\n",
            "column id: 1 customer ids are empty (line 14); fill them, or leave these rows out by "
            "`missing: drop` in `transactions:`.",
        ),
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
        "sales.csv: column id: 1 customer ids are empty (line 3); fill them, or leave these rows "
        "out by `missing: drop` in `transactions:`.",
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
    scan_all(monkeypatch)
    said = refuse(write_text(tmp_path, text))
    assert message in said
    assert "SECRET" not in said


def test_files_are_refused(tmp_path, monkeypatch):
    assert "is not a file" in refuse(tmp_path)
    latin = write_text(tmp_path, GOOD + "é,1,2024-01-01,1\n", encoding="latin-1")
    assert "is not utf-8" in refuse(latin)
    assert "encoding ebc is not known" in refuse(latin, {"encoding": "ebc"})
    late = write_text(tmp_path, GOOD + "é,1,2024-01-01,1\n" * 400_000, encoding="latin-1")
    scan_all(monkeypatch)
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
    rows = "".join(f"{i % 50},1,2024-01-01,{i}\n" for i in range(100_000))
    said = refuse(write_text(tmp_path, f"id,order,day,paid\n{rows}A,1,2024-01-01,x\n"))
    assert "('x' in line 100002)" in said


@pytest.mark.usefixtures("way")
def test_nothing_stays_behind(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "folder"))
    read(write_text(tmp_path, GOOD))
    refuse(write_text(tmp_path, "id\n"))
    assert not list((tmp_path / "folder").iterdir())


PARTS = {
    "customer": "id",
    "date": "day",
    "amount": "",
    "quantity": "pieces",
    "price": "each",
    "order": "order",
}


def draw_parts(rows=3000, seed=0):
    """Random purchases by quantity and price: cancelled orders, rows without a customer, `.0`."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "order": rng.integers(536_000, 536_000 + rows // 3, rows),
            "pieces": rng.integers(1, 30, rows),
            "each": rng.integers(0, 3000, rows) / 100,
            "id": rng.integers(17_000, 17_200, rows),
            "day": rng.choice(DAYS, rows),
        }
    )
    cancelled, unknown = rng.random((2, rows)) < [[0.1], [0.2]]
    table["order"] = np.where(cancelled, "C", "") + table["order"].astype(str)
    table["pieces"] = table["pieces"].where(~cancelled | (table["pieces"] > 15), -table["pieces"])
    table["id"] = (table["id"].astype(str) + ".0").where(
        table["id"] % 2 == 0, table["id"].astype(str)
    )
    table["id"] = table["id"].mask(unknown, rng.choice(["", "nan", " NULL", "n/a"], rows))
    return table.assign(cancelled=cancelled, unknown=unknown)


def write_german(rows):
    """The same rows as a shop in Germany exports them."""
    money = rows["each"].map("{:,.2f} €".format).str.translate(str.maketrans(",.", ".,"))
    day = pd.to_datetime(rows["day"])
    day = day.dt.day.astype(str) + day.dt.strftime(".%m.%Y") + " 8:26"
    return rows.assign(each=money, day=day).to_csv(index=False, sep=";")


@pytest.mark.parametrize("returns", ["subtract", "drop"])
def test_amounts_are_quantity_times_price(tmp_path, monkeypatch, returns):
    rows = draw_parts()
    signed = rows["pieces"].abs() * rows["each"] * np.where(rows["cancelled"], -1, 1)
    known = rows.assign(paid=signed.round(2), id=rows["id"].str.removesuffix(".0"))
    known = known[~known["unknown"] & ~(known["cancelled"] & (returns == "drop"))]
    expected = compute_in_pandas(known, order="order")
    says = PARTS | {"missing": "drop", "returns": returns}
    path = write_text(tmp_path, rows.drop(columns=["cancelled", "unknown"]).to_csv(index=False))
    table, report = read(path, **says)
    check_same(table, expected)
    counts = report.set_index("finding")["rows"]
    cancelled = (rows["cancelled"] & ~rows["unknown"]).sum()
    assert counts["rows without a customer"] == rows["unknown"].sum()
    told = counts.filter(like="returns" if returns == "drop" else "cancelled")
    assert told.to_list() == [cancelled]
    german = write_text(tmp_path, write_german(rows), "german.csv")
    scanned = write_parquet(tmp_path, path)
    again = read(german, **says, date_format="%d.%m.%Y %H:%M")[0]
    pd.testing.assert_frame_equal(again, table)
    scan_all(monkeypatch)
    for other in (path, scanned):
        pd.testing.assert_frame_equal(read(other, **says)[0], table)


def test_what_a_scan_does_not_know_is_read_as_text(tmp_path, monkeypatch):
    """Signs, a line of totals and short rows far below a plain beginning; 1.234 is no guess."""
    monkeypatch.setattr(purchases, "SCANNED", 0)
    monkeypatch.setattr(purchases, "FIRST_ROWS", 5)
    text = GOOD + 'A,1,2024-02-01,"€ 1,234.50"\nTotal,,,99\n'
    table, report = read(write_text(tmp_path, text), order="order")
    assert table.set_index("customer").loc["A", "monetary"] == 1234.5
    assert "a line of totals at the end" in {*report["finding"]}
    semicolons = GOOD.replace(",", ";").replace(".50", "")
    for extra in ("A;1;2024-02-01;1.234\n", "A;1;2024-02-01;1.234\n" * 2):
        path = write_text(tmp_path, semicolons + extra)
        assert "`decimal:`" in refuse(path)
        for decimal, paid in ((".", 1.234), (",", 1234)):
            table, _ = read(path, {"decimal": decimal})
            assert table["basket"].iloc[-1] == paid


@pytest.mark.parametrize(
    ("orders", "counted"),
    [
        (["C7", "c-8"], [-3, -3]),
        (["A7", "CX8"], [3, 3]),
    ],
)
@pytest.mark.usefixtures("way")
def test_a_cancellation_is_an_order_among_numbers(tmp_path, orders, counted):
    rows = "".join(f"001,{order},2024-02-01,3\n" for order in orders)
    table, _ = read(write_text(tmp_path, GOOD + rows), order="order")
    assert table["monetary"].iloc[0] == 1.5 + sum(counted)
    coded = "".join(f"{i:03d},C{i},2024-01-01,1\n" for i in range(1, 40))
    table, _ = read(write_text(tmp_path, GOOD + coded), order="order")
    assert table["monetary"].iloc[0] == 2.5


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("extra", "ids"), [("", {"1", "3"}), ("A7", {"1.0", "3.0", "3", "A7"}), ("1.5", {"1.0", "1.5"})]
)
def test_ids_lose_a_point_only_where_all_are_whole(tmp_path, extra, ids):
    text = "id,day,paid\n" + "".join(f" {i}.0 ,{DAYS[i]},1\n" for i in range(1, 13))
    text += f"3,2024-03-01,1\n{extra or 5},2024-03-01,1\n"
    table, _ = read(write_text(tmp_path, text))
    assert ids <= {*table["customer"]}
    assert len(table) == (12 if not extra else 14)


@pytest.mark.usefixtures("way")
def test_days_far_behind_all_others_are_asked_about(tmp_path):
    rows = "".join(f"{i % 50:03d},1,{DAYS[i % 300]},1\n" for i in range(400))
    text = f"id,order,day,paid\n{rows}A,1,2035-01-01,1\n"
    said = refuse(write_text(tmp_path, text))
    assert said == (
        "sales.csv: column day: 1 dates lie far behind all others ('2035-01-01' in line 402); "
        "correct them, or say in the card up to which day rows count, as `as_of: 2024-10-26`."
    )
    table, _ = read(tmp_path / "sales.csv", {"as_of": date(2024, 10, 26)})
    assert len(table) == 50
    assert "9 dates" in refuse(write_text(tmp_path, text + "A,1,9999-12-31,1\n" * 8))
    many = write_text(tmp_path, text + "B,1,2035-01-01,1\n" * 9)  # 2 % are no slip
    assert read(many)[0]["recency"].min() == 0


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({}, "`quantity:` and `price:` together; got none of them."),
        ({"amount": "a", "price": "p"}, "by `amount:` alone, or"),
        ({"quantity": "q"}, "together; got quantity."),
        ({"price": "p"}, "together; got price."),
        ({"amount": "a", "missing": "skip"}, "'refuse' or 'drop'"),
        ({"amount": "a", "returns": "keep"}, "'subtract' or 'drop'"),
        ({"quantiy": "q", "price": "p"}, "did you mean quantity?"),
    ],
)
def test_what_a_card_may_say_of_amounts(tmp_path, said, message):
    parts = {"customer": "c", "date": "d"} | said
    card = write_text(tmp_path, f"title: T\ntable: t.csv\ntransactions: {parts}\n", "card.yaml")
    with pytest.raises(InputError) as error:
        load_card(card)
    assert message in str(error.value)


def test_features_of_purchases_read_as_people_say_them():
    fields = {"title": "T", "table": "t.csv", "currency": "€", "transactions": COLUMNS}
    every = Card.model_validate(fields)
    named = {"recency": {}, "monetary": {"transform": "log"}, "basket": {"label": "Mean bill"}}
    some = Card.model_validate(fields | {"features": named})
    assert [*every.titles.values()] == [
        "Days since last purchase",
        "Purchases",
        "Total spent (€)",
        "Days since first purchase",
        "Average basket (€)",
    ]
    assert [*every.kinds.values()] == ["recency", "frequency", "spending", "tenure", ""]
    assert [*some.titles.values()] == [
        "Days since last purchase",
        "Total spent (€)",
        "Mean bill (€)",
    ]
    assert [*some.kinds.values()] == ["recency", "spending", ""]
    assert some.features["monetary"].transform == "log"
    told = {Feature(label="Loyalty Points", unit="points").title, Feature(label="Age").title}
    assert told == {"Loyalty Points", "Age"}
    assert Feature(label="Holidays", unit="days").title == "Holidays (days)"


DATED = [
    "%d.%m.%Y",
    "%m/%d/%Y %H:%M",
    "%d/%m/%y",
    "%d-%b-%Y",
    "%d. %B %Y",
    "%B %d, %Y",
    "%m/%d/%Y %I:%M:%S %p",
    "%Y/%m/%d",
    "%Y%m%d",
    "%d.%m.%Y, %H:%M:%S.%f",
]


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("form", DATED)
def test_the_format_of_dates_is_found_and_read(tmp_path, form, padded):
    days = pd.Series(pd.date_range("2023-12-05", periods=40, freq="37h"))
    cells = days.dt.strftime(form)
    if not padded:
        cells = cells.str.replace(r"^0|(?<=[./])0(?=\d[./])", "", regex=True)
    assert find_date_format(cells) == form
    text = "id;day;paid\n" + "".join(f"{i};{cell};1\n" for i, cell in enumerate(cells))
    table, _ = read(write_text(tmp_path, text), date_format=form)
    far = (days.dt.normalize().max() - days.dt.normalize()).dt.days
    assert sorted(table["recency"]) == sorted(far)


@pytest.mark.usefixtures("way")
def test_the_mend_of_dates_is_the_format_that_they_have(tmp_path):
    text = "id,day,paid\n" + "".join(f"{i},{i}/5/24 8:26,1\n" for i in range(1, 20))
    path = write_text(tmp_path, text)
    assert refuse(path).endswith('lines 2, 3, 4…); say `date_format: "%d/%m/%y %H:%M"`.')
    assert len(read(path, date_format="%d/%m/%y %H:%M")[0]) == 19
    assert "say which is the day" in refuse(write_text(tmp_path, "\n".join(text.split("\n")[:12])))
    said = refuse(write_text(tmp_path, GOOD), date_format="%d.%m.%Y")
    assert said.endswith("leave `date_format:` out.")


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        (["2024-01-05", "2024-12-31T08:00"], ""),
        (["05.01.2024", "12.12.2024"], "ambiguous"),
        (["24-12-01", "24-11-02", "24-11-03"], "ambiguous"),
        (["13/01/2024"] * 97 + ["?", "later", "soon", "x"], "%d/%m/%Y"),
        (["13/01/2024"] * 9 + ["x"], None),
        (["13/01/2024", "01/13/2024"], None),
        (["3 Mai 2024", "4 Mai 2024"], None),
        (["1.5", "2.25"], None),
        (["", "nan"], None),
    ],
)
def test_formats_are_asked_or_none(cells, found):
    assert find_date_format(pd.Series(cells)) == found


@pytest.mark.usefixtures("way")
def test_what_is_bought_after_the_day_of_the_data_is_an_outcome(tmp_path):
    text = (
        GOOD
        + "001,20,2024-03-01,10\n001,21,2024-03-02,-4\n002,22,2024-03-01,-1\nnew,23,2024-03-01,9\n"
    )
    path = write_text(tmp_path, text)
    made = {"bought_after": {}, "spent_after": {"label": "Spent in March"}}
    said = {"as_of": date(2024, 2, 1), "outcomes": made, "currency": "€"}
    table, report = read(path, said)
    without, _ = read(path, {"as_of": date(2024, 2, 1)})
    pd.testing.assert_frame_equal(table[without.columns], without)
    after = table.set_index("customer")[["bought_after", "spent_after"]]
    assert after.loc["001"].tolist() == [1, 6]
    assert after.loc["002"].tolist() == [0, -1]
    assert after.loc["003"].tolist() == [0, 0]
    assert "new" not in after.index
    assert ["dates after 2024-02-01", 4, "counted as outcomes"] in report.iloc[
        :, 1:
    ].to_numpy().tolist()
    with pytest.raises(InputError, match="no purchase after the 2024-03-02 of `as_of:`; leave"):
        read(path, said | {"as_of": date(2024, 3, 2)})


def test_outcomes_of_purchases_are_the_two_that_are_made():
    parts = {"title": "t", "table": "", "transactions": COLUMNS}
    with pytest.raises(ValueError, match=r"outcomes of purchases are those after `as_of:`; say it"):
        Card.model_validate(parts | {"outcomes": {"bought_after": {}}})
    with pytest.raises(ValueError, match="and the outcomes bought_after, spent_after, no others"):
        Card.model_validate(parts | {"as_of": "2024-01-01", "outcomes": {"answered": {}}})
    card = Card.model_validate(
        parts | {"as_of": "2024-01-01", "currency": "€", "outcomes": {"spent_after": {}}}
    )
    assert (card.outcomes["spent_after"].unit, card.outcomes["spent_after"].label) == (
        "€",
        "Spent afterwards",
    )
