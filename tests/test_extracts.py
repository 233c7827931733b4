"""A table that stays where it is gives customers of the same table when it is read whole."""

import duckdb
import numpy as np
import pandas as pd
import pytest
import yaml

from segmentation import ROOT, InputError
from segmentation.customers import (
    Card,
    database,
    hash_table,
    is_large,
    open_customers,
    read_card,
    read_customers,
    table,
)

SPOILT = {"age": "1e6", "income": "-1", "gender": "'X'", "id": "'c1'"}


def make_table(path, rows=6_000, *, decimals=0, whole=False):
    """Customers in three groups, some ages missing, genders in two codings, as Parquet.

    `whole` stores the features as whole numbers.
    """
    rng = np.random.default_rng(3)
    group = rng.integers(3, size=rows)
    age = np.array([20, 40, 60])[group] + rng.normal(0, 1.5, rows)
    income = np.array([90, 20, 60])[group] + rng.normal(0, 3, rows)
    frame = pd.DataFrame(
        {
            "id": [f"c{i}" for i in range(rows)],
            "age": pd.Series(age).round(decimals).mask(rng.random(rows) < 0.02),
            "income": income.round(decimals).clip(0),
            "gender": rng.choice(["F", "female", "M"], rows),
            "city": rng.choice(["Bonn", "Köln", None], rows),
        }
    )
    kinds = {"age": "Int16", "income": "int32"} if whole else {}
    duckdb.from_df(frame.astype(kinds)).write_parquet(str(path))
    return frame


def write_card(path, **fields):
    values = {
        "title": "Shops",
        "table": "shops.parquet",
        "id": "id",
        "features": {
            "age": {"unit": "years", "range": [0, 120], "outliers": "clip"},
            "income": {"unit": "k$", "range": [0, 1000], "transform": "log", "weight": 1.5},
        },
        "descriptors": {"gender": {"levels": {"Female": ["F"], "Male": ["M"]}}, "city": {}},
    }
    path.write_text(yaml.safe_dump(values | fields, allow_unicode=True), "utf-8")
    return path


@pytest.fixture
def shops(tmp_path, monkeypatch):
    """Read the table whole, and where it lies."""

    def read(*, most=2_000, decimals=0, whole=False, seed=0, **fields):
        make_table(tmp_path / "shops.parquet", decimals=decimals, whole=whole)
        card = read_card(write_card(tmp_path / "shops.yaml", **fields))
        everyone = read_customers(card)
        assert not is_large(card)
        monkeypatch.setattr(table, "LARGE_CELLS", 20_000)
        monkeypatch.setattr(table, "SAMPLED", most)
        assert is_large(card)
        return card, everyone, read_customers(card, seed=seed)

    return read


@pytest.mark.parametrize("whole", [False, True])
def test_a_sample_is_of_the_table_s_customers(shops, whole):
    _, everyone, drawn = shops(whole=whole)
    assert (len(drawn.table), drawn.total, drawn.sampled) == (2_000, 6_000, True)
    own = everyone.table.set_index("id").loc[drawn.table["id"]].reset_index()
    pd.testing.assert_frame_equal(drawn.table, own, check_dtype=False)
    assert drawn.quality["rows"].tolist()[-1] == 6_000
    assert "sample of 2,000 of the 6,000 customers" in drawn.view
    assert drawn.table["gender"].value_counts(normalize=True)["Male"] == pytest.approx(
        1 / 3, abs=0.03
    )


def test_no_more_than_the_sample_are_all(shops):
    _, everyone, drawn = shops(most=7_000)
    assert not drawn.sampled
    same = (each.table.sort_values("id", ignore_index=True) for each in (everyone, drawn))
    pd.testing.assert_frame_equal(*same, check_dtype=False)


def test_a_seed_draws_the_same_people_and_another_others(shops):
    card, _, drawn = shops()
    again, others = read_customers(card), read_customers(card, seed=1)
    pd.testing.assert_frame_equal(drawn.table, again.table)
    assert 400 < len({*drawn.table["id"]} & {*others.table["id"]}) < 950  # a third by chance


def test_a_file_without_ids_is_drawn_by_the_numbers_of_its_rows(shops):
    card, everyone, drawn = shops(id="row")
    own = everyone.table.set_index("row").loc[drawn.table["row"]].reset_index()
    pd.testing.assert_frame_equal(drawn.table, own, check_dtype=False)
    assert open_customers(card).columns == ("row", *card.features, *card.descriptors)


def test_a_feature_by_expression_is_computed_where_the_table_lies(shops):
    features = {"age": {}, "x": {"expression": "(income - 0.1) / (age - 40) * 2.5 + -age"}}
    card, everyone, drawn = shops(most=7_000, features=features)
    lying = open_customers(card).to_pandas().set_index("id").loc[everyone.table["id"]]
    for found in (lying, drawn.table.set_index("id").loc[everyone.table["id"]]):
        np.testing.assert_array_equal(found["x"], everyone.table["x"])
    assert everyone.table["x"].isna().sum() > everyone.table["age"].isna().sum()


def test_columns_are_measured_where_they_lie(shops):
    card, everyone, _ = shops(decimals=6)
    lying = open_customers(card)
    numbers = {name: database.take_number(lying[name]) for name in card.features}
    measures = database.measure_columns(lying.mutate(cluster=0), numbers)
    measures = measures[measures["cluster"].isna()].set_index("variable")
    for name in card.features:
        values = everyone.table[name].dropna()
        figures = [len(values), values.mean(), values.std(ddof=0), values.min()]
        figures += [*values.quantile([0.25, 0.5, 0.75]), values.max()]
        np.testing.assert_allclose(
            measures.loc[name, list(database.FIGURES)].astype(float), figures
        )


