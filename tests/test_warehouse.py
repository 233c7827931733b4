"""Tables where they lie: opened, refused, scored and measured as a file would be."""

import re
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import duckdb
import ibis
import numpy as np
import pandas as pd
import pytest
from random_models import check_alike, fit_shop, list_segments, make_model, put_table

from segmentation import InputError
from segmentation.__main__ import main
from segmentation.customers import Card, read_customers
from segmentation.customers import database as warehouse
from segmentation.customers.card import OURS
from segmentation.runs import folder as runs
from segmentation.segments import profiles, queries
from segmentation.serving import batch as scoring


@pytest.fixture
def database(tmp_path):
    """A DuckDB file with customers in two schemas: its URL."""
    path = tmp_path / "sales.ddb"
    with duckdb.connect(str(path)) as db:
        db.execute('CREATE TABLE customers AS SELECT 30 AS "Age"; CREATE SCHEMA crm')
        db.execute("CREATE TABLE crm.members AS SELECT 1 AS one")
    return f"duckdb://{path}"


# Opening -----------------------------------------------------------------------------------


def test_a_table_is_found_by_its_name_and_schema(database):
    assert warehouse.open_table(database, "customers").columns == ("Age",)
    assert warehouse.open_table(database, "crm.members").columns == ("one",)
    assert warehouse.open_table(database, "sales.crm.members").columns == ("one",)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("custmers", "table custmers is not known; did you mean customers?"),
        ("crm.member", "table crm.member is not known; did you mean members?"),
        ("erp.members", "table erp.members is not known; there are no tables where it should be."),
        ("a..b", "table 'a..b' is no name; write TABLE or SCHEMA.TABLE."),
    ],
)
def test_a_table_that_is_not_there_is_told_with_the_nearest(database, name, told):
    with pytest.raises(InputError, match=f"^{re.escape(told)}$"):
        warehouse.open_table(database, name)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("duckdb://none.ddb", "none.ddb: no such database; correct the URL."),
        ("sqlite://none.db", "none.db: no such database; correct the URL."),
        ("duck://x", "duck://x: no such backend; did you mean duckdb?"),
        ("sales.ddb", "sales.ddb: no such backend; known are bigquery,"),
        ("http://[x", "the URL cannot be opened: it is no URL; correct the URL."),
    ],
)
def test_an_url_that_leads_nowhere_is_refused(url, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"^{re.escape(told)}"):
        warehouse.connect(url)
    assert not any(tmp_path.iterdir())


def test_a_missing_driver_is_named(monkeypatch):
    import ibis

    def fail(*_, **__):
        raise ImportError("no psycopg.\nInstall it from elsewhere.")

    monkeypatch.setattr(ibis, "connect", fail)
    told = (
        r"^postgres:// needs its driver \(no psycopg\); pip install 'customer-segments\[postgres\]'"
    )
    with pytest.raises(InputError, match=told):
        warehouse.connect("postgresql://anna:s3cret@db.example/shop")


def test_no_message_shows_a_secret(monkeypatch):
    import ibis

    def fail(url, **_):
        raise RuntimeError(f"{url}: anna with p@ss/w0rd and t0ken was turned away.\nmore")

    monkeypatch.setattr(ibis, "connect", fail)
    url = "snowflake://anna:p%40ss%2Fw0rd@account/shop?token=t0ken"
    with pytest.raises(InputError) as refused:
        warehouse.connect(url)
    told = str(refused.value)
    assert told.startswith("snowflake://account/shop cannot be opened: ")
    assert told.endswith("was turned away; correct the URL.")
    assert not any(secret in told for secret in ("anna", "w0rd", "t0ken", "more"))


