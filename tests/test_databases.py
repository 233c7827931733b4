"""Each database is fitted and scored where the table lies, and tells what the file would.

PostgreSQL and MariaDB are started by the tests; without their programs these are skipped.
"""

import importlib.util
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any, NamedTuple
from urllib.parse import quote

import duckdb
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT
from modelling import build_model
from random_models import SHOP, TOLD, check_alike, fit_shop, list_segments, make_shop
from servers import put_rows, run_mariadb, run_postgres

from segmentation import InputError
from segmentation.customers import database as warehouse
from segmentation.customers import hash_table, read_card, read_customers
from segmentation.segments import (
    Scorer,
    assign_customers,
    build_figures,
    measure_segments,
    profiles,
    queries,
    tracking,
)
from segmentation.segments.model import polish
from segmentation.serving import Model
from segmentation.serving import batch as scoring

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
ROWS = 1_500


class Base(NamedTuple):
    """A database: its URL, a driver's own connections, how that marks a value, a type for text."""

    url: str
    connect: Callable[[], Any]
    mark: str = "%s"
    text: str = "TEXT"

    @property
    def kind(self) -> str:
        return self.url.partition(":")[0]

    def put(self, table: pd.DataFrame, name: str, **kinds: str) -> None:
        """A table with these rows; types of columns by name where they are not plain."""
        with closing(self.connect()) as connection:
            put_rows(connection, table, name, self.mark, **kinds)

    def run(self, *statements: str) -> list[Any]:
        """Run SQL; the rows of the last statement."""
        with closing(self.connect()) as connection:
            cursor = connection.cursor()
            for each in statements:
                cursor.execute(each if self.kind != "mariadb" else each.replace('"', "`"))
            rows = [*cursor.fetchall()] if cursor.description else []
            connection.commit()
        return rows


def start_sqlite(folder):
    path = folder / "sales.db"
    yield Base(f"sqlite://{path}", lambda: sqlite3.connect(path), "?")


def start_duckdb(folder):
    path = folder / "sales.ddb"
    yield Base(f"duckdb://{path}", lambda: duckdb.connect(str(path)), "?")


def start_postgres(_):
    need("psycopg", "initdb", "postgres")
    import psycopg

    with run_postgres() as own:
        yield Base(f"postgres://{tell(own)}/postgres", lambda: psycopg.connect(**own))


def start_mariadb(_):
    need("pymysql", "mariadb-install-db", "mariadbd")
    import pymysql

    with run_mariadb() as own:
        base = f"mariadb://{tell(own)}/shop"
        yield Base(base, lambda: pymysql.connect(**own, database="shop"), text="VARCHAR(40)")


def tell(own):
    return f"{own['user']}:{quote(own['password'], safe='')}@{own['host']}:{own['port']}"


def need(driver, *programs):
    if not importlib.util.find_spec(driver):
        pytest.skip(f"needs the driver {driver}")
    for program in programs:
        if not shutil.which(program):
            pytest.skip(f"needs the server's {program}")


STARTS = {"sqlite": start_sqlite, "duckdb": start_duckdb}
STARTS |= {"postgres": start_postgres, "mariadb": start_mariadb}
MARIADB = pytest.param("mariadb", marks=pytest.mark.long)
EMBEDDED = [pytest.param(name, marks=pytest.mark.long) for name in ("sqlite", "duckdb")]


@pytest.fixture(scope="module", params=["sqlite", "duckdb", "postgres", MARIADB])
def base(request, tmp_path_factory):
    yield from STARTS[request.param](tmp_path_factory.mktemp(request.param))


# Fitted where it lies ----------------------------------------------------------------------


def fit(card, k):
    """From the table to segments with words, as the notebooks go it, and the model."""
    drawn = read_customers(card, check_ids=True)
    table = drawn.table.sort_values(card.id, ignore_index=True)
    fitted, scans = polish(build_model(table, card, k), table, card)
    figures = build_figures(fitted, table, card)
    clustered = assign_customers(figures, table, card)
    measures, levels = measure_segments(clustered, card, figures=figures)
    profile = profiles.profile_features(measures, card)
    means = clustered.groupby("cluster")[list(card.features)].mean()
    segments = tracking.identify_segments(clustered, profile, card, centres=means)
    levels, rules = profiles.profile_levels(levels, card), profiles.find_rules(clustered, card)
    words = profiles.add_words(segments, profile, levels, rules, card)
    return drawn, figures, clustered, profile, levels, words, scans


def place(card, base, name, path):
    """The same card for a table in a database."""
    values = yaml.safe_load(card.path.read_text("utf-8"))
    values |= {"table": name, "backend": base.url}
    path.write_text(yaml.safe_dump(values, allow_unicode=True), "utf-8")
    return read_card(path)


