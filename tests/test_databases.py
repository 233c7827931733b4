"""Each database is fitted and scored where the table lies, and tells what the file would.

PostgreSQL and MariaDB are started by the tests; without their programs these are skipped.
"""

import importlib.util
import shutil
import sqlite3
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import quote

import duckdb
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT
from modelling import build_model
from random_models import SHOP, check_alike, list_segments, make_shop
from servers import put_rows, run_mariadb, run_postgres

from segmentation.customers import database as warehouse
from segmentation.customers import hash_table, read_card, read_customers
from segmentation.segments import (
    Scorer,
    assign_customers,
    build_figures,
    measure_segments,
    polish,
    profiles,
    tracking,
)
from segmentation.serving import Model
from segmentation.serving import batch as scoring

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
ROWS = 1_500


class Base(NamedTuple):
    """A database: its URL, and how a table is put there (types of columns by name)."""

    url: str
    put: Callable[..., None]
    text: str = "TEXT"
    double: str = "DOUBLE PRECISION"


def connect_with(connect: Callable[[], Any], mark: str) -> Callable[..., None]:
    def put(table: pd.DataFrame, name: str, **kinds: str) -> None:
        connection = connect()
        put_rows(connection, table, name, mark, **kinds)
        connection.close()

    return put


def start_sqlite(folder):
    path = folder / "sales.db"
    yield Base(f"sqlite://{path}", connect_with(lambda: sqlite3.connect(path), "?"))


def start_duckdb(folder):
    path = folder / "sales.ddb"
    yield Base(f"duckdb://{path}", connect_with(lambda: duckdb.connect(str(path)), "?"))


def start_postgres(_):
    need("psycopg", "initdb", "postgres")
    import psycopg

    with run_postgres() as own:
        url = f"postgres://{own['user']}:{quote(own['password'], safe='')}@127.0.0.1:{own['port']}"
        put = connect_with(lambda: psycopg.connect(**own), "%s")
        yield Base(f"{url}/postgres", put)


def start_mariadb(_):
    need("pymysql", "mariadb-install-db", "mariadbd")
    import pymysql

    with run_mariadb() as own:
        url = f"mariadb://{own['user']}:{quote(own['password'], safe='')}@127.0.0.1:{own['port']}"
        put = connect_with(lambda: pymysql.connect(**own, database="shop"), "%s")
        yield Base(f"{url}/shop", put, "VARCHAR(40)")


def need(driver, *programs):
    if not importlib.util.find_spec(driver):
        pytest.skip(f"needs the driver {driver}")
    for program in programs:
        if not shutil.which(program):
            pytest.skip(f"needs the server's {program}")


STARTS = {
    **{"sqlite": start_sqlite, "duckdb": start_duckdb},
    **{"postgres": start_postgres, "mariadb": start_mariadb},
}


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=[pytest.mark.long] * (n == "mariadb")) for n in STARTS],
)
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


def test_the_bundled_table_is_fitted_alike(base, tmp_path):
    card = read_card("data/mall_customers.yaml")
    base.put(pd.read_csv(ROOT / "data/raw/Mall_Customers.csv"), "customers")
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
    table.to_csv(folder / "shop.csv", index=False)
    said = yaml.safe_load(SHOP) | {"table": "shop.csv"}
    said["features"]["fee"] = {"missing": "median"}
    said["descriptors"]["since"] = {}
    (folder / "shop.yaml").write_text(yaml.safe_dump(said, allow_unicode=True), "utf-8")
    card = read_card(folder / "shop.yaml")
    return card, table, fit(card, 4)


def put_shop(base, table):
    texts = dict.fromkeys(("id", "city", "plan", "note"), base.text)
    base.put(table, "shop", **texts, age="INTEGER", since="DATE", fee="DECIMAL(10, 2)")


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