@pytest.mark.parametrize("password", ["p@ss", "p/ss", "p?ss=1", "p#ss@host", "p:ss"])
def test_all_before_the_last_at_is_secret(password, monkeypatch):
    import ibis

    def fail(url, **_):
        raise RuntimeError(f"could not translate host name in {url}")

    monkeypatch.setattr(ibis, "connect", fail)
    with pytest.raises(InputError) as refused:
        warehouse.connect(f"snowflake://anna:{password}@account/shop")
    assert password not in str(refused.value)
    assert "anna" not in str(refused.value)
    monkeypatch.setenv("SHOP_WORD", password)
    expanded = warehouse.expand_url("snowflake://anna:$SHOP_WORD@account/${SHOP_WORD}")
    assert urlsplit(expanded.partition("/p")[0]).hostname == "account"
    assert unquote(urlsplit(expanded).password) == password


@pytest.mark.parametrize("dialect", ["bigquery", "databricks", "snowflake"])
def test_what_is_not_tried_here_is_written_as_sql_at_least(dialect, monkeypatch):
    named = SimpleNamespace(name=dialect)
    monkeypatch.setattr(ibis.Table, "get_backend", lambda _: named)
    scorer = next(s for s in map(make_model, range(99)) if not s.levels)
    kinds = {"id": "string"} | dict.fromkeys(scorer.columns, "float64")
    table = ibis.table(kinds, name="customers")
    scored = queries.score_table(table, scorer, list_segments(scorer))
    digests = {name: warehouse.hash_cells(table[name]).sum() for name in table.columns}
    for query in (scored, table.aggregate(**digests)):
        assert "SELECT" in ibis.to_sql(query, dialect=dialect)


def test_a_variable_that_is_not_set_is_named():
    with pytest.raises(InputError, match=r"^backend: \$NO_SUCH is not set; set it in the env"):
        warehouse.expand_url("postgres://me:${NO_SUCH}@host/shop")


def test_duckdb_stays_within_limits_and_fetches_nothing(database):
    asked = "SELECT current_setting('autoinstall_known_extensions'), current_setting('threads')"
    for url in (database, "duckdb://"):
        fetches, threads = warehouse.connect(url).raw_sql(asked).fetchone()
        assert not fetches
        assert threads >= 1


