"""A large table gives what the same table gives when it is read whole."""

import duckdb
import numpy as np
import pandas as pd
import pytest
import yaml

from segmentation import InputError
from segmentation.clustering import preprocessing as features
from segmentation.customers import extracts
from segmentation.customers import table as customers
from segmentation.customers import text as tables
from segmentation.customers.card import COUNT, Card
from segmentation.segments import model as segmenter
from segmentation.segments import profiles
from segmentation.segments import tracking as changes

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
    """Read the table large, and whole; of a large one, so many different rows are counted."""

    def read(most=None, *, decimals=0, whole=False, seed=0, **fields):
        make_table(tmp_path / "shops.parquet", decimals=decimals, whole=whole)
        card = customers.read_card(write_card(tmp_path / "shops.yaml", **fields))
        whole = customers.read_customers(card)
        monkeypatch.setattr(tables, "LARGE", 1_000)
        if most:
            monkeypatch.setattr(extracts, "MOST_DISTINCT", most)
            monkeypatch.setattr(extracts, "SAMPLED", 2_000)
        return card, whole, customers.read_customers(card, seed=seed)

    return read


def take_all(table, card, k=3):
    """The model of a table, and the figures of its segments."""
    pipeline = segmenter.fit(table, card, k=k)
    limits = segmenter.measure_limits(pipeline, table, card)
    clustered = segmenter.cluster_customers(pipeline, table, card, limits)
    return pipeline, clustered, *segmenter.measure_segments(pipeline, clustered, card, limits)


@pytest.mark.parametrize("stored_whole", [False, True])
def test_a_compressed_table_gives_the_figures_of_the_whole(shops, stored_whole):
    card, whole, large = shops(whole=stored_whole)
    assert len(large) < len(whole) / 2
    assert COUNT in large
    assert "id" not in large
    assert large[COUNT].sum() == len(whole)
    same = {"rtol": 1e-9, "check_dtype": False}
    for describe in (customers.describe_features, customers.count_levels, features.report_policies):
        left, right = (
            describe(each, card).sort_values(by=describe(each, card).columns[0])
            for each in (whole, large)
        )
        pd.testing.assert_frame_equal(
            left.reset_index(drop=True), right.reset_index(drop=True), **same
        )
    assert customers.summarize_customers(whole, card) == customers.summarize_customers(large, card)
    assert features.summarize_policies(whole, card) == features.summarize_policies(large, card)
    one, two = take_all(whole, card), take_all(large, card)
    centres = [made["kmeans"].cluster_centers_ for made, *_ in (one, two)]
    np.testing.assert_allclose(*centres, rtol=1e-9)
    pd.testing.assert_frame_equal(one[2], two[2], **same)
    by = ["variable", "cluster", "level"]
    left, right = (each[3].sort_values(by, ignore_index=True) for each in (one, two))
    pd.testing.assert_frame_equal(left, right, **same)
    rules = [profiles.find_rules(clustered, card) for _, clustered, *_ in (one, two)]
    pd.testing.assert_frame_equal(*rules, **same)
    statuses = [segmenter.summarize_assignment(clustered) for _, clustered, *_ in (one, two)]
    assert statuses[0] == statuses[1]


def test_few_counted_customers_are_shown_one_by_one(shops):
    card, whole, large = shops()
    drawn, features = customers.draw_customers(large), [*card.features]
    shown, own = (table.sort_values(features)[features] for table in (drawn, whole))
    np.testing.assert_array_equal(shown.to_numpy(), own.to_numpy())
    assert "drawn at random" not in customers.summarize_view(large, card)


def test_a_sample_is_measured_on_all_customers(shops):
    card, whole, large = shops(most=100, decimals=6)
    assert len(large) == 2_000
    assert large[COUNT].tolist() == [3.0] * 2_000
    pipeline, clustered, measures, levels = take_all(large, card)
    limits = segmenter.measure_limits(pipeline, large, card)
    everyone = segmenter.cluster_customers(pipeline, whole, card, limits)
    expected = profiles.measure_features(everyone, card)
    columns = list(expected)
    pd.testing.assert_frame_equal(
        measures.sort_values(["variable", "cluster"], ignore_index=True)[columns],
        expected.sort_values(["variable", "cluster"], ignore_index=True),
        rtol=1e-9,
        check_dtype=False,
    )
    by = ["variable", "cluster", "level"]
    pd.testing.assert_frame_equal(
        levels.sort_values(by, ignore_index=True)[[*by, "customers"]].astype({"level": str}),
        profiles.measure_levels(everyone, card)
        .sort_values(by, ignore_index=True)[[*by, "customers"]]
        .astype({"level": str}),
        check_dtype=False,
    )
    assert "a seeded sample of 2,000 of the 6,000 customers" in customers.summarize_view(
        large, card
    )
    assert len(clustered) == 2_000


def test_everyone_stands_in_the_file_of_a_sampled_table(shops, tmp_path):
    card, whole, large = shops(most=100, decimals=6)
    pipeline = segmenter.fit(large, card, k=3)
    scorer = segmenter.build_scorer(pipeline, card, segmenter.measure_limits(pipeline, large, card))
    segments = [{"id": 7 - i, "name": f"Segment {7 - i}"} for i in range(3)]
    segmenter.save_customers(lambda name: tmp_path / name, scorer, card, segments)
    written = pd.read_parquet(tmp_path / "clustered_data.parquet").set_index("id")
    expected = segmenter.assign(scorer, whole).set_index(whole["id"])
    found = written.loc[expected.index]
    assert (7 - found["cluster"] == expected["position"]).all()
    assert (found["segment"] == "Segment " + found["cluster"].astype(str)).all()
    assert (found["status"] == expected["status"]).all()
    np.testing.assert_allclose(found["distance"], expected["distance"], rtol=1e-12)