@pytest.mark.parametrize(
    ("column", "told"),
    [
        ("age", r"column age: 1 values lie outside 0…120 years; they go from .* to 1e\+06"),
        ("income", r"column income: 1 values lie outside 0…1000 k\$.*\n.*1 negative values"),
        ("gender", r"column gender: 1 codings are unknown \('X' of 1 customers\)"),
        ("id", r"column id: 1 ids stand twice; keep one row a customer"),
    ],
)
def test_every_value_is_checked_where_it_is(tmp_path, monkeypatch, column, told):
    make_table(tmp_path / "all.parquet")
    monkeypatch.setattr(table, "LARGE_CELLS", 0)
    columns = ", ".join(
        f"CASE WHEN id = 'c77' THEN {SPOILT[name]} ELSE {name} END AS {name}"
        if name == column
        else name
        for name in ("id", "age", "income", "gender", "city")
    )
    source = f"SELECT {columns} FROM read_parquet('{tmp_path / 'all.parquet'}')"
    duckdb.sql(source).write_parquet(str(tmp_path / "shops.parquet"))
    card = read_card(write_card(tmp_path / "shops.yaml"))
    with pytest.raises(InputError, match=told):
        read_customers(card, check_ids=True)


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        ("i", None),
        ("'c' || i", None),
        ("CASE i WHEN 7 THEN 8 ELSE i END", "1 ids stand twice"),
        ("CASE i WHEN 7 THEN ' c8 ' ELSE 'c' || i END", "1 ids stand twice"),
        ("CASE i WHEN 7 THEN NULL ELSE i END", "1 ids are empty"),
        ("CASE i WHEN 7 THEN ' ' WHEN 9 THEN NULL ELSE 'c' || i END", "2 ids are empty"),
    ],
)
def test_ids_are_compared_where_they_lie(tmp_path, monkeypatch, ids, told):
    monkeypatch.setattr(table, "LARGE_CELLS", 0)
    source = f"SELECT {ids} AS id, i % 50 AS age, i % 40 AS income, 'F' AS gender, 'Bonn' AS city"
    duckdb.sql(f"{source} FROM range(1000) t(i)").write_parquet(str(tmp_path / "shops.parquet"))
    card = read_card(write_card(tmp_path / "shops.yaml"))
    read_customers(card)  # ids are not looked for unless asked
    if told is None:
        read_customers(card, check_ids=True)
        return
    with pytest.raises(InputError, match=told):
        read_customers(card, check_ids=True)


def test_text_is_no_number(tmp_path, monkeypatch):
    make_table(tmp_path / "shops.parquet")
    monkeypatch.setattr(table, "LARGE_CELLS", 0)
    parts = {"age": {}, "city": {}}
    card = read_card(write_card(tmp_path / "shops.yaml", features=parts, descriptors={}))
    with pytest.raises(InputError, match="column city: its values are string, not numbers; store"):
        read_customers(card)


def write_database(folder, times=3):
    """The bundled table in a database, each customer as several with other ids; its card."""
    source = (ROOT / "data/raw/Mall_Customers.csv").as_posix()
    with duckdb.connect(str(folder / "mall.ddb")) as db:
        db.execute(
            f"CREATE TABLE customers AS SELECT * REPLACE (CustomerID + 1000 * i AS CustomerID) "
            f"FROM read_csv('{source}'), range({times}) t(i)"
        )
    values = yaml.safe_load((ROOT / "data/mall_customers.yaml").read_text("utf-8"))
    path = folder / "mall.yaml"
    values |= {"table": "customers", "backend": "duckdb://mall.ddb"}
    path.write_text(yaml.safe_dump(values, allow_unicode=True), "utf-8")
    return path


def test_purchases_are_not_read_from_a_database():
    said = {"customer": "c", "date": "d", "amount": "a"}
    with pytest.raises(ValueError, match="leave `backend:` out"):
        Card(title="Shop", table="sales", backend="duckdb://s.ddb", transactions=said)


def test_a_missing_database_and_table_are_told(tmp_path):
    path = write_database(tmp_path)
    for old, new, told in (
        ("table: customers", "table: custmers", "did you mean customers"),
        ("mall.ddb", "mail.ddb", "no such database; correct the URL"),
    ):
        path.with_name("odd.yaml").write_text(path.read_text("utf-8").replace(old, new), "utf-8")
        with pytest.raises(InputError, match=told):
            read_customers(read_card(path.with_name("odd.yaml")))


def test_a_database_tells_itself_from_another(tmp_path):
    card = read_card(write_database(tmp_path))
    digest = hash_table(card)
    assert digest == hash_table(card)
    with duckdb.connect(str(tmp_path / "mall.ddb")) as db:
        db.execute("UPDATE customers SET Age = Age + 1 WHERE CustomerID = 7")
    assert hash_table(card) != digest


def test_a_table_in_a_database_is_read_with_its_ids(tmp_path):
    path = write_database(tmp_path)
    customers = read_customers(read_card(path), check_ids=True)
    assert (customers.total, customers.sampled) == (600, False)
    assert customers.table["Gender"].value_counts().to_dict() == {"Female": 336, "Male": 264}
    path.write_text(path.read_text("utf-8").replace("id: CustomerID", "id: row"), "utf-8")
    with pytest.raises(InputError, match="has no ids; name a column by `id:`"):
        read_customers(read_card(path))
