"""The model as expressions: DuckDB gives every row what `Scorer.score` gives it."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_models import list_segments, make_customers, make_model, put_table, score_in_pandas

from segmentation import InputError
from segmentation.customers import cards
from segmentation.customers import database as warehouse
from segmentation.segments import queries

SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def database():
    return warehouse.connect("duckdb://")


def score_in_duckdb(database, table, scorer):
    lying = put_table(database, table)
    return queries.score_table(lying, scorer, list_segments(scorer))


def check_equal(told, wanted, *, logged):
    assert list(told.columns) == list(wanted.columns)
    for name in ("id", "cluster", "segment", "second", "status"):
        assert [None if pd.isna(v) else v for v in told[name]] == [
            None if pd.isna(v) else v for v in wanted[name]
        ], name
    tolerance = 1e-9 if logged else 0  # only logarithms are the database's own
    for name in ("distance", "confidence"):
        ours = told[name].to_numpy(float, na_value=np.nan)
        np.testing.assert_allclose(ours, wanted[name].to_numpy(float), rtol=tolerance)


@settings(max_examples=8, deadline=None)
@given(seed=SEEDS)
def test_every_row_gets_what_the_scorer_gives(database, seed):
    check_every_row(database, seed)


@pytest.mark.long
@settings(max_examples=100, deadline=None)
@given(seed=SEEDS)
def test_every_row_gets_what_the_scorer_gives_of_many(database, seed):
    check_every_row(database, seed)


def check_every_row(database, seed):
    scorer = make_model(seed)
    table = make_customers(seed, scorer)
    told = score_in_duckdb(database, table, scorer).execute()
    check_equal(told, score_in_pandas(table, scorer), logged=scorer.logged.any())


@settings(max_examples=50, deadline=None)
@given(st.floats(-40, 30), st.floats(0, 20))
def test_a_fence_of_logarithms_has_the_same_edges_in_raw_values(low, width):
    high = low + width
    least, most = queries.find_edges(low, high)
    around = [least, most, np.nextafter(least, -np.inf), np.nextafter(most, np.inf)]
    logs = np.log1p(np.maximum(around, -1.0))
    inside = (logs >= low) & (logs <= high)
    assert [bool(v) for v in inside] == [least <= most, least <= most, False, False]


def test_any_kind_of_number_is_scored(database):
    """Decimals, small and unsigned integers; a long constant is no decimal of theirs."""
    scorer = make_model(5)
    kinds = ["DECIMAL(9, 2)", "UTINYINT", "HUGEINT", "FLOAT"]
    table = make_customers(5, scorer).fillna(dict.fromkeys(scorer.columns, 3))
    for name in scorer.columns:
        table[name] = table[name].clip(0, 200).round()
    lying = put_table(database, table, "plain")
    casts = {n: lying[n].cast("float64") for n in scorer.columns}
    for name, kind in zip(scorer.columns, kinds, strict=False):
        database.con.execute(f'ALTER TABLE plain ALTER "{name}" TYPE {kind}')
    told = queries.score_table(database.table("plain"), scorer, list_segments(scorer))
    check_equal(
        told.execute().assign(**lying.mutate(**casts).execute()[scorer.columns]),
        score_in_pandas(table, scorer),
        logged=scorer.logged.any(),
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ('ALTER TABLE odd RENAME "f 0" TO other', "^column f 0 is missing; did you mean"),
        ('ALTER TABLE odd ALTER "f 0" TYPE VARCHAR', "column f 0 is string, not a number; cast"),
        ('ALTER TABLE odd RENAME id TO "Status"', "column Status is like one that is written"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(database, change, told):
    scorer = make_model(1)
    put_table(database, make_customers(1, scorer), "odd")
    database.con.execute("ALTER TABLE odd DROP status")
    database.con.execute(change)
    with pytest.raises(InputError, match=told):
        queries.score_table(database.table("odd"), scorer, list_segments(scorer))


def test_too_many_spellings_are_refused(database, monkeypatch):
    monkeypatch.setattr(queries.database, "MOST_LEVELS", 2)
    lying = put_table(database, pd.DataFrame({"city": ["a", "b", "c"]}), "towns")
    with pytest.raises(InputError, match="column city has over 2 levels; group them in a view"):
        queries.read_levels(lying, "city", cards.Descriptor())


def test_problems_are_counted_by_column(database):
    scorer = make_model(1)
    table = make_customers(1, scorer)
    lying = put_table(database, table)
    numbers = queries.take_features(lying, scorer.card, scorer.columns)
    limits = dict.fromkeys(numbers, (0.0, 9.0))
    counted = queries.database.count_values(lying, numbers, limits)
    assert list(counted.index) == scorer.columns
    for row in counted.itertuples():
        values = table[row.Index]
        assert (row.missing, row.beyond) == (values.isna().sum(), (values > 9).sum())
        assert (row.low, row.high) == (values.min(), values.max())
        assert (row.negative, (values < 0).sum(), row.rows) == (0, 0, len(table))


def test_large_numbers_keep_their_digits(database):
    rng = np.random.default_rng(0)
    values = 1e9 + rng.normal(size=5000)
    frame = pd.DataFrame({"cluster": rng.integers(0, 3, 5000), "a": values, "b": rng.random(5000)})
    card = cards.Card.model_validate({"title": "t", "table": "t", "features": {"a": {}, "b": {}}})
    measured = queries.measure_segments(put_table(database, frame), card)
    own = measured[(measured["variable"] == "a") & measured["cluster"].notna()]
    shifted = frame.assign(a=values - 1e9).groupby("cluster")["a"]
    np.testing.assert_allclose(own["sd"], shifted.std(ddof=0), rtol=1e-9)
    np.testing.assert_allclose(own["mean"] - 1e9, shifted.mean(), atol=2e-7)  # its last digit