def check_fits(here, there):
    """The same customers, labels, words and profiles; figures to ten digits."""
    assert there[0].total == here[0].total
    assert there[0].quality["finding"].tolist() == here[0].quality["finding"].tolist()
    for one, two in zip(here[2:5], there[2:5], strict=True):
        keys = [n for n in ("cluster", "variable", "level") if n in two and n in one]
        keys = keys if "variable" in keys else [one.columns[0]]
        pd.testing.assert_frame_equal(
            one.sort_values(keys, ignore_index=True),
            two[list(one)].sort_values(keys, ignore_index=True),
            rtol=1e-10,
            check_dtype=False,
        )
    check_words(there[5], here[5])
    assert len(there[6])


def check_words(one, two):
    """Nested texts and figures, these to ten digits."""
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        one, two = [*one.values()], [*two.values()]
    if isinstance(one, list):
        for each, other in zip(one, two, strict=True):
            check_words(each, other)
    else:
        assert one == pytest.approx(two, rel=1e-10) if isinstance(one, float) else one == two


@pytest.mark.parametrize("base", ["postgres", *EMBEDDED, MARIADB], indirect=True)
def test_the_bundled_table_is_fitted_alike(base, tmp_path):
    card = read_card("data/mall_customers.yaml")
    table = pd.read_csv(ROOT / "data/raw/Mall_Customers.csv")
    ids = table["CustomerID"].astype(str) + ".0"  # as a program that took them for numbers left it
    base.put(table.assign(CustomerID=ids), "customers", CustomerID=base.text)
    lying = place(card, base, "customers", tmp_path / "mall.yaml")
    check_fits(fit(card, 5), fit(lying, 5))
    assert hash_table(lying) == hash_table(lying)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A card of every policy, with decimals and dates, and its table as a file and as a frame."""
    folder = tmp_path_factory.mktemp("shop")
    table = make_shop(ROWS)
    table["since"] = pd.to_datetime("2026-01-31") - pd.to_timedelta(np.arange(ROWS) % 7, "D")
    table["since"] = table["since"].dt.date
    table["fee"] = (np.arange(ROWS) * 7919 % 1000 / 100).round(2)
    table.loc[::97, "fee"] = np.nan
    table.loc[::3, "plan"] = table["plan"].str.upper()
    table.to_csv(folder / "shop.csv", index=False)
    said = yaml.safe_load(SHOP) | {"table": "shop.csv"}
    said["features"]["fee"] = {"missing_values": [1.5], "range": [0, float("inf")]}
    said["features"]["each"] = {"expression": "spent / (basket - 30)", "outliers": "clip"}
    said["descriptors"]["since"] = {}
    (folder / "shop.yaml").write_text(yaml.safe_dump(said, allow_unicode=True), "utf-8")
    card = read_card(folder / "shop.yaml")
    return card, table, fit(card, 4)


def put_shop(base, table):
    """The shop with its gaps as the database may have them: NULL, NaN, an empty text."""
    texts = dict.fromkeys(("id", "city", "plan", "note"), base.text)
    base.put(table, "shop", **texts, age="INTEGER", since="DATE", fee="DECIMAL(10, 2)")
    odd = {
        "sqlite": [("Visits a year", "''"), ("age", "' '")],
        "duckdb": [("Visits a year", "'NaN'")],
        "postgres": [("Visits a year", "'NaN'"), ("fee", "'NaN'")],
    }
    for column, gap in odd.get(base.kind, ()):
        base.run(f'UPDATE shop SET "{column}" = {gap} WHERE "{column}" IS NULL')


@pytest.mark.parametrize("base", [*EMBEDDED, "postgres", MARIADB], indirect=True)
def test_every_policy_kind_and_gap_is_fitted_and_scored_alike(base, shop, tmp_path):
    card, table, here = shop
    put_shop(base, table)
    lying = place(card, base, "shop", tmp_path / "shop.yaml")
    there = fit(lying, 4)
    check_fits(here, there)
    scorer = Scorer(there[1])
    model = Model(tmp_path, {"run_id": "shop"}, scorer, list_segments(scorer))
    file = scoring.score_file(card.source, tmp_path / "scored.parquet", model)
    tally = scoring.score_into(base.url, "shop", "scored", model)
    assert (tally.rows, tally.segments, tally.statuses) == (ROWS, file.segments, file.statuses)
    told = warehouse.open_table(base.url, "scored").execute()
    check_alike(told, pd.read_parquet(tmp_path / "scored.parquet"))
    assert {*told["status"]} == {"ok", "borderline", "outside", "dropped"}
    one = scoring.score_into(base.url, "shop", "one", model, segment=model.segments[0]["name"])
    assert one.rows == ROWS
    kept = warehouse.open_table(base.url, "one").execute()
    assert [*kept["cluster"]] == [model.segments[0]["id"]] * len(kept)
    assert len(kept) == file.segments[model.segments[0]["id"]]


def test_text_among_numbers_is_refused(tmp_path):
    path = tmp_path / "s.db"
    base = Base(f"sqlite://{path}", lambda: sqlite3.connect(path), "?")
    base.put(pd.read_csv(ROOT / "data/raw/Mall_Customers.csv"), "customers")
    base.run("""UPDATE customers SET "Age" = 'forty' WHERE "CustomerID" = 7""")
    card = place(read_card("data/mall_customers.yaml"), base, "customers", tmp_path / "m.yaml")
    with pytest.raises(InputError, match="column Age: 1 values are text; store them as numbers"):
        read_customers(card)
    with pytest.raises(InputError, match="column Age holds 1 texts; store numbers, NULL for"):
        queries.find_columns(warehouse.open_table(base.url, "customers"), card, ["Age"])


def test_no_planner_merges_the_steps_of_scoring(base, shop):
    """Merged, a plan is hundreds of times as long, and the database as slow."""
    _, table, here = shop
    put_shop(base, table)
    scorer = Scorer(here[1])
    lying = warehouse.open_table(base.url, "shop")
    query = lying.get_backend().compile(queries.score_table(lying, scorer, list_segments(scorer)))
    explain = "EXPLAIN VERBOSE" if base.kind == "postgres" else "EXPLAIN"
    with closing(lying.get_backend().raw_sql(f"{explain} {query}")) as cursor:
        plan = "\n".join(map(str, cursor.fetchall()))
    warehouse.close(lying)
    assert len(plan) < 10 * len(query)


# Refused by a server -----------------------------------------------------------------------

GRANTS = {
    "postgres": [
        """CREATE ROLE "an@na" LOGIN PASSWORD 's3cret+'""",
        'GRANT SELECT ON shop TO "an@na"',
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'an@na'",
    ],
    "mariadb": [
        "CREATE USER `an@na`@'127.0.0.1' IDENTIFIED BY 's3cret+'",
        "GRANT SELECT ON shop.* TO `an@na`@'127.0.0.1'",
        "KILL USER `an@na`@'127.0.0.1'",
    ],
}


@pytest.mark.parametrize("base", ["postgres", MARIADB], indirect=True)
def test_what_a_server_refuses_is_a_line_without_secrets(base, shop, tmp_path):
    card, table, here = shop
    put_shop(base, table)
    create, grant, end = GRANTS[base.kind]
    base.run(create)
    anna = base._replace(url=re.sub("//.*@", "//an%40na:s3cret+@", base.url))
    card, scorer = place(card, anna, "shop", tmp_path / "shop.yaml"), Scorer(here[1])
    model = Model(tmp_path, {"run_id": "shop"}, scorer, list_segments(scorer))

    def refuse(does, told):
        with pytest.raises(InputError, match=told) as refused:
            does()
        assert "\n" not in str(refused.value)
        assert "s3cret" not in str(refused.value)
        assert "an@na" not in str(refused.value)

    refuse(lambda: read_customers(card), "denied")
    refuse(lambda: scoring.score_into(anna.url, "shop", "refused", model), "denied")
    refuse(lambda: warehouse.connect(anna.url.replace("s3cret", "t0ken")), "cannot be opened: ")
    base.run(grant)
    assert len(read_customers(card).table) == ROWS
    refuse(
        lambda: scoring.score_into(anna.url, "shop", "refused", model),
        "table refused cannot be written: .*denied",
    )
    lying = warehouse.open_table(anna.url, "shop")
    base.run(end)
    refuse(lambda: lying.count().execute(), "does not answer a query: ")


# Many rows ---------------------------------------------------------------------------------


@pytest.mark.long
def test_a_million_rows_are_scored_as_their_file_is(base, tmp_path):
    table = make_shop(1_000_000)
    table.to_parquet(tmp_path / "many.parquet", index=False)
    model, *_ = fit_shop(tmp_path, ROWS)
    texts = dict.fromkeys(("id", "city", "plan", "note"), base.text)
    base.put(table, "many", **texts)
    file = scoring.score_file(tmp_path / "many.parquet", tmp_path / "scored.parquet", model)
    tally = scoring.score_into(base.url, "many", "scored_many", model)
    assert (tally.rows, tally.segments) == (len(table), file.segments)
    columns = ["id", *TOLD, "distance", "confidence"]
    told = warehouse.open_table(base.url, "scored_many").select(columns).execute()
    check_alike(told, pd.read_parquet(tmp_path / "scored.parquet", columns=columns))