def test_a_table_called_like_a_file_is_not_read_from_it(database, tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a,b\n1,2\n")
    for url in (database, "duckdb://"):
        with pytest.raises(InputError, match=r"x\.csv is not known; "):
            warehouse.open_table(url, str(path))


def test_a_parquet_file_is_read_as_it_is_called(tmp_path):
    folder = tmp_path / "year=2026"
    folder.mkdir()
    for name, value in (("a*[b]?.parquet", 1), ("a1b2.parquet", 2)):
        pd.DataFrame({"x": [value]}).to_parquet(folder / name, index=False)
    table = warehouse.open_file(folder / "a*[b]?.parquet").execute()
    assert table.to_dict("list") == {"x": [1]}


def test_what_is_no_parquet_is_refused(tmp_path):
    path = tmp_path / "x.parquet"
    with pytest.raises(InputError, match="no such table; give the path"):
        warehouse.open_file(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"^x\.parquet is not a Parquet file; write it anew\.$"):
        warehouse.open_file(path)


# One table, four ways ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A shop's model, its table and how the series clusters it; and its database's URL."""
    folder = tmp_path_factory.mktemp("shop")
    model, table, clustered = fit_shop(folder, 1500)
    path = folder / "shop.ddb"
    put_table(ibis.duckdb.connect(path), table, "customers")
    return model, table, clustered, f"duckdb://{path}"


def test_one_table_is_scored_alike_four_ways(shop, tmp_path):
    """By the series, as a file, inside DuckDB, and where a Parquet file lies."""
    model, table, clustered, url = shop
    assert {"ok", "borderline", "dropped"} <= {*clustered["status"]}
    tally = scoring.score_file(model.folder / "shop.parquet", tmp_path / "a.parquet", model)
    there = scoring.score_into(url, "customers", "scored", model)
    file, base = pd.read_parquet(tmp_path / "a.parquet"), read_table(url, "scored")
    assert list(file.columns) == list(base.columns)
    lying = warehouse.open_file(model.folder / "shop.parquet")
    scored = queries.score_table(lying, model.scorer, model.segments)
    for told in (file, base, scored.execute()):
        check_alike(told, clustered)
    assert (there.rows, +there.segments, +there.statuses) == (
        *(tally.rows, +tally.segments, +tally.statuses),
    )
    assert there.describe(model) == tally.describe(model)
    pd.testing.assert_frame_equal(base[table.columns], table, check_dtype=False)


def read_table(url, name):
    with duckdb.connect(url.removeprefix("duckdb://")) as db:
        return db.sql(f"FROM {name}").df()


def test_the_table_that_is_written_has_plain_types(shop):
    model, _, _, url = shop
    scoring.score_into(url, "customers", "typed", model)
    with duckdb.connect(url.removeprefix("duckdb://")) as db:
        types = dict(db.sql("SELECT column_name, column_type FROM (DESCRIBE typed)").fetchall())
    texts = dict.fromkeys(("segment", "second", "status"), "VARCHAR")
    wanted = {"cluster": "BIGINT", "distance": "DOUBLE", "confidence": "DOUBLE"} | texts
    assert {name: types[name] for name in wanted} == wanted
    assert types["note"] == "VARCHAR"


def test_segments_measure_alike(shop):
    """Sizes, means, spreads, quantiles and levels are those of the series' profiles."""
    model, _, clustered, url = shop
    card = model.scorer.card
    scored = queries.score_table(
        warehouse.open_table(url, "customers"), model.scorer, model.segments
    )
    measured = queries.measure_segments(scored, card)
    wanted = profiles.measure_features(clustered, card)
    own, wanted = (m.sort_values(["cluster", "variable"]) for m in (measured, wanted))
    for name in ("variable", "size", "customers"):
        assert list(own[name]) == list(wanted[name])
    for figure in ("mean", "sd", "min", "q25", "median", "q75", "max"):
        np.testing.assert_allclose(own[figure], wanted[figure], rtol=1e-9)


def test_levels_are_counted_alike(shop):
    model, _, clustered, url = shop
    card = model.scorer.card
    lying = warehouse.open_table(url, "customers")
    scored = queries.score_table(lying, model.scorer, model.segments)
    counted = queries.count_levels(scored, card)
    wanted = profiles.measure_levels(clustered, card)
    keys = ["cluster", "variable", "level"]
    own, wanted = (
        table[table["customers"] > 0].fillna({"cluster": -1}).set_index(keys)["customers"].to_dict()
        for table in (counted, wanted)
    )
    assert own == wanted
    assert len(own) > 10


def test_many_levels_are_pooled_as_the_series_pools_them(tmp_path):
    frame = pd.DataFrame({"cluster": 0, "id": range(300), "a": range(300), "b": 2.0})
    frame["town"] = [f"T{int(i**0.55)}" for i in range(300)]
    frame.to_csv(tmp_path / "t.csv", index=False)
    parts = {"features": {"a": {}, "b": {}}, "descriptors": {"town": {}}}
    card = Card.model_validate({"title": "t", "table": str(tmp_path / "t.csv"), "id": "id"} | parts)
    lying = put_table(warehouse.connect("duckdb://"), frame)
    counted = queries.count_levels(lying, card).query("cluster.notna()")
    wanted = read_customers(card).table["town"].value_counts()
    assert counted.set_index("level")["customers"].to_dict() == wanted.to_dict()
    assert "Other" in wanted


# Refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("age = -1 WHERE id IN ('c8', 'c9')", r"customers, age: 2 values are out of range; "),
        ("spent = 'inf' WHERE id = 'c7'", r"customers, spent: 1 value is out of range; allowed: a"),
        ("city = 'Ulm' WHERE id = 'c7'", r"^column city: every value must be one of Bonn, Köln"),
    ],
)
def test_a_table_with_problems_is_refused_and_nothing_written(shop, tmp_path, change, told):
    model, _, _, url = shop
    copy = tmp_path / "shop.ddb"
    copy.write_bytes(Path(url.removeprefix("duckdb://")).read_bytes())
    with duckdb.connect(str(copy)) as db:
        db.execute(f"UPDATE customers SET {change}")
    with pytest.raises(InputError, match=told):
        scoring.score_into(f"duckdb://{copy}", "customers", "refused", model)
    with duckdb.connect(str(copy)) as db:
        assert "refused" not in [name for (name,) in db.execute("SHOW TABLES").fetchall()]