def test_a_seed_draws_the_same_people_and_another_others(shops):
    card, _, large = shops(most=100, decimals=6)
    again, others = customers.read_customers(card), customers.read_customers(card, seed=1)
    pd.testing.assert_frame_equal(large, again)
    assert 400 < len({*large["id"]} & {*others["id"]}) < 950  # a third by chance


def test_a_table_without_ids_cannot_be_sampled(shops):
    with pytest.raises(InputError, match=r"name a column by `id:`"):
        shops(most=100, decimals=6, id="row")


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
    monkeypatch.setattr(tables, "LARGE", 1_000)
    columns = ", ".join(
        f"CASE WHEN id = 'c77' THEN {SPOILT[name]} ELSE {name} END AS {name}"
        if name == column
        else name
        for name in ("id", "age", "income", "gender", "city")
    )
    source = f"SELECT {columns} FROM read_parquet('{tmp_path / 'all.parquet'}')"
    duckdb.sql(source).write_parquet(str(tmp_path / "shops.parquet"))
    card = customers.read_card(write_card(tmp_path / "shops.yaml"))
    with pytest.raises(InputError, match=told):
        customers.inspect_customers(card)


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
def test_ids_are_compared_part_by_part(tmp_path, monkeypatch, ids, told):
    monkeypatch.setattr(extracts, "IDS_AT_ONCE", 300)
    source = f"SELECT {ids} AS id, i % 50 AS age, i % 40 AS income, 'F' AS gender, 'Bonn' AS city"
    duckdb.sql(f"{source} FROM range(1000) t(i)").write_parquet(str(tmp_path / "shops.parquet"))
    notes = tables.Notes()
    extracts.check_ids(customers.read_card(write_card(tmp_path / "shops.yaml")), notes)
    assert [problem.rule for problem in notes.problems] == ([told] if told else [])


def test_text_is_no_number(tmp_path, monkeypatch):
    make_table(tmp_path / "shops.parquet")
    monkeypatch.setattr(tables, "LARGE", 1_000)
    parts = {"age": {}, "city": {}}
    card = customers.read_card(write_card(tmp_path / "shops.yaml", features=parts, descriptors={}))
    with pytest.raises(InputError, match="column city: its values are string, not numbers; store"):
        customers.read_customers(card)


def write_database(folder, times=3):
    """The bundled table in a database, each customer as several with other ids; its card."""
    source = (customers.ROOT / "data/raw/Mall_Customers.csv").as_posix()
    with duckdb.connect(str(folder / "mall.ddb")) as db:
        db.execute(
            f"CREATE TABLE customers AS SELECT * REPLACE (CustomerID + 1000 * i AS CustomerID) "
            f"FROM read_csv('{source}'), range({times}) t(i)"
        )
    values = yaml.safe_load((customers.ROOT / "data/mall_customers.yaml").read_text("utf-8"))
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
            customers.read_customers(customers.read_card(path.with_name("odd.yaml")))


def test_followers_of_counted_rows_are_matched_by_their_centres(shops):
    card, whole, large = shops()
    pipeline, clustered, measures, _ = take_all(large, card)
    profile = profiles.profile_features(measures, card)
    centres = segmenter.find_centres(pipeline, card)
    limits = segmenter.measure_limits(pipeline, large, card)
    scorer = segmenter.build_scorer(pipeline, card, limits)
    segments = changes.identify_segments(clustered, profile, centres, card, None)
    customers_now = changes.index_customers(segmenter.name_customers(clustered, segments), card)
    before = changes.Snapshot("before", customers_now, segments, scorer, 9)
    assert before.size == len(whole)
    known = changes.identify_segments(clustered, profile, centres, card, before)
    assert [segment["id"] for segment in known] == [segment["id"] for segment in segments]
    told = changes.summarize_previous(before, before)
    assert told.startswith("Compared with the run before of 6,000 customers. Its customers are")
    fit = changes.measure_fit(before, before)
    assert fit["customers"].tolist() == [6_000, 6_000]
    drift = changes.measure_drift(before, before, card)
    assert drift["psi"].tolist() == pytest.approx([0] * 4, abs=1e-12)


def test_a_database_tells_itself_from_another(tmp_path):
    card = customers.read_card(write_database(tmp_path))
    digest = extracts.hash_table(card)
    assert digest == extracts.hash_table(card)
    with duckdb.connect(str(tmp_path / "mall.ddb")) as db:
        db.execute("UPDATE customers SET Age = Age + 1 WHERE CustomerID = 7")
    assert extracts.hash_table(card) != digest


def test_the_series_runs_on_a_database(shared_folder, play_once, recorded):
    """Three times the customers, all equal to one of the bundled: the same segments."""
    folder = shared_folder / "database"
    folder.mkdir(exist_ok=True)
    card = folder / "mall.yaml"
    if not card.exists():
        write_database(folder)
    run = play_once("database", card=card, k=4)
    told, small = ([*map(dict, read(folder))] for folder in (run, recorded))
    for segment, own in zip(told, small, strict=True):
        assert segment["name"] == own["name"]
        assert segment["size"] == 3 * own["size"]
        assert segment["centre"] == pytest.approx(own["centre"], rel=1e-9)
        assert {v: f["mean"] for v, f in segment["profile"].items()} == pytest.approx(
            {v: f["mean"] for v, f in own["profile"].items()}, rel=1e-9
        )


def read(folder):
    import json

    return json.loads((folder / "segments.json").read_text("utf-8"))
