"""The model as expressions: DuckDB gives every row what `Scorer.score` gives it."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_models import list_segments, make_customers, make_model, put_table, score_in_pandas

from segmentation import expressions, warehouse

SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def database():
    return warehouse.connect("duckdb://")


def score_in_duckdb(database, table, scorer):
    lying = put_table(database, table)
    return expressions.score_table(lying, scorer, list_segments(scorer))


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


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS)
def test_every_row_gets_what_the_scorer_gives(database, seed):
    scorer = make_model(seed)
    table = make_customers(seed, scorer)
    told = score_in_duckdb(database, table, scorer).execute()
    check_equal(told, score_in_pandas(table, scorer), logged=scorer.logged.any())