def test_a_taken_name_an_unknown_one_and_no_rows_are_refused(shop, tmp_path):
    model, table, _, url = shop
    with pytest.raises(InputError, match=r"^table customers is there already; drop it, or name"):
        scoring.score_into(url, "customers", "customers", model)
    with pytest.raises(InputError, match=r"^table no\.scored cannot be written: .*no"):
        scoring.score_into(url, "customers", "no.scored", model)
    with pytest.raises(InputError, match="segment Oldre is not known"):
        scoring.score_into(url, "customers", "x", model, segment="Oldre")
    path = tmp_path / "empty.ddb"
    put_table(ibis.duckdb.connect(path), table.head(0), "customers")
    with pytest.raises(InputError, match=r"^customers has no customers; name a table with rows"):
        scoring.score_into(f"duckdb://{path}", "customers", "x", model)


def test_a_failure_half_way_leaves_nothing(shop):
    """The last row cannot be read, and the database finds out while it writes."""
    model, _, _, url = shop
    path = url.removeprefix("duckdb://")
    with duckdb.connect(path) as db:
        fails = "CASE WHEN id = 'c1499' THEN error('disk ' || id)::VARCHAR ELSE note END AS note"
        db.execute(f"CREATE OR REPLACE VIEW broken AS SELECT * REPLACE ({fails}) FROM customers")
    with pytest.raises(InputError, match=r"^table half cannot be written: .*disk c1499"):
        scoring.score_into(url, "broken", "half", model)
    with duckdb.connect(path) as db:
        assert "half" not in [name for (name,) in db.execute("SHOW TABLES").fetchall()]
        db.execute("DROP VIEW broken")


# The command -------------------------------------------------------------------------------


def test_the_command_scores_where_the_table_lies(mall_model, tmp_path, capsys):
    clustered = runs.Run(mall_model).read_table("clustered_data.csv", text=("CustomerID",))
    path = tmp_path / "mall.ddb"
    put_table(ibis.duckdb.connect(path), clustered.drop(columns=[*OURS]), "customers")
    where = ["--backend", f"duckdb://{path}", "--table", "customers", "--run", str(mall_model)]
    assert main(["score", *where, "--into", "scored"]) == 0
    told = capsys.readouterr().out
    assert told.splitlines()[-1] == "scored"
    assert "65  32.5%  Older" in told
    scored = read_table(f"duckdb://{path}", "scored")
    assert list(scored.columns) == list(clustered.columns)
    check_alike(
        scored.rename(columns={"CustomerID": "id"}), clustered.rename(columns={"CustomerID": "id"})
    )
    assert main(["score", *where, "--into", "older", "--segment", "Older"]) == 0
    assert "200 customers by the model" in capsys.readouterr().out
    assert len(read_table(f"duckdb://{path}", "older")) == 65
    assert main(["score", *where, "--into", "older"]) == 2
    assert capsys.readouterr().err == "table older is there already; drop it, or name another.\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["x.csv", "-o", "y.csv", "--backend", "duckdb://"], "not both"),
        (["-o", "y.csv", "--into", "t"], "not both"),
        (["x.csv"], "-o FILE missing; see"),
        ([], "TABLE and -o FILE missing"),
        (["--backend", "duckdb://"], "--table and --into missing"),
    ],
)
def test_half_a_place_is_refused_in_a_line(words, told, capsys):
    assert main(["score", *words]) == 2
    captured = capsys.readouterr()
    assert told in captured.err
    assert captured.err.count("\n") == 1
